r"""What a forecaster says of each step ahead: a value, quantiles, or a mixture of normal densities.

Quantiles are trained by the pinball loss :math:`\rho_\tau(e) = \max(\tau e, (\tau - 1) e)` of
:math:`e = y - q_\tau` (Koenker and Bassett, "Regression Quantiles", 1978), whose minimum is the
quantile; where they cross they are sorted (Chernozhukov et al., 2010). A mixture has equal weights
and is trained by its negative log-likelihood, each step on its own.

A head reads P parameters a step from the last dimension of the network's output. Shape letters:
B batch, H horizon, P parameters, Q quantiles, S components.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_models.layers.densities import GaussianMixture

LEVELS = (0.8, 0.95)
QUANTILES = (0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975)


def pinball(error: Tensor, levels: Tensor) -> Tensor:
    """Pinball loss of ``y - q``.

    Args:
        error: ``(..., Q)``.
        levels: Probabilities of the quantiles, ``(Q,)``.
    """
    return torch.maximum(levels * error, (levels - 1) * error)


class PointHead(nn.Module):
    """One value a step, trained by the squared error."""

    num_params = 1

    def start(self, center: Tensor, std: Tensor) -> Tensor:
        """Parameters of a forecast ``(B, H)`` whose errors have a standard deviation ``(H,)``."""
        return center.unsqueeze(-1)

    def stretch(self, change: Tensor, std: Tensor) -> Tensor:
        """A change of the parameters, ``(B, H, P)``, from units of each step's deviation."""
        return change * std.unsqueeze(-1)

    def losses(self, params: Tensor, target: Tensor) -> Tensor:
        """Loss of each step, ``(B, H)``, from parameters ``(B, H, P)``."""
        return (params[..., 0] - target).square()

    def point(self, params: Tensor) -> Tensor:
        """The forecast, ``(B, H)``."""
        return params[..., 0]

    def quantiles(self, params: Tensor, levels: Sequence[float]) -> Tensor:
        """Quantiles, ``(B, H, Q)``; a value says nothing of its spread."""
        return params.expand(*params.shape[:-1], len(levels))


class QuantileHead(nn.Module):
    """Quantiles of each step, trained by the mean of their pinball losses.

    Args:
        quantiles: Their probabilities, ascending; they hold the ends of the 80 and 95 % intervals.
    """

    levels: Tensor

    def __init__(self, quantiles: Sequence[float] = QUANTILES) -> None:
        super().__init__()
        needed = {0.5, *(round(0.5 + side * level / 2, 6) for level in LEVELS for side in (-1, 1))}
        if list(quantiles) != sorted(set(quantiles)) or not needed <= set(quantiles):
            raise ValueError(
                f"quantiles ascend and hold {', '.join(map(str, sorted(needed)))}, got {quantiles}"
            )
        self.probabilities = tuple(quantiles)
        self.num_params = len(quantiles)
        self.register_buffer("levels", torch.tensor(quantiles), persistent=False)

    def start(self, center: Tensor, std: Tensor) -> Tensor:
        """Quantiles of normal errors."""
        places: Tensor = torch.special.ndtri(self.levels.to(center))
        return center.unsqueeze(-1) + std.unsqueeze(-1) * places

    def stretch(self, change: Tensor, std: Tensor) -> Tensor:
        """A change of the quantiles from units of each step's deviation."""
        return change * std.unsqueeze(-1)

    def losses(self, params: Tensor, target: Tensor) -> Tensor:
        """Mean pinball loss over the quantiles of each step, ``(B, H)``."""
        return pinball(target.unsqueeze(-1) - params, self.levels.to(params)).mean(-1)

    def point(self, params: Tensor) -> Tensor:
        """The median, ``(B, H)``."""
        median: Tensor = params.sort(-1).values[..., self.probabilities.index(0.5)]
        return median

    def quantiles(self, params: Tensor, levels: Sequence[float]) -> Tensor:
        """The sorted quantiles of these probabilities, ``(B, H, Q)``."""
        places = [self.probabilities.index(round(level, 6)) for level in levels]
        return params.sort(-1).values[..., places]


class MixtureHead(nn.Module):
    """An equal mixture of normal densities of each step, trained by its log-likelihood.

    Args:
        num_components: Number S of components.
    """

    def __init__(self, num_components: int = 3) -> None:
        super().__init__()
        if num_components < 1:
            raise ValueError(f"num_components must be at least 1, got {num_components}")
        self.num_components, self.num_params = num_components, 2 * num_components

    def start(self, center: Tensor, std: Tensor) -> Tensor:
        """Components spread over normal errors, so that they can part."""
        place = torch.linspace(-0.5, 0.5, self.num_components + 2).to(center)[1:-1]
        means = center.unsqueeze(-1) + std.unsqueeze(-1) * place
        spread = std.clamp(min=1e-6).log().unsqueeze(-1).expand_as(means)
        return torch.cat([means, spread], dim=-1)

    def stretch(self, change: Tensor, std: Tensor) -> Tensor:
        """A change of the components; logarithms of deviations have no unit."""
        means, log_stds = change.chunk(2, dim=-1)
        return torch.cat([means * std.unsqueeze(-1), log_stds], dim=-1)

    def mixture(self, params: Tensor) -> GaussianMixture:
        """Density of each step, its components first: ``(S, B, H)``."""
        means, log_stds = params.movedim(-1, 0).chunk(2)
        return GaussianMixture(means, log_stds.clamp(-12, 12).exp())

    def losses(self, params: Tensor, target: Tensor) -> Tensor:
        """Negative log-likelihood of each step in nats, ``(B, H)``."""
        density = self.mixture(params)
        means, stds = density.means, density.stds
        z = (target - means) / stds
        log_probs = -0.5 * z.square() - stds.log() - 0.5 * math.log(2 * math.pi)
        return math.log(self.num_components) - log_probs.logsumexp(0)

    def point(self, params: Tensor) -> Tensor:
        """The mean, ``(B, H)``."""
        mean: Tensor = self.mixture(params).mean
        return mean

    def quantiles(self, params: Tensor, levels: Sequence[float]) -> Tensor:
        """Quantiles of the mixture, ``(B, H, Q)``."""
        density = self.mixture(params)
        density = GaussianMixture(density.means.double(), density.stds.double())
        return torch.stack([density.quantile(level) for level in levels], dim=-1)


def interval_ends(levels: Sequence[float] = LEVELS) -> list[float]:
    """Probabilities of the ends of central intervals: all lower ones, then all upper ones."""
    lower = [round(0.5 - level / 2, 6) for level in levels]
    return lower + [round(0.5 + level / 2, 6) for level in levels]
