"""Statistical forecasts of each series, where the extra ``series`` (statsforecast) is installed.

Each method is fitted once to the rows of a series before its first test window; at every later
window it is brought up to date by what has come since, without another fit. A method whose work
would take longer than about half a minute is left out, which is said.
"""

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.files.notes import say
from datamodules.loading.windows import Origins, SeriesRows
from datamodules.own.series_rivals import Errors, blocks

Array = np.ndarray[Any, Any]
_MOST_SECONDS = 30.0


class _Method(NamedTuple):
    """A method, and its seconds a row and step of the season to fit, and a row to update.

    The seconds were measured on one core; they bound the work, and decide nothing else.
    """

    name: str
    fit: float
    update: float
    longest_season: int | None = None


_METHODS = (
    _Method("AutoARIMA", 1.7e-3, 7e-6, 24),
    _Method("AutoETS", 5e-5, 2e-7, 24),
    _Method("AutoTheta", 6e-6, 2.2e-6),
)


def statistical_errors(
    rows: SeriesRows, test: Origins, starts: Array, season: int
) -> dict[str, Errors]:
    """Errors of the statistical methods over the test windows, by their names.

    Args:
        rows: The rows of all series.
        test: Places of the test windows, in the order of the rows.
        starts: First row of each series, ``(S,)``.
        season: Steps of one season; 0 for none.

    Returns:
        Nothing where statsforecast is not installed.
    """
    if importlib.util.find_spec("statsforecast") is None:
        return {}
    from statsforecast import models

    found: dict[str, Errors] = {}
    for method in _METHODS:
        obstacle = _obstacle(method, test, starts, season)
        if obstacle:
            say(f"{method.name} is not among the rivals: {obstacle}")
            continue
        make = partial(getattr(models, method.name), season_length=max(season, 1))
        found[method.name] = _errors(make, rows, test, starts)
    return found


def _obstacle(method: _Method, test: Origins, starts: Array, season: int) -> str:
    """Why a method is left out; empty where it is not."""
    if method.longest_season is not None and season > method.longest_season:
        return f"a season of {season} steps is more than its {method.longest_season}"
    history = test.row.numpy() - starts[test.series.numpy()]
    series, first = np.unique(test.series.numpy(), return_index=True)
    seconds = method.fit * history[first].sum() * max(season, 1) + method.update * history.sum()
    if seconds > _MOST_SECONDS:
        return f"{len(series):,} series and {len(history):,} windows would take {seconds:,.0f} s"
    return ""


def _errors(make: Callable[[], Any], rows: SeriesRows, test: Origins, starts: Array) -> Errors:
    errors = Errors()
    for number in np.unique(test.series.numpy()).tolist():
        place = test.row[test.series == number]
        origins = Origins(place, torch.full_like(place, number))
        forecast = _forecasts(make, rows, place.numpy(), int(starts[number]))
        parts = iter(torch.split(forecast, [len(batch.y) for batch in blocks(rows, origins)]))
        for batch in blocks(rows, origins):
            errors.add(next(parts).view(batch.y.shape), batch)
    return errors


def _forecasts(make: Callable[[], Any], rows: SeriesRows, place: Array, start: int) -> Tensor:
    """Forecasts at each window of a series, ``(N, H, M)``."""
    targets = rows.values[:, : rows.num_targets].numpy()
    found = np.empty((len(place), rows.horizon, rows.num_targets))
    for target in range(rows.num_targets):
        history = np.ascontiguousarray(targets[start : place[-1], target])
        method = make().fit(history[: place[0] - start])
        for index, row in enumerate(place):
            ahead = method.forward(y=history[: row - start], h=rows.horizon)
            found[index, :, target] = ahead["mean"]
    return torch.from_numpy(found)
