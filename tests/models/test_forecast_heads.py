"""Heads, units and the linear start of series forecasters."""

import pytest
import torch

from datamodules.batches import SeriesBatch
from lit_models import LitRecurrentForecaster
from lit_models.families.forecast import chosen_share
from lit_models.layers.forecast_heads import QUANTILES, MixtureHead, QuantileHead
from lit_models.layers.series_units import LinearStart, ScaledWindows, SeriesUnits
from lit_models.layers.standardize import Standardize

B, T, D, K, H = 5, 6, 3, 2, 4
UNITS = ("start.reach", "start.stretch")


def test_the_pinball_loss_is_least_at_the_quantile():
    target = torch.randn(4001, 1, generator=torch.Generator().manual_seed(0)).double()
    head = QuantileHead().double()
    truth = target[:, 0].quantile(torch.tensor(QUANTILES).double())
    best = head.losses(truth.expand(4001, 1, -1), target).mean()
    for shift in (-0.05, 0.05):
        assert head.losses(truth.expand(4001, 1, -1) + shift, target).mean() > best
    params = torch.randn(B, H, len(QUANTILES))
    assert (head.quantiles(params, QUANTILES).diff(dim=-1) >= 0).all()
    with pytest.raises(ValueError, match="quantiles ascend and hold"):
        QuantileHead((0.5, 0.9))


def test_the_mixture_is_torchs():
    head = MixtureHead(3)
    params, target = torch.randn(B, H, 6).double(), torch.randn(B, H).double()
    normal = torch.distributions.Normal(params[..., :3], params[..., 3:].exp())
    weights = torch.distributions.Categorical(torch.ones(3).double())
    mixture = torch.distributions.MixtureSameFamily(weights, normal)
    torch.testing.assert_close(head.losses(params, target), -mixture.log_prob(target))
    torch.testing.assert_close(head.point(params), mixture.mean)
    levels = head.quantiles(params, [0.1, 0.9])
    torch.testing.assert_close(mixture.cdf(levels[..., 0]), torch.full((B, H), 0.1).double())


@pytest.mark.parametrize("power", [None, (0.0, 1.0, 1e-3), (0.5, 0.0, 1e-3)])
def test_units_return(power):
    units = SeriesUnits(power)
    y = torch.rand(B, H).double() * 1e6
    center, scale = torch.rand(2, B, D).double() + 1
    batch = SeriesBatch(torch.rand(B, T, D).double(), y, center=center, scale=scale)
    scaler = Standardize(1)
    there = units.target(batch, scaler, torch.float64)
    torch.testing.assert_close(units.restore(there, batch, scaler), y)
    wide = units.restore(there.unsqueeze(1), batch, scaler)
    torch.testing.assert_close(wide[:, 0], y)


def test_a_shift_of_the_series_shifts_the_linear_start():
    start = LinearStart(T * D + H * K, H).double()
    start.weight.normal_(), start.bias.normal_()
    x, known = torch.randn(B, T, D).double(), torch.randn(B, H, K).double()
    moved = x.clone()
    moved[..., 0] += 7
    base, there = start(ScaledWindows(x, known)), start(ScaledWindows(moved, known))
    torch.testing.assert_close(there, base + 7)


def forecaster(**options):
    model = LitRecurrentForecaster(
        D, H, T, hidden_size=8, num_series=2, num_known=K, ridge_start=True, linear_skip=True,
        residual=True, **options,
    )  # fmt: skip
    model.start.weight.normal_(0, 0.1)
    for scaler in (model.x_scaler, model.y_scaler):
        scaler.fit(torch.zeros(len(scaler.mean)), torch.ones(len(scaler.mean)))
    return model.eval()


def batch_of(mask=None):
    return SeriesBatch(
        torch.randn(B, T, D).double(), torch.randn(B, H).double(), mask,
        torch.randn(B, H, K).double(), torch.tensor([0, 0, 1, 1, -1]), torch.arange(B),
        naive_error=torch.ones(B).double(),
    )  # fmt: skip


@pytest.mark.parametrize("head", ["point", "quantile", "mixture"])
def test_a_forecaster_begins_at_its_linear_start(head):
    model, batch = forecaster(head=head, embedding_dim=2), batch_of()
    windows = model.units.windows(batch, model.x_scaler, torch.float32)
    expected = model.start(windows).double()
    preds = model(batch.x, batch.known, batch.series)
    torch.testing.assert_close(preds, expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("head", ["point", "quantile", "mixture"])
def test_what_a_network_adds_has_the_units_of_the_starts_errors(head):
    model, batch = forecaster(head=head), batch_of()
    with torch.no_grad():
        model.net.head.bias.normal_()
    first = model._parts(batch)[1]
    model.start.stretch.copy_(torch.arange(1.0, H + 1))
    ratio = model._parts(batch)[1] / first
    means = ratio[..., :3] if head == "mixture" else ratio
    torch.testing.assert_close(means, model.start.stretch[:, None].expand_as(means))
    if head == "mixture":
        torch.testing.assert_close(ratio[..., 3:], torch.ones(B, H, 3))
    model.start.reach.fill_(2.0)
    windows = model.units.windows(batch, model.x_scaler, torch.float32)
    seen = model._center(windows.x)[0]
    torch.testing.assert_close(seen[..., 0], (windows.x[..., 0] - windows.x[:, -1:, 0]) / 2)
    torch.testing.assert_close(seen[..., 1:], windows.x[..., 1:])


def test_a_checkpoint_without_units_keeps_what_it_said():
    model = forecaster()
    model.start.reach.fill_(3.0), model.start.stretch.fill_(5.0)
    state = {k: v for k, v in model.state_dict().items() if k not in UNITS}
    checkpoint = {"state_dict": state}
    model.on_load_checkpoint(checkpoint)
    model.load_state_dict(checkpoint["state_dict"])
    assert (model.start.reach == 1).all()
    assert (model.start.stretch == 1).all()


def test_the_share_of_the_start_is_the_best_on_validation():
    model, batch = forecaster(), batch_of()
    with torch.no_grad():
        model.net.head.bias.normal_()
    start, change = (part.detach() for part in model._parts(batch))
    model._trainer = None
    model._sum_over_ranks = lambda value: value
    share = model._best_blend([(start, change, batch)])
    losses = {b: (start + b * change - batch.y.unsqueeze(-1)).square().mean() for b in (0.0, 1.0)}
    chosen = (start + share * change - batch.y.unsqueeze(-1)).square().mean()
    assert chosen <= min(losses.values()) + 1e-9


def test_masked_targets_neither_teach_nor_score():
    mask = torch.rand(B, H) > 0.4
    model, batch = forecaster(), batch_of(mask)
    other = batch._replace(y=torch.where(mask, batch.y, 1e9))
    first, second = model.step(batch), model.step(other)
    torch.testing.assert_close(first.loss, second.loss)
    assert first.num_targets == mask.sum()
    model.update_metrics(model.test_metrics, second)
    error = (first.preds - batch.y)[mask].square().mean()
    torch.testing.assert_close(model.test_metrics.compute()["test/mse"], error)


def test_an_unknown_series_reads_zeros():
    model, batch = forecaster(embedding_dim=2), batch_of()
    assert (model.embedding(torch.zeros(1).long()) == 0).all()
    assert model.predict_step(batch)["lower_95"].shape == (B, H)


def blends(gains, noise):
    """Losses of 400 windows whose correction gains so much at its best share, one half."""
    share = torch.arange(21.0).double() / 20
    generator = torch.Generator().manual_seed(0)
    effect = gains + noise * torch.randn(400, 1, generator=generator).double()
    return 1 - effect * share + gains * share**2, torch.ones(400)


def test_a_gain_that_chance_explains_adds_nothing():
    losses, count = blends(0.1, 0.0)
    assert chosen_share(losses, count) == 10
    losses, count = blends(0.1, 0.5)  # four standard errors
    assert 7 <= chosen_share(losses, count) <= int(losses.mean(0).argmin())
    losses, count = blends(0.1, 0.5)
    chance = losses.clone()
    chance[:, 1:] = 1 + 5 * torch.randn(400, 1, generator=torch.Generator().manual_seed(3))
    chance[:, 10] -= chance[:, 10].mean() - 0.99  # a gain of a hundredth in noise of five
    assert chosen_share(chance, count) == 0
    assert chosen_share(blends(-0.1, 0.0)[0], count) in (0, 20)
    assert chosen_share(losses[:1], count[:1]) == int(losses[0].argmin())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"mode": "rolling", "head": "quantile"}, "a rolling forecast feeds back the values"),
        ({"head": "mixture", "target_power": (0.0, 1.0, 1e-3)}, "no closed form"),
        ({"embedding_dim": 2}, "needs data with several series"),
        (
            {"in_features": 2, "num_targets": 2, "mode": "rolling"},
            "feeds back the values of its one",
        ),
    ],
)
def test_contradictions(options, message):
    with pytest.raises(ValueError, match=message):
        LitRecurrentForecaster(**({"in_features": 1, "horizon": H, "window": T} | options))
