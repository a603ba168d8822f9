r"""The predictive interface of the uncertainty models: mixtures over networks, and what they say.

S networks, drawn from a posterior or trained as an ensemble, give S predictive densities of each
row. The prediction is their equal mixture, :math:`p(y|x) = \frac1S \sum_s p(y|x, w_s)`:

.. math::
    \mathrm{Var}[y] = \underbrace{\mathrm{Var}_s[\mu_s]}_{\text{epistemic}}
        + \underbrace{\mathrm{E}_s[\sigma_s^2]}_{\text{aleatoric}}, \qquad
    \mathrm{H}[\bar p] = \underbrace{\mathrm{H}[\bar p] - \mathrm{E}_s \mathrm{H}[p_s]}_{
        \text{mutual information}} + \underbrace{\mathrm{E}_s \mathrm{H}[p_s]}_{\text{aleatoric}}

Averaging the parameters of the densities instead would lose the epistemic part.

Shape letters: S networks, B batch, K targets or classes.
"""

import math
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
_LEVEL = 0.95


def _normal_cdf(z: Tensor) -> Tensor:
    # torch has no such function of half precision, which would not hold a probability anyway
    probability: Tensor = torch.special.ndtr(z if z.element_size() > 2 else z.float())
    return probability


def _normal_pdf(z: Tensor) -> Tensor:
    return torch.exp(-0.5 * z.square() - _LOG_SQRT_2PI)


class GaussianMixture(NamedTuple):
    """Equal mixture of S normal densities for each row and target.

    Attributes:
        means: Mean of each component, ``(S, B, K)``.
        stds: Standard deviation of each component, broadcastable to ``(S, B, K)``; positive.
        inner_variance: Share of the components' variance that is the networks' and not the noise's,
            ``(B, K)``; None for components that are one network each.

    Example:
        >>> density = GaussianMixture(torch.tensor([[[0.0]], [[2.0]]]), torch.ones(1, 1, 1))
        >>> density.mean, density.variance  # that of the two means, and the noise
        (tensor([[1.]]), tensor([[2.]]))
    """

    means: Tensor
    stds: Tensor
    inner_variance: Tensor | None = None

    @property
    def mean(self) -> Tensor:
        """Mean of the mixture, ``(B, K)``."""
        return self.means.mean(0)

    @property
    def epistemic_variance(self) -> Tensor:
        """Variance of the networks' means, ``(B, K)``: what more data would remove."""
        between = self.means.var(0, correction=0)
        return between if self.inner_variance is None else between + self.inner_variance

    @property
    def aleatoric_variance(self) -> Tensor:
        """Mean of the component variances, ``(B, K)``: the noise."""
        within = self.stds.square().expand_as(self.means).mean(0)
        return within if self.inner_variance is None else within - self.inner_variance

    @property
    def variance(self) -> Tensor:
        """Variance of the mixture by the law of total variance, ``(B, K)``."""
        return self.epistemic_variance + self.aleatoric_variance

    def log_prob(self, y: Tensor) -> Tensor:
        """Log density of each row's targets jointly, ``(B,)``: a log-mean-exp over networks."""
        return self.component_log_prob(y).logsumexp(0) - math.log(len(self.means))

    def component_log_prob(self, y: Tensor) -> Tensor:
        """Log density of each row's targets under each component, ``(S, B)``."""
        z = (y - self.means) / self.stds
        return (-0.5 * z.square() - self.stds.log() - _LOG_SQRT_2PI).sum(-1)

    def cdf(self, y: Tensor) -> Tensor:
        """Probability of a value of at most y per target, ``(B, K)``."""
        return _normal_cdf((y - self.means) / self.stds).mean(0)

    def quantile(self, level: float, max_steps: int = 60) -> Tensor:
        """Value whose cumulative probability is ``level``, ``(B, K)``.

        Newton steps inside a bracket that halves wherever a step would leave it.

        Args:
            level: Probability in (0, 1).
            max_steps: Steps at most; five are usual.
        """
        if self.means.element_size() < 4:  # half precision holds no small step
            single = self._replace(means=self.means.float(), stds=self.stds.float())
            return single.quantile(level, max_steps)
        z = NormalDist().inv_cdf(level)
        ends = self.means + z * self.stds
        low, high = ends.amin(0), ends.amax(0)
        value = (self.mean + z * self.variance.sqrt()).clamp(low, high)
        tolerance = 64 * torch.finfo(value.dtype).eps
        for _ in range(max_steps):
            scaled = (value - self.means) / self.stds
            error = _normal_cdf(scaled).mean(0) - level
            high = torch.where(error > 0, value, high)
            low = torch.where(error <= 0, value, low)
            step = error / (_normal_pdf(scaled) / self.stds).mean(0).clamp(min=1e-300)
            newton = value - step
            inside = (newton >= low) & (newton <= high)
            value = torch.where(inside, newton, 0.5 * (low + high))
            if bool((error.abs() < tolerance).all()):
                break
        return value

    def interval(self, level: float = _LEVEL) -> tuple[Tensor, Tensor]:
        """Ends of the central interval that holds ``level`` of the mixture, each ``(B, K)``."""
        return self.quantile(0.5 - level / 2), self.quantile(0.5 + level / 2)

    def crps(self, y: Tensor) -> Tensor:
        r"""Continuous ranked probability score in units of y, ``(B, K)``; lower is better.

        Closed form of Grimit et al., "The continuous ranked probability score for circular
        variables" (2006): :math:`\mathrm{E}|Y - y| - \frac12 \mathrm{E}|Y - Y'|`.
        """
        stds = self.stds.expand_as(self.means)
        to_target = _mean_absolute(y - self.means, stds).mean(0)
        variances = stds.square()
        apart = torch.zeros_like(to_target)
        for s in range(len(self.means)):  # pairs of a draw with itself and with later ones
            spread = (variances[s] + variances[s:]).sqrt()
            distance = _mean_absolute(self.means[s] - self.means[s:], spread)
            apart += 2 * distance.sum(0) - distance[0]
        return to_target - 0.5 * apart / len(self.means) ** 2


def _mean_absolute(mean: Tensor, std: Tensor) -> Tensor:
    """Mean absolute value of a normal variable."""
    z = mean / std
    return 2 * std * _normal_pdf(z) + mean * (2 * _normal_cdf(z) - 1)


class CategoricalMixture(NamedTuple):
    """Equal mixture of S categorical distributions for each row.

    Attributes:
        logits: Logits of each component, ``(S, B, K)``.
    """

    logits: Tensor

    @property
    def log_probs(self) -> Tensor:
        """Log probability of each class, ``(B, K)``."""
        return self.logits.log_softmax(-1).logsumexp(0) - math.log(len(self.logits))

    @property
    def probs(self) -> Tensor:
        """Probability of each class, ``(B, K)``."""
        return self.log_probs.exp()

    @property
    def entropy(self) -> Tensor:
        """Entropy of the mixture in nats, ``(B,)``: the total uncertainty."""
        return _entropy(self.log_probs)

    @property
    def expected_entropy(self) -> Tensor:
        """Mean entropy of the components in nats, ``(B,)``: the aleatoric part."""
        return _entropy(self.logits.log_softmax(-1)).mean(0)

    @property
    def mutual_information(self) -> Tensor:
        """Information about the network that the label would give, in nats, ``(B,)``."""
        return (self.entropy - self.expected_entropy).clamp(min=0)

    def log_prob(self, y: Tensor) -> Tensor:
        """Log probability of each row's class, ``(B,)``."""
        return self.component_log_prob(y).logsumexp(0) - math.log(len(self.logits))

    def component_log_prob(self, y: Tensor) -> Tensor:
        """Log probability of each row's class under each component, ``(S, B)``."""
        index = y.expand(len(self.logits), -1).unsqueeze(-1)
        return self.logits.log_softmax(-1).gather(-1, index).squeeze(-1)


def _entropy(log_probs: Tensor) -> Tensor:
    return -(log_probs.exp() * log_probs).sum(-1)
