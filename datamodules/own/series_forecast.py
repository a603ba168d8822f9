"""Forecasts beyond the end of each series: the last windows, and the table of what is forecast."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from datamodules.batches import SeriesBatch
from datamodules.errors import InputError
from datamodules.files.time_steps import cycles
from datamodules.loading.windows import Origins
from datamodules.own.series_options import SeriesOptions
from datamodules.own.series_scale import series_scales

if TYPE_CHECKING:
    from datamodules.own.series_table import SeriesTable

Array = np.ndarray[Any, Any]


def last_windows(
    data: SeriesOptions,
    table: "SeriesTable",
    history: Callable[[], "SeriesTable"] | None,
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
    return SeriesBatch(
        x=x,
        y=torch.full((len(x), data.horizon), torch.nan, dtype=torch.float64),
        known=torch.from_numpy(np.stack(known)) if data.num_known else None,
        series=numbers,
        time=torch.from_numpy(past.ends.copy()),
        center=center if own else None,
        scale=scale if own else None,
        naive_error=naive,
    )


def _same_series(table: "SeriesTable", history: "SeriesTable") -> "SeriesTable":
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
    table: "SeriesTable",
    past: "SeriesTable",
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
    given = table.values[first : first + data.horizon, 1 : 1 + columns]
    if not data.columns.calendar:
        return given if columns else np.empty((data.horizon, 0))
    assert past.dates is not None
    assert past.step is not None
    dates = past.step.after(past.dates[past.ends[index] - 1], data.horizon)
    waves = cycles(dates, past.step)
    return np.concatenate([given, waves], axis=1) if columns else waves


def forecast_frame(
    data: SeriesOptions,
    table: "SeriesTable",
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
    horizon = data.horizon
    if origins is None:
        past = table
        if data.predict_path is not None and (table.ends == table.offsets[:-1]).all():
            past = data._table
        series, row = np.arange(len(table.names)), past.ends
        outputs = {name: part for name, part in outputs.items() if name != "target"}
    else:
        past, series, row = table, origins.series.numpy(), origins.row.numpy()
    columns: dict[str, Any] = {}
    for place, name in enumerate(_label_names(data)):
        labels = np.array([label[place] for label in past.names], dtype=object)
        columns[name] = np.repeat(labels[series], horizon)
    steps = np.arange(1, horizon + 1)
    if past.dates is not None and past.step is not None:
        dates = [past.step.after(past.dates[first - 1], horizon) for first in row]
        columns["date"] = np.concatenate(dates)
    else:
        within = row - past.offsets[series]
        columns["row"] = (within[:, None] + steps - 1).ravel()
    columns["step"] = np.tile(steps, len(row))
    for name, part in outputs.items():
        columns[name] = part.reshape(-1).double().numpy()
    return pd.DataFrame(columns)


def _label_names(data: SeriesOptions) -> list[str]:
    several = ["series"] if len(data.columns.targets) > 1 else []
    return [*data.columns.series, *several]
