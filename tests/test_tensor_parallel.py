"""Layers shared out over two CPU processes train to the weights of one process."""

from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from forked import command, run
from test_distributed import outcome

from lit_models.__main__ import main

_DOUBLE = "--trainer.plugins=lightning.pytorch.plugins.precision.DoublePrecision"
_SMALL = ["--config", "cpu", "--trainer.max_epochs=2", "--trainer.check_val_every_n_epoch=1"]
_SMALL += ["--data.num_samples=29", "--data.num_test=11", "--data.batch_size=5", _DOUBLE]
_SMALL += ["--model.d_model=12", "--model.num_heads=4", "--model.dropout=0"]
_SMALL += ["--trainer.enable_progress_bar=false"]
_PAIRS = ["--data.length=4", "--model.num_encoder_layers=1", "--model.num_decoder_layers=1"]
_TEXT = ["--trainer.callbacks.num_tokens=20"]  # of a sample
NAMES = {"gpt": ["--model.num_layers=2"], "bert": ["--model.num_layers=2"], "transformer": _PAIRS}
_WINDOWS = ["--trainer.accumulate_grad_batches=2", "--trainer.gradient_clip_val=0.05"]
_TWO = ["--config", "tensor_parallel", "--trainer.devices=2"]
_STOP = ["--trainer.max_steps=4", "--test_after_fit=false"]
_GO_ON = ["--trainer.max_steps=-1", "--test_after_fit=true", "--ckpt_path"]


def line(name: str, folder: Path, run_id: str, *options: str) -> list[str]:
    where = ["--runs_dir", str(folder), "--run_id", run_id]
    return ["fit", "--config", name, *_SMALL, *NAMES[name], *_WINDOWS, *options, *where]


def last(folder: Path, name: str, run_id: str) -> str:
    return str(folder / name / run_id / "checkpoints" / "last.ckpt")


def assert_equal(first: Path, second: Path) -> None:
    results, weights = zip(outcome(first), outcome(second), strict=True)
    assert results[0]["optimizer_steps"] == results[1]["optimizer_steps"] > 4
    assert list(weights[0]) == list(weights[1])
    for key, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][key], rtol=0, atol=1e-10, msg=key)
    for key, value in results[0]["metrics"].items():
        assert results[1]["metrics"][key] == pytest.approx(value, rel=1e-6), key


@pytest.mark.parametrize("name", NAMES)
def test_equals_one_process(tmp_path, name):
    """In windows of batches, clipped by norm; the predictions are whole and ordered."""
    text = _TEXT if name == "gpt" else []
    assert main(line(name, tmp_path, "one", *text)) == 0
    command(tmp_path, *line(name, tmp_path, "two", *text, *_TWO), ranks=2)
    folders = [tmp_path / name / each for each in ("one", "two")]
    assert_equal(*folders)
    same = ["--config", name, "--config", "cpu", "--runs_dir", str(tmp_path)]
    predict = ["predict", *same, "--ckpt_path", last(tmp_path, name, "one")]
    path = folders[0] / "predictions.csv"
    assert main(predict) == 0
    one = pd.read_csv(path)
    path.unlink()
    command(tmp_path, *predict, *_TWO, ranks=2)
    pd.testing.assert_frame_equal(one, pd.read_csv(path), rtol=1e-6, atol=1e-6)


def test_resume_on_another_number_of_processes(tmp_path):
    """In the middle of an epoch, with a moving average."""
    overlay = tmp_path / "ema.yaml"
    average = {"class_path": "callbacks.EMA", "init_args": {"decay": 0.5}}
    overlay.write_text(yaml.safe_dump({"trainer": {"callbacks": [average]}}))
    ema = ["--config", str(overlay)]
    assert main(line("gpt", tmp_path, "one", *ema)) == 0
    assert main(line("gpt", tmp_path, "one-two", *ema, *_STOP)) == 0
    go_on = [*ema, *_TWO, *_GO_ON, last(tmp_path, "gpt", "one-two")]
    command(tmp_path, *line("gpt", tmp_path, "one-two", *go_on), ranks=2)
    command(tmp_path, *line("gpt", tmp_path, "two-one", *ema, *_TWO, *_STOP), ranks=2)
    go_on = [*ema, "--trainer.strategy=auto", "--trainer.devices=1", *_GO_ON]
    assert main(line("gpt", tmp_path, "two-one", *go_on, last(tmp_path, "gpt", "two-one"))) == 0
    for other in ("one-two", "two-one"):
        assert_equal(tmp_path / "gpt" / "one", tmp_path / "gpt" / other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--config", "lstm"], "LitRecurrentForecaster has none"),
        (
            ["--config", "gpt", "--model.d_model=9", "--model.num_heads=3"],
            "2 processes cannot share 3 heads",
        ),
    ],
)
def test_what_cannot_be_shared_out_is_refused(tmp_path, options, message):
    done = run(tmp_path, "fit", *options, "--config", "cpu", *_TWO)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
