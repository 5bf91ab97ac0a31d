#!/bin/bash
#PJM -N t00007-k3j9x2q8
#PJM -j
#PJM -o /work/study/trials/00007/attempt-1/job.%j.log
#PJM -L rscgrp=b-batch
#PJM -L gpu=1
#PJM -L elapse=02:00:00
#PJM -g gx01
#PJM --norestart

umask 077
cd -- /work/study/trials/00007/attempt-1 || exit 1
case "$PJM_BULKNUM" in
  0) set -- /work/study/trials/00007/attempt-1 ;;
  1) set -- /work/study/trials/00008/attempt-1 ;;
  *) echo "no such element of this array job" >&2; exit 1 ;;
esac
exec python3 -I -S /work/study/lib/1f3a9c/agent.py run "$@"

# The agent starts: python -m train --data '/work/data sets'
