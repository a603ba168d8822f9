"""Spatio-temporal networks against written-out cells, and their two ways to look ahead."""

import pandas as pd
import pytest
import torch
from graph_helpers import dense_adjacency, random_edges
from torch import nn

from datamodules import NodeSeriesDataModule
from datamodules.batches import GraphSeriesBatch
from datamodules.own.node_rivals import forecasts
from lit_models import LitSTGNN
from lit_models.layers.autoregression import NodeAutoregression, least_squares_shares
from lit_models.layers.graph import normalized_adjacency
from lit_models.layers.graph_time import GatedTemporalConv, GraphGRUCell, GraphPolynomial
from lit_models.metrics.forecast_errors import ForecastErrors


@pytest.fixture
def edges():
    return random_edges(11, 17)


@pytest.fixture
def batch(edges):
    x = torch.randn(3, 5, 11, 2)
    return GraphSeriesBatch(x, torch.randn(3, 4, 11), edges, torch.rand(edges.shape[1]))


def polynomial(conv, x, dense):
    """The formula, window by window."""
    out = []
    for b in range(x.shape[1]):
        hops = [torch.linalg.matrix_power(dense, k) @ x[:, b] for k in range(conv.num_hops + 1)]
        out.append(torch.cat(hops, dim=-1) @ conv.lin.weight.T + conv.lin.bias)
    return torch.stack(out, dim=1)


@pytest.mark.parametrize("num_hops", [0, 1, 3])
def test_polynomial_is_the_formula(edges, num_hops):
    weight = torch.rand(edges.shape[1]).double()
    dense = dense_adjacency(edges, weight, 11, False)
    conv = GraphPolynomial(5, 3, num_hops).double()
    x = torch.randn(11, 7, 5).double()
    out = conv(x, normalized_adjacency(edges, weight, 11, False))
    torch.testing.assert_close(out, polynomial(conv, x, dense), rtol=0, atol=1e-12)


def test_cell_is_the_formula(edges):
    weight = torch.rand(edges.shape[1]).double()
    dense = dense_adjacency(edges, weight, 11, False)
    cell = GraphGRUCell(2, 3, 2).double()
    x, h = torch.randn(11, 7, 2).double(), torch.randn(11, 7, 3).double()
    gates = polynomial(cell.gates, torch.cat([x, h], -1), dense).sigmoid()
    z, r = gates[..., :3], gates[..., 3:]
    n = polynomial(cell.candidate, torch.cat([x, r * h], -1), dense).tanh()
    out = cell(x, h, normalized_adjacency(edges, weight, 11, False))
    torch.testing.assert_close(out, z * h + (1 - z) * n, rtol=0, atol=1e-12)


def test_temporal_convolution_is_torchs():
    conv = GatedTemporalConv(2, 3, 4).double()
    x = torch.randn(11, 7, 6, 2).double()
    kernel = conv.lin.weight.view(6, 2, 4)  # features outer, steps inner
    padded = torch.nn.functional.pad(x.flatten(0, 1).transpose(1, 2), (3, 0))
    both = torch.nn.functional.conv1d(padded, kernel, conv.lin.bias)
    expected = (both[:, :3] * both[:, 3:].sigmoid()).transpose(1, 2).view(11, 7, 6, 3)
    torch.testing.assert_close(conv(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("temporal", ["gru", "conv"])
@pytest.mark.parametrize("mode", ["direct", "rolling"])
def test_renumbered_nodes_give_renumbered_forecasts(batch, temporal, mode):
    x = batch.x[..., :1] if mode == "rolling" else batch.x
    model = LitSTGNN(x.shape[-1], 11, 4, 5, temporal, mode=mode, residual=True).double().eval()
    batch = batch._replace(x=x.double(), edge_weight=batch.edge_weight.double())
    order = torch.randperm(11)
    moved = batch._replace(
        x=batch.x[:, :, order], edge_index=torch.argsort(order)[batch.edge_index]
    )
    torch.testing.assert_close(model(moved), model(batch)[..., order], rtol=0, atol=1e-12)


@pytest.mark.parametrize("temporal", ["gru", "conv"])
def test_without_hops_a_node_sees_itself_alone(batch, temporal):
    model = LitSTGNN(2, 11, 4, 5, temporal, num_hops=0, skip_hops=0).eval()
    other = batch.x.clone()
    other[:, :, 1:] = torch.randn(3, 5, 10, 2)
    same = model(batch._replace(x=other))[..., 0]
    torch.testing.assert_close(same, model(batch)[..., 0])
    model = LitSTGNN(2, 11, 4, 5, temporal).eval()
    near = batch.edge_index[0, batch.edge_index[1] == 0][0]
    other = batch.x.clone()
    other[:, :, near] += 1
    assert (model(batch._replace(x=other)) - model(batch))[..., 0].abs().max() > 1e-6


@pytest.mark.parametrize("temporal", ["gru", "conv"])
def test_rolling_feeds_its_forecast_back(batch, temporal):
    model = LitSTGNN(1, 11, 3, 5, temporal, mode="rolling", linear_skip=False).double().eval()
    one = LitSTGNN(1, 11, 1, 5, temporal, mode="rolling", linear_skip=False).double().eval()
    one.load_state_dict(model.state_dict())
    x = batch.x[..., :1].double()
    batch = batch._replace(edge_weight=batch.edge_weight.double())
    expected = []
    for step in range(3):
        # A recurrent net continues its state: the same as reading a longer window.
        window = x if temporal == "gru" else x[:, step:]
        expected.append(one(batch._replace(x=window)))
        x = torch.cat([x, expected[-1].unsqueeze(-1)], dim=1)
    out = model(batch._replace(x=x[:, :5]))
    torch.testing.assert_close(out, torch.cat(expected, dim=1), rtol=0, atol=1e-12)


def test_linear_skip_holds_a_vector_autoregression(batch):
    model = LitSTGNN(1, 11, 1, 5).double().eval()
    torch.nn.init.zeros_(model.net.head.weight)
    torch.nn.init.zeros_(model.net.head.bias)
    torch.nn.init.zeros_(model.net.skip.lin.bias)
    model.net.skip.lin.weight.data[0, 5 + 4] = 0.7  # the last step, one hop
    weight = batch.edge_weight.double()
    dense = dense_adjacency(batch.edge_index, weight, 11, False)
    x = batch.x[..., :1].double()
    out = model(batch._replace(x=x, edge_weight=weight))
    torch.testing.assert_close(out[:, 0], 0.7 * x[:, -1, :, 0] @ dense.T, rtol=0, atol=1e-12)


def test_scales_are_each_nodes_own(batch):
    model = LitSTGNN(2, 11, 4, 5).double().eval()
    batch = batch._replace(x=batch.x.double(), edge_weight=batch.edge_weight.double())
    out = model(batch)
    mean, std = torch.randn(22).double(), torch.rand(22).double() + 0.5
    model.x_scaler.mean.copy_(mean)
    model.x_scaler.std.copy_(std)
    model.y_scaler.mean.copy_(mean[::2])
    model.y_scaler.std.copy_(std[::2])
    moved = batch.x * std.view(11, 2) + mean.view(11, 2)
    expected = out * std[::2] + mean[::2]
    torch.testing.assert_close(model(batch._replace(x=moved)), expected, rtol=0, atol=1e-11)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="in_features=2"):
        LitSTGNN(2, 11, 4, 5, mode="rolling")
    with pytest.raises(ValueError, match="hidden_size must be at least 1, got 0"):
        LitSTGNN(1, 11, 4, 5, hidden_size=0)


def river(num_windows, seed=0, scale=1.0):
    """Two sources of white noise and a mouth that is their sum a step later."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_windows + 4, 3, generator=generator).double()
    x[:, 1] *= scale
    x[1:, 2] = x[:-1, 0] + x[:-1, 1]
    rows = torch.arange(num_windows).unsqueeze(1)
    edges = torch.tensor([[0, 1], [2, 2]])
    windows = x[rows + torch.arange(3)].unsqueeze(-1)
    return GraphSeriesBatch(windows, x[rows + 3], edges, None)


class River:
    """What a datamodule publishes."""

    def __init__(self, scale=1.0):
        self.scale = scale

    @property
    def standardization(self):
        std = torch.tensor([1.0, self.scale, (1 + self.scale**2) ** 0.5]).double()
        scale = torch.zeros(3).double(), std
        return {"x_scaler": scale, "y_scaler": scale}

    def split(self, name):
        return river(300, {"train": 0, "val": 1}[name], self.scale)


def test_sources_of_a_directed_graph_are_heard():
    model = LitSTGNN(1, 3, 1, 3)
    nn.init.normal_(model.net.skip.lin.weight)
    batch = river(5)
    more = batch._replace(x=batch.x.clone())
    more.x[:, -1, :2] += 100
    model.take_scale(River())
    assert ((model(more) - model(batch))[..., 2].abs() > 1).all()


def test_autoregression_with_neighbours_forecasts_the_river():
    model = LitSTGNN(1, 3, 1, 3, autoregression=True)
    model.take_scale(River())
    error = (model(river(400, 2)) - river(400, 2).y).square().mean((0, 1))
    assert error[2] < 0.03
    assert (error[:2] < 1.2).all()


def test_neighbours_of_other_scales_add_up_in_units_of_the_data():
    model = LitSTGNN(1, 3, 1, 3, autoregression=True).double()
    model.take_scale(River(5.0))
    test = river(400, 2, 5.0)
    error = (model(test) - test.y).square().mean((0, 1))
    assert error[2] < 0.01 * test.y[..., 2].var()


def test_an_autoregression_of_neighbours_in_one_unit_is_read():
    old = {"weight": torch.randn(3, 8, 2), "bias": torch.randn(3, 1, 2)}
    model = NodeAutoregression(3, 4, 2)
    model.load_state_dict(old)
    own, near = torch.randn(2, 3, 5, 4)
    expected = torch.cat([own, near], dim=-1) @ old["weight"] + old["bias"]
    found = model(own, torch.cat([near, torch.randn(3, 5, 4)], dim=-1))
    torch.testing.assert_close(found, expected)


def test_the_network_starts_at_the_autoregression():
    model = LitSTGNN(1, 3, 1, 3, autoregression=True).eval()
    model.take_scale(River())
    start, network = model._parts(river(7))
    assert (network == 0).all()
    torch.testing.assert_close(model(river(7)), model.y_scaler.inverse(start))


def test_validation_never_ends_below_the_autoregression():
    model = LitSTGNN(1, 3, 1, 3, autoregression=True).eval()
    model.take_scale(River())
    nn.init.normal_(model.net.head.weight)
    val = River().split("val")
    start, network = model._parts(val)
    model._sum_over_ranks = lambda value: value
    model.log_dict = lambda *args, **kwargs: None
    model.validation_step(val, 0)
    model.on_validation_epoch_end()
    losses = [
        (model.y_scaler.inverse(start + s * network) - val.y).square().mean()
        for s in (0.0, 0.3, 0.7, 1.0)
    ]
    found = (model(val) - val.y).square().mean()
    assert all(found <= loss + 1e-6 for loss in losses)
    assert 0 <= model.network_share <= 1


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_the_start_is_no_worse_on_validation_than_any_rival(missing):
    """On short series whose nodes differ in scale, where a single choice is a gamble."""
    generator = torch.Generator().manual_seed(4)
    noise = torch.randn(40, 6, generator=generator).double()
    values = noise.cumsum(0) * 0.3 + noise + torch.arange(6)
    values = values * torch.tensor([1.0, 1, 5, 0.2, 30, 1])
    values[torch.rand(40, 6, generator=generator) < missing] = torch.nan
    frame = pd.DataFrame(values.numpy(), columns=list("abcdef"))
    edges = pd.DataFrame({"s": list("abcde"), "t": list("bcdef")})
    data = NodeSeriesDataModule(frame, edges, window=3, horizon=2)
    model = LitSTGNN(1, 6, 2, 3, autoregression=True)
    model.take_scale(data)
    train, val = data.split("train"), data.split("val")
    known = val.y.isfinite()
    found = (model(val) - val.y)[known].square().mean().item()
    rivals = forecasts(train, val, *data._scale)
    assert len(rivals) == 3
    for forecast in rivals.values():
        assert found <= (forecast - val.y)[known].square().mean().item() * (1 + 1e-6)


def test_shares_of_forecasts_are_the_least_squares_ones():
    errors = torch.randn(4, 50).double()
    errors[3] += 5
    shares = least_squares_shares(errors)
    assert shares.sum().item() == pytest.approx(1)
    assert (shares >= 0).all()
    loss = (shares @ errors).square().sum()
    for other in torch.distributions.Dirichlet(torch.ones(4).double()).sample((2000,)):
        assert loss <= (other @ errors).square().sum() + 1e-9
    assert least_squares_shares(torch.zeros(2, 5)).tolist() == [1, 0]


def test_errors_of_steps_ahead_are_the_formulas():
    metric = ForecastErrors(6, (3, 6, 12))
    preds, target = torch.randn(5, 6, 4).double(), torch.randn(5, 6, 4).double()
    target[0, 2, 1], target[1, 5] = torch.nan, 0.0
    metric.update(preds[:2], target[:2])
    metric.update(preds[2:], target[2:])
    found = metric.compute()
    error = preds - target
    assert set(found) == {
        *("mse", "mae", "mse_last_step"),
        *(f"{name}_step_{k}" for name in ("mae", "rmse", "mape") for k in (3, 6)),
    }
    torch.testing.assert_close(found["mse"], error.square().nanmean())
    torch.testing.assert_close(found["rmse_step_3"], error[:, 2].square().nanmean().sqrt())
    kept = target[:, 5] != 0
    share = 100 * (error[:, 5] / target[:, 5]).abs()[kept].mean()
    torch.testing.assert_close(found["mape_step_6"], share)
