"""Ctrl-C and SIGTERM in every phase: one line at the end, nothing half-made."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from refusals import CONFIG, FIT, snapshot

from lit_models.__main__ import main

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
EVERY = pytest.mark.parametrize(("signum", "code"), SIGNALS, ids=["ctrl-c", "sigterm"])


def at(phase: str, signum: int) -> list[str]:
    callback = ["--trainer.callbacks+=interrupting.SignalAt"]
    return [
        *callback,
        "--trainer.callbacks.phase",
        phase,
        "--trainer.callbacks.signum",
        str(int(signum)),
    ]


def last_line(capsys, signum: int) -> str:
    error = capsys.readouterr().err
    assert "Traceback" not in error
    line = error.strip().splitlines()[-1]
    assert line.startswith(f"lit-models: stopped by {signal.Signals(signum).name}")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    return line


@EVERY
def test_start_up(folder, signum, code):
    program = (
        "import signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == 'lightning': signal.raise_signal({int(signum)})\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from lit_models.__main__ import main\n"
        f"sys.exit(main({FIT!r}))\n"
    )
    root = Path(__file__).parent.parent.parent
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == code
    assert done.stderr.strip() == f"lit-models: stopped by {signal.Signals(signum).name}"
    assert snapshot(folder) == {}


@EVERY
def test_data(folder, capsys, signum, code):
    data = ["--data", "interrupting.InterruptedDataModule", "--data.signum", str(int(signum))]
    assert main([*FIT, *data]) == code
    assert last_line(capsys, signum).endswith(signum.name)
    assert snapshot(folder) == {}


@EVERY
@pytest.mark.parametrize("phase", ["fit", "validation"])
def test_fit(fitted, capsys, signum, code, phase):
    before = snapshot(fitted)
    assert main([*FIT, "--run_id", "second", *at(phase, signum)]) == code
    assert last_line(capsys, signum).endswith("saved; continue with --ckpt_path last")
    assert snapshot(fitted) == before
    second = fitted.parent / "second"
    assert (second / "checkpoints" / "last.ckpt").is_file()
    assert not (second / "results.json").exists()
    assert not list(second.rglob(".*"))


@EVERY
def test_last_validation(folder, capsys, signum, code):
    options = ["--run_id", "only", "--trainer.max_epochs", "1", *at("validation", signum)]
    assert main([*FIT, *options]) == code
    assert last_line(capsys, signum).endswith("the fit is complete; test it with --ckpt_path best")


@EVERY
def test_test_after_a_fit(fitted, capsys, signum, code):
    before = snapshot(fitted)
    assert main([*FIT, "--run_id", "second", *at("test", signum)]) == code
    assert last_line(capsys, signum).endswith("the fit is complete; test it with --ckpt_path best")
    assert snapshot(fitted) == before
    second = fitted.parent / "second"
    assert (second / "checkpoints" / "best.ckpt").is_file()
    assert not (second / "results.json").exists()


@EVERY
@pytest.mark.parametrize(
    ("command", "phase"), [("validate", "validation"), ("test", "test"), ("predict", "predict")]
)
def test_commands_on_a_run(fitted, capsys, signum, code, command, phase):
    before = snapshot(fitted)
    line = [command, "--config", CONFIG, "--ckpt_path", "best", *at(phase, signum)]
    assert main(line) == code
    last_line(capsys, signum)
    assert snapshot(fitted) == before
