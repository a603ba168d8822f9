r"""Intervals that hold: conformal widths from held-out windows, adapted to what follows.

The score of a window's step is how far the target lies outside the interval that the model states,
:math:`s = \max(l - y, y - u)` in units of the series (Romano et al., "Conformalized Quantile
Regression", 2019; for a single value :math:`l = u` and the score is the absolute error), over the
mean score of its series, so that a restless series lends a quiet one no width. Widening the
interval by the quantile of the validation scores at :math:`1 - \alpha` covers new windows that are
exchangeable with them. A series drifts, so that over the test the level follows the errors (Gibbs
and Candes, "Adaptive Conformal Inference Under Distribution Shift", 2021):

.. math::
    \alpha_{t+1}^h = \alpha_t^h + \gamma (\alpha - \mathrm{err}_t^h)
        + \frac{\gamma'}{|K_t|} \sum_{k \in K_t} (\alpha - \mathrm{err}_t^k),

where the error of step h is known h rows after its forecast and K are the steps whose errors are
known. Deviations: the second term, which lets a far step learn from the near ones, whose errors
are known long before its own; beyond the largest score the width grows in proportion, where the
paper's interval is infinite.

Of n scores the quantile is that at :math:`(1 - \alpha)(1 + 1 / n)`. Scores of step h from windows
that are one row apart share up to h - 1 of the changes that made them: n of them estimate a mean as
well as n / c that are independent, with :math:`c = (2 h^2 + 1) / 3 h` for squares of sums of
independent changes (Bartlett, 1946). Their quantile covers too little, on random walks by what
:math:`\sqrt{c} / n` in the place of 1 / n makes good, up to the largest score.

Shape letters: N windows, L levels, H horizon, Q points of the scores' distribution, S series.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Array = np.ndarray[Any, Any]
_NUM_POINTS = 201
# Windows that a series' mean score needs to count as much as that of all series.
_PRIOR_WINDOWS = 10


class ConformalWidths(nn.Module):
    """Distribution of the validation scores of each level and step, kept in the checkpoint.

    Args:
        levels: Probabilities that the intervals hold.
        horizon: Number H of steps.
        num_series: Number S of series.
        gamma: Step size of the adaptive level.
        shared_gamma: Step size of what the steps share, less where many steps would feed back late.
    """

    scores: Tensor
    count: Tensor
    ratios: Tensor

    def __init__(
        self,
        levels: Sequence[float],
        horizon: int,
        num_series: int = 1,
        gamma: float = 0.005,
        shared_gamma: float = 0.02,
    ) -> None:
        super().__init__()
        self.levels, self.gamma = tuple(levels), gamma
        self.shared_gamma = min(shared_gamma, 0.5 / horizon)
        shape = (len(levels), _NUM_POINTS, horizon)
        self.register_buffer("scores", torch.zeros(shape, dtype=torch.float32))
        self.register_buffer("count", torch.zeros((), dtype=torch.float32))
        self.register_buffer("ratios", torch.ones(num_series, dtype=torch.float32))

    def fit(self, scores: Tensor, mask: Tensor, series: Tensor) -> None:
        """Takes the scores of the validation windows.

        Args:
            scores: ``(N, L, H)``.
            mask: True where the target was measured, ``(N, H)``.
            series: Number of the series, ``(N,)``.
        """
        found, known = scores.double().cpu().numpy(), mask.cpu().numpy()
        self._fit_ratios(np.abs(found[:, 0]), known, series.cpu().numpy())
        found = found / self.ratio(series).cpu().double().numpy()[:, None, None]
        points = np.linspace(0, 1, _NUM_POINTS)
        for step in range(found.shape[-1]):
            column = found[known[:, step], :, step]
            if len(column):
                quantiles = np.quantile(column, points, axis=0).T
                self.scores[:, :, step] = torch.from_numpy(quantiles).to(self.scores)
        self.count.fill_(float(known.sum(0).min()))

    def _fit_ratios(self, sizes: Array, mask: Array, series: Array) -> None:
        """Mean size of each series' scores over that of all, ``(S,)``."""
        num_series, horizon = len(self.ratios), mask.shape[1]
        total, count = np.zeros((2, num_series))
        np.add.at(total, series, np.where(mask, sizes, 0).sum(1))
        np.add.at(count, series, mask.sum(1))
        mean = total.sum() / max(count.sum(), 1)
        self.ratios.fill_(1)
        if mean > 0 and num_series > 1:
            own = np.maximum(total / mean / np.maximum(count, 1), 1e-6)
            weight = count / (count + _PRIOR_WINDOWS * horizon)
            self.ratios.copy_(torch.from_numpy(own**weight))

    def ratio(self, series: Tensor) -> Tensor:
        """Size of the scores of some series, ``(N,)``; 1 for one that training did not have."""
        known = (series >= 0) & (series < len(self.ratios))
        return torch.where(known, self.ratios[torch.where(known, series, 0)], 1.0)

    def static(self, series: Tensor) -> Tensor:
        """Width to add to each end of each level's interval, ``(N, L, H)``."""
        alpha = np.broadcast_to(self._nominal(), (1, *self._nominal().shape))
        width = torch.from_numpy(self._widths(alpha)).to(self.scores)
        return width * self.ratio(series)[:, None, None]

    def _nominal(self) -> Array:
        return np.repeat(1 - np.array(self.levels)[:, None], self.scores.shape[-1], axis=1)

    def _finite_sample(self, alpha: Array) -> Array:
        """What the level rises by for having seen so few scores, ``(..., L, H)``."""
        count, nominal = max(float(self.count), 1.0), self._nominal()
        steps = np.arange(1, nominal.shape[1] + 1)
        overlap = np.sqrt((2 * steps**2 + 1) / (3 * steps))
        shared = np.minimum((1 - nominal) * overlap / count, nominal)
        return np.asarray(np.maximum((1 - alpha) / count, shared))

    def _widths(self, alpha: Array) -> Array:
        """Score that a share of at most alpha exceeds, ``(..., L, H)``."""
        grid = self.scores.double().cpu().numpy()
        level = 1 - alpha + self._finite_sample(alpha)
        place = np.clip(level, 0, 1) * (_NUM_POINTS - 1)
        low = np.minimum(place.astype(np.int64), _NUM_POINTS - 2)
        part = place - low
        rows = np.arange(grid.shape[0])[:, None]
        steps = np.arange(grid.shape[2])
        width = (1 - part) * grid[rows, low, steps] + part * grid[rows, low + 1, steps]
        nominal = 1 - np.array(self.levels)[:, None]
        beyond = np.maximum(level - 1, 0) / nominal
        return np.asarray(width + beyond * np.abs(grid[:, -1]))

    def adaptive(self, scores: Tensor, time: Tensor, series: Tensor, mask: Tensor) -> Tensor:
        """Width of each window's intervals, each from the errors known at its own time.

        Args:
            scores: ``(N, L, H)``; ignored where the mask is False.
            time: Place of each window's first target, ``(N,)``; windows of a series are one apart.
            series: Series of each window, ``(N,)``.
            mask: True where the target was measured, ``(N, H)``.

        Returns:
            Widths ``(N, L, H)`` float64, on the CPU.
        """
        ratio = self.ratio(series).cpu().double()[:, None, None]
        found = torch.where(mask[:, None], scores, 0).cpu().double() / ratio
        arrays = (part.cpu().numpy() for part in (found, time, series, mask))
        return torch.from_numpy(self._follow(*arrays)) * ratio

    def _follow(self, scores: Array, time: Array, series: Array, mask: Array) -> Array:
        names, group = np.unique(series, return_inverse=True)
        first = np.full(len(names), np.iinfo(np.int64).max)
        np.minimum.at(first, group, time)
        tick = time - first[group]
        num_levels, horizon = scores.shape[1:]
        nominal = self._nominal()
        alpha = np.broadcast_to(nominal, (len(names), num_levels, horizon)).copy()
        order = np.argsort(tick, kind="stable")
        cuts = np.searchsorted(tick[order], np.arange(tick.max() + 2))
        # The error of step h is fed back h rows late: rings of the last H windows' errors.
        ring = np.zeros((horizon, *alpha.shape))
        known = np.zeros((horizon, len(names), horizon))
        steps = np.arange(horizon)
        widths = np.zeros(scores.shape)
        for t in range(int(tick.max()) + 1):
            late = (t - 1 - steps) % horizon
            errors = ring[late, :, :, steps].transpose(1, 2, 0)
            count = known[late, :, steps].sum(0)[:, None, None]
            shared = errors.sum(2, keepdims=True) / np.maximum(count, 1)
            alpha += self.gamma * errors + self.shared_gamma * shared
            here = order[cuts[t] : cuts[t + 1]]
            ring[t % horizon], known[t % horizon] = 0, 0
            if len(here):
                found = self._widths(alpha[group[here]])
                widths[here] = found
                missed = (scores[here] > found).astype(np.float64)
                ring[t % horizon, group[here]] = (nominal - missed) * mask[here][:, None]
                known[t % horizon, group[here]] = mask[here]
        return widths
