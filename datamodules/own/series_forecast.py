"""Forecasts beyond the end of each series: the last windows, and the table of what is forecast."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from datamodules.batches import SeriesBatch
from datamodules.errors import InputError
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


def last_windows(
    data: SeriesOptions,
    table: SeriesTable,
    history: Callable[[], SeriesTable] | None,
) -> SeriesBatch:
    """The window at the end of each series, with what is known of the steps behind it.

    Args:
        data: The options, and what a run knows.
        table: The series to forecast, with rows behind their last target where columns are known
            ahead.
        history: Gives the series that the rows of ``table`` continue, where it has no target.

    Raises:
        InputError: If a series is shorter than the window, or what is known ahead ends too early.
    """
    past, continues = table, bool((table.ends == table.offsets[:-1]).all())
    if continues and history is not None:
        past = _same_series(table, history())
    windows, known = [], []
    for index, name in enumerate(table.names):
        end, start = int(past.ends[index]), int(past.offsets[index])
        if end - start < data.window:
            which = f", series {' '.join(name)!r}," if len(table.names) > 1 else ""
            raise InputError(
                f"{past.where}{which} has {end - start} rows; a window needs {data.window}"
            )
        windows.append(past.values[end - data.window : end])
        first = int(table.ends[index])
        known.append(_ahead(data, table, past, index, first))
    x = torch.from_numpy(np.stack(windows))
    numbers = data.numbers_of(table.names)
    center, scale, naive = series_scales(data, past, data.target_power)
    own = data.grouped
    together = (data.num_targets,) if data.num_targets > 1 else ()
    shape = (len(x), data.horizon, *together)
    return SeriesBatch(
        x=x,
        y=torch.full(shape, torch.nan, dtype=torch.float64),
        known=torch.from_numpy(np.stack(known)) if data.num_known else None,
        series=numbers,
        time=torch.from_numpy(past.ends.copy()),
        center=center if own else None,
        scale=scale if own else None,
        naive_error=naive,
    )


def _same_series(table: SeriesTable, history: SeriesTable) -> SeriesTable:
    """The history, its series in the order of the table that continues them."""
    if table.names != history.names:
        raise InputError(
            f"{table.where} has no target and other series than {history.where}; give the targets "
            "of the last window"
        )
    if history.dates is not None and table.dates is not None and history.step is not None:
        for index, name in enumerate(table.names):
            last = history.dates[history.ends[index] - 1]
            due, first = history.step.after(last, 1)[0], table.dates[table.offsets[index]]
            if first != due:
                raise InputError(
                    f"{table.where}{' ' * bool(name)}{' '.join(name)} begins at "
                    f"{pd.Timestamp(first)}; {history.where} ends at {pd.Timestamp(last)}, so that "
                    f"{pd.Timestamp(due)} is due"
                )
    return history


def _ahead(
    data: SeriesOptions,
    table: SeriesTable,
    past: SeriesTable,
    index: int,
    first: int,
) -> Array:
    """Channels known ahead at the steps to forecast, ``(H, K)``."""
    columns = table.num_known_columns
    stop = int(table.offsets[index + 1])
    if columns and stop - first < data.horizon:
        which = f" of series {' '.join(table.names[index])!r}" if len(table.names) > 1 else ""
        raise InputError(
            f"{table.where} has {stop - first} rows behind the last target{which}; a horizon of "
            f"{data.horizon} needs as many with {', '.join(data.columns.known)} and no target"
        )
    channels = slice(table.num_targets, table.num_targets + columns)
    given = table.values[first : first + data.horizon, channels]
    if not data.columns.calendar:
        return given if columns else np.empty((data.horizon, 0))
    assert past.dates is not None
    assert past.step is not None
    dates = past.step.after(past.dates[past.ends[index] - 1], data.horizon)
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
    table, last = data.predict_table, data.windows("predict")
    if (table.ends == table.offsets[:-1]).all() and data.predict_path is not None:
        table = data.table
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
    table: SeriesTable,
    outputs: Mapping[str, Tensor],
    origins: Origins | None,
) -> pd.DataFrame:
    """One row a forecast step.

    Args:
        data: The options.
        table: The series that were forecast.
        outputs: Forecasts and ends of intervals ``(N, H)`` by name.
        origins: The windows that were forecast; None for those at the end of each series.

    Returns:
        Columns of the series, ``date`` (or ``row``, from 0 in its series), ``step``, then the
        outputs; ``target`` where it is known.
    """
    horizon, together = data.horizon, data.num_targets
    if origins is None:
        past = table
        if data.predict_path is not None and (table.ends == table.offsets[:-1]).all():
            past = data.table
        series, row = np.arange(len(table.names)), past.ends
        outputs = {name: part for name, part in outputs.items() if name != "target"}
    else:
        past, series, row = table, origins.series.numpy(), origins.row.numpy()
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
