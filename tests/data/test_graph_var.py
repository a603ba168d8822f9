"""Floors of the graph autoregression against simulation."""

import pytest
import torch

from datamodules import GraphVARDataModule, InputError


@pytest.fixture(scope="module")
def simulated():
    """A long simulation of the process and its datamodule, horizon 4."""
    data = GraphVARDataModule(num_nodes=13, rho=0.9, noise_std=0.7, horizon=4, graph="geometric")
    torch.manual_seed(0)
    chains, burn, steps = 2000, 150, 20
    x = torch.zeros(chains, 13, dtype=torch.float64)
    path = []
    for step in range(burn + steps):
        x = x @ data.transition + 0.7 * torch.randn(chains, 13, dtype=torch.float64)
        if step >= burn:
            path.append(x)
    return data, torch.stack(path, dim=1)


def test_covariance_is_the_processes(simulated):
    data, path = simulated
    found = torch.cov(path[:, 0].T)
    assert ((found - data.covariance).norm() / data.covariance.norm()).item() < 0.08


@pytest.mark.parametrize("ahead", [1, 4])
def test_floors_are_the_errors_of_the_predictors(simulated, ahead):
    data, path = simulated
    power = torch.linalg.matrix_power(data.transition, ahead)
    error = (path[:, 12 + ahead - 1] - path[:, 11] @ power).square().mean().item()
    assert error == pytest.approx(data.floors.bayes[ahead - 1].item(), rel=0.03)
    errors = []
    for node in range(13):
        lags, target = path[:, :12, node], path[:, 12 + ahead - 1, node : node + 1]
        weights = torch.linalg.lstsq(lags, target).solution
        # In-sample least squares with 12 weights on 2000 rows.
        errors.append((lags @ weights - target).square().mean() * 2000 / 1988)
    node_only = torch.stack(errors).mean().item()
    assert node_only == pytest.approx(data.floors.node_only[ahead - 1].item(), rel=0.03)


def test_known_floors_of_the_ring():
    floors = GraphVARDataModule(horizon=12).floors
    for ahead, value in {1: 1.0, 2: 1.451, 3: 1.757, 6: 2.315, 12: 2.762}.items():
        assert floors.bayes[ahead - 1].item() == pytest.approx(value, rel=0.025), ahead
    assert floors.node_only[0].item() == pytest.approx(1.645, abs=2e-3)
    assert floors.mean[0].item() == pytest.approx((1 - 0.95**2) ** -0.5, abs=2e-3)


def test_best_forecast_scores_the_floor_exactly():
    data = GraphVARDataModule(num_nodes=11, horizon=3, num_test=40)
    test = data.split("test")
    state, preds = test.x[:, -1, :, 0].double(), []
    for _ in range(3):
        state = state @ data.transition
        preds.append(state)
    errors = (torch.stack(preds, dim=1) - test.y).square()
    assert errors.mean().item() == pytest.approx(data.optimum["test/mse"].value, rel=1e-5)
    last = data.optimum["test/mse_last_step"].value
    assert errors[:, -1].mean().item() == pytest.approx(last, rel=1e-5)


def test_windows_are_stationary():
    data = GraphVARDataModule(num_nodes=7, num_samples=20_000, window=3)
    x = data.split("train").x[..., 0].double()
    for step in range(3):
        assert ((torch.cov(x[:, step].T) - data.covariance).norm() / data.covariance.norm()) < 0.06
    lagged = x[:, 0].T @ x[:, 1] / len(x)
    expected = data.covariance @ data.transition
    assert ((lagged - expected).norm() / expected.norm()) < 0.06


@pytest.mark.parametrize("graph", ["ring", "geometric"])
def test_graph_is_undirected_with_radius_one(graph):
    data = GraphVARDataModule(num_nodes=17, graph=graph)
    torch.testing.assert_close(data.transition, data.transition.T, rtol=0, atol=1e-15)
    radius = torch.linalg.eigvalsh(data.transition).abs().max().item()
    assert radius == pytest.approx(0.95, abs=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rho": 1.0}, "rho must lie between -1 and 1, got 1.0"),
        ({"noise_std": 0.0}, "noise_std must be positive, got 0.0"),
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        GraphVARDataModule(**arguments)
