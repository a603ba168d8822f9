r"""The diffusion process of DDPM: noise schedules, the law of a noised sample, sampler steps.

.. math::
    q(x_t \mid x_{t-1}) = \mathcal N(\sqrt{1 - \beta_t}\, x_{t-1}, \beta_t I), \qquad
    x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon, \qquad
    \bar\alpha_t = \prod_{s \le t} (1 - \beta_s)

Ho et al., "Denoising Diffusion Probabilistic Models" (2020); cosine schedule: Nichol and Dhariwal
(2021), like importance-sampled steps; DDIM: Song et al. (2021); v: Salimans and Ho (2022);
DPM-Solver++: Lu et al. (2022); min-SNR weights: Hang et al. (2023). Deviations:

* Steps count from 0 to T - 1, the paper's from 1 to T; :math:`\bar\alpha_{-1} = 1`.
* Every sampler is a list of affine steps
  :math:`x \leftarrow a x + b\, \epsilon_\theta + c\, m + s z` whose coefficients are computed once,
  in float64; m is the :math:`x_0` predicted one step before, which DPM-Solver++ alone looks back
  at. A sampler over fewer than T steps visits the first and the last of them and others between,
  with :math:`1 - \bar\alpha_t / \bar\alpha_{t'}` in the place of :math:`\beta_t`, where
  :math:`t'` is the step it visits next.
* DPM-Solver++ visits steps spread as squares by default (appendix D of Song et al.): with evenly
  spread ones its first steps are too long for its order, and its last one too short.
* Importance-sampled steps keep a running mean of each step's squared loss, not its last ten values.

Shape letters: B batch, T steps of the process, S steps of a sampler.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

Schedule = Literal["linear", "cosine"]
Prediction = Literal["noise", "x0", "v"]
Variance = Literal["beta", "posterior"]
Spacing = Literal["even", "quadratic"]
Sampler = Literal["ancestral", "ddim", "dpm_solver"]


class SamplerSteps(NamedTuple):
    r"""Affine steps :math:`x \leftarrow a x + b\, \epsilon_\theta(x, t) + c\, m + s z`, in order.

    Attributes:
        t: Step of the process at which the noise is predicted, ``(S,)``.
        x: Factor a of the sample, ``(S,)``.
        noise: Factor b of the predicted noise, ``(S,)``.
        std: Standard deviation s of the fresh noise, ``(S,)``; 0 at the last step.
        memory: Factor c of the :math:`x_0` predicted at the step before, ``(S,)``.
    """

    t: Tensor
    x: Tensor
    noise: Tensor
    std: Tensor
    memory: Tensor


def linear_betas(num_steps: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> Tensor:
    """Variances of Ho et al., ``(T,)``."""
    return torch.linspace(beta_start, beta_end, num_steps, dtype=torch.float64)


def cosine_betas(num_steps: int, offset: float = 0.008, max_beta: float = 0.999) -> Tensor:
    """Variances of Nichol and Dhariwal, ``(T,)``."""
    steps = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
    level = torch.cos((steps + offset) / (1 + offset) * math.pi / 2).square()
    return (1 - level[1:] / level[:-1]).clamp(max=max_beta)


class GaussianDiffusion(nn.Module):
    r"""The forward process and the steps back.

    Args:
        num_steps: Number T of steps.
        schedule: How :math:`\beta_t` grows.
        beta_start: First variance of the linear schedule.
        beta_end: Last variance of the linear schedule.
        betas: A schedule of one's own, ``(T,)``, in the place of the four above.

    Raises:
        ValueError: If a variance does not lie between 0 and 1.

    Example:
        >>> diffusion = GaussianDiffusion(1000, schedule="cosine")
        >>> diffusion.dpm_solver(num_sample_steps=4).t
        tensor([999, 444, 111,   0])
    """

    betas: Tensor
    alphas_cumprod: Tensor
    sqrt_alphas_cumprod: Tensor
    sqrt_one_minus_alphas_cumprod: Tensor

    def __init__(
        self,
        num_steps: int = 1000,
        schedule: Schedule = "linear",
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        betas: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if betas is not None:
            values = torch.tensor(betas, dtype=torch.float64)
        elif num_steps < 1:
            raise ValueError(f"num_steps must be positive, got {num_steps}")
        elif schedule == "cosine":
            values = cosine_betas(num_steps)
        else:
            values = linear_betas(num_steps, beta_start, beta_end)
        wrong = ~((values > 0) & (values < 1))
        if len(values) == 0 or wrong.any():
            found = f"got {values[wrong][0]:g}" if len(values) else "got none"
            raise ValueError(f"every beta must lie between 0 and 1, {found}")
        self.num_steps = len(values)
        alphas_cumprod = (1 - values).cumprod(0)
        # The arguments decide them, so no checkpoint holds them. The two roots have buffers of
        # their own: 1 - alphas_cumprod cancels where a module is cast to a narrower type.
        for name, value in (
            ("betas", values),
            ("alphas_cumprod", alphas_cumprod),
            ("sqrt_alphas_cumprod", alphas_cumprod.sqrt()),
            ("sqrt_one_minus_alphas_cumprod", (1 - alphas_cumprod).sqrt()),
        ):
            self.register_buffer(name, value, persistent=False)

    def levels(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        r""":math:`\sqrt{\bar\alpha_t}` and :math:`\sqrt{1 - \bar\alpha_t}`, to multiply x with."""
        shape = (-1, *[1] * (x.dim() - 1))
        signal, noise = self.sqrt_alphas_cumprod[t], self.sqrt_one_minus_alphas_cumprod[t]
        return signal.to(x.dtype).view(shape), noise.to(x.dtype).view(shape)

    def q_sample(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Samples noised up to step t.

        Args:
            x0: Samples, ``(B, ...)``.
            t: Step of each, ``(B,)``.
            noise: Standard normal noise, as ``x0``.
        """
        signal, std = self.levels(t, x0)
        return signal * x0 + std * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor, prediction: Prediction) -> Tensor:
        r"""What a network is to output.

        The noise, :math:`x_0`, or
        :math:`v = \sqrt{\bar\alpha_t}\, \epsilon - \sqrt{1 - \bar\alpha_t}\, x_0`.
        """
        if prediction == "noise":
            return noise
        if prediction == "x0":
            return x0
        signal, std = self.levels(t, x0)
        return signal * noise - std * x0

    def to_noise(self, output: Tensor, x_t: Tensor, t: Tensor, prediction: Prediction) -> Tensor:
        """The noise that an output of the network stands for."""
        if prediction == "noise":
            return output
        signal, std = self.levels(t, x_t)
        if prediction == "x0":
            return (x_t - signal * output) / std
        return signal * output + std * x_t

    def _visited(
        self, num_sample_steps: int | None, spacing: Spacing
    ) -> tuple[Tensor, Tensor, Tensor]:
        r"""Visited steps in descending order, and :math:`\bar\alpha` there and one step on."""
        count = self.num_steps if num_sample_steps is None else num_sample_steps
        if not 1 <= count <= self.num_steps:
            raise ValueError(
                f"num_sample_steps must lie between 1 and num_steps={self.num_steps}, got {count}"
            )
        last = self.num_steps - 1
        share = torch.linspace(0, 1, count, dtype=torch.float64)
        t = ((share.square() if spacing == "quadratic" else share) * last).round().long()
        t = torch.maximum(t, torch.arange(count))  # squares begin closer than whole steps
        t = torch.tensor([last]) if count == 1 else t.flip(0)
        alphas_cumprod = self.alphas_cumprod.cpu().double()
        level = alphas_cumprod[t]
        return t, level, torch.cat([level[1:], level.new_ones(1)])

    def sampler(
        self,
        name: Sampler,
        num_sample_steps: int | None = None,
        spacing: Spacing | None = None,
        variance: Variance = "beta",
        eta: float = 0.0,
    ) -> SamplerSteps:
        """Steps of a sampler by its name; a spacing of None is the sampler's own."""
        spread = {} if spacing is None else {"spacing": spacing}
        if name == "ddim":
            return self.ddim(eta, num_sample_steps, **spread)
        if name == "dpm_solver":
            return self.dpm_solver(num_sample_steps, **spread)
        return self.ancestral(variance, num_sample_steps, **spread)

    def ancestral(
        self,
        variance: Variance = "beta",
        num_sample_steps: int | None = None,
        spacing: Spacing = "even",
    ) -> SamplerSteps:
        r"""Steps of algorithm 2 of Ho et al.

        Args:
            variance: Variance of the fresh noise: :math:`\beta_t`, or the posterior's
                :math:`\frac{1 - \bar\alpha_{t-1}}{1 - \bar\alpha_t} \beta_t`.
            num_sample_steps: Number S of steps; all T by default.
            spacing: How the visited steps are spread.
        """
        t, level, level_next = self._visited(num_sample_steps, spacing)
        alpha = level / level_next
        beta = 1 - alpha
        spread = beta * (1 - level_next) / (1 - level) if variance == "posterior" else beta.clone()
        spread[-1] = 0.0
        noise = -beta / ((1 - level) * alpha).sqrt()
        return SamplerSteps(t, alpha.rsqrt(), noise, spread.sqrt(), torch.zeros_like(alpha))

    def ddim(
        self,
        eta: float = 0.0,
        num_sample_steps: int | None = None,
        spacing: Spacing = "even",
    ) -> SamplerSteps:
        r"""Steps of equation 12 of Song et al.

        Args:
            eta: Fresh noise in units of the posterior's standard deviation; 0 is deterministic, 1
                over all steps is the ancestral sampler with the posterior's variance.
            num_sample_steps: Number S of steps; all T by default.
            spacing: How the visited steps are spread.
        """
        t, level, level_next = self._visited(num_sample_steps, spacing)
        alpha = level / level_next
        variance = eta**2 * (1 - level_next) / (1 - level) * (1 - alpha)
        direction = (1 - level_next - variance).clamp(min=0).sqrt()
        noise = direction - ((1 - level) / alpha).sqrt()
        return SamplerSteps(t, alpha.rsqrt(), noise, variance.sqrt(), torch.zeros_like(alpha))

    def dpm_solver(
        self, num_sample_steps: int | None = None, spacing: Spacing = "quadratic"
    ) -> SamplerSteps:
        r"""Steps of DPM-Solver++ (2M), algorithm 2 of Lu et al.: second order at DDIM's cost.

        With :math:`\lambda = \log(\sqrt{\bar\alpha} / \sqrt{1 - \bar\alpha})`, its step h and the
        step before it :math:`h'`, each step goes towards
        :math:`x_0 + \frac{h}{2h'} (x_0 - m)`; the first and the last one look at :math:`x_0` alone.

        Args:
            num_sample_steps: Number S of steps; all T by default.
            spacing: How the visited steps are spread.
        """
        t, level, level_next = self._visited(num_sample_steps, spacing)
        signal, std = level.sqrt(), (1 - level).sqrt()
        signal_next, std_next = level_next.sqrt(), (1 - level_next).sqrt()
        keep = std_next / std
        towards = signal_next - signal * keep
        # log of the ratio of signal to noise, of every visited step; infinite at the end
        step = (signal_next / std_next).log() - (signal / std).log()
        look_back = torch.zeros_like(level)
        look_back[1:-1] = step[1:-1] / (2 * step[:-2])
        ahead = towards * (1 + look_back)
        noise = -ahead * std / signal
        return SamplerSteps(
            t, keep + ahead / signal, noise, torch.zeros_like(level), -towards * look_back
        )

    def x0_factors(self, t: Tensor, prediction: Prediction) -> tuple[Tensor, Tensor]:
        r"""Factors of :math:`x_t` and of the output whose sum is the predicted :math:`x_0`."""
        signal = self.sqrt_alphas_cumprod.double().cpu()[t]
        std = self.sqrt_one_minus_alphas_cumprod.double().cpu()[t]
        if prediction == "x0":
            return torch.zeros_like(signal), torch.ones_like(signal)
        if prediction == "v":
            return signal, -std
        return 1 / signal, -std / signal

    def min_snr_weights(self, gamma: float, prediction: Prediction) -> Tensor:
        r"""Weight of each step's loss, ``(T,)``: that of :math:`x_0` cut off where it is large.

        The squared error of :math:`x_0` times :math:`\min(\mathrm{SNR}, \gamma)`, where SNR is
        :math:`\bar\alpha_t / (1 - \bar\alpha_t)`, as a weight of the error of the output.
        """
        snr = self.alphas_cumprod / self.sqrt_one_minus_alphas_cumprod.square()
        capped = snr.clamp(max=gamma)
        return {"x0": capped, "noise": capped / snr, "v": capped / (snr + 1)}[prediction]

    def for_output(self, steps: SamplerSteps, prediction: Prediction) -> SamplerSteps:
        """The same steps with the network's output in the place of the noise it stands for."""
        signal = self.sqrt_alphas_cumprod.cpu().double()[steps.t]
        std = self.sqrt_one_minus_alphas_cumprod.cpu().double()[steps.t]
        if prediction == "x0":
            return steps._replace(x=steps.x + steps.noise / std, noise=-steps.noise * signal / std)
        if prediction == "v":
            return steps._replace(x=steps.x + steps.noise * std, noise=steps.noise * signal)
        return steps


class StepSampler(nn.Module):
    r"""Draws the steps to train on: uniformly, or more often where the loss is large.

    The share of a step is proportional to :math:`\sqrt{E[L_t^2]}`, which gives the loss the least
    variance; the weight :math:`1 / (T p_t)` keeps its mean. Uniform until each step has been drawn
    ten times.

    Args:
        num_steps: Number T of steps.
        importance: Whether shares follow the loss.
        decay: Weight of the running mean at each new loss.
    """

    square: Tensor
    count: Tensor

    def __init__(self, num_steps: int, importance: bool, decay: float = 0.9) -> None:
        super().__init__()
        self.num_steps, self.importance, self.decay = num_steps, importance, decay
        if importance:
            self.register_buffer("square", torch.zeros(num_steps, dtype=torch.float64))
            self.register_buffer("count", torch.zeros(num_steps, dtype=torch.float64))

    def forward(self, uniform: Tensor) -> tuple[Tensor, Tensor | None]:
        """Steps for numbers on [0, 1), ``(B,)``, and the weights of their losses."""
        if not self.importance or self.count.min() < 10:
            return (uniform * self.num_steps).long().clamp(max=self.num_steps - 1), None
        root = self.square.sqrt()
        shares = 0.999 * root / root.sum() + 0.001 / self.num_steps
        t = torch.searchsorted(shares.cumsum(0), uniform.to(self.square.dtype), right=True)
        t = t.clamp(max=self.num_steps - 1)
        return t, (1 / (self.num_steps * shares[t])).to(uniform.dtype)

    def update(self, t: Tensor, losses: Tensor, sum_over_ranks: Callable[[Tensor], Tensor]) -> None:
        """Adds the losses ``(B,)`` of a batch."""
        if not self.importance:
            return
        sums = self.square.new_zeros(2, self.num_steps)
        sums[0].index_add_(0, t, losses.detach().to(sums.dtype).square())
        sums[1].index_add_(0, t, torch.ones_like(losses, dtype=sums.dtype))
        total, count = sum_over_ranks(sums)
        kept = torch.where(self.count > 0, self.decay**count, (count == 0).to(sums.dtype))
        self.square.copy_(kept * self.square + (1 - kept) * total / count.clamp(min=1))
        self.count += count
