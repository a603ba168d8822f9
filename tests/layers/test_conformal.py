"""Conformal widths: static ones cover what is exchangeable, adaptive ones follow what is not."""

import numpy as np
import pytest
import torch

from lit_models.layers.conformal import ConformalWidths
from lit_models.layers.forecast_heads import LEVELS


def exponential(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).exponential(size=shape))


def fitted(scores, series=None, **options):
    """Widths of scores ``(N, H)``, the same for both levels."""
    series = torch.zeros(len(scores), dtype=torch.long) if series is None else series
    widths = ConformalWidths(LEVELS, scores.shape[1], int(series.max()) + 1, **options)
    mask = torch.ones(scores.shape, dtype=torch.bool)
    widths.fit(scores.unsqueeze(1).expand(-1, 2, -1), mask, series)
    return widths


def follow(widths, scores, time=None, series=None, mask=None):
    count = len(scores)
    time = torch.arange(count) if time is None else time
    series = torch.zeros(count, dtype=torch.long) if series is None else series
    mask = torch.ones(scores.shape, dtype=torch.bool) if mask is None else mask
    return widths.adaptive(scores.unsqueeze(1).expand(-1, 2, -1), time, series, mask)


def test_static_widths_cover_exchangeable_windows():
    widths = fitted(exponential(3000, 2))
    new = exponential(3000, 2, seed=1).unsqueeze(1)
    covered = (new <= widths.static(torch.zeros(1).long())).double().mean((0, 2))
    np.testing.assert_allclose(covered, LEVELS, atol=0.03)


def test_few_windows_that_overlap_still_cover():
    """Random walks whose first 18 windows of twelve steps are all that validation has."""
    count, horizon = 18, 12
    walks = torch.from_numpy(np.random.default_rng(0).normal(size=(150, 200))).cumsum(1)
    covered = []
    for walk in walks:
        scores = (walk.unfold(0, horizon + 1, 1)[:, 1:] - walk[:-horizon, None]).abs()
        width = fitted(scores[:count]).static(torch.zeros(1).long())
        new = scores[count + horizon :].unsqueeze(1)
        covered.append((new <= width).double().mean(0)[0])
    np.testing.assert_allclose(torch.stack(covered).mean(0), LEVELS[0], atol=0.03)


@pytest.mark.parametrize("factor", [0.5, 1.6])
def test_adaptive_widths_follow_a_drift_that_static_ones_miss(factor):
    widths = fitted(exponential(2000, 3))
    new = factor * exponential(4000, 3, seed=1)
    found = follow(widths, new)
    covered = (new.unsqueeze(1) <= found).double().mean((0, 2))
    np.testing.assert_allclose(covered, LEVELS, atol=0.02)
    static = (new.unsqueeze(1) <= widths.static(torch.zeros(1).long())).double().mean((0, 2))
    assert np.abs(static - torch.tensor(LEVELS)).max() > 0.05


def test_an_error_is_fed_back_when_its_target_is_known():
    """By the recursion as it is written, one window after another; one target was not measured."""
    widths = fitted(exponential(500, 3), gamma=0.05, shared_gamma=0.03)
    new, mask = 2 * exponential(60, 3, seed=1), torch.ones(60, 3, dtype=torch.bool)
    mask[20, 1] = False
    found = follow(widths, new, torch.arange(60) + 9, mask=mask)
    alpha, errors = np.full(3, 0.2), np.zeros((60, 3))
    for t in range(60):
        known = [h for h in range(3) if t - 1 - h >= 0 and mask[t - 1 - h, h]]
        late = {h: errors[t - 1 - h, h] for h in known}
        for h in range(3):
            alpha[h] += 0.05 * late.get(h, 0) + 0.03 * sum(late.values()) / max(len(known), 1)
        both = np.stack([alpha, alpha])
        width = widths._widths(both)[0]
        np.testing.assert_allclose(found[t, 0], width, rtol=1e-9)
        errors[t] = 0.2 - (new[t].numpy() > width)


def test_what_comes_behind_the_last_target_has_the_last_level():
    """A window to predict, whose targets nobody knows, in the turn of those before it."""
    widths, new = fitted(exponential(500, 2)), exponential(80, 2, seed=1)
    mask = torch.ones(80, 2, dtype=torch.bool)
    mask[79] = False
    unknown = new.clone()
    unknown[79] = torch.nan
    torch.testing.assert_close(follow(widths, unknown, mask=mask)[79], follow(widths, new)[79])


def test_a_restless_series_lends_a_quiet_one_no_width():
    series = torch.arange(4000) % 2
    size = torch.where(series == 0, 1.0, 100.0).unsqueeze(1)
    widths = fitted(size * exponential(4000, 2), series)
    new = size * exponential(4000, 2, seed=1)
    static = (new.unsqueeze(1) <= widths.static(series)).double()
    for number in (0, 1):
        covered = static[series == number].mean((0, 2))
        np.testing.assert_allclose(covered, LEVELS, atol=0.03)
    assert widths.ratio(torch.tensor([0, 1, -1, 7])).tolist()[2:] == [1, 1]


def test_each_series_adapts_by_itself():
    widths, new = fitted(exponential(500, 2)), exponential(200, 2, seed=1)
    widths.ratios = torch.ones(2)
    series, time = torch.arange(200) % 2, torch.arange(200) // 2
    both = follow(widths, new, time, series)
    for number in (0, 1):
        rows = series == number
        alone = follow(widths, new[rows], time[rows], series[rows])
        torch.testing.assert_close(both[rows], alone)
