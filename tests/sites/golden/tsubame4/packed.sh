#!/bin/bash
#$ -N t00007-k3j9x2q8
#$ -S /bin/bash
#$ -j y
#$ -o /work/study/trials/00007/attempt-1/job.log
#$ -l node_f=1
#$ -l h_rt=02:00:00
#$ -r n

umask 077
cd -- /work/study/trials/00007/attempt-1 || exit 1
exec python3 -I -S /work/study/lib/1f3a9c/agent.py run \
  /work/study/trials/00007/attempt-1 \
  /work/study/trials/00008/attempt-1 \
  /work/study/trials/00009/attempt-1 \
  /work/study/trials/00010/attempt-1

# The agent starts: python -m train --data '/work/data sets'
