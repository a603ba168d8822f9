"""The perceptron for any table: its bins, its linear start, and its members."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import make_friedman1
from sklearn.linear_model import LogisticRegression

from datamodules import CSVTabularDataModule, InputError
from lit_models import LitTabularMLP
from lit_models.families.linear_start import Rows, _folds
from lit_models.layers.piecewise_linear import PiecewiseLinearEmbedding
from lit_models.weights.checkpoints import check_compatible


def test_a_value_passes_the_bins_in_order():
    embedding = PiecewiseLinearEmbedding(1, 2, 3)
    embedding.fit(torch.tensor([[0.0], [1.0], [3.0]]))
    codes = embedding.encode(torch.tensor([[-1.0], [0.5], [2.0], [9.0]]))[:, 0]
    torch.testing.assert_close(codes, torch.tensor([[0, 0], [0.5, 0], [1, 0.5], [1, 1]]))
    embedding.fit(torch.ones(5, 1))
    assert embedding.encode(torch.ones(1, 1)).abs().sum() == 0


def test_it_starts_at_the_logistic_solution():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3))
    y = (x @ [1.0, -2.0, 0.5] + rng.logistic(size=400) > 0).astype(int)
    data = CSVTabularDataModule((x, y), "target")
    model = LitTabularMLP(data.column_widths, data.num_outputs, "classification").eval()
    model.take_scale(data)
    train, test = data.split("train"), data.split("test")
    losses = [
        abs(
            model(test.x).exp()[:, 1].detach().numpy()
            - LogisticRegression(C=c)
            .fit(model.scaled(train.x).numpy(), train.y)
            .predict_proba(model.scaled(test.x).numpy())[:, 1]
        ).max()
        for c in (0.001, 0.01, 0.1, 1)
    ]
    assert min(losses) < 1e-3


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_members_learn_and_predict_in_the_units_of_the_data(loss):
    x, y = make_friedman1(600, random_state=0)
    data = CSVTabularDataModule((x, 1e6 + 100 * y), "target", task="regression")
    torch.manual_seed(0)
    model = LitTabularMLP(data.column_widths, 1, "regression", (32,), loss=loss)
    model.take_scale(data)
    test = data.split("test")
    linear = (model.eval()(test.x) - test.y).square().mean()
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    model.train()
    for _ in range(150):
        optimizer.zero_grad()
        model.step(data.split("train")).loss.backward()
        optimizer.step()
    preds = model.eval()(test.x)
    assert preds.dtype == torch.float64
    assert (preds - test.y).square().mean() < 0.8 * linear


def fitted(data, steps=150, **options):
    torch.manual_seed(0)
    widths, num_outputs = data.column_widths, data.num_outputs
    model = LitTabularMLP(widths, num_outputs, data.task, (32,), dropout=0.0, **options)
    model.take_scale(data)
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        model.step(data.split("train")).loss.backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("quantile", [0.1, 0.8])
def test_a_quantile_has_its_share_of_the_targets_below(quantile):
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (1500, 2))
    y = x[:, 0] + (1 + x[:, 1]) * rng.exponential(size=1500)
    data = CSVTabularDataModule((x, y), "target", task="regression")
    model = fitted(data, loss="quantile", quantile=quantile)
    test = data.split("test")
    assert model.eval_step(test).scalars["share_below"] == pytest.approx(quantile, abs=0.05)
    true = test.x[:, :1] + (1 + test.x[:, 1:]) * -np.log(1 - quantile)
    assert (model(test.x) - true).abs().mean() < 0.25


def test_counts_have_the_mean_that_made_them():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (1500, 2))
    rate = np.exp(0.5 + x[:, 0] + np.abs(x[:, 1]))
    data = CSVTabularDataModule((x, rng.poisson(rate).astype(float)), "target", task="regression")
    model = fitted(data, loss="poisson")
    test = data.split("test")
    true = (0.5 + test.x[:, 0] + test.x[:, 1].abs()).exp()
    assert (model(test.x)[:, 0] / true - 1).abs().mean() < 0.12
    with pytest.raises(InputError, match="poisson needs targets of 0 and more, got -"):
        fitted(CSVTabularDataModule((x, x[:, 0]), "target", task="regression"), loss="poisson")


@pytest.mark.parametrize(
    ("transform", "is_log"), [("auto", True), ("log1p", True), ("none", False)]
)
def test_a_skewed_target_is_fitted_by_its_logarithm_and_predicted_back(transform, is_log):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, 2))
    y = np.exp(5 + 1.5 * x[:, 0] + 0.1 * rng.normal(size=1000))
    data = CSVTabularDataModule((x, y), "target", task="regression")
    model = fitted(data, 0, target_transform=transform)
    test = data.split("test")
    error = (model(test.x) / test.y).log().abs().mean() if is_log else None
    assert bool(model.is_log) == is_log
    assert error is None or error < 0.2
    even = CSVTabularDataModule((x, 9 + x[:, 0]), "target", task="regression")
    assert not fitted(even, 0, target_transform="auto").is_log


def test_weights_decide_what_is_learned():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 2))
    y = np.where(rng.random(600) < 0.5, x[:, 0], -x[:, 0])
    frame = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": y, "w": (y == x[:, 0]).astype(float)})
    data = CSVTabularDataModule(frame, "y", task="regression", weight="w")
    model = fitted(data, 20)
    test = data.split("test")
    assert (model(test.x)[:, 0] - test.x[:, 0]).abs().mean() < 0.1


def test_losses_of_numbers_are_not_for_classes():
    with pytest.raises(ValueError, match="the target is a class"):
        LitTabularMLP([1], 2, "classification", loss="mae")
    with pytest.raises(ValueError, match="quantile must lie in"):
        LitTabularMLP([1], 1, "regression", loss="quantile", quantile=1.0)


def test_it_starts_at_an_additive_solution_where_lines_do_not_fit():
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (500, 3))
    y = np.abs(x[:, 0]) + np.sin(3 * x[:, 1]) + 0.1 * rng.normal(size=500)
    data = CSVTabularDataModule((x, y), "target", task="regression")
    model = fitted(data, 0)
    test = data.split("test")
    share = (model(test.x) - test.y).square().mean() / test.y.var()
    assert share < 0.1
    assert model.net.skip.weight.abs().sum() == 0


def test_a_start_of_many_codes_and_classes_is_left_linear():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 40))
    y = rng.integers(0, 5, 2000)
    data = CSVTabularDataModule((x, y), "target")
    model = fitted(data, 0)
    assert model.net.skip.start_weight[:, 40:].abs().sum() == 0


def test_a_rare_class_is_in_no_fold_too_few():
    rows = Rows(np.zeros((60, 1)), np.array([0] * 51 + [1] * 9))
    assert len(_folds("logistic", rows, 2)) == 0
    rows = rows._replace(y=np.array([0] * 45 + [1] * 15))
    fold = _folds("logistic", rows, 2)
    assert all(np.bincount(rows.y[fold == k]).tolist() == [9, 3] for k in range(5))
    assert len(_folds("ridge", Rows(np.zeros((60, 20_000)), np.zeros((60, 1))), 1)) == 0


def test_a_few_rows_that_are_all_right_bear_no_certainty():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 2))
    data = CSVTabularDataModule((x, (x[:, 0] > 0).astype(int)), "target")
    model = fitted(data, 0)
    val = data.split("val")
    n = len(val.y)
    y = torch.nn.functional.one_hot(val.y).double()
    losses = []
    for share in (0.5 / n, 1 / n, 1e-6):  # of doubt in the answer
        model._mixture = lambda members, p=share: torch.where(y > 0, 1 - p, p).log()
        losses.append(model.eval_step(val).loss.item())
    assert losses[1] < losses[2]
    doubt = 1 / (n + 2)
    assert losses[0] == pytest.approx(
        -(1 - doubt / 2) * np.log(1 - 0.5 / n) - doubt / 2 * np.log(0.5 / n), rel=1e-4
    )


def test_near_rows_vote_where_rows_repeat_and_have_none_where_lines_say_all():
    rng = np.random.default_rng(0)
    places = rng.uniform(-1, 1, (120, 3))
    labels = rng.integers(0, 3, 120)
    rows = rng.integers(0, 120, 900)
    x = places[rows] + 0.01 * rng.normal(size=(900, 3))
    data = CSVTabularDataModule((x, labels[rows]), "target", task="classification")
    model = fitted(data, 0)
    test = data.split("test")
    assert (model(test.x).argmax(1) == test.y).double().mean() > 0.9
    line = CSVTabularDataModule((x, x[:, 0] + 0.1 * rng.normal(size=900)), "target", "regression")
    plain = fitted(line, 0)
    assert len(model.votes.rows) == data.num_train
    assert len(plain.votes.rows) == 0

    again = LitTabularMLP(data.column_widths, 3, "classification", (32,))
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again.eval()(test.x), model(test.x))


def test_a_checkpoint_without_votes_is_taken():
    x = np.random.default_rng(0).normal(size=(100, 2))
    data = CSVTabularDataModule((x, x[:, 0]), "target", task="regression")
    model = fitted(data, 3)
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("votes.")}
    for name in ("net.skip.weight", "net.skip.start_weight"):
        assert not state[name][:, -3:].any()
        state[name] = state[name][:, :-3]
    checkpoint = {"state_dict": state}
    again = LitTabularMLP(data.column_widths, 1, "regression", (32,), dropout=0.0).eval()
    again.on_load_checkpoint(checkpoint)
    check_compatible(Path("best.ckpt"), checkpoint, again)
    again.load_state_dict(checkpoint["state_dict"])
    torch.testing.assert_close(again(data.split("test").x), model(data.split("test").x))
