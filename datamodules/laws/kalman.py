r"""Exact forecasts of a Gaussian vector autoregression of which cells are missing.

.. math::
    z_t = \Phi z_{t-1} + \epsilon_t, \qquad \epsilon_t \sim N(0, Q)

Kalman's filter (1960) with exact observations of some coordinates: given mean m and covariance P of
a state, observed coordinates O change them by the gain :math:`P_{\cdot O} P_{OO}^{-1}`, and a step
ahead gives :math:`\Phi m` and :math:`\Phi P \Phi^T + Q`. No forecast from the same cells has a
smaller expected squared error.
"""

import torch
from torch import Tensor


def forecasts(
    window: Tensor, transition: Tensor, noise: Tensor, start: Tensor, horizon: int
) -> tuple[Tensor, Tensor]:
    """Means and variances of the steps after a window.

    Args:
        window: Values, ``(B, T, N)`` float64, NaN where missing.
        transition: The matrix of a step, ``(N, N)``.
        noise: Covariance of the noise, ``(N, N)``.
        start: Covariance of the first state of a window, whose mean is 0, ``(N, N)``.
        horizon: Number H of steps.

    Returns:
        Both ``(B, H, N)``.
    """
    count, num_steps, size = window.shape
    mean = window.new_zeros(count, size)
    covariance = start.expand(count, size, size)
    identity = torch.eye(size, dtype=window.dtype)
    for step in range(num_steps):
        if step:
            mean, covariance = _ahead(mean, covariance, transition, noise)
        seen = window[:, step].isfinite()
        both = (seen.unsqueeze(1) & seen.unsqueeze(2)).to(window.dtype)
        observed = covariance * both + identity * (~seen).unsqueeze(1)
        across = covariance * seen.unsqueeze(1)
        gain = torch.linalg.solve(observed, across.mT).mT
        surprise = torch.where(seen, window[:, step] - mean, 0.0)
        mean = mean + (gain @ surprise.unsqueeze(2)).squeeze(2)
        covariance = covariance - gain @ across.mT
    means, variances = [], []
    for _ in range(horizon):
        mean, covariance = _ahead(mean, covariance, transition, noise)
        means.append(mean)
        variances.append(covariance.diagonal(dim1=1, dim2=2))
    return torch.stack(means, dim=1), torch.stack(variances, dim=1)


def _ahead(
    mean: Tensor, covariance: Tensor, transition: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    return mean @ transition.T, transition @ covariance @ transition.T + noise
