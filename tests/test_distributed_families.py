"""Every experiment on two CPU processes, sharded or not, gives the weights of one process."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from forked import command
from test_distributed import outcome

from lit_models.__main__ import main
from lit_models.command.catalog import experiments

# Small sizes that two ranks cannot share evenly; no dropout, whose masks belong to a rank.
_SERIES = ("--data.num_samples=53", "--data.num_test=47", "--data.batch_size=11")
_PAIRS = (*_SERIES, "--data.length=5", "--model.dropout=0")
_TABLE = ("--data.num_samples=173", "--data.batch_size=33", "--data.num_test=1000")
_CURVE = ("--data.num_samples=53", "--data.batch_size=10", "--data.num_test=106")
_GRAPHS = ("--data.num_graphs=5", "--data.num_nodes=31", "--data.num_val_graphs=3")
_GRAPHS += ("--data.num_test_graphs=7", "--data.batch_size=3")
_IMAGES = ("--data.batch_size=290", "--model.hidden_size=4")
_TEXT = ("--model.d_model=20", "--model.num_heads=5", "--model.dropout=0", "--data.batch_size=11")
_DOCUMENTS = ("--data.num_documents=53", "--data.num_test=47")
EXPERIMENTS = {
    "linear_regression": ("--data.num_samples=53", "--data.batch_size=10"),
    # Batch norm takes the statistics of a rank's own rows: docs/devices.md.
    "binary_classification": (*_TABLE, "--model.batch_norm=false", "--model.dropout=0"),
    "multiclass_classification": (*_TABLE, "--model.batch_norm=false", "--model.dropout=0"),
    "rnn": _SERIES,
    "lstm": _SERIES,
    "gru": _SERIES,
    "lstm_multistep": _SERIES,
    "lstm_attention": _SERIES,
    "lstm_covariates": _SERIES,
    "seq2seq": _PAIRS,
    "seq2seq_luong": _PAIRS,
    "seq2seq_bahdanau": _PAIRS,
    "transformer": (*_PAIRS, "--model.d_model=20", "--model.num_heads=5"),
    "mc_dropout": (*_CURVE, "--model.dropout=0"),
    "deep_ensemble": _CURVE,
    "laplace_mlp": _CURVE,
    "gat": _GRAPHS,
    "graph_network": _GRAPHS,
    "graph_network_links": _GRAPHS,
    "graph_network_motifs": _GRAPHS[:1] + _GRAPHS[2:],
    "stgnn": ("--data.num_nodes=7", "--data.batch_size=11"),
    "ddpm_mixture": ("--data.num_samples=230", "--data.num_test=57", "--data.batch_size=33"),
    "ddpm_digits": (*_IMAGES, "--model.num_steps=3", "--model.num_sample_steps=2"),
    "bert": (*_TEXT, "--data.num_samples=53", "--data.num_test=47"),
    "bert_finetune": (*_TEXT, *_DOCUMENTS),
    "gpt": (*_TEXT, "--data.num_samples=53", "--data.num_test=47"),
    "gpt_instructions": (*_TEXT, "--data.num_samples=53", "--data.num_test=47"),
    "gpt_in_context_regression": (*_TEXT, "--data.num_samples=53", "--data.num_test=47"),
}
# Their tests are in test_distributed.py and test_distributed_text.py.
ELSEWHERE = {"ddpm", "bayesian_mlp", "gcn", "bert_topics", "gpt_finetune", "gpt_in_context"}
_SAME = ["--config", "cpu", "--trainer.max_epochs=2"]
_SAME += ["--trainer.check_val_every_n_epoch=1", "--trainer.enable_progress_bar=false"]
# Lightning refuses 64-true by that name where weights are sharded (2.6.6), not the plugin itself.
_SAME += ["--trainer.plugins=lightning.pytorch.plugins.precision.DoublePrecision"]
_TWO = {"ddp": ["--config", "ddp"], "fsdp": ["--config", "fsdp", "--config", "cpu"]}


def fit(name: str, folder: Path, run_id: str) -> list[str]:
    options = [*EXPERIMENTS[name], *_SAME, "--runs_dir", str(folder), "--run_id", run_id]
    return ["fit", "--config", name, *options]


def test_no_experiment_is_left_out():
    assert set(EXPERIMENTS) | ELSEWHERE == set(experiments())
    assert not set(EXPERIMENTS) & ELSEWHERE


@pytest.fixture(scope="module")
def on_two_ranks(tmp_path_factory, request):
    """Folder of the runs of two ranks; it fits the chosen experiments."""
    folder = tmp_path_factory.mktemp("runs")
    chosen = [item.callspec.params["name"] for item in request.session.items if _is_here(item)]
    for name in dict.fromkeys(chosen):
        for strategy, overlay in _TWO.items():
            line = [*fit(name, folder, strategy), *overlay, "--trainer.devices=2"]
            command(folder, *line, ranks=2)
    return folder


def _is_here(item: pytest.Item) -> bool:
    return getattr(item, "originalname", "") == "test_two_processes_equal_one" and (
        item.path == Path(__file__)
    )


@pytest.mark.slow
@pytest.mark.parametrize("strategy", _TWO)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_two_processes_equal_one(on_two_ranks, name, strategy):
    folders = [on_two_ranks / name / run_id for run_id in ("one", strategy)]
    if not folders[0].exists():
        assert main(fit(name, on_two_ranks, "one")) == 0
    results, weights = zip(*map(outcome, folders), strict=True)
    assert results[0]["optimizer_steps"] == results[1]["optimizer_steps"] > 1
    assert list(weights[0]) == list(weights[1])
    for key, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][key], rtol=0, atol=1e-10, msg=key)
    # Rows that are equally uncertain but for rounding change places; before Laplace's covariance is
    # known, all of a validation are.
    for key, value in results[0]["metrics"].items():
        rel = 1e-3 if key == "test/aurc" else 1e-6
        wanted = None if value is None else pytest.approx(value, rel=rel)  # undefined on both
        assert results[1]["metrics"][key] == wanted, key
    tables = [pd.read_csv(folder / "metrics.csv") for folder in folders]
    logs = [table.drop(columns="val/aurc", errors="ignore") for table in tables]
    pd.testing.assert_frame_equal(logs[0], logs[1], rtol=1e-6)
