#!/bin/bash
#PJM -N t00007-k3j9x2q8
#PJM -j
#PJM -o /work/study/trials/00007/attempt-1/job.log
#PJM -L rscgrp=cx-small
#PJM -L node=2
#PJM -L elapse=12:00:00
#PJM -g gx01
#PJM --norestart
#PJM -L rscunit=cx

umask 077
cd -- /work/study/trials/00007/attempt-1 || exit 1
exec python3 -I -S /work/study/lib/1f3a9c/agent.py run \
  /work/study/trials/00007/attempt-1

# The agent starts: mpirun -machinefile $PJM_O_NODEINF -np 2 -npernode 1 /bin/sh -c '. "$0" && exec "$@"' "$SURVEY_DIR"/environment.sh python -m train --data '/work/data sets'
