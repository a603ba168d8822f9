"""The numbers in the titles and legends of a run's figures are those of its table."""

import re

import numpy as np
import pandas as pd
import pytest
from helpers import fit

import callbacks.figures.base as base

SHORT = ["--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"]
CASES = {
    "binary_classification": ["--data.num_samples", "600"],
    "linear_regression": ["--data.num_samples", "1200", "--data.num_test", "1100"],
    "mc_dropout": ["--data.num_samples", "50", "--data.num_test", "300"],
    "classes": ["--data.path", "table.csv", "--data.target", "kind"],
    "numbers": ["--data.path", "table.csv", "--data.target", "y"],
}
# What a figure calls a score, and the table's name of it.
SCORES = {
    r"accuracy ([\d.]+)": "test/accuracy",
    r"root mean square error ([\d.]+)": "test/rmse",
    r"calibration error ([\d.]+)": "test/calibration_error",
}


def write_table(path):
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(2, 400))
    kind = np.where(x + rng.normal(size=400) > 0, "up", "down")
    frame = pd.DataFrame({"x": x, "z": z, "y": 3 * x + rng.normal(size=400), "kind": kind})
    frame.to_csv(path, index=False)


def words(figure):
    """Titles and legends of a figure."""
    texts = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
    legends = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    return texts + [text.get_text() for legend in legends for text in legend.get_texts()]


@pytest.mark.parametrize("case", CASES)
def test_titles_agree_with_the_table(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "table.csv")
    shown, finish = [], base.finish

    def keep(figure, title):
        finish(figure, title)
        shown.extend(words(figure))

    monkeypatch.setattr(base, "finish", keep)
    experiment = case if case not in ("classes", "numbers") else "table"
    results = fit(experiment, "--config", "cpu", *CASES[case], *SHORT, tmp_path=tmp_path)
    metrics = results["metrics"]
    metrics.setdefault("test/rmse", metrics.get("test/mse", 0.0) ** 0.5)
    found = 0
    for text in shown:
        for pattern, name in SCORES.items():
            for number in re.findall(pattern, text):
                assert float(number) == pytest.approx(metrics[name], rel=6e-4, abs=6e-5), text
                found += 1
        for number in re.findall(r"^optimum (-?[\d.]+)$", text):
            assert float(number) == pytest.approx(
                min(results["optimum"].values(), key=lambda value: abs(value - float(number))),
                rel=6e-4,
            ), text
    assert found == (2 if case == "classes" else 1)
    assert f"{results['model']} on" in shown[0]
