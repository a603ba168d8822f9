"""Schedules, the forward law, and sampler steps: diffusers and conditioning as oracles."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

from lit_models.layers.gaussian_diffusion import GaussianDiffusion, StepSampler, cosine_betas

T = 97
DIFFUSERS = {"linear": "linear", "cosine": "squaredcos_cap_v2"}


def ddpm_scheduler(schedule, variance="fixed_large", prediction="epsilon"):
    return DDPMScheduler(
        T,
        beta_schedule=DIFFUSERS[schedule],
        variance_type=variance,
        prediction_type=prediction,
        clip_sample=False,
        timestep_spacing="linspace",
    )


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_schedules_against_diffusers(schedule):
    ours = GaussianDiffusion(T, schedule)
    theirs = ddpm_scheduler(schedule)
    # diffusers keeps its schedules in single precision.
    torch.testing.assert_close(ours.betas.float(), theirs.betas, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(
        ours.alphas_cumprod.float(), theirs.alphas_cumprod, rtol=1e-4, atol=1e-7
    )
    assert ours.betas.dtype == ours.sqrt_one_minus_alphas_cumprod.dtype == torch.float64


def test_cosine_schedule_has_the_levels_of_the_paper():
    levels = (1 - cosine_betas(1000)).cumprod(0)
    for t in (0, 499, 900):
        share = ((t + 1) / 1000 + 0.008) / 1.008
        start = math.cos(0.008 / 1.008 * math.pi / 2) ** 2
        assert levels[t].item() == pytest.approx(math.cos(share * math.pi / 2) ** 2 / start)


def test_forward_moments_by_walking_the_chain():
    diffusion = GaussianDiffusion(7, betas=[0.1, 0.2, 0.05, 0.3, 0.15, 0.4, 0.25])
    mean, variance = 1.0, 0.0  # of x_t given x_0 = 1
    for t in range(7):
        keep = 1 - diffusion.betas[t].item()
        mean, variance = math.sqrt(keep) * mean, keep * variance + diffusion.betas[t].item()
        one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
        step = torch.tensor([t])
        assert diffusion.q_sample(one, step, zero).item() == pytest.approx(mean, rel=1e-12)
        std = diffusion.q_sample(zero, step, one).item()
        assert std**2 == pytest.approx(variance, rel=1e-12)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_posterior_by_conditioning_gaussians(schedule):
    """x_{t-1} given (x_t, x_0) from the joint Gaussian of the two noised values."""
    diffusion = GaussianDiffusion(T, schedule)
    steps = diffusion.ancestral("posterior")
    x0, x_t = 0.7, -1.3
    for i, t in enumerate(steps.t.tolist()[:-1]):
        before, beta = diffusion.alphas_cumprod[t - 1].item(), diffusion.betas[t].item()
        prior_mean, prior_var = math.sqrt(before) * x0, 1 - before
        cross, total = math.sqrt(1 - beta) * prior_var, (1 - beta) * prior_var + beta
        mean = prior_mean + cross / total * (x_t - math.sqrt(1 - beta) * prior_mean)
        variance = prior_var - cross**2 / total
        level = diffusion.alphas_cumprod[t].item()
        noise = (x_t - math.sqrt(level) * x0) / math.sqrt(1 - level)
        assert (steps.x[i] * x_t + steps.noise[i] * noise).item() == pytest.approx(mean, abs=1e-9)
        assert steps.std[i].item() ** 2 == pytest.approx(variance, rel=1e-9)
    assert steps.std[-1] == 0


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize(
    ("variance", "theirs"), [("beta", "fixed_large"), ("posterior", "fixed_small")]
)
@pytest.mark.parametrize(
    ("prediction", "type_"), [("noise", "epsilon"), ("x0", "sample"), ("v", "v_prediction")]
)
def test_ancestral_steps_against_diffusers(schedule, variance, theirs, prediction, type_):
    ours = GaussianDiffusion(T, schedule)
    scheduler = ddpm_scheduler(schedule, theirs, type_)
    scheduler.betas, scheduler.alphas = ours.betas, 1 - ours.betas
    scheduler.alphas_cumprod = ours.alphas_cumprod
    scheduler.one = torch.tensor(1.0, dtype=torch.float64)
    steps = ours.for_output(ours.ancestral(variance), prediction)
    x, output = torch.randn(2, 5, 3, dtype=torch.float64)
    for i, t in enumerate(steps.t.tolist()):
        generator = torch.Generator().manual_seed(i)
        expected = scheduler.step(output, t, x, generator=generator).prev_sample
        z = torch.randn(x.shape, generator=generator.manual_seed(i), dtype=x.dtype)
        got = steps.x[i] * x + steps.noise[i] * output + steps.std[i] * z
        # The last steps of the cosine schedule divide by a level of 1e-6.
        torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("count", [1, 13, T])
def test_ddim_steps_against_diffusers(eta, count):
    ours = GaussianDiffusion(T)
    steps = ours.ddim(eta, count)
    assert steps.t[0] == T - 1
    assert count == 1 or steps.t[-1] == 0
    # The visited steps are themselves a process, of which diffusers takes every step.
    scheduler = DDIMScheduler(count, clip_sample=False, set_alpha_to_one=True)
    scheduler.set_timesteps(count)
    scheduler.alphas_cumprod = ours.alphas_cumprod[steps.t.flip(0)]
    scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    x, output, z = torch.randn(3, 5, 3, dtype=torch.float64)
    for i in range(count):
        expected = scheduler.step(output, count - 1 - i, x, eta=eta, variance_noise=z).prev_sample
        got = steps.x[i] * x + steps.noise[i] * output + steps.std[i] * z
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("count", [1, 2, 13, T])
@pytest.mark.parametrize("prediction", ["noise", "x0", "v"])
def test_dpm_solver_steps_against_diffusers(schedule, count, prediction):
    ours = GaussianDiffusion(T, schedule)
    steps = ours.for_output(ours.dpm_solver(count), prediction)
    names = {"noise": "epsilon", "x0": "sample", "v": "v_prediction"}
    scheduler = DPMSolverMultistepScheduler(
        T, prediction_type=names[prediction], final_sigmas_type="zero"
    )
    scheduler.set_timesteps(count)
    scheduler.timesteps = steps.t
    level = ours.alphas_cumprod[steps.t]
    scheduler.sigmas = torch.cat([((1 - level) / level).sqrt(), level.new_zeros(1)])
    scheduler.num_inference_steps = count
    x = torch.randn(5, 3, dtype=torch.float64)
    x0_x, x0_output = ours.x0_factors(steps.t, prediction)
    memory = torch.zeros_like(x)
    outputs = torch.randn(count, 5, 3, dtype=torch.float64)
    for i, t in enumerate(steps.t):
        theirs = scheduler.step(outputs[i], t, x).prev_sample  # in single precision
        predicted = x0_x[i] * x + x0_output[i] * outputs[i]
        moved = steps.x[i] * x + steps.noise[i] * outputs[i] + steps.memory[i] * memory
        x, memory = moved, predicted
        torch.testing.assert_close(x, theirs, rtol=1e-6, atol=1e-6 * predicted.abs().max().item())


def test_steps_spread_as_squares_are_distinct():
    for count in (2, 20, 50, 60, T):
        t = GaussianDiffusion(T).dpm_solver(count).t
        assert t[0] == T - 1
        assert t[-1] == 0
        assert (t.diff() < 0).all()
    assert (
        GaussianDiffusion(1000).dpm_solver(4).t - torch.tensor([999, 444, 111, 0])
    ).abs().max() < 1


@pytest.mark.parametrize("prediction", ["noise", "x0", "v"])
def test_min_snr_weights_the_error_of_x0(prediction):
    diffusion = GaussianDiffusion(T)
    x0, noise, error = torch.randn(3, T, 4, dtype=torch.float64)
    t = torch.arange(T)
    x_t = diffusion.q_sample(x0, t, noise)
    target = diffusion.target(x0, noise, t, prediction)
    a, b = (factor[:, None] for factor in diffusion.x0_factors(t, prediction))
    torch.testing.assert_close(a * x_t + b * target, x0, rtol=1e-8, atol=1e-8)
    weights = diffusion.min_snr_weights(5.0, prediction)[:, None]
    snr = (diffusion.alphas_cumprod / (1 - diffusion.alphas_cumprod))[:, None]
    torch.testing.assert_close(
        weights * error.square(), snr.clamp(max=5.0) * (b * error).square(), rtol=1e-8, atol=0
    )


def test_ddim_with_eta_1_over_all_steps_is_the_ancestral_sampler():
    diffusion = GaussianDiffusion(T, "cosine")
    for one, other in zip(diffusion.ddim(eta=1.0), diffusion.ancestral("posterior"), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("prediction", ["noise", "x0", "v"])
def test_outputs_stand_for_the_noise(prediction):
    diffusion = GaussianDiffusion(T)
    x0, noise = torch.randn(2, 11, 3, dtype=torch.float64)
    t = torch.arange(11) * 8
    x_t = diffusion.q_sample(x0, t, noise)
    output = diffusion.target(x0, noise, t, prediction)
    torch.testing.assert_close(
        diffusion.to_noise(output, x_t, t, prediction), noise, rtol=1e-10, atol=1e-11
    )


def test_narrow_types_keep_the_noise_level():
    levels = GaussianDiffusion(1000).to(torch.bfloat16).sqrt_one_minus_alphas_cumprod
    assert levels[0].item() == pytest.approx(0.01, rel=4e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps"),
        ({"betas": [0.1, 1.0]}, "got 1"),
        ({"betas": []}, "got none"),
        ({"beta_end": 1.5}, "between 0 and 1"),
    ],
)
def test_wrong_schedules(options, message):
    with pytest.raises(ValueError, match=message):
        GaussianDiffusion(**options)


def test_too_many_sampler_steps():
    with pytest.raises(ValueError, match="num_sample_steps"):
        GaussianDiffusion(10).ddim(num_sample_steps=11)


def test_importance_sampling_is_unbiased_and_follows_the_loss():
    steps = StepSampler(5, importance=True)
    loss = torch.tensor([4.0, 1.0, 0.5, 2.0, 0.25])
    uniform = (torch.arange(1000) + 0.5) / 1000
    t, weights = steps(uniform)
    assert weights is None  # uniform until every step has ten losses
    torch.testing.assert_close(torch.bincount(t), torch.full((5,), 200))
    steps.update(t, loss[t], lambda v: v)
    uniform = (torch.arange(100_000) + 0.5) / 100_000
    t, weights = steps(uniform)
    assert (weights * loss[t]).mean().item() == pytest.approx(loss.mean().item(), rel=1e-3)
    shares = torch.bincount(t) / len(t)
    torch.testing.assert_close(shares, loss / loss.sum(), rtol=3e-3, atol=1e-3)
    # With shares in proportion to the loss all weighted losses are equal: no variance left.
    assert (weights * loss[t]).std() < 0.02 * loss.mean()
