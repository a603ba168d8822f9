"""Length-bucketed batches: two processes equal one, and a resumed run an uninterrupted one."""

import json
import random

import pandas as pd
import pytest
import torch
from forked import TWO, command
from test_distributed import outcome

from lit_models.__main__ import main

SIZES = {"path": 83, "val_path": 19, "test_path": 23}
TINY = [
    *("--config", "transformer", "--config", "translation", "--trainer.accelerator", "cpu"),
    *("--model.d_model", "8", "--model.num_heads", "2", "--model.dim_feedforward", "11"),
    *("--model.num_encoder_layers", "1", "--model.num_decoder_layers", "1"),
    *("--model.num_beams", "2", "--data.tokenizer", "word", "--data.batch_tokens", "61"),
    *("--data.max_length", "13", "--trainer.check_val_every_n_epoch", "1"),
    *("--trainer.enable_progress_bar", "false", "--trainer.max_epochs", "3"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    options = []
    for name, count in SIZES.items():
        draw = random.Random(count)
        lines = []
        for _ in range(count):
            src = draw.choices("abcde", k=draw.randint(1, 9))
            lines.append(f"{' '.join(src)}\t{' '.join(sorted(src))}\n")
        (folder / f"{name}.tsv").write_text("".join(lines))
        options += [f"--data.{name}", str(folder / f"{name}.tsv")]
    return options


def test_two_processes_equal_one(tmp_path, data):
    same = [*TINY, *data, "--trainer.precision", "64-true", "--model.dropout", "0"]
    command(tmp_path, "fit", *same, "--run_id", "one")
    command(tmp_path, "fit", *same, *TWO, "--run_id", "two", ranks=2)
    folders = [tmp_path / "transformer" / name for name in ("one", "two")]
    results, weights = zip(*map(outcome, folders), strict=True)
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=0, atol=1e-12)
    assert "test/bleu" in results[0]["metrics"]
    for name, value in results[0]["metrics"].items():
        assert results[1]["metrics"][name] == pytest.approx(value, rel=1e-6), name
    logs = [pd.read_csv(folder / "metrics.csv") for folder in folders]
    pd.testing.assert_frame_equal(logs[0], logs[1], rtol=1e-6)
    tables = []
    for ranks, options in enumerate(([], TWO), start=1):
        last = str(folders[0] / "checkpoints" / "last.ckpt")
        command(tmp_path, "predict", *same, *options, "--ckpt_path", last, ranks=ranks)
        tables.append(pd.read_csv(folders[0] / "predictions.csv"))
        (folders[0] / "predictions.csv").unlink()
    assert tables[0]["line"].tolist() == list(range(1, SIZES["test_path"] + 1))
    pd.testing.assert_frame_equal(tables[0], tables[1])


def test_resume_in_mid_epoch_equals_uninterrupted(tmp_path, data):
    same = ["fit", *TINY, *data, "--runs_dir", str(tmp_path), "--model.dropout", "0.3"]
    same += ["--model.lr_scheduler.total_steps", "40"]
    same += ["--last_checkpoint.every_n_train_steps", "1"]
    assert main([*same, "--run_id", "whole"]) == 0
    assert main([*same, "--run_id", "part", "--trainer.max_steps", "7"]) == 0
    last = str(tmp_path / "transformer" / "part" / "checkpoints" / "last.ckpt")
    assert main([*same, "--ckpt_path", last, "--trainer.max_steps", "-1"]) == 0
    results, weights = zip(
        *(outcome(tmp_path / "transformer" / name) for name in ("whole", "part")), strict=True
    )
    assert results[0]["optimizer_steps"] == results[1]["optimizer_steps"] > 20
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name
    assert results[0]["metrics"] == results[1]["metrics"]
    json.dumps(results[0]["metrics"], allow_nan=False)
