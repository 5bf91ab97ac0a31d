#!/bin/bash

umask 077
cd -- /work/study/trials/00007/attempt-1 || exit 1
module load cuda/12.4
export TF_CPP_MIN_LOG_LEVEL=1
exec /opt/survey/bin/python -I -S /work/study/lib/1f3a9c/agent.py run \
  /work/study/trials/00007/attempt-1

# The agent starts: apptainer exec --nv --bind /work/study --bind /data /work/images/train.sif python -m train --data '/work/data sets'
