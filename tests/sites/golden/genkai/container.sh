#!/bin/bash
#PJM -N t00007-k3j9x2q8
#PJM -j
#PJM -o /work/study/trials/00007/attempt-1/job.log
#PJM -L rscgrp=b-batch
#PJM -L gpu=1
#PJM -L elapse=02:00:00
#PJM -g gx01
#PJM --norestart
#PJM -L jobenv=singularity

umask 077
cd -- /work/study/trials/00007/attempt-1 || exit 1
module load singularity-ce
module load cuda/12.4
export TF_CPP_MIN_LOG_LEVEL=1
exec python3 -I -S /work/study/lib/1f3a9c/agent.py run \
  /work/study/trials/00007/attempt-1

# The agent starts: singularity exec --nv --bind /work/study --bind /data /work/images/train.sif python -m train --data '/work/data sets'
