"""The best linear prediction of the noise: conditioning of Gaussians as its oracle."""

import pytest
import torch
from sklearn.covariance import ledoit_wolf

from datamodules import ArrayDataModule
from datamodules.laws import linear_denoiser
from datamodules.laws.linear_denoiser import LinearDenoiser
from datamodules.laws.mixture_law import MixtureLaw


def levels(count):
    return torch.linspace(0.001, 0.999, count, dtype=torch.float64)


def test_it_is_the_exact_prediction_of_a_gaussian():
    """E[noise | x_t] by the joint covariance of the two, which the class never forms."""
    torch.manual_seed(0)
    rows = torch.randn(500, 4).double() @ torch.randn(4, 4).double() + torch.arange(4.0)
    denoiser = LinearDenoiser(lambda: iter(rows.split(70)), (4,))
    covariance, share = ledoit_wolf(rows.numpy())
    assert share > 0.003
    mean, covariance = rows.mean(0), torch.from_numpy(covariance)
    x_t, level = torch.randn(9, 4).double(), levels(9)
    for x, alpha, found in zip(x_t, level, denoiser.noise(x_t, level), strict=True):
        total = alpha * covariance + (1 - alpha) * torch.eye(4).double()
        expected = (1 - alpha).sqrt() * torch.linalg.solve(total, x - alpha.sqrt() * mean)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_it_agrees_with_the_law_of_one_gaussian():
    law = MixtureLaw(*(torch.tensor(v).double() for v in ([1.0], [[3.0]], [[2.0]])))
    denoiser = LinearDenoiser(lambda: iter([law.quantiles(20_000)[:, None]]), (1,))
    x_t, level = torch.randn(50, 1).double(), levels(50)
    expected = law.noise(x_t, level)
    torch.testing.assert_close(denoiser.noise(x_t, level), expected, rtol=2e-3, atol=2e-3)


def test_waves_are_the_principal_axes_of_pictures_that_know_no_place(monkeypatch):
    """All shifts of a picture have a covariance that waves diagonalise; colours are turned."""
    torch.manual_seed(0)
    first, second = torch.randn(2, 3, 4).double() * torch.tensor([3.0, 1.0])[:, None, None]
    places = [(i, j) for i in range(3) for j in range(4)]
    rows = torch.stack(
        [
            torch.stack([first.roll(a, (0, 1)), second.roll(b, (0, 1))])
            for a in places
            for b in places
        ]
    )
    angle = torch.tensor(0.6).double()
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
    rows = torch.einsum("kc,bchw->bkhw", turn, rows) + 5.0
    x_t, level = torch.randn(7, 2, 3, 4).double(), levels(7)
    monkeypatch.setattr(linear_denoiser, "_shrunk", lambda variances, fourth, count: variances)
    principal = LinearDenoiser(lambda: iter(rows.split(50)), (2, 3, 4))
    monkeypatch.setattr(linear_denoiser, "_MAX_PRINCIPAL", 10)
    waves = LinearDenoiser(lambda: iter(rows.split(50)), (2, 3, 4))
    assert waves.variances.shape == (2, 3, 4)
    expected = principal.noise(x_t, level)
    torch.testing.assert_close(waves.noise(x_t, level), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("shape", [(6, 6), (36,)])
def test_few_rows_do_not_make_it_sure_of_many_axes(monkeypatch, shape):
    """Twelve rows vary along eleven axes, and others of the same law along all."""
    monkeypatch.setattr(linear_denoiser, "_MAX_PRINCIPAL", 40 if len(shape) == 1 else 10)
    shape = (1, *shape) if len(shape) == 2 else shape
    rows, others, noise = torch.randn(3, 12, *shape).double()
    level = torch.full((12,), 0.99, dtype=torch.float64)
    noised = 0.99**0.5 * others + 0.1 * noise
    found = LinearDenoiser(lambda: iter([rows]), shape).noise(noised, level)
    assert (found - noise).square().mean() < 1.2


def test_its_rows_are_standardised_and_long_vectors_have_none():
    rows = 1e9 + 7 * torch.randn(300, 3, generator=torch.Generator().manual_seed(0)).double()
    data = ArrayDataModule(rows.numpy())
    denoiser = data.linear_denoiser(*data.standardization["x_scaler"])
    assert denoiser.mean.abs().max() < 1e-6
    assert denoiser.variances.sum().item() == pytest.approx(3, rel=1e-6)
    wide = ArrayDataModule(torch.randn(20, 1500).numpy())
    assert wide.linear_denoiser(*wide.standardization["x_scaler"]) is None
