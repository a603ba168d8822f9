"""Conformal intervals and sets, and temperatures: what they promise, on rows nobody fitted."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from callbacks import Conformal, TemperatureScaling
from callbacks.run.calibration import conformal_quantile, fit_temperature
from datamodules import InputError
from lit_models.__main__ import main
from lit_models.layers.densities import GaussianMixture


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_the_quantile_covers_a_new_row_as_often_as_it_says(level):
    scores = torch.randn(20_000, 20, generator=torch.Generator().manual_seed(0)).abs()
    covered = (scores[:, -1:] <= conformal_quantile(scores[:, :-1].T, level)[:, None]).double()
    assert covered.mean() == pytest.approx(math.ceil(20 * level) / 20, abs=0.01)
    assert conformal_quantile(torch.ones(5, 2), 0.9).isinf().all()


def test_the_temperature_undoes_what_made_probabilities_too_sure():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 4, generator=generator) * 2
    target = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    assert fit_temperature(logits * 3, target) == pytest.approx(3, rel=0.05)
    assert fit_temperature((logits * 3).log_softmax(1), target) == pytest.approx(3, rel=0.05)
    callback = TemperatureScaling()
    callback.temperature = 3.0
    outputs = {"probability": (logits * 3).softmax(1)}
    callback.on_predict_batch_end(None, None, outputs, None, 0)
    torch.testing.assert_close(outputs["probability"].float(), logits.softmax(1))


def test_a_few_rows_that_are_all_right_ask_for_no_certainty():
    """What is asked for is the share that the smoothed rows have."""
    logits = torch.tensor([[math.log(30.0), 0.0]]).expand(30, 2)
    target = torch.zeros(30, dtype=torch.long)
    scaled = (logits[0] / fit_temperature(logits, target)).softmax(0)
    # label_smoothing spreads 1 / 32 over both classes.
    assert scaled[0] == pytest.approx(1 - 1 / 64, abs=1e-4)


def test_intervals_follow_a_spread_that_the_model_states():
    callback = Conformal(0.8)
    std = torch.tensor([[0.5], [4.0]]).repeat(500, 1)
    mixture = GaussianMixture(torch.zeros(1, 1000, 1), std.unsqueeze(0))
    target = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0)) * std
    callback._fit(*callback._keep(mixture, target))
    assert callback.quantile[0] == pytest.approx(1.28, rel=0.1)
    outputs = {"prediction": torch.zeros(2, 1), "epistemic_std": torch.tensor([[3.0], [0.0]])}
    outputs["aleatoric_std"] = torch.tensor([[4.0], [0.5]])
    callback.on_predict_batch_end(None, None, outputs, None, 0)
    half = outputs["conformal_upper_80"][:, 0]
    torch.testing.assert_close(half / torch.tensor([5.0, 0.5]).double(), half[:1].repeat(2) / 5)
    fresh = Conformal(0.9)
    fresh.load_state_dict(callback.state_dict())
    with pytest.raises(InputError, match="no validation rows"):
        fresh.on_test_epoch_start(None, None)


def test_the_likeliest_class_is_always_in_the_set():
    callback = Conformal()
    callback.quantile = [0.3]
    sets = callback._sets(torch.tensor([[0.8, 0.2], [0.55, 0.45], [0.1, 0.9]]))
    assert sets.tolist() == [[True, False], [True, False], [False, True]]


@pytest.mark.parametrize("kind", ["number", "class"])
def test_a_fit_reports_coverage_and_predicts_with_it(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 2))
    y = x @ [1.0, -1.0] + rng.normal(size=500)
    frame = pd.DataFrame(x, columns=["a", "b"])
    frame["y"] = y if kind == "number" else np.where(y > 0, "up", "down")
    frame.to_csv("t.csv", index=False)
    common = ["--config", "table", "--data.path", "t.csv", "--data.target", "y"]
    quick = ["--trainer.enable_progress_bar=false", "--trainer.callbacks+=callbacks.Conformal"]
    if kind == "class":
        quick.append("--trainer.callbacks+=callbacks.TemperatureScaling")
    assert main(["fit", *common, *quick, "--trainer.max_steps=40", "--run_id=r"]) == 0
    scores = json.loads((tmp_path / "runs/table/r/results.json").read_text())["metrics"]
    assert 0.8 < scores["test/coverage_90"] <= 1
    size = scores["test/width_90" if kind == "number" else "test/set_size_90"]
    frame.drop(columns="y").head(20).to_csv("new.csv", index=False)
    (tmp_path / "t.csv").unlink()
    checkpoint = "runs/table/r/checkpoints/best.ckpt"
    assert main(["predict", "--ckpt_path", checkpoint, "--data.predict_path", "new.csv"]) == 0
    out = pd.read_csv("runs/table/r/predictions.csv")
    if kind == "number":
        width = out["conformal_upper_90"] - out["conformal_lower_90"]
        np.testing.assert_allclose(width, size, rtol=1e-5)
        return
    assert set(out["conformal_set_90"]) <= {"up", "down", "down | up"}
    assert {"test/temperature", "test/cross_entropy_scaled"} <= set(scores)
    logits = torch.tensor(out[["probability_down", "probability_up"]].to_numpy())
    torch.testing.assert_close(logits.sum(1), torch.ones(20).double())
    assert F.one_hot(logits.argmax(1)).shape == (20, 2)
