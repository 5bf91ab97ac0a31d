#!/bin/bash
#$ -N t00007-k3j9x2q8
#$ -S /bin/bash
#$ -j y
#$ -o /work/study/trials/00007/attempt-1/job.log
#$ -l node_f=2
#$ -l h_rt=12:00:00
#$ -r n

umask 077
cd -- /work/study/trials/00007/attempt-1 || exit 1
exec python3 -I -S /work/study/lib/1f3a9c/agent.py run \
  /work/study/trials/00007/attempt-1

# The agent starts: mpirun -np 2 --map-by ppr:1:node /bin/sh -c '. "$0" && exec "$@"' "$SURVEY_DIR"/environment.sh python -m train --data '/work/data sets'
