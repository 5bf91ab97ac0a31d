#!/bin/bash
#SBATCH --job-name=t00007-k3j9x2q8
#SBATCH --comment=t00007-k3j9x2q8
#SBATCH --output=/work/study/trials/00007/attempt-1/job.log
#SBATCH --open-mode=append
#SBATCH --account=gx01
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=1
#SBATCH --time=12:00:00
#SBATCH --no-requeue
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --export=ALL

umask 077
cd -- /work/study/trials/00007/attempt-1 || exit 1
exec python3 -I -S /work/study/lib/1f3a9c/agent.py run \
  /work/study/trials/00007/attempt-1

# The agent starts: srun --ntasks=2 --ntasks-per-node=1 --cpus-per-task=16 --kill-on-bad-exit=1 /bin/sh -c '. "$0" && exec "$@"' "$SURVEY_DIR"/environment.sh python -m train --data '/work/data sets'
