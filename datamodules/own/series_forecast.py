"""Forecasts beyond the end of each series: the last windows, and the table of what is forecast."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from datamodules.batches import SeriesBatch
from datamodules.errors import InputError
from datamodules.files.notes import say
from datamodules.files.time_steps import cycles
from datamodules.loading.windows import Origins
from datamodules.own.series_options import SeriesOptions
from datamodules.own.series_rivals import blocks
from datamodules.own.series_scale import series_scales
from datamodules.own.series_splits import hash_rows
from datamodules.own.series_table import SeriesTable

Array = np.ndarray[Any, Any]
_MOST_FOLLOWED = 50_000
_MOST_OF_A_SERIES = 2_000


class LastRows(NamedTuple):
    """Series whose steps behind the last row are forecast.

    Attributes:
        table: The file to predict, with rows behind its last targets where columns are known ahead.
        past: Where the last targets stand: the same, or the file that it continues.
        number: Number of each series in ``table``, ``(P,)``.
        place: Its number in ``past``, ``(P,)``.
    """

    table: SeriesTable
    past: SeriesTable
    number: Array
    place: Array


def last_rows(data: SeriesOptions) -> LastRows:
    """The series to forecast; those shorter than the window are left out, which is said.

    Raises:
        InputError: If there is none, or the file continues another that it does not fit.
    """
    table = data.predict_table
    past, index = table, np.arange(len(table.names))
    place = index
    if data.predict_path is not None and (table.ends == table.offsets[:-1]).all():
        past = data.table
        place = _continued(table, past)
    lengths = past.ends[place] - past.offsets[place]
    long = lengths >= data.window
    if not long.all():
        first = int(np.flatnonzero(~long)[0])
        name = " ".join(table.names[first])
        which = f", series {name!r}," if len(long) > 1 else ""
        text = f"{past.where}{which} has {lengths[first]} rows; a window needs {data.window}"
        if not long.any():
            raise InputError(text)
        say(f"{text}: {int((~long).sum()):,} of {len(long):,} series are not forecast")
    return LastRows(table, past, index[long], place[long])


def last_windows(data: SeriesOptions) -> SeriesBatch:
    """The window at the end of each series, with what is known of the steps behind it.

    Args:
        data: The options, and what a run knows.

    Raises:
        InputError: If no series is as long as the window, or what is known ahead ends too early.
    """
    rows = last_rows(data)
    past, place = rows.past, rows.place
    ends = past.ends[place]
    windows = [past.values[end - data.window : end] for end in ends]
    known = [_ahead(data, rows, which) for which in range(len(place))]
    x = torch.from_numpy(np.stack(windows))
    center, scale, naive = (part[place] for part in series_scales(data, past, data.target_power))
    own = data.grouped
    together = (data.num_targets,) if data.num_targets > 1 else ()
    return SeriesBatch(
        x=x,
        y=torch.full((len(x), data.horizon, *together), torch.nan, dtype=torch.float64),
        known=torch.from_numpy(np.stack(known)) if data.num_known else None,
        series=data.numbers_of(past.names)[place],
        time=torch.from_numpy(ends.copy()),
        center=center if own else None,
        scale=scale if own else None,
        naive_error=naive,
    )


def _continued(table: SeriesTable, history: SeriesTable) -> Array:
    """Number of each series of a table in the history that it continues."""
    known = {name: number for number, name in enumerate(history.names)}
    other = [name for name in table.names if name not in known]
    if other:
        raise InputError(
            f"{table.where} has no target, and series {' '.join(other[0])!r} is not in "
            f"{history.where}; give the targets of its last window"
        )
    place = np.array([known[name] for name in table.names])
    if history.dates is None or table.dates is None or history.step is None:
        return place
    for name, start, number in zip(table.names, table.offsets[:-1], place, strict=True):
        last = history.dates[history.ends[number] - 1]
        due, first = history.step.after(last, 1)[0], table.dates[start]
        if first != due:
            which = f", series {' '.join(name)!r}," if name else ""
            raise InputError(
                f"{table.where}{which} begins at {pd.Timestamp(first)}; {history.where} ends at "
                f"{pd.Timestamp(last)}, so that {pd.Timestamp(due)} is due"
            )
    return place


def _ahead(data: SeriesOptions, rows: LastRows, which: int) -> Array:
    """Channels known ahead at the steps to forecast, ``(H, K)``."""
    table, past, place = rows.table, rows.past, int(rows.place[which])
    index, columns = int(rows.number[which]), table.num_known_columns
    first, stop = int(table.ends[index]), int(table.offsets[index + 1])
    if columns and stop - first < data.horizon:
        named = f" of series {' '.join(table.names[index])!r}" if len(table.names) > 1 else ""
        raise InputError(
            f"{table.where} has {stop - first} rows behind the last target{named}; a horizon of "
            f"{data.horizon} needs as many with {', '.join(data.columns.known)} and no target"
        )
    channels = slice(table.num_targets, table.num_targets + columns)
    given = table.values[first : first + data.horizon, channels]
    if not data.columns.calendar:
        return given if columns else np.empty((data.horizon, 0))
    assert past.dates is not None
    assert past.step is not None
    dates = past.step.after(past.dates[past.ends[place] - 1], data.horizon)
    waves = cycles(dates, past.step)
    return np.concatenate([given, waves], axis=1) if columns else waves


def followed_windows(data: SeriesOptions) -> Iterator[SeriesBatch]:
    """Windows whose errors the intervals of a prediction follow, then those to predict.

    Of the file to predict these are the last windows of each series that hold no training row, a
    few thousand at most.

    Args:
        data: The options, and what a run knows.
    """
    if data.predict_windows == "test":
        yield from blocks(data.rows, data.origins("test"))
        return
    table, last = last_rows(data).past, data.windows("predict")
    trained = data.trained_rows
    if trained is not None:
        scales = series_scales(data, table, data.target_power)
        yield from blocks(data.rows_with(scales, table), _untrained(data, table, trained))
    mask = torch.zeros(last.y.shape, dtype=torch.bool)
    yield last._replace(y=torch.zeros_like(last.y), mask=mask)


def _untrained(data: SeriesOptions, table: SeriesTable, trained: Array) -> Origins:
    """The last windows of each series none of whose targets was trained on."""
    seen = np.concatenate([[0], np.cumsum(np.isin(hash_rows(table), trained))])
    most = max(_MOST_FOLLOWED // len(table.names), 1)
    rows, series = [], []
    for index, (start, end) in enumerate(zip(table.offsets[:-1], table.ends, strict=True)):
        row = np.arange(start + data.window, end - data.horizon + 1)
        row = row[seen[row + data.horizon] == seen[row]][-min(most, _MOST_OF_A_SERIES) :]
        rows.append(row)
        series.append(np.full(len(row), index))
    places = (torch.from_numpy(np.concatenate(part)) for part in (rows, series))
    return Origins(*places)


def forecast_frame(
    data: SeriesOptions,
    outputs: Mapping[str, Tensor],
    origins: Origins | None,
) -> pd.DataFrame:
    """One row a forecast step.

    Args:
        data: The options.
        outputs: Forecasts and ends of intervals ``(N, H)`` by name.
        origins: The windows that were forecast; None for those at the end of each series.

    Returns:
        Columns of the series, ``date`` (or ``row``, from 0 in its series), ``step``, then the
        outputs; ``target`` where it is known.
    """
    horizon, together = data.horizon, data.num_targets
    if origins is None:
        _, past, _, series = last_rows(data)
        row = past.ends[series]
        outputs = {name: part for name, part in outputs.items() if name != "target"}
    else:
        past, series, row = data.table, origins.series.numpy(), origins.row.numpy()
    columns: dict[str, Any] = {}
    for place, name in enumerate(data.columns.series):
        labels = np.array([label[place] for label in past.names], dtype=object)
        columns[name] = np.repeat(labels[series], together * horizon)
    if together > 1:
        columns["series"] = np.tile(np.repeat(data.target_names, horizon), len(row))
    elif len(data.target_names) > 1:
        targets = np.array([label[-1] for label in past.names], dtype=object)
        columns["series"] = np.repeat(targets[series], horizon)
    steps = np.arange(1, horizon + 1)
    if past.dates is not None and past.step is not None:
        dates = np.stack([past.step.after(past.dates[first - 1], horizon) for first in row])
        columns["date"] = np.repeat(dates, together, axis=0).ravel()
    else:
        within = (row - past.offsets[series])[:, None] + steps - 1
        columns["row"] = np.repeat(within, together, axis=0).ravel()
    columns["step"] = np.tile(steps, together * len(row))
    for name, part in outputs.items():
        by_target = part.movedim(-1, 1) if part.ndim == 3 else part
        columns[name] = by_target.reshape(-1).double().numpy()
    return pd.DataFrame(columns)
