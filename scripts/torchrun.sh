#!/usr/bin/env bash
# One fit over several processes by torchrun, on this machine or on several.
#
#   scripts/torchrun.sh lstm --trainer.max_epochs 20          all accelerators of this machine
#   NPROC=2 scripts/torchrun.sh lstm --trainer.accelerator cpu
#   NNODES=2 HEAD=node1:29500 JOB=lstm-1 scripts/torchrun.sh lstm         the same line on each machine
#
# The first word is the experiment; the rest goes to `lit-models fit`. With JOB the run is
# runs/EXPERIMENT/torchelastic-JOB, in a folder that all machines see.
set -euo pipefail

[ $# -ge 1 ] || { echo "usage: torchrun.sh EXPERIMENT [--OPTION VALUE ...]" >&2; exit 2; }
experiment=$1
shift
python=${PYTHON:-python}
nodes=${NNODES:-1}
processes=${NPROC:-$("$python" -c 'import torch; print(max(torch.cuda.device_count(), 1))')}

if [ "$nodes" -gt 1 ]; then
  meet=(--rdzv-backend c10d --rdzv-endpoint "${HEAD:?host:port of one machine}" --rdzv-id "${JOB:?a name for the run}")
else
  meet=(--standalone)
fi
exec "$python" -m torch.distributed.run --nnodes "$nodes" --nproc-per-node "$processes" "${meet[@]}" \
  -m lit_models fit --config "$experiment" --config ddp \
  --trainer.num_nodes "$nodes" --trainer.devices "$processes" "$@"
