"""Linear regression and perceptrons against scikit-learn, closed forms and their own definition."""

import numpy as np
import pytest
import torch
from helpers import fit
from sklearn.linear_model import LinearRegression
from sklearn.metrics import accuracy_score, log_loss
from torch import nn

from datamodules import LinearDataModule
from lit_models import CrossEntropy, LitLinearRegression, LitMLPClassifier
from lit_models.layers.standardize import Standardize
from lit_models.mlp import MLP


def test_gradient_descent_reaches_least_squares(tmp_path):
    results = fit("linear_regression", "--config", "cpu", tmp_path=tmp_path)
    data = LinearDataModule()
    train = data.split("train")
    oracle = LinearRegression().fit(train.x.double().numpy(), train.y[:, 0].double().numpy())
    path = f"{results['run_dir']}/checkpoints/last.ckpt"
    model = LitLinearRegression.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    weights = model.state_dict()
    np.testing.assert_allclose(weights["linear.weight"][0], oracle.coef_, atol=1e-3)
    np.testing.assert_allclose(weights["linear.bias"][0], oracle.intercept_, atol=1e-3)


def test_layers_stand_in_the_order_of_their_papers():
    net = MLP(3, [5, 7], 2, batch_norm=True, dropout=0.1)
    kinds = [type(layer) for layer in net]
    block = [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout]
    assert kinds == [*block, *block, nn.Linear]
    assert [type(layer) for layer in MLP(3, [5], 2)] == [nn.Linear, nn.ReLU, nn.Linear]


def test_forward_is_the_formula():
    model = LitMLPClassifier(3, 4, [5], batch_norm=False, dropout=0.0).double()
    model.x_scaler.mean.copy_(torch.tensor([1.0, 2, 3]))
    model.x_scaler.std.copy_(torch.tensor([2.0, 0.5, 1]))
    x = torch.randn(11, 3).double()
    first, last = model.net[0], model.net[2]
    z = (x - model.x_scaler.mean) / model.x_scaler.std
    hidden = (z @ first.weight.T + first.bias).clamp(min=0)
    torch.testing.assert_close(model(x), hidden @ last.weight.T + last.bias)


def test_metrics_are_scikit_learns():
    logits, target = torch.randn(101, 5), torch.randint(5, (101,))
    metric = CrossEntropy()
    for rows in (slice(0, 40), slice(40, 101)):
        metric.update(logits[rows], target[rows])
    probability = logits.softmax(1).double().numpy()
    assert metric.compute().item() == pytest.approx(log_loss(target, probability), rel=1e-5)
    model = LitMLPClassifier(3, 5)
    model.val_metrics.update(logits, target)
    expected = accuracy_score(target, logits.argmax(1))
    assert model.val_metrics.compute()["val/accuracy"].item() == pytest.approx(expected)


def test_scaling_is_inverted():
    scaler = Standardize(3)
    scaler.fit([1.0, -2, 3], [2.0, 0.5, 1])
    x = torch.randn(7, 3)
    torch.testing.assert_close(scaler.inverse(scaler(x)), x.double())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden_sizes": [5, 0]}, r"hidden_sizes must be positive, got \[5, 0\]"),
        ({"hidden_sizes": [5], "dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLP(3, out_features=2, **arguments)
