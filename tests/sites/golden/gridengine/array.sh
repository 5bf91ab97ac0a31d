#!/bin/bash
#$ -N t00007-k3j9x2q8
#$ -S /bin/bash
#$ -j y
#$ -o /work/study/trials/00007/attempt-1/job.$TASK_ID.log
#$ -P gx01
#$ -pe smp 8
#$ -l gpu=1
#$ -l h_rt=02:00:00
#$ -r n

umask 077
cd -- /work/study/trials/00007/attempt-1 || exit 1
case "$((SGE_TASK_ID - 1))" in
  0) set -- /work/study/trials/00007/attempt-1 ;;
  1) set -- /work/study/trials/00008/attempt-1 ;;
  *) echo "no such element of this array job" >&2; exit 1 ;;
esac
exec python3 -I -S /work/study/lib/1f3a9c/agent.py run "$@"

# The agent starts: python -m train --data '/work/data sets'
