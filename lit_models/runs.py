"""Run folders ``runs/<experiment>/<run id>/`` and the checkpoints inside them."""

import os
import secrets
import subprocess
import time
from pathlib import Path

from torch.distributed import TCPStore

from datamodules.errors import InputError

# Set by the first process of a run; the ranks it starts write to the same folder.
RUN_DIR_VARIABLE = "LIT_MODELS_RUN_DIR"


def new_run_id() -> str:
    """Name of a new run: a W&B agent's, or the job's for all its ranks, else time and chance."""
    if "WANDB_RUN_ID" in os.environ:
        return os.environ["WANDB_RUN_ID"]
    for variable in ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID"):
        job = os.environ.get(variable, "none")
        if job != "none":
            return f"{variable.split('_')[0].lower()}-{job}"
    made = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    # torchrun names no job unless it is told to, and its ranks would each make a name.
    return _agreed(made) if "TORCHELASTIC_RUN_ID" in os.environ else made


def _agreed(made: str) -> str:
    """What rank 0 has made, on every rank of a torchrun; it passes through torchrun's own store."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(address, port, is_master=False)
    key = f"lit_models/run_id/{os.environ['TORCHELASTIC_RESTART_COUNT']}"
    if os.environ["RANK"] == "0":
        store.set(key, made)
    return bytes(store.get(key)).decode()


def is_child_rank() -> bool:
    """Whether another process of this machine started this one as a further rank of its run."""
    return RUN_DIR_VARIABLE in os.environ and os.environ.get("LOCAL_RANK", "0") != "0"


def run_dir_of(checkpoint: Path) -> Path | None:
    """Run folder a checkpoint lies in; None for a checkpoint from elsewhere."""
    folder = checkpoint.parent if checkpoint.parent.name else checkpoint.resolve().parent
    if folder.name == "checkpoints" and (folder.parent / "config.yaml").is_file():
        return folder.parent
    return None


def resolve_checkpoint(name: str, runs_dir: Path, experiment: str) -> Path:
    """Path of a checkpoint: a file, or ``best`` or ``last`` of the experiment's newest run.

    Raises:
        InputError: If there is none; a run never starts afresh in silence.
    """
    if name not in ("best", "last"):
        if not Path(name).is_file():
            raise InputError(f"no checkpoint {name!r}; give best, last or the path of a .ckpt file")
        return Path(name)
    found = list((runs_dir / experiment).glob(f"*/checkpoints/{name}.ckpt"))
    if not found:
        where = runs_dir / experiment
        raise InputError(f"no {name} checkpoint of {experiment!r} under {where}; fit it first")
    return max(found, key=lambda path: path.stat().st_mtime_ns)


def git_commit() -> str | None:
    """Commit of the source tree this package runs from; None for an installed wheel."""
    source = Path(__file__).resolve().parent
    if not (source.parent / ".git").exists():
        return None
    command = ["git", "-C", str(source), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
