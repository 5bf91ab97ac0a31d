#!/bin/bash
#PJM -N t00007-k3j9x2q8
#PJM -j
#PJM -o /work/study/trials/00007/attempt-1/job.log
#PJM -L rscgrp=regular-a
#PJM -L node=1
#PJM -L elapse=02:00:00
#PJM -g gx01
#PJM --norestart

umask 077
cd -- /work/study/trials/00007/attempt-1 || exit 1
exec python3 -I -S /work/study/lib/1f3a9c/agent.py run \
  /work/study/trials/00007/attempt-1 \
  /work/study/trials/00008/attempt-1 \
  /work/study/trials/00009/attempt-1 \
  /work/study/trials/00010/attempt-1 \
  /work/study/trials/00011/attempt-1 \
  /work/study/trials/00012/attempt-1 \
  /work/study/trials/00013/attempt-1 \
  /work/study/trials/00014/attempt-1

# The agent starts: python -m train --data '/work/data sets'
