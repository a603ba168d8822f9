"""Samples and curves of a run: files in its folder, with what the data allow."""

from pathlib import Path

import pytest
from helpers import fit

SMALL = ["--config", "cpu", "--trainer.max_epochs", "1", "--data.num_samples", "64"]
SMALL += ["--data.num_test", "40", "--trainer.enable_progress_bar", "false"]


def test_sample_text(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat\n" * 60)
    options = ["--config", "cpu", "--trainer.max_epochs", "1", "--model.d_model", "16"]
    options += ["--data", "TextFileDataModule", "--data.path", str(text), "--data.seq_len", "9"]
    options += ["--data.cache_dir", str(tmp_path / "cache")]
    results = fit("gpt", *options, "--trainer.enable_progress_bar", "false", tmp_path=tmp_path)
    samples = (Path(results["run_dir"]) / "samples.txt").read_text().split("-" * 20)
    assert len(samples) == 4
    assert all(len(sample.strip("\n")) > 200 for sample in samples)


@pytest.mark.parametrize("name", ["gpt_in_context", "gpt_in_context_regression"])
def test_loss_per_example(tmp_path, name):
    results = fit(name, *SMALL, tmp_path=tmp_path)
    assert (Path(results["run_dir"]) / "figures" / "loss_per_example.png").stat().st_size > 10_000
