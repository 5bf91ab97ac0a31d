#!/bin/bash
#PBS -N t00007-k3j9x2q8
#PBS -S /bin/bash
#PBS -j oe
#PBS -o /work/study/trials/00007/attempt-1/job.log
#PBS -q regular-g
#PBS -W group_list=gx01
#PBS -l select=2
#PBS -l walltime=12:00:00
#PBS -r n

umask 077
cd -- /work/study/trials/00007/attempt-1 || exit 1
exec python3 -I -S /work/study/lib/1f3a9c/agent.py run \
  /work/study/trials/00007/attempt-1

# The agent starts: mpirun -np 2 --map-by ppr:1:node /bin/sh -c '. "$0" && exec "$@"' "$SURVEY_DIR"/environment.sh python -m train --data '/work/data sets'
