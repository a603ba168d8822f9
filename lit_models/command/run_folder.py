"""Run folders ``runs/<experiment>/<run id>/`` and the checkpoints inside them."""

import errno
import fcntl
import os
import secrets
import shutil
import subprocess
import time
from pathlib import Path

from datamodules.errors import InputError

# Set by the first process of a run; the ranks it starts write to the same folder.
RUN_DIR_VARIABLE = "LIT_MODELS_RUN_DIR"

# What the system refuses, and what the user can do about it.
_REFUSALS = {
    errno.ENOSPC: "free some space on the disk",
    errno.EDQUOT: "free some of your quota on the disk",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f)",
    errno.EROFS: "choose a folder that can be written to with --runs_dir",
    errno.EACCES: "ask for access, or choose another folder with --runs_dir",
    errno.EPERM: "ask for access, or choose another folder with --runs_dir",
    errno.EEXIST: "a file stands where a folder is needed; choose another --runs_dir",
    errno.ENOTDIR: "a file stands where a folder is needed; choose another --runs_dir",
    errno.EISDIR: "a folder stands where a file is needed; remove it",
    errno.ENAMETOOLONG: "shorten --run_id or --runs_dir",
    errno.EIO: "check the disk",
}


def explain(error: OSError) -> str | None:
    """What the system refused and the fix, on one line; None where no user can mend it."""
    fix = _REFUSALS.get(error.errno or 0)
    if fix is None:
        return None
    return f"{error.filename or 'a file'}: {error.strerror}; {fix}"


class RunFolder:
    """The folder that a command writes to: made late, held alone, removed if nothing came of it."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._made: list[Path] = []
        self._lock: int | None = None

    def open(self, path: Path, alone: bool) -> None:
        """Makes the folder.

        Args:
            path: The folder.
            alone: Whether another command that does the same is an error.

        Raises:
            InputError: If another command holds the folder.
        """
        for folder in reversed((path, *path.parents)):
            if not folder.exists():
                try:
                    folder.mkdir(exist_ok=True)
                except FileNotFoundError as error:  # in /proc, say
                    raise InputError(
                        f"no folder can be made at {folder}; choose another --runs_dir"
                    ) from error
                self._made.insert(0, folder)
        if alone:
            self._hold(path)
        self._path = path

    def _hold(self, path: Path) -> None:
        self._lock = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another command writes to {path}; wait for it, or choose another --run_id"
            ) from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):  # not on every file system
                raise

    def close(self, keep: bool) -> None:
        """Gives the folder back.

        Args:
            keep: Whether it stays in any case; else only if it holds a checkpoint or was there
                before.
        """
        started = self._path is not None and any(self._path.glob("checkpoints/*.ckpt"))
        for folder in [] if keep or started else self._made:
            if folder == self._path:
                shutil.rmtree(folder)
            elif not any(folder.iterdir()):
                folder.rmdir()
        if self._lock is not None:
            os.close(self._lock)


def new_run_id() -> str:
    """Name of a new run: a W&B agent's, or the job's for all its ranks, else time and chance."""
    if "WANDB_RUN_ID" in os.environ:
        return os.environ["WANDB_RUN_ID"]
    made = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    job = os.environ.get("TORCHELASTIC_RUN_ID")
    if job is not None:
        # torchrun names no job unless it is told to, and its ranks would each make a name.
        return _agreed(made) if job == "none" else f"torchelastic-{job}"
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return made
    if "SLURM_STEP_ID" in os.environ:  # of one srun, for all its tasks
        step = os.environ["SLURM_STEP_ID"]
        return f"slurm-{job}" if step == "0" else f"slurm-{job}-{step}"
    alone = os.environ.get("SLURM_NTASKS", "1") == "1"
    return f"slurm-{job}-{made}" if alone else f"slurm-{job}"


def _agreed(made: str) -> str:
    """What rank 0 has made, on every rank of a torchrun; it passes through torchrun's own store."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

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
    """Path of a checkpoint: a file, or ``best``, ``last`` or ``average`` of the newest run.

    A run whose processes each write their part has folders in the place of files.

    Raises:
        InputError: If there is none; a run never starts afresh in silence.
    """
    if name not in ("best", "last", "average"):
        if not (Path(name).is_file() or (Path(name) / ".metadata").is_file()):
            raise InputError(f"no checkpoint {name!r}; give best, last or the path of a .ckpt file")
        return Path(name)
    found = list((runs_dir / experiment).glob(f"*/checkpoints/{name}.ckpt"))
    if not found:
        where = runs_dir / experiment
        how = "with --trainer.callbacks callbacks.LastAverage" if name == "average" else "first"
        raise InputError(f"no {name} checkpoint of {experiment!r} under {where}; fit it {how}")
    return max(found, key=lambda path: path.stat().st_mtime_ns)


def git_commit() -> str | None:
    """Commit of the source tree this package runs from; None for an installed wheel."""
    source = Path(__file__).resolve().parent.parent
    if not (source.parent / ".git").exists():
        return None
    command = ["git", "-C", str(source), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
