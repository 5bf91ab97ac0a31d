#!/bin/bash
#$ -N t00007-k3j9x2q8
#$ -S /bin/bash
#$ -j y
#$ -o /work/study/trials/00007/attempt-1/job.log
#$ -l gpu_1=1
#$ -l h_rt=02:00:00
#$ -r n

umask 077
cd -- /work/study/trials/00007/attempt-1 || exit 1
module load cuda/12.4
export TF_CPP_MIN_LOG_LEVEL=1
exec python3 -I -S /work/study/lib/1f3a9c/agent.py run \
  /work/study/trials/00007/attempt-1

# The agent starts: apptainer exec --nv --bind /work/study --bind /data /work/images/train.sif python -m train --data '/work/data sets'
