#!/usr/bin/env bash
# One fit on a Slurm cluster, one task per accelerator; it survives a requeue.
#
#   sbatch --nodes 2 --gpus-per-node 4 --ntasks-per-node 4 scripts/slurm.sh lstm --trainer.max_epochs 20
#   RUNS_DIR=/scratch/$USER/runs sbatch scripts/slurm.sh gpt
#
# The first word is the experiment; the rest goes to `lit-models fit`. The run is named after the
# job, runs/EXPERIMENT/slurm-JOBID, and a requeued job, whether preempted, out of time or on a lost
# node, continues its own last checkpoint. The folder must be one that all nodes see.
#SBATCH --job-name=lit-models
#SBATCH --nodes=1
#SBATCH --gpus-per-node=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# Two minutes before the time is up the batch shell alone is told, and asks to be run again.
#SBATCH --signal=B:USR1@120
set -euo pipefail

[ $# -ge 1 ] || { echo "usage: sbatch [OPTIONS] slurm.sh EXPERIMENT [--OPTION VALUE ...]" >&2; exit 2; }
experiment=$1
shift
runs=${RUNS_DIR:-runs}
run_id=slurm-${SLURM_JOB_ID:?this script is for sbatch}
# The experiment of a YAML file of one's own is called after the file.
folder=$runs/$(basename "$experiment" .yaml)/$run_id
last=$folder/checkpoints/last.ckpt

resume=(--run_id "$run_id")
if [ -f "$last" ]; then
  resume=(--ckpt_path "$last")
elif [ -d "$folder" ]; then
  # The job ended before its first checkpoint: nothing to continue, and its name is taken.
  mv "$folder" "$folder-restart${SLURM_RESTART_COUNT:-0}"
fi

requeue() {
  echo "out of time: job $SLURM_JOB_ID asks to be run again"
  scontrol requeue "$SLURM_JOB_ID"
}
trap requeue USR1

# Lightning's own requeue handler saves between any two lines of a step; the periodic last.ckpt is a
# state that an uninterrupted run passes through.
srun --kill-on-bad-exit=1 lit-models fit --config "$experiment" --config slurm \
  --trainer.num_nodes "${SLURM_JOB_NUM_NODES:-1}" --trainer.devices "${SLURM_NTASKS_PER_NODE:-1}" \
  --runs_dir "$runs" "${resume[@]}" "$@" &
step=$!
# A trapped signal ends `wait` early; the step goes on until Slurm stops it.
code=0
wait "$step" || code=$?
while kill -0 "$step" 2>/dev/null; do
  code=0
  wait "$step" || code=$?
done
exit "$code"
