"""Traffic-like series: the exact forecast from what is there, and what a mask is worth."""

import numpy as np
import pandas as pd
import pytest
import torch

from datamodules import GraphVARDataModule, InputError, NodeSeriesDataModule, TrafficDataModule
from datamodules.laws import kalman
from lit_models import LitSTGNN


def test_filter_is_the_conditional_normal():
    """Against the joint normal distribution of window and future, cell by cell."""
    torch.manual_seed(0)
    size, steps, horizon = 4, 3, 2
    transition = 0.4 * torch.randn(size, size).double()
    root = torch.randn(size, size).double()
    start, noise = root @ root.T + torch.eye(size), torch.eye(size).double() * 0.7
    total = steps + horizon
    joint = torch.zeros(total * size, total * size, dtype=torch.float64)
    states = [start]
    for _ in range(total - 1):
        states.append(transition @ states[-1] @ transition.T + noise)
    for first in range(total):
        across = states[first]
        for second in range(first, total):
            rows, columns = (slice(k * size, (k + 1) * size) for k in (second, first))
            joint[rows, columns], joint[columns, rows] = across, across.T
            across = transition @ across
    window = torch.randn(5, steps, size).double()
    window[torch.rand(window.shape) < 0.4] = torch.nan
    window[0] = torch.nan
    means, variances = kalman.forecasts(window, transition, noise, start, horizon)
    future = torch.arange(steps * size, total * size)
    for row, mean, variance in zip(window, means, variances, strict=True):
        seen = row.flatten().isfinite().nonzero()[:, 0]
        gain = torch.linalg.solve(joint[seen][:, seen], joint[seen][:, future]).T
        best = gain @ row.flatten()[seen]
        left = joint[future][:, future] - gain @ joint[seen][:, future]
        torch.testing.assert_close(mean.flatten(), best, rtol=0, atol=1e-11)
        torch.testing.assert_close(variance.flatten(), left.diagonal(), rtol=0, atol=1e-11)


def test_without_gaps_the_best_forecast_is_a_power_of_the_transition():
    options = {"num_nodes": 8, "num_test": 40, "horizon": 3, "window": 4, "noise_std": 2.0}
    data = TrafficDataModule(**options, missing_fraction=0.0)
    bare = GraphVARDataModule(**options)
    for name in ("test/mse", "test/mse_last_step"):
        assert data.optimum[name].value == pytest.approx(bare.optimum[name].value, rel=1e-5)


def test_cells_are_missing_and_channels_tell_time():
    data = TrafficDataModule(num_nodes=8, num_samples=500, missing_fraction=0.2)
    train = data.split("train")
    assert train.x.isnan().double().mean().item() == pytest.approx(0.2 / 6, rel=0.1)
    assert train.y.isnan().double().mean().item() == pytest.approx(0.2, rel=0.1)
    assert torch.equal(train.x[..., 5] == 1, train.x[..., 0].isfinite())
    hour = torch.atan2(train.x[..., 1], train.x[..., 2])[:, :, 0] * 24 / (2 * torch.pi) % 24
    step = hour.diff(dim=1) % 24
    torch.testing.assert_close(step, torch.ones_like(step))
    mean, std = data.standardization["y_scaler"]
    values = train.x[..., 0]
    assert values.nanmean().item() == pytest.approx(mean[0].item(), abs=1)
    spread = (values - values.nanmean()).square().nanmean().sqrt().item()
    assert spread == pytest.approx(std[0].item(), rel=0.1)
    assert data.optimum["test/mse"].value < data.baseline["test/mse"].value


def solved(data):
    """Test error of a forecaster that is solved in closed form and not trained."""
    model = LitSTGNN(
        data.in_features, data.num_nodes, data.horizon, data.window, autoregression=True
    )
    model.take_scale(data)
    test = data.split("test")
    return (model(test) - test.y).square()


def test_the_mask_is_what_reaches_the_floor():
    """Zeros in the place of missing cells cost several times the floor; under the mask they don't.

    Without a season a linear forecast of a node and its neighbours is nearly the best there is.
    """
    options = {"num_nodes": 16, "horizon": 1, "window": 4, "num_samples": 1500, "num_test": 400}
    data = TrafficDataModule(**options, season_amplitude=0.0)
    floor = data.optimum["test/mse"].value
    known = data.split("test").y.isfinite()
    assert solved(data)[known].mean().item() < 1.15 * floor
    naive = TrafficDataModule(**options, season_amplitude=0.0)
    for split in ("train", "val", "test"):
        batch = naive.split(split)
        naive._splits[split] = batch._replace(x=batch.x.nan_to_num(0.0), y=batch.y.nan_to_num(0.0))
    assert solved(naive)[known].mean().item() > 3 * floor


def test_a_file_with_zeros_is_the_file_with_empty_cells(tmp_path):
    data = TrafficDataModule(num_nodes=6, window=1, horizon=150, num_samples=1)
    train = data.split("train")
    values = train.y[0].numpy()
    names = [f"sensor {k}" for k in range(6)]
    dates = pd.date_range("2024-01-01", periods=150, freq="h").astype(str)
    for name, table in (("zeros", np.nan_to_num(values)), ("empty", values)):
        frame = pd.DataFrame(table, columns=names)
        frame.insert(0, "date", dates)
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    ends = train.edge_index.numpy()
    edges = pd.DataFrame({"from": [names[k] for k in ends[0]], "to": [names[k] for k in ends[1]]})
    options = {"edges_path": edges, "window": 12, "horizon": 12}
    zeros = NodeSeriesDataModule(str(tmp_path / "zeros.csv"), missing_value=0, **options)
    empty = NodeSeriesDataModule(str(tmp_path / "empty.csv"), **options)
    unmasked = NodeSeriesDataModule(str(tmp_path / "zeros.csv"), **options)
    assert zeros.split("train").x.isnan().any()
    for ours, expected in zip(zeros.split("test")[:2], empty.split("test")[:2], strict=True):
        torch.testing.assert_close(ours, expected, equal_nan=True, rtol=0, atol=0)
    assert zeros.rivals == empty.rivals
    best = min(zeros.rivals["test/mse"].values())
    assert min(unmasked.rivals["test/mse"].values()) > 2 * best


def test_wrong_arguments_are_named():
    with pytest.raises(InputError, match=r"missing_fraction must lie in \[0, 1\), got 1"):
        TrafficDataModule(missing_fraction=1.0)
