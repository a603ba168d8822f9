"""Commands in processes of their own that share one import of torch and Lightning.

Python's fork server has imported them; a process of it starts at once, and is as clean as a fresh
one. What a fresh interpreter does itself (start-up, torchrun, the processes that Lightning starts)
is tested with real ones.
"""

import multiprocessing
import os
import random
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from lit_models.__main__ import main
from lit_models.command.run_folder import RUN_DIR_VARIABLE

ROOT = Path(__file__).parent
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    ["lit_models.command.run", "attrs", "pandas", "matplotlib.backends.backend_agg"]
)
TWO = ("--config", "ddp", "--trainer.devices", "2")


def free_port() -> str:
    """A port that nobody else is given.

    Lightning asks the system for a free one, which anyone may be given before rank 0 listens;
    the system never hands out those below 32,768 by itself.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_768)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return str(port)


class Done(NamedTuple):
    """How a command ended, as :mod:`subprocess` says it."""

    returncode: int
    stdout: str
    stderr: str


def _run(line: Sequence[str], environment: dict[str, str], folder: Path, log: Path) -> None:
    """A command in the fresh process."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, suffix in ((1, "out"), (2, "err")):
        descriptor = os.open(f"{log}.{suffix}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(descriptor, number)
    # One stream a descriptor, as a fresh interpreter has them.
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    sys.argv = ["lit-models", *line]
    code = main(line)
    sys.stdout.flush()
    sys.exit(code)


def _environments(ranks: int, given: Mapping[str, str]) -> list[dict[str, str]]:
    """Variables of each process: a launcher's, and nothing of earlier runs of this one."""
    own = {name for name in os.environ if name.startswith("WANDB_")} - {"WANDB_MODE"}
    own.add(RUN_DIR_VARIABLE)
    known = {name: value for name, value in os.environ.items() if name not in own} | given
    if ranks == 1:
        return [known]
    job = {"NODE_RANK": "0", "WORLD_SIZE": str(ranks)}
    job |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    return [{**known, **job, "LOCAL_RANK": str(rank)} for rank in range(ranks)]


def run(folder: Path, *line: str, ranks: int = 1, timeout: float = 300, **variables: str) -> Done:
    """Runs a command in one process, or in several that are ranks of one job.

    Args:
        folder: Current folder of the command.
        *line: Its command line.
        ranks: Number of processes, each with the variables that a launcher sets.
        timeout: Seconds until a process that still runs is killed.
        **variables: Further environment variables.
    """
    with tempfile.TemporaryDirectory() as logs:
        log = Path(logs, "log")
        path = f"{ROOT.parent}{os.pathsep}{ROOT}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", path)  # of the server, which the first call starts
            processes = [
                _SERVER.Process(target=_run, args=(line, given, folder, log))
                for given in _environments(ranks, {"PYTHONPATH": path, **variables})
            ]
            for process in processes:
                process.start()
        end = time.monotonic() + timeout
        for process in processes:
            process.join(max(0.0, end - time.monotonic()))
        for process in processes:
            process.kill()
            process.join()
        code = next((process.exitcode for process in processes if process.exitcode), 0)
        return Done(code, *(Path(f"{log}.{kind}").read_text() for kind in ("out", "err")))


def command(folder: Path, *line: str, ranks: int = 1) -> str:
    """Runs a command that must succeed, on its runs in a folder; returns what it printed."""
    done = run(folder, *line, "--runs_dir", str(folder), ranks=ranks)
    assert done.returncode == 0, done.stderr
    return done.stdout
