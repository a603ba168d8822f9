"""Commands of ``lit-models`` as processes that a Ctrl-C here ends with it."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent.parent
# A fit that was told to stop finishes its step and saves first.
_PATIENCE_SECONDS = 30.0
_ERROR = re.compile(r"lit-models: error: |[\w.]+(Error|Exception): ")


class StoppedError(Exception):
    """The process was stopped from here; it did not fail."""


class Processes:
    """Runs ``lit-models`` commands, each with its output in a file.

    The processes are in sessions of their own: a Ctrl-C at the terminal reaches this program alone,
    which then stops them all, whoever has sent the signal.

    Args:
        num_threads: Threads of each process; the machine's own choice without one.
    """

    def __init__(self, num_threads: int | None = None) -> None:
        self._environment = dict(os.environ)
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._environment["PYTHONPATH"] = os.pathsep.join(paths)
        if num_threads is not None:
            for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
                self._environment[name] = str(num_threads)
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopping = False

    def __call__(self, args: Sequence[str], log: Path) -> int:
        """Runs one command to its end.

        Raises:
            StoppedError: If :meth:`stop` has ended it.
        """
        command = [sys.executable, "-m", "lit_models", *args]
        with log.open("wb") as output:
            with self._lock:
                if self._stopping:
                    raise StoppedError
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=self._environment,
                    start_new_session=True,
                )
                self._running.add(process)
            code = process.wait()
        with self._lock:
            self._running.discard(process)
            if self._stopping:
                raise StoppedError
        return code

    def stop(self) -> None:
        """Interrupts what runs and waits for it; kills what does not end in half a minute."""
        with self._lock:
            self._stopping = True
            running = list(self._running)
        self._send(running, signal.SIGINT)
        try:
            for process in running:
                process.wait(_PATIENCE_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self._send(running, signal.SIGKILL)

    @staticmethod
    def _send(processes: Sequence["subprocess.Popen[bytes]"], signum: int) -> None:
        for process in processes:
            try:
                if process.poll() is None:
                    os.killpg(process.pid, signum)
            except ProcessLookupError:
                pass  # it has just ended by itself


def failure_line(log: Path, code: int) -> str:
    """Why a command failed: its own message, else the last line it printed."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    # What a tracker prints on its way out may follow the message.
    errors = [line for line in lines if _ERROR.match(line)]
    last = (errors or lines or [f"exit code {code} without a word"])[-1]
    return last.removeprefix("lit-models: error: ")
