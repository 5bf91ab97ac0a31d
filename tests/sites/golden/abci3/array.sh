#!/bin/bash
#PBS -N t00007-k3j9x2q8
#PBS -S /bin/bash
#PBS -j oe
#PBS -o /work/study/trials/00007/attempt-1/job.^array_index^.log
#PBS -q rt_HG
#PBS -P gx01
#PBS -l select=1
#PBS -l walltime=02:00:00

umask 077
cd -- /work/study/trials/00007/attempt-1 || exit 1
case "$PBS_ARRAY_INDEX" in
  0) set -- /work/study/trials/00007/attempt-1 ;;
  1) set -- /work/study/trials/00008/attempt-1 ;;
  *) echo "no such element of this array job" >&2; exit 1 ;;
esac
exec python3 -I -S /work/study/lib/1f3a9c/agent.py run "$@"

# The agent starts: python -m train --data '/work/data sets'
