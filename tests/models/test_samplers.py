"""Laws of the samplers; the exact prediction is the oracle."""

import math

import pytest
import torch
from torch import nn

from datamodules import GaussianMixtureDataModule, MixtureLaw
from datamodules.laws.mixture_law import gaussian_after_sampling
from lit_models import DDPM, GaussianDiffusion, LitDDPM
from lit_models.layers.shared_noise import SharedNoise


def law(mean, std):
    parts = ([1.0], [[mean]], [[std]])
    return MixtureLaw(*(torch.tensor(v, dtype=torch.float64) for v in parts))


class Exact(nn.Module):
    """The network that knows the law, for samples as they are."""

    def __init__(self, true, levels):
        super().__init__()
        self.law, self.levels = true, levels

    def forward(self, x, t, y):
        return self.law.noise(x, self.levels[t].expand(len(x))).to(x.dtype)


def with_exact_network(true, sampler="ancestral", num_steps=1000, beta_end=0.02, **options):
    diffusion = GaussianDiffusion(num_steps, beta_end=beta_end)
    steps = getattr(diffusion, sampler)(**options)
    return DDPM(Exact(true, diffusion.alphas_cumprod), diffusion, (1,), sampler_steps=steps)


def draws(seed, num_rows):
    return SharedNoise(seed, num_rows, 0, 1, torch.device("cpu"))


@pytest.mark.parametrize(
    ("options", "mean", "std"),
    [
        # The exact laws of the samplers, by a recursion of moments in another program.
        ({"variance": "beta"}, 2.9995, 1.9976),
        ({"variance": "posterior"}, 2.9995, 1.9937),
        ({"sampler": "ddim"}, 2.9619, 1.9969),
        ({"sampler": "ddim", "num_sample_steps": 50}, 2.9630, 1.9395),
    ],
)
def test_optimal_sampler_law(options, mean, std):
    model = with_exact_network(law(3.0, 2.0), **options)
    levels = model.diffusion.alphas_cumprod
    exact = gaussian_after_sampling(3.0, 2.0, model.sampler_steps, levels)
    assert exact == pytest.approx((mean, std), abs=6e-5)
    grid, cdf = law(3.0, 2.0).sampled(model.sampler_steps, levels)
    assert (cdf - law(*exact).cdf(grid)).abs().max() < 2e-5
    if len(model.sampler_steps.t) == 50 or options == {"variance": "beta"}:
        samples = model.sample(4000, draws=draws(1, 4000), dtype=torch.float64)
        assert samples.mean().item() == pytest.approx(mean, abs=4 * std / math.sqrt(4000))
        assert samples.std().item() == pytest.approx(std, abs=4 * std / math.sqrt(8000))


class Impulses:
    """Noise in which row k has a one at the k-th draw and the last row none at all."""

    def __init__(self, num_rows):
        self.num_rows, self.count = num_rows, 0

    def normal(self, shape, dtype):
        noise = torch.zeros(self.num_rows, *shape, dtype=dtype)
        if self.count < self.num_rows - 1:
            noise[self.count] = 1.0
        self.count += 1
        return noise


@pytest.mark.parametrize(
    ("sampler", "options"),
    [
        ("ancestral", {"variance": "beta", "num_sample_steps": 60}),
        ("ancestral", {"variance": "posterior", "num_sample_steps": 60}),
        ("ancestral", {"variance": "beta", "spacing": "quadratic", "num_sample_steps": 20}),
        *[("ddim", {"eta": eta, "num_sample_steps": 50}) for eta in (0.0, 0.4, 1.0)],
        ("dpm_solver", {"num_sample_steps": 20}),
        ("dpm_solver", {"num_sample_steps": 7, "spacing": "even"}),
    ],
)
def test_every_sampler_has_its_law_exactly(sampler, options):
    """With the exact prediction of a Gaussian a sampler is linear in its noise."""
    model = with_exact_network(law(3.0, 2.0), sampler, **options)
    steps = model.sampler_steps
    num_draws = 1 + int((steps.std > 0).sum())
    impulses = Impulses(num_draws + 1)
    *responses, mean = model.sample(num_draws + 1, draws=impulses, dtype=torch.float64)[:, 0]
    assert impulses.count == num_draws
    variance = sum((response - mean).square() for response in responses)
    expected = gaussian_after_sampling(3.0, 2.0, steps, model.diffusion.alphas_cumprod)
    assert (mean.item(), variance.sqrt().item()) == pytest.approx(expected, abs=1e-9)


def test_sampler_law_of_a_mixture():
    data = GaussianMixtureDataModule()
    model = with_exact_network(data.law, num_steps=200, beta_end=0.1)
    grid, cdf = data.law.sampled(model.sampler_steps, model.diffusion.alphas_cumprod)
    samples = model.sample(20_000, draws=draws(3, 20_000), dtype=torch.float64)[:, 0].sort().values
    at = torch.searchsorted(samples, grid) / len(samples)
    assert (at - cdf).abs().max() < 1.63 / math.sqrt(len(samples))  # Kolmogorov, 1 %
    distance = torch.trapezoid((cdf - data.law.cdf(grid)).abs(), grid)
    assert 0 < distance < 0.02


@pytest.mark.parametrize(("count", "spacing"), [(20, "quadratic"), (50, "quadratic"), (20, "even")])
def test_dpm_solver_law(count, spacing):
    """The law by following samples, by moments, and by the sampler itself."""
    model = with_exact_network(law(3.0, 2.0), "dpm_solver", num_sample_steps=count, spacing=spacing)
    levels = model.diffusion.alphas_cumprod
    mean, std = gaussian_after_sampling(3.0, 2.0, model.sampler_steps, levels)
    grid, cdf = law(3.0, 2.0).sampled(model.sampler_steps, levels)
    assert (cdf - law(mean, std).cdf(grid)).abs().max() < 1e-6
    start = draws(1, 4000).normal((1,), torch.float64)
    samples = model.sample(4000, draws=draws(1, 4000), dtype=torch.float64)
    assert samples.std() / start.std() == pytest.approx(std, rel=1e-9)
    offset = mean + std * start.mean()
    assert samples.mean().item() == pytest.approx(offset.item(), rel=1e-9)


def test_twenty_steps_of_dpm_solver_beat_fifty_of_ddim():
    true = GaussianMixtureDataModule().law
    true = true.standardized(true.mean, true.std)

    def distance(sampler, count):
        model = with_exact_network(true, sampler, num_sample_steps=count)
        grid, cdf = true.sampled(model.sampler_steps, model.diffusion.alphas_cumprod)
        return torch.trapezoid((cdf - true.cdf(grid)).abs(), grid)

    assert distance("dpm_solver", 20) < 0.5 * distance("ddim", 50)
    # of second order: half the step, a quarter of the error, and a little more
    assert distance("dpm_solver", 40) < 0.35 * distance("dpm_solver", 20)


def test_ddim_eta_1_draws_the_samples_of_the_ancestral_sampler():
    options = {"sample_shape": (3,), "num_classes": 0, "num_steps": 53, "hidden_size": 11}
    ancestral = LitDDPM(**options, variance="posterior").double()
    ddim = LitDDPM(**options, sampler="ddim", eta=1.0).double()
    nn.init.normal_(ancestral.denoiser.outer.weight, std=0.1)
    ddim.load_state_dict(ancestral.state_dict())
    torch.testing.assert_close(ancestral.sample(7, seed=5), ddim.sample(7, seed=5))
