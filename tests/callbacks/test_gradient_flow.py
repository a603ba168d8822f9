"""The gradient-flow record: what it holds, and one figure for all cells of a folder of runs."""

from pathlib import Path

import pandas as pd
from helpers import fit

from callbacks.figures.gradient_flow import _others, _read

SMALL = ["--data.num_samples", "256", "--data.num_test", "120", "--trainer.max_epochs", "2"]


def test_all_cells_share_one_figure(tmp_path):
    for cell in ("rnn", "lstm", "gru"):
        options = [
            "--model.cell",
            cell,
            "--config",
            "cpu",
            "--trainer.enable_progress_bar",
            "false",
        ]
        results = fit("lstm", *options, *SMALL, "--run_id", cell, tmp_path=tmp_path)
    own = Path(results["run_dir"]) / "gradient_flow.csv"
    record = pd.read_csv(own)
    assert list(record.columns) == ["data", "cell", "step", "lag", "norm"]
    assert sorted(record["step"].unique()) == [0, 2, 4]
    assert (record.groupby("step")["lag"].max() == 19).all()
    assert (record["norm"] > 0).all()
    assert set(_read(own)) == {"gru"}
    assert set(_others(own, "SineDataModule")) == {"rnn", "lstm", "gru"}
    assert _others(own, "sales.csv") == {}  # another file's cells say nothing of this one's
    assert (own.parent / "figures" / "gradient_flow.png").stat().st_size > 5000
