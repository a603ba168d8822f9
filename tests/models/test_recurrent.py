"""Recurrent cells by their equations, what a summary has seen, and the ways to forecast."""

import pytest
import torch
from torch.nn import functional as F

from datamodules.batches import SeriesBatch
from lit_models.recurrent import LitRecurrentForecaster, RecurrentEncoder, RecurrentForecaster
from lit_models.weights.checkpoints import check_compatible

B, T, D, W, H = 3, 7, 2, 5, 4


def rnn(w, u, b, x, state):
    return torch.tanh(x @ w.T + state @ u.T + b[0] + b[1]), None


def lstm(w, u, b, x, state, cell):
    i, f, g, o = (x @ w.T + state @ u.T + b[0] + b[1]).chunk(4, dim=-1)
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


def gru(w, u, b, x, state):
    r, z, n = (x @ w.T + b[0]).chunk(3, dim=-1)
    r_u, z_u, n_u = (state @ u.T + b[1]).chunk(3, dim=-1)
    r, z = (r + r_u).sigmoid(), (z + z_u).sigmoid()
    candidate = torch.tanh(n + r * n_u)
    return (1 - z) * candidate + z * state, None


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_cells_follow_their_equations(kind):
    encoder = RecurrentEncoder(D, W, kind).double()
    cell = encoder.cell
    w, u = cell.weight_ih_l0, cell.weight_hh_l0
    b = (cell.bias_ih_l0, cell.bias_hh_l0)
    x = torch.randn(B, T, D).double()
    state, carried = torch.zeros(B, W).double(), torch.zeros(B, W).double()
    expected = []
    for t in range(T):
        if kind == "lstm":
            state, carried = lstm(w, u, b, x[:, t], state, carried)
        else:
            state, _ = {"rnn": rnn, "gru": gru}[kind](w, u, b, x[:, t], state)
        expected.append(state)
    states, summary = encoder(x)
    torch.testing.assert_close(states, torch.stack(expected, dim=1))
    torch.testing.assert_close(summary, state)


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_unrolled_equals_fused(kind):
    encoder = RecurrentEncoder(D, W, kind, num_layers=2).double()
    x = torch.randn(B, T, D).double()
    states, summary, carried = encoder.unroll(x)
    torch.testing.assert_close((states, summary), encoder(x))
    assert len(carried) == T
    assert carried[0][0].shape == (2, B, W)


def test_rnn_state_gradients_are_products_of_jacobians():
    """Pascanu et al. (2013): dL/ds_t = dL/ds_T prod_k diag(1 - s_k^2) W_s."""
    model = LitRecurrentForecaster(D, 1, T, cell="rnn", hidden_size=W).double()
    batch = SeriesBatch(torch.randn(B, T, D).double(), torch.randn(B, 1).double())
    w_s = model.net.encoder.cell.weight_hh_l0
    states, summary = model.net.encoder(batch.x)
    residual = 2 * (model.net.head(summary) - batch.y)
    gradient = residual * model.net.head.weight
    expected = [gradient.norm(dim=1).mean()]
    for t in range(T - 1, 0, -1):
        gradient = (gradient * (1 - states[:, t] ** 2)) @ w_s
        expected.append(gradient.norm(dim=1).mean())
    torch.testing.assert_close(model.state_gradients(batch), torch.stack(expected))


def test_a_contracting_rnn_forgets_and_an_expanding_one_explodes():
    batch = SeriesBatch(0.01 * torch.randn(B, 40, 1), torch.randn(B, 1))
    ratios = []
    for scale in (0.5, 2.0):
        model = LitRecurrentForecaster(1, 1, 40, cell="rnn", hidden_size=W)
        with torch.no_grad():
            model.net.encoder.cell.weight_hh_l0.copy_(scale * torch.eye(W))
            model.net.encoder.cell.bias_ih_l0.zero_()
            model.net.encoder.cell.bias_hh_l0.zero_()
            model.net.encoder.cell.weight_ih_l0.mul_(1e-12)
        norms = model.state_gradients(batch)
        ratios.append((norms[-1] / norms[0]).item())
    assert ratios[0] == pytest.approx(0.5**39, rel=1e-3)
    assert ratios[1] == pytest.approx(2.0**39, rel=1e-3)


def test_a_bidirectional_summary_has_seen_the_whole_window():
    encoder = RecurrentEncoder(1, 6, "gru", bidirectional=True)
    x = torch.randn(1, T, 1, requires_grad=True)
    for half in encoder(x)[1][0].chunk(2):
        (gradient,) = torch.autograd.grad(half.sum(), x, retain_graph=True)
        assert (gradient[0, :, 0] != 0).all()
    with pytest.raises(ValueError, match="bidirectional hidden_size must be even, got 5"):
        RecurrentEncoder(1, 5, bidirectional=True)


def test_attention_by_its_formula():
    net = RecurrentForecaster(RecurrentEncoder(1, W), W, 1, attention=True).double()
    layer = net.attention
    states, summary = torch.randn(B, T, W).double(), torch.randn(B, W).double()
    forecast, weights = net.read_out(states, summary)
    for n in range(B):
        energy = torch.stack(
            [
                layer.energy.weight[0]
                @ torch.tanh(
                    layer.key.weight @ states[n, t]
                    + layer.query.weight @ summary[n]
                    + layer.query.bias
                )
                for t in range(T)
            ]
        )
        alpha = energy.exp() / energy.exp().sum()
        torch.testing.assert_close(weights[n], alpha)
        context = (alpha[:, None] * states[n]).sum(0)
        torch.testing.assert_close(forecast[n], net.head(torch.cat([summary[n], context])))


def test_an_old_checkpoint_of_the_attention_is_read(tmp_path):
    model, fresh = (
        LitRecurrentForecaster(1, H, T, hidden_size=W, attention=True) for _ in range(2)
    )
    name = "net.attention.energy.weight"
    old = {key.replace("energy", "score"): value for key, value in model.state_dict().items()}
    assert name not in old
    checkpoint = {"state_dict": old, "current_model_state": dict(old)}
    check_compatible(tmp_path / "best.ckpt", checkpoint, fresh)
    fresh.on_load_checkpoint(checkpoint)
    for state in checkpoint.values():
        fresh.load_state_dict(state)
    assert torch.equal(fresh.state_dict()[name], model.state_dict()[name])


def test_rolling_forecast_feeds_back_its_own_steps():
    rolling = LitRecurrentForecaster(1, H, T, hidden_size=W, mode="rolling", residual=True)
    one = LitRecurrentForecaster(1, 1, T, hidden_size=W, residual=True)
    one.load_state_dict(rolling.state_dict())
    start = torch.randn(B, T, 1)
    preds, steps = rolling(start), []
    for _ in range(H):
        steps.append(one(start))
        start = torch.cat([start[:, 1:], steps[-1].unsqueeze(-1)], dim=1)
    torch.testing.assert_close(preds, torch.cat(steps, dim=1))
    with pytest.raises(ValueError, match="rolling forecast feeds back the values of its one"):
        LitRecurrentForecaster(2, H, T, mode="rolling")


def test_residual_and_skip_start_from_the_last_value():
    model = LitRecurrentForecaster(1, H, T, hidden_size=W, residual=True, linear_skip=True)
    with torch.no_grad():
        model.net.head.weight.zero_()
        model.net.head.bias.zero_()
        model.skip.bias.zero_()
    model.x_scaler.mean.fill_(3.0)
    model.x_scaler.std.fill_(2.0)
    model.y_scaler.mean.fill_(3.0)
    model.y_scaler.std.fill_(2.0)
    x = torch.randn(B, T, 1)
    torch.testing.assert_close(model(x), x[:, -1].expand(B, H).double())


def test_auxiliary_steps_shape_the_loss_alone():
    model = LitRecurrentForecaster(1, H, T, hidden_size=W, num_auxiliary=3)
    x, y = torch.randn(B, T, 1), torch.randn(B, H + 3)
    output = model.step(SeriesBatch(x, y))
    forecast = model.params(SeriesBatch(x, y))[..., 0]
    torch.testing.assert_close(output.loss, F.mse_loss(forecast, y))
    assert output.preds.shape == output.target.shape == (B, H)
    evaluation = model.step(SeriesBatch(x, y[:, :H]))
    torch.testing.assert_close(evaluation.loss, F.mse_loss(model(x).float(), y[:, :H]))
