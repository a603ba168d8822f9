"""Weights shared out over two CPU processes train to those of one process."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from forked import command
from test_distributed import outcome

from lit_models.__main__ import main

ROOT = Path(__file__).parent
_DOUBLE = "--trainer.plugins=lightning.pytorch.plugins.precision.DoublePrecision"
# Sizes that two processes cannot share evenly; no dropout, whose masks belong to a rank.
_SMALL = ["--model.d_model=20", "--model.num_heads=5", "--model.dropout=0", "--data.batch_size=11"]
_SMALL += ["--data.num_samples=53", "--data.num_test=47", "--trainer.enable_progress_bar=false"]
_SMALL += ["--config", "cpu", "--trainer.max_epochs=2", "--trainer.check_val_every_n_epoch=1"]
_SHARDED = ["--config", "fsdp", "--trainer.devices=2"]
_WINDOWS = ["--trainer.accumulate_grad_batches=3", "--trainer.gradient_clip_val=0.05"]
# In the second epoch, which has one more step.
_STOP = ["--trainer.max_steps=3", "--test_after_fit=false"]
_GO_ON = ["--trainer.max_steps=-1", "--test_after_fit=true", "--ckpt_path"]
_TEXT = ["--trainer.callbacks.num_tokens=20"]  # of a sample: each token gathers the weights
_PARTS = ["--trainer.strategy.save_distributed_checkpoint=true"]


def line(folder: Path, run_id: str, *options: str, name: str = "gpt") -> list[str]:
    paths = ["--runs_dir", str(folder), "--run_id", run_id]
    return ["fit", "--config", name, *_SMALL, _DOUBLE, *options, *paths]


def sharded(folder: Path, line: list[str], *options: str) -> None:
    command(folder, *line, *_SHARDED, *options, ranks=2)


def last(folder: Path, run_id: str) -> str:
    return str(folder / "gpt" / run_id / "checkpoints" / "last.ckpt")


def predictions(folder: Path) -> Path:
    return folder / "tiny" / "run" / "predictions.csv"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folder of the runs: one process and two, whole and in two parts that change their number."""
    folder = tmp_path_factory.mktemp("runs")
    gpt = [*_WINDOWS, *_TEXT]
    for name, options in (("gpt", gpt), ("bert", _WINDOWS)):
        assert main(line(folder, "one", *options, name=name)) == 0
        sharded(folder, line(folder, "two", *options, name=name))
    assert main(line(folder, "one-two", *gpt, *_STOP)) == 0
    sharded(folder, line(folder, "two-one", *gpt, *_STOP))
    sharded(folder, line(folder, "one-two", *gpt, *_GO_ON, last(folder, "one-two")))
    sharded(folder, line(folder, "parts", *gpt, *_STOP), *_PARTS)
    sharded(folder, line(folder, "parts", *gpt, *_GO_ON, last(folder, "parts")), *_PARTS)
    average = {"class_path": "callbacks.EMA", "init_args": {"decay": 0.5}}
    (folder / "ema.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [average]}}))
    ema = ["--config", str(folder / "ema.yaml"), *_WINDOWS]
    assert main(line(folder, "ema", *ema)) == 0
    sharded(folder, line(folder, "ema-parts", *ema, *_STOP), *_PARTS)
    assert Path(last(folder, "ema-parts")).is_dir()
    whole = [*_PARTS[0].partition("=")[:2], "false"]
    go_on = [*_GO_ON, last(folder, "ema-parts")]
    sharded(folder, line(folder, "ema-parts", *ema, *go_on), "".join(whole))
    for precision in ("bf16-mixed", "bf16-true"):
        options = [f"--trainer.precision={precision}", "--trainer.plugins=null", *_TEXT]
        sharded(folder, line(folder, precision, *options))
    tiny = ["--config", str(ROOT / "tiny.yaml"), "--runs_dir", str(folder)]
    assert main(["fit", *tiny, "--run_id", "run"]) == 0
    predict = ["predict", *tiny, "--ckpt_path", "best"]
    assert main(predict) == 0
    predictions(folder).rename(folder / "one.csv")
    sharded(folder, predict)
    resumed = [*_GO_ON, last(folder, "two-one")]
    assert main(line(folder, "two-one", *gpt, *resumed)) == 0
    return folder


@pytest.mark.parametrize(
    ("name", "run_id"),
    [("gpt", "two"), ("bert", "two"), ("gpt", "one-two"), ("gpt", "two-one")],
)
def test_equals_one_process(runs, name, run_id):
    """Also in windows of batches, clipped by norm, and continued on another number of processes."""
    results, weights = zip(*(outcome(runs / name / each) for each in ("one", run_id)), strict=True)
    assert results[0]["optimizer_steps"] == results[1]["optimizer_steps"] > 3
    assert list(weights[0]) == list(weights[1])
    for key, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][key], rtol=0, atol=1e-10, msg=key)
    for key, value in results[0]["metrics"].items():
        assert results[1]["metrics"][key] == pytest.approx(value, rel=1e-6), key


def test_average_in_a_checkpoint_of_parts_continues(runs):
    """Average and weights are those of one process, though each process has written its part."""
    checkpoints = [torch.load(last(runs, run), weights_only=True) for run in ("ema", "ema-parts")]
    for key in ("state_dict", "current_model_state"):
        one, parts = (checkpoint[key] for checkpoint in checkpoints)
        assert list(one) == list(parts)
        for name, value in one.items():
            torch.testing.assert_close(value, parts[name], rtol=0, atol=1e-10, msg=name)
    weights, average = (checkpoints[1][key] for key in ("current_model_state", "state_dict"))
    assert any(not torch.equal(weights[name], average[name]) for name in weights)


def test_checkpoint_of_parts_continues(runs):
    """Every process writes its part, and goes on from it."""
    assert Path(last(runs, "parts")).is_dir()
    folders = [runs / "gpt" / run for run in ("one", "parts")]
    one, parts = (json.loads((folder / "results.json").read_text()) for folder in folders)
    for key, value in one["metrics"].items():
        assert parts["metrics"][key] == pytest.approx(value, rel=1e-6), key


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_trains_in_half_precision(runs, precision):
    results, _ = outcome(runs / "gpt" / precision)
    assert all(map(math.isfinite, results["metrics"].values()))


def test_predictions_are_whole_and_ordered(runs):
    tables = [pd.read_csv(path) for path in (runs / "one.csv", predictions(runs))]
    pd.testing.assert_frame_equal(*tables, rtol=1e-6, atol=1e-6)


def test_a_model_of_one_part_draws_its_figures(tmp_path):
    """An evaluation leaves its weights whole, and no other module says that they are shared."""
    same = ["fit", "--config", "linear_regression", "--config", "cpu", _DOUBLE]
    same += [
        "--data.num_samples=53",
        "--trainer.max_epochs=1",
        "--trainer.enable_progress_bar=false",
    ]
    where = ["--runs_dir", str(tmp_path), "--run_id"]
    assert main([*same, *where, "one"]) == 0
    sharded(tmp_path, [*same, *where, "two"])
    folders = [tmp_path / "linear_regression" / each for each in ("one", "two")]
    weights = [outcome(folder)[1] for folder in folders]
    for key, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][key], rtol=0, atol=1e-10, msg=key)
    figures = [sorted(path.name for path in folder.glob("figures/*")) for folder in folders]
    assert figures[0] == figures[1] != []
