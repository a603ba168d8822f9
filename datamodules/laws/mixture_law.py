r"""Mixtures of Gaussians: everything about diffusing them that has an exact answer.

With component means :math:`\mu_k` and standard deviations :math:`\sigma_k`, a sample noised to
:math:`x_t = \sqrt{\bar\alpha}\, x_0 + \sqrt{1 - \bar\alpha}\, \epsilon` is a mixture with means
:math:`\sqrt{\bar\alpha}\, \mu_k` and variances
:math:`v_k = \bar\alpha \sigma_k^2 + 1 - \bar\alpha`. The best prediction of the noise is

.. math::
    \epsilon^*(x_t) = E[\epsilon \mid x_t] = \sqrt{1 - \bar\alpha} \sum_k
    P(k \mid x_t)\, \frac{x_t - \sqrt{\bar\alpha}\, \mu_k}{v_k}

and its error, the smallest a loss can be, is
:math:`E|\epsilon - \epsilon^*|^2 = 1 - E|\epsilon^*|^2` per dimension.

Shape letters: B samples, D dimensions, K components, S steps of a sampler.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.laws.draws import blocks, passed

_GRID = 4097


def _normal_cdf(z: Tensor) -> Tensor:
    cdf: Tensor = torch.special.ndtr(z)
    return cdf


def _normal_pdf(z: Tensor) -> Tensor:
    return torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)


@dataclass(frozen=True)
class MixtureLaw:
    """A mixture of Gaussians with independent dimensions within each component.

    Attributes:
        weights: Shares of the components, ``(K,)`` float64, sum 1.
        means: Their means, ``(K, D)``.
        stds: Their standard deviations, ``(K, D)``.

    Example:
        >>> law = MixtureLaw(*map(torch.tensor, ([0.5, 0.5], [[-1.0], [1.0]], [[0.5], [0.5]])))
        >>> law.mean, law.std
        (tensor([0.]), tensor([1.1180]))
    """

    weights: Tensor
    means: Tensor
    stds: Tensor

    @property
    def num_dimensions(self) -> int:
        """Number D of dimensions."""
        return self.means.shape[1]

    @property
    def mean(self) -> Tensor:
        """Mean, ``(D,)``."""
        return self.weights @ self.means

    @property
    def std(self) -> Tensor:
        """Standard deviation of each dimension, ``(D,)``."""
        second = self.weights @ (self.means.square() + self.stds.square())
        return (second - self.mean.square()).sqrt()

    def sample(
        self, num_samples: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Tensor:
        """Independent samples, ``(num_samples, D)``."""

        def components(count: int, generator: torch.Generator) -> Tensor:
            return torch.multinomial(self.weights, count, replacement=True, generator=generator)

        component_generator = passed(generator, num_samples, components)
        samples = torch.empty(num_samples, self.num_dimensions, dtype=dtype)
        for rows in blocks(num_samples):
            noise = torch.randn(samples[rows].shape, generator=generator, dtype=torch.float64)
            k = components(len(noise), component_generator)
            samples[rows] = self.means[k] + self.stds[k] * noise
        return samples

    def standardized(self, mean: Tensor, std: Tensor) -> "MixtureLaw":
        """Law of ``(x - mean) / std``."""
        mean, std = mean.double().cpu(), std.double().cpu()
        return MixtureLaw(self.weights, (self.means - mean) / std, self.stds / std)

    def projected(self, direction: Tensor) -> "MixtureLaw":
        """Law of the scalar product with a direction ``(D,)``."""
        stds = (self.stds.square() @ direction.square()).sqrt()
        return MixtureLaw(self.weights, (self.means @ direction)[:, None], stds[:, None])

    def _responsibilities(self, x: Tensor, means: Tensor, variances: Tensor) -> Tensor:
        """Log joint density of sample and component, ``(B, K)``."""
        squares = (x.unsqueeze(1) - means).square() / variances
        log_norm = torch.log(2 * math.pi * variances)
        return self.weights.to(x.device).log() - 0.5 * (squares + log_norm).sum(-1)

    def noised(self, level: Tensor) -> "MixtureLaw":
        r"""Law of :math:`x_t` at a level :math:`\bar\alpha`, ``()``."""
        stds = (level * self.stds.square() + 1 - level).sqrt()
        return MixtureLaw(self.weights, level.sqrt() * self.means, stds)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density of samples ``(B, D)``, in nats."""
        joint = self._responsibilities(x.double(), self.means, self.stds.square())
        return joint.logsumexp(1)

    def noise(self, x_t: Tensor, alphas_cumprod: Tensor) -> Tensor:
        r"""The best prediction :math:`\epsilon^*` of the noise in noised samples.

        Args:
            x_t: Noised samples, ``(B, D)``.
            alphas_cumprod: Level :math:`\bar\alpha` of each, ``(B,)``.

        Returns:
            Expected noise, ``(B, D)`` float64.
        """
        level = alphas_cumprod.double().view(-1, 1, 1)
        x, means, stds = x_t.double(), self.means.to(x_t.device), self.stds.to(x_t.device)
        means = level.sqrt() * means
        variances = level * stds.square() + 1 - level
        share = self._responsibilities(x, means, variances).softmax(1).unsqueeze(-1)
        scores = (share * (x.unsqueeze(1) - means) / variances).sum(1)
        return (1 - level).sqrt().squeeze(-1) * scores

    def min_loss(self, alphas_cumprod: Tensor) -> Tensor:
        r"""Error of :math:`\epsilon^*` per dimension at each level, ``(T,)``, for D of 1 or 2.

        A trapezoidal rule over each component, which converges exponentially for such integrands.
        """
        points = {1: 401, 2: 41}[self.num_dimensions]
        nodes = torch.linspace(-8, 8, points, dtype=torch.float64)
        z = torch.cartesian_prod(*[nodes] * self.num_dimensions).view(-1, self.num_dimensions)
        mass = torch.exp(-0.5 * z.square().sum(1))
        mass = mass / mass.sum()
        losses = []
        for level in alphas_cumprod.double():
            total = torch.zeros((), dtype=torch.float64)
            for weight, mean, std in zip(self.weights, self.means, self.stds, strict=True):
                x = level.sqrt() * mean + (level * std.square() + 1 - level).sqrt() * z
                predicted = self.noise(x, level.expand(len(x)))
                total += weight * (mass * predicted.square().mean(1)).sum()
            losses.append(1 - total)
        return torch.stack(losses)

    def cdf(self, x: Tensor) -> Tensor:
        """Distribution function of a law in one dimension at ``(B,)``."""
        return _normal_cdf((x.double()[:, None] - self.means.T) / self.stds.T) @ self.weights

    def quantile(self, p: Tensor) -> Tensor:
        """Inverse of :meth:`cdf` at probabilities ``(B,)``, by bisection."""
        low = (self.means - 40 * self.stds).min().expand(p.shape)
        high = (self.means + 40 * self.stds).max().expand(p.shape)
        for _ in range(80):
            middle = 0.5 * (low + high)
            below = self.cdf(middle) < p
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return 0.5 * (low + high)

    def quantiles(self, count: int) -> Tensor:
        """Quantiles at the middles of ``count`` equal shares, ``(count,)`` ascending."""
        return self.quantile((torch.arange(count, dtype=torch.float64) + 0.5) / count)

    def _cdf_integral(self, x: Tensor) -> Tensor:
        """Integral of the distribution function up to ``(B,)``."""
        z = (x[:, None] - self.means.T) / self.stds.T
        return (self.stds.T * (z * _normal_cdf(z) + _normal_pdf(z))) @ self.weights

    def wasserstein(self, samples: Tensor) -> float:
        """Exact 1-Wasserstein distance of samples ``(n,)`` to a law in one dimension.

        The integral of ``|F_n - F|``, piece by piece between neighbouring samples: there ``F_n`` is
        constant, and F crosses it at most once.
        """
        x = samples.double().flatten().cpu().sort().values
        share = torch.arange(1, len(x), dtype=torch.float64) / len(x)
        left, right = x[:-1], x[1:]
        crossing = torch.minimum(torch.maximum(self.quantile(share), left), right)
        below, at, above = (self._cdf_integral(v) for v in (left, crossing, right))
        inner = share * (2 * crossing - left - right) + below + above - 2 * at
        lower = self._cdf_integral(x[:1])
        upper = self._cdf_integral(x[-1:]) - x[-1:] + self.mean
        return float((inner.sum() + lower + upper).item())

    def wasserstein_noise(self, num_samples: int) -> float:
        """Expected distance of that many independent samples to a law in one dimension.

        The mean absolute deviation of a binomial share, by De Moivre, integrated over x.
        """
        x = self._grid()
        p = self.cdf(x).clamp(1e-300, 1 - 1e-16)
        n = torch.tensor(float(num_samples), dtype=torch.float64)
        v = (n * p).floor() + 1
        log_choose = torch.lgamma(n + 1) - torch.lgamma(v + 1) - torch.lgamma(n - v + 1)
        log_term = log_choose + v * p.log() + (n - v + 1) * torch.log1p(-p)
        deviation = 2 * v / n * log_term.exp()
        return float(torch.trapezoid(deviation, x).item())

    def _grid(self) -> Tensor:
        """A grid over all the mass of a law in one dimension and of standard normal noise."""
        low = min((self.means - 10 * self.stds).min().item(), -10.0)
        high = max((self.means + 10 * self.stds).max().item(), 10.0)
        return torch.linspace(low, high, _GRID, dtype=torch.float64)

    def sampled(self, steps: Any, alphas_cumprod: Tensor) -> tuple[Tensor, Tensor]:
        r"""Law of a sampler that predicts the noise by :math:`\epsilon^*`, in one dimension.

        Each step moves the distribution function along an increasing map, and blurs the density by
        the step's fresh noise in Fourier space.

        A sampler that looks back has no fresh noise: each of its samples is a function of where it
        starts, which is followed from the grid's points.

        Args:
            steps: Steps of a sampler: arrays ``t``, ``x``, ``noise``, ``std`` and ``memory``,
                ``(S,)``.
            alphas_cumprod: Levels of the process, ``(T,)``.

        Returns:
            A grid and the distribution function on it.
        """
        from scipy.interpolate import PchipInterpolator

        grid = self._grid()
        x, cdf = grid.numpy(), _normal_cdf(grid).numpy()
        if steps.memory.any():
            start = torch.linspace(-9, 9, 4 * _GRID, dtype=torch.float64)
            end = self._follow(start, steps, alphas_cumprod).numpy()
            inner = np.concatenate(([True], np.diff(np.maximum.accumulate(end)) > 1e-14))
            shares = _normal_cdf(start).numpy()[inner]
            cdf = PchipInterpolator(end[inner], shares, extrapolate=False)(x)
            cdf = np.where(np.isnan(cdf), np.where(x < end[0], 0.0, 1.0), cdf)
            return grid, torch.from_numpy(cdf)
        omega = 2 * np.pi * np.fft.rfftfreq(2 * len(x), d=x[1] - x[0])
        for t, scale, noise, std, _ in zip(*(v.tolist() for v in steps), strict=True):
            predicted = self.noise(grid[:, None], alphas_cumprod[t].cpu().expand(len(grid)))[:, 0]
            moved = scale * x + noise * predicted.numpy()
            inner = np.concatenate(([True], np.diff(np.maximum.accumulate(moved)) > 1e-14))
            with np.errstate(over="ignore"):  # slopes of flat tails
                cdf = PchipInterpolator(moved[inner], cdf[inner], extrapolate=False)(x)
            cdf = np.where(np.isnan(cdf), np.where(x < moved[0], 0.0, 1.0), cdf)
            if std > 0:
                mass = np.diff(cdf, prepend=0.0)
                blur = np.exp(-0.5 * (std * omega) ** 2)
                mass = np.fft.irfft(np.fft.rfft(mass, 2 * len(x)) * blur, 2 * len(x))[: len(x)]
                cdf = np.clip(np.cumsum(mass), 0.0, 1.0)
        return grid, torch.from_numpy(cdf)

    def _follow(self, x: Tensor, steps: Any, alphas_cumprod: Tensor) -> Tensor:
        """Samples of a deterministic sampler, from where they start, ``(n,)``."""
        if steps.std.any():
            raise ValueError("a sampler that looks back must have no fresh noise")
        before = torch.zeros_like(x)
        for t, scale, noise, _, memory in zip(*(v.tolist() for v in steps), strict=True):
            level = alphas_cumprod[t].double().cpu()
            predicted = self.noise(x[:, None], level.expand(len(x)))[:, 0]
            x0 = (x - (1 - level).sqrt() * predicted) / level.sqrt()
            x, before = scale * x + noise * predicted + memory * before, x0
        return x


def gaussian_after_sampling(
    mean: float, std: float, steps: Any, alphas_cumprod: Tensor
) -> tuple[float, float]:
    r"""Mean and standard deviation of samples of N(mean, std^2) drawn with its :math:`\epsilon^*`.

    That prediction is affine, so every step keeps a Gaussian a Gaussian.

    Args:
        mean: Mean of the data.
        std: Standard deviation of the data.
        steps: Steps of a sampler, as of :meth:`MixtureLaw.sampled`.
        alphas_cumprod: Levels of the process, ``(T,)``.
    """
    # Means and covariance of the sample and of the x_0 predicted one step before.
    mean_now, covariance = np.zeros(2), np.diag([1.0, 0.0])
    for t, scale, noise, fresh, memory in zip(*(v.tolist() for v in steps), strict=True):
        level = float(alphas_cumprod[t])
        slope = math.sqrt(1 - level) / (level * std**2 + 1 - level)
        shift = -slope * math.sqrt(level) * mean
        x0_slope = (1 - math.sqrt(1 - level) * slope) / math.sqrt(level)
        step = np.array([[scale + noise * slope, memory], [x0_slope, 0.0]])
        x0_shift = -math.sqrt((1 - level) / level) * shift
        mean_now = step @ mean_now + np.array([noise * shift, x0_shift])
        covariance = step @ covariance @ step.T + np.diag([fresh**2, 0.0])
    return float(mean_now[0]), math.sqrt(float(covariance[0, 0]))
