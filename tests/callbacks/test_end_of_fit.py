"""What a fit leaves behind: its last step judged and kept, the best one named, its own options."""

import json
from pathlib import Path

import lightning as L
import pytest
import torch

from lit_models.__main__ import main

CONFIG = str(Path(__file__).parent.parent / "tiny.yaml")
STEPS = 6  # of an epoch


def run(tmp_path, *args, code=0):
    assert main(["fit", "--config", CONFIG, "--runs_dir", str(tmp_path), *args]) == code
    folders = sorted((tmp_path / "tiny").glob("*"))
    return folders[-1] if folders else None


def load(folder, name):
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


@pytest.mark.parametrize(
    ("args", "steps"),
    [
        (["--trainer.max_epochs", "2", "--trainer.check_val_every_n_epoch", "5"], 12),
        (["--trainer.max_epochs", "5", "--trainer.check_val_every_n_epoch", "3"], 30),
        (["--trainer.max_steps", "8", "--trainer.check_val_every_n_epoch", "5"], 8),
        (["--trainer.max_steps", "7"], 7),
        (["--trainer.max_steps", "11", "--trainer.val_check_interval", "4"], 11),
        (
            [
                "--trainer.max_steps",
                "10",
                "--trainer.check_val_every_n_epoch",
                "null",
                "--trainer.val_check_interval",
                "4",
            ],
            10,
        ),
        (["--trainer.max_epochs", "2", "--trainer.accumulate_grad_batches", "4"], 4),
    ],
)
def test_the_last_step_is_judged_and_kept(tmp_path, args, steps):
    folder = run(tmp_path, *args)
    assert load(folder, "last")["global_step"] == steps
    assert json.loads((folder / "results.json").read_text())["optimizer_steps"] == steps
    # A rate of 0.01 lowers the loss at every look, so that the best is the last.
    assert load(folder, "best")["global_step"] == steps


class StopsAfter(L.Callback):
    """Ends a fit as ``max_time`` does: once a step is done, or once an epoch is."""

    def __init__(self, step: int, within: bool = True) -> None:
        self.step, self.within = step, within

    def on_train_batch_end(self, trainer, *args) -> None:
        trainer.should_stop |= self.within and trainer.global_step >= self.step

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        trainer.should_stop |= trainer.global_step >= self.step


@pytest.mark.parametrize(("within", "steps"), [("true", 8), ("false", 12)])
def test_an_end_that_shows_late_is_judged_and_kept(tmp_path, within, steps):
    stops = ["--trainer.callbacks+=test_end_of_fit.StopsAfter", "--trainer.callbacks.step=8"]
    stops += [f"--trainer.callbacks.within={within}", "--trainer.check_val_every_n_epoch=50"]
    folder = run(tmp_path, *stops, "--trainer.max_epochs=-1", "--model.lr_scheduler=null")
    assert load(folder, "last")["global_step"] == load(folder, "best")["global_step"] == steps
    assert (folder / "metrics.csv").read_text().count("\n") >= 3  # a title, training, validation
    scores = json.loads((folder / "results.json").read_text())
    assert scores["optimizer_steps"] == steps


def test_best_among_several_is_the_best(tmp_path):
    args = ["--model.optimizer.lr", "0.8", "--trainer.max_epochs", "6"]
    alone = run(tmp_path / "alone", *args)
    several = run(tmp_path / "several", *args, "--checkpoint.save_top_k", "3")
    every = run(tmp_path / "all", *args, "--checkpoint.save_top_k=-1")
    step = load(alone, "best")["global_step"]
    assert load(several, "best")["global_step"] == load(every, "best")["global_step"] == step
    names = {path.name for path in (several / "checkpoints").iterdir()}
    assert len(names) == 5  # three, best and last
    assert f"epoch={step // STEPS - 1}-step={step}.ckpt" in names
    assert len(list((every / "checkpoints").iterdir())) == 8


def test_a_continued_run_takes_the_rate_of_its_command_line(tmp_path, capsys):
    folder = run(tmp_path, "--model.lr_scheduler", "torch.optim.lr_scheduler.ConstantLR")
    before = load(folder, "last")
    more = ["--ckpt_path", str(folder / "checkpoints" / "last.ckpt"), "--trainer.max_epochs", "6"]
    run(tmp_path, *more, "--model.optimizer.lr", "1e-12")
    after = load(folder, "last")
    assert after["optimizer_states"][0]["param_groups"][0]["initial_lr"] == 1e-12
    for name, value in before["state_dict"].items():
        torch.testing.assert_close(after["state_dict"][name], value, rtol=0, atol=1e-9)
    assert "continued with lr 1e-12 (was 0.01)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"), [("weight_decay", 0.25), ("eps", 1e-5), ("betas", [0.8, 0.9])]
)
def test_a_continued_run_takes_every_option(tmp_path, option, value):
    folder = run(tmp_path)
    last = str(folder / "checkpoints" / "last.ckpt")
    run(
        tmp_path,
        *("--ckpt_path", last, "--trainer.max_epochs", "5"),
        *(f"--model.optimizer.{option}", json.dumps(value)),
    )
    group = load(folder, "last")["optimizer_states"][0]["param_groups"][0]
    assert group[option] == (tuple(value) if isinstance(value, list) else value)


def test_a_continued_run_takes_the_schedule_of_its_command_line(tmp_path, capsys):
    folder = run(tmp_path, "--trainer.max_epochs", "2")
    last = str(folder / "checkpoints" / "last.ckpt")
    more = ["--trainer.max_epochs", "3", "--model.lr_scheduler.min_ratio", "0.5"]
    run(tmp_path, "--ckpt_path", last, *more)
    said = "continued with lr_scheduler WarmupCosine: min_ratio 0.5 (was 0.0)"
    assert said in capsys.readouterr().err
    group = load(folder, "last")["optimizer_states"][0]["param_groups"][0]
    assert group["lr"] == pytest.approx(0.005, rel=1e-9)


def test_a_complete_run_says_that_nothing_was_trained(tmp_path, capsys):
    folder = run(tmp_path, "--trainer.max_epochs", "1")
    run(tmp_path, "--ckpt_path", str(folder / "checkpoints" / "last.ckpt"))
    assert "nothing was trained: the run is complete at step 6;" in capsys.readouterr().err


def test_another_optimizer_cannot_go_on(tmp_path, capsys):
    folder = run(tmp_path, "--trainer.max_epochs", "1")
    config = (folder / "config.yaml").read_text()
    last = str(folder / "checkpoints" / "last.ckpt")
    other = ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0.1"]
    run(tmp_path, "--ckpt_path", last, *other, code=2)
    assert "holds the state of Adam, from which SGD cannot go on" in capsys.readouterr().err
    assert (folder / "config.yaml").read_text() == config


def test_what_was_not_changed_stays_as_the_schedule_made_it(tmp_path):
    """A plateau has halved the rate; more epochs do not give it back."""
    plateau = ["--model.lr_scheduler", "lightning.pytorch.cli.ReduceLROnPlateau"]
    plateau += ["--model.lr_scheduler.monitor", "val/loss", "--model.lr_scheduler.patience", "0"]
    plateau += ["--model.lr_scheduler.threshold", "10", "--model.lr_scheduler.factor", "0.5"]
    folder = run(tmp_path, *plateau)
    rate = load(folder, "last")["optimizer_states"][0]["param_groups"][0]["lr"]
    assert rate < 0.01
    last = str(folder / "checkpoints" / "last.ckpt")
    run(tmp_path, "--ckpt_path", last, "--trainer.max_epochs", "5")
    assert load(folder, "last")["optimizer_states"][0]["param_groups"][0]["lr"] <= rate


@pytest.mark.parametrize("rate", ["1e30", "1e10"])
def test_a_fit_that_diverges_stops(tmp_path, capsys, rate):
    folder = run(
        tmp_path,
        *("--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", rate),
        *("--model.optimizer.fused", "false", "--trainer.max_epochs", "200"),
        code=1,
    )
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("lit-models: error: train/loss is not finite in epoch ")
    assert "lower --model.optimizer.lr" in line
    if folder is not None and (folder / "checkpoints" / "best.ckpt").exists():
        weights = load(folder, "best")["state_dict"].values()
        assert all(value.isfinite().all() for value in weights)


def test_seconds_are_those_trained(tmp_path):
    # The highest loss is the first one's, so that the test reads a checkpoint of the beginning.
    folder = run(tmp_path, "--checkpoint.mode", "max", "--trainer.max_epochs", "8")
    assert load(folder, "best")["global_step"] < load(folder, "last")["global_step"]
    seconds = json.loads((folder / "results.json").read_text())["train_seconds"]
    report = next(v for k, v in load(folder, "last")["callbacks"].items() if "RunReport" in k)
    assert seconds >= round(report["train_seconds"], 3)
