"""A resumed run is bit-identical to an uninterrupted one, with dropout on."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lightning as L
import pytest
import torch

from lit_models.__main__ import main

CONFIG = str(Path(__file__).parent / "tiny.yaml")


def run(tmp_path: Path, run_id: str, *args: str) -> Path:
    command = ["fit", "--config", CONFIG, "--runs_dir", str(tmp_path), "--model.dropout", "0.4"]
    assert main([*command, *args, *(["--run_id", run_id] if run_id else [])]) == 0
    return tmp_path / "tiny" / (run_id or "part")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return checkpoint["state_dict"]


# 53 rows in batches of 8: 6 steps an epoch. 12 is a boundary, 9 and 10 the middle of epoch 1.
@pytest.mark.parametrize(("stop", "every"), [(12, "0"), (12, "3"), (9, "3"), (10, "0"), (11, "3")])
def test_resume_equals_uninterrupted(tmp_path, stop, every):
    # The schedule's length belongs to the run, not to its first part.
    same = [
        "--model.lr_scheduler.total_steps",
        "24",
        "--last_checkpoint.every_n_train_steps",
        every,
    ]
    whole = run(tmp_path, "whole", *same)
    run(tmp_path, "part", *same, "--trainer.max_steps", str(stop))
    part = run(tmp_path, "", *same, "--ckpt_path", "last", "--trainer.max_steps", "-1")
    assert part == tmp_path / "tiny" / "part"
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(part)[name]), name
    results = [json.loads((folder / "results.json").read_text()) for folder in (whole, part)]
    assert results[0]["metrics"] == results[1]["metrics"]
    assert results[0]["optimizer_steps"] == results[1]["optimizer_steps"] == 24


@pytest.mark.parametrize(
    "options",
    [("val_check_interval", "2"), ("limit_val_batches", "0"), ("check_val_every_n_epoch", "3")],
)
def test_resume_of_other_rhythms(tmp_path, options):
    """Validation within an epoch, none at all, and not after every epoch."""
    same = [f"--trainer.{options[0]}", options[1]]
    whole = run(tmp_path, "whole", *same)
    run(
        tmp_path,
        "part",
        *same,
        "--trainer.max_steps",
        "8",
        "--model.lr_scheduler.total_steps",
        "24",
    )
    part = run(tmp_path, "", *same, "--ckpt_path", "last", "--trainer.max_steps", "-1")
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(part)[name]), name


def test_resumed_metrics_continue_the_file(tmp_path):
    whole = run(tmp_path, "whole")
    run(tmp_path, "part", "--trainer.max_epochs", "2", "--model.lr_scheduler.total_steps", "24")
    part = run(tmp_path, "", "--ckpt_path", "last", "--trainer.max_epochs", "4")
    rows = []
    for folder in (whole, part):
        with (folder / "metrics.csv").open() as file:
            kept = [row for row in csv.DictReader(file) if row["train/loss"] or row["val/loss"]]
        rows.append([(r["step"], r["train/loss"], r["val/loss"], r["train/twice"]) for r in kept])
    assert rows[0] == rows[1]


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_saves_and_continues(tmp_path, signum, code):
    command = [sys.executable, "-m", "lit_models", "fit", "--config", CONFIG]
    options = ["--runs_dir", str(tmp_path), "--trainer.max_epochs", "100000", "--run_id", "part"]
    root = Path(__file__).parent
    process = subprocess.Popen(
        [*command, *options], cwd=root, env=_environment(), stderr=subprocess.PIPE, text=True
    )
    last = tmp_path / "tiny" / "part" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signum)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert "continue with --ckpt_path last" in stderr
    assert "Traceback" not in stderr
    steps = torch.load(last, weights_only=True)["global_step"]
    run(tmp_path, "", "--ckpt_path", "last", "--trainer.max_steps", str(steps + 2))


def test_a_fit_gives_the_signals_back(tmp_path):
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(signum) for signum in signals]
    run(tmp_path, "whole", "--trainer.max_epochs", "1")
    assert [signal.getsignal(signum) for signum in signals] == before


class _SignalInValidation(L.Callback):
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_validation_start(self, trainer, pl_module) -> None:
        if trainer.current_epoch == self.epoch:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("epoch", [1, 3])
def test_an_interrupt_waits_for_the_validation(tmp_path, epoch):
    whole = run(tmp_path, "whole")
    callback = "--trainer.callbacks+=test_resume._SignalInValidation"
    command = ["fit", "--config", CONFIG, "--runs_dir", str(tmp_path), "--model.dropout", "0.4"]
    options = ["--run_id", "part", callback, f"--trainer.callbacks.epoch={epoch}"]
    assert main([*command, *options]) == 130
    last = tmp_path / "tiny" / "part" / "checkpoints" / "last.ckpt"
    steps = 6 * (epoch + 1)
    # One more step, unless there is none.
    assert torch.load(last, weights_only=True)["global_step"] == min(steps + 1, 24)
    # A class of a user's own in a run's configuration is trusted where the file is named.
    trusted = ["--config", str(tmp_path / "tiny" / "part" / "config.yaml")]
    part = run(tmp_path, "", *trusted, "--ckpt_path", "last", "--trainer.callbacks", "null")
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(part)[name]), name


def _environment() -> dict[str, str]:
    root = Path(__file__).parent
    return {**os.environ, "PYTHONPATH": f"{root.parent}{os.pathsep}{root}"}


# 5 graphs in batches of 2: 2 steps an epoch; one graph: 1 step an epoch, always at a boundary.
@pytest.mark.parametrize(
    ("data", "stop"),
    [
        (["--data.num_graphs", "5", "--data.batch_size", "2"], 5),
        (["--data.num_graphs", "1", "--data.label_fraction", "0.3"], 3),
    ],
)
def test_graphs_resume_in_mid_epoch(tmp_path, data, stop):
    same = ["fit", "--config", "gcn", "--config", "cpu", "--runs_dir", str(tmp_path), *data]
    same += ["--data.num_nodes", "31", "--model.dropout", "0.4", "--trainer.max_epochs", "6"]
    same += ["--trainer.enable_progress_bar", "false", "--checkpoint.every_n_train_steps", "1"]
    same += ["--model.lr_scheduler.total_steps", "12"]
    assert main([*same, "--run_id", "whole"]) == 0
    assert main([*same, "--run_id", "part", "--trainer.max_steps", str(stop)]) == 0
    assert main([*same, "--ckpt_path", "last", "--trainer.max_steps", "-1"]) == 0
    whole, part = (tmp_path / "gcn" / name for name in ("whole", "part"))
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(part)[name]), name
