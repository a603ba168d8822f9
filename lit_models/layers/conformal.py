r"""Intervals that hold: conformal widths from held-out windows, adapted to what follows.

The score of a window's step is how far the target lies outside the interval that the model states,
:math:`s = \max(l - y, y - u)` in units of the series (Romano et al., "Conformalized Quantile
Regression", 2019; for a single value :math:`l = u` and the score is the absolute error). Widening
the interval by the quantile of the validation scores at :math:`1 - \alpha` covers new windows that
are exchangeable with them. A series drifts, so that over the test the level follows the errors
(Gibbs and Candes, "Adaptive Conformal Inference Under Distribution Shift", 2021):

.. math:: \alpha_{t+1} = \alpha_t + \gamma (\alpha - \mathrm{err}_t),

where the error of step h is known h rows after its forecast. Beyond the largest score the width
grows in proportion, where the paper's interval is infinite.

Shape letters: N windows, L levels, H horizon, Q points of the scores' distribution.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Array = np.ndarray[Any, Any]
_NUM_POINTS = 201


class ConformalWidths(nn.Module):
    """Distribution of the validation scores of each level and step, kept in the checkpoint.

    Args:
        levels: Probabilities that the intervals hold.
        horizon: Number H of steps.
        gamma: Step size of the adaptive level.
    """

    scores: Tensor
    count: Tensor

    def __init__(self, levels: Sequence[float], horizon: int, gamma: float = 0.005) -> None:
        super().__init__()
        self.levels, self.gamma = tuple(levels), gamma
        shape = (len(levels), _NUM_POINTS, horizon)
        self.register_buffer("scores", torch.zeros(shape, dtype=torch.float32))
        self.register_buffer("count", torch.zeros((), dtype=torch.float32))

    def fit(self, scores: Tensor, mask: Tensor) -> None:
        """Takes the scores of the validation windows.

        Args:
            scores: ``(N, L, H)``.
            mask: True where the target was measured, ``(N, H)``.
        """
        points = torch.linspace(0, 1, _NUM_POINTS, dtype=torch.float64)
        for step in range(scores.shape[-1]):
            column = scores[mask[:, step], :, step].double().cpu()
            if len(column):
                found = torch.from_numpy(np.quantile(column.numpy(), points.numpy(), axis=0))
                self.scores[:, :, step] = found.T.to(self.scores)
        self.count.fill_(float(mask.sum(0).min()))

    def static(self) -> Tensor:
        """Width to add to each end of each level's interval, ``(L, H)``."""
        alpha = np.repeat(1 - np.array(self.levels)[:, None], self.scores.shape[-1], axis=1)
        return torch.from_numpy(self._widths(alpha)).to(self.scores)

    def _widths(self, alpha: Array) -> Array:
        """Score that a share of at most alpha exceeds, ``(..., L, H)``."""
        grid = self.scores.double().cpu().numpy()
        count = max(float(self.count), 1.0)
        level = (1 - alpha) * (1 + 1 / count)  # the finite sample's own step
        place = np.clip(level, 0, 1) * (_NUM_POINTS - 1)
        low = np.minimum(place.astype(np.int64), _NUM_POINTS - 2)
        part = place - low
        rows = np.arange(grid.shape[0])[:, None]
        steps = np.arange(grid.shape[2])
        width = (1 - part) * grid[rows, low, steps] + part * grid[rows, low + 1, steps]
        nominal = 1 - np.array(self.levels)[:, None]
        beyond = np.maximum(level - 1, 0) / nominal
        return np.asarray(width + beyond * np.abs(grid[:, -1]))

    def adaptive(self, scores: Array, time: Array, series: Array, mask: Array) -> Array:
        """Width of each window's intervals, each from the errors known at its own time.

        Args:
            scores: ``(N, L, H)``.
            time: Place of each window's first target, ``(N,)``; windows of a series are one apart.
            series: Series of each window, ``(N,)``.
            mask: True where the target was measured, ``(N, H)``.

        Returns:
            Widths ``(N, L, H)``.
        """
        names, group = np.unique(series, return_inverse=True)
        first = np.full(len(names), np.iinfo(np.int64).max)
        np.minimum.at(first, group, time)
        tick = time - first[group]
        num_levels, horizon = scores.shape[1:]
        nominal = np.broadcast_to(1 - np.array(self.levels)[:, None], (num_levels, horizon))
        alpha = np.broadcast_to(nominal, (len(names), num_levels, horizon)).copy()
        order = np.argsort(tick, kind="stable")
        cuts = np.searchsorted(tick[order], np.arange(tick.max() + 2))
        # The error of step h is fed back h rows late: a ring of the last H windows' corrections.
        ring = np.zeros((horizon, *alpha.shape))
        steps = np.arange(horizon)
        widths = np.zeros(scores.shape)
        for t in range(int(tick.max()) + 1):
            alpha += ring[(t - 1 - steps) % horizon, :, :, steps].transpose(1, 2, 0)
            here = order[cuts[t] : cuts[t + 1]]
            found = self._widths(alpha[group[here]])
            widths[here] = found
            missed = (scores[here] > found).astype(np.float64)
            ring[t % horizon] = 0
            correction = self.gamma * (nominal - missed) * mask[here][:, None]
            ring[t % horizon, group[here]] = correction
        return widths
