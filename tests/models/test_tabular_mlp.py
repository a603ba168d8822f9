"""The perceptron for any table: its bins, its linear start, and its members."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_friedman1
from sklearn.linear_model import LogisticRegression

from datamodules import CSVTabularDataModule
from lit_models import LitTabularMLP
from lit_models.tabular_mlp import PiecewiseLinearEmbedding


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
        for c in (0.001, 0.01, 0.1, 1, 10)
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
