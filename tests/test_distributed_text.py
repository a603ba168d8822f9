"""Two CPU processes give the scores and weights of one, for losses with counts of their own."""

import pandas as pd
import pytest
import torch
from forked import TWO, command
from test_distributed import outcome

# Sizes that do not divide; dropout off, whose masks belong to a rank.
SMALL = ["--config", "cpu", "--trainer.precision", "64-true", "--trainer.max_epochs", "2"]
SMALL += ["--model.d_model", "20", "--model.num_heads", "5", "--data.num_test", "47"]
EXPERIMENTS = {
    "bert_topics": ["--data.num_documents", "53", "--data.batch_size", "13"],
    "gpt_finetune": ["--data.num_documents", "53", "--data.batch_size", "13"],
    "gpt_in_context": ["--data.num_samples", "53", "--data.batch_size", "13"],
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_two_processes_equal_one(tmp_path, name):
    same = ["fit", "--config", name, *SMALL, *EXPERIMENTS[name]]
    same += ["--model.dropout", "0"]
    command(tmp_path, *same, "--run_id", "one")
    command(tmp_path, *same, *TWO, "--run_id", "two", ranks=2)
    results, weights = zip(*(outcome(tmp_path / name / run) for run in ("one", "two")), strict=True)
    for key, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][key], rtol=0, atol=1e-11)
    for key, value in results[0]["metrics"].items():
        assert results[1]["metrics"][key] == pytest.approx(value, rel=1e-6), key
    logs = [pd.read_csv(tmp_path / name / run / "metrics.csv") for run in ("one", "two")]
    pd.testing.assert_frame_equal(logs[0], logs[1], rtol=1e-6)
