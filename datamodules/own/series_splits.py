"""Splits of each series in time, from its end, and what tells their rows again."""

import math
from typing import Any

import numpy as np
import pandas as pd
import torch

from datamodules.base import Split
from datamodules.errors import InputError
from datamodules.files.notes import say
from datamodules.loading.windows import Origins
from datamodules.own.series_options import Bounds, SeriesOptions
from datamodules.own.series_table import SeriesTable

Array = np.ndarray[Any, Any]
# A fit validates dozens of times; neither the ridge's penalty nor the widths need more windows.
_MOST_VALIDATED = 20_000
# The largest of so many errors is exceeded by one in twenty.
_FEWEST_APART = 19


def _count(name: str, rows: int | float, num_rows: Array) -> Array:
    if rows <= 0 or (isinstance(rows, float) and rows >= 1):
        raise InputError(
            f"{name} is a number of rows from 1, or a share between 0 and 1, got {rows}"
        )
    if isinstance(rows, float):
        return np.rint(rows * num_rows).astype(np.int64)
    return np.full(len(num_rows), rows)


def split_bounds(data: SeriesOptions) -> Bounds:
    """First and last row (exclusive) of each split of each series, ``(S,)`` each.

    Raises:
        InputError: If no series is long enough for a split.
    """
    table = data.table
    starts, ends = table.offsets[:-1], table.ends
    lengths = ends - starts
    val = _count("val_rows", data.val_rows, lengths)
    test = _count("test_rows", data.test_rows, lengths)
    if data.folds:  # the earlier folds end before the test parts of the later ones
        lengths = lengths - (data.folds - 1 - (data.fold or 0)) * test
        if isinstance(data.val_rows, float):
            val = _count("val_rows", data.val_rows, np.maximum(lengths, 0))
    rest = lengths - val - test
    train = rest if data.num_train_rows is None else np.full(len(lengths), data.num_train_rows)
    single = len(lengths) == 1
    if single and train[0] + val[0] + test[0] > max(lengths[0], 0) and data.num_train_rows:
        raise InputError(
            f"{table.where} has {lengths[0]} rows; {train[0]} + {val[0]} + {test[0]} were asked for"
        )
    train = np.minimum(train, rest)
    cuts = [starts + np.maximum(part, 0) for part in (0 * train, train, train + val)]
    last = starts + np.maximum(train + val + test, 0)
    bounds = {
        "train": (cuts[0], cuts[1]),
        "val": (cuts[1], cuts[2]),
        "test": (cuts[2], np.maximum(last, cuts[2])),
    }
    _check_lengths(data, bounds)
    return bounds


def _check_lengths(data: SeriesOptions, bounds: Bounds) -> None:
    table = data.table
    for split, (start, end) in bounds.items():
        need = data.horizon + (data.window if split == "train" else 0)
        short = end - start < need
        if not short.any():
            continue
        if short.all():
            which = "" if len(short) == 1 else " of every series"
            longest = int(max((end - start).max(), 0))
            raise InputError(
                f"the {split} part{which} of {table.where} has {longest} rows"
                f"{'' if len(short) == 1 else ' at most'}; window {data.window} and horizon "
                f"{data.horizon} need {need}: shorten them or give more rows"
            )
        first = " ".join(table.names[int(np.flatnonzero(short)[0])])
        say(
            f"{table.where}: {int(short.sum()):,} of {len(short):,} series, such as {first!r}, are "
            f"too short for a {split} window ({need} rows) and left out there"
        )


def split_origins(data: SeriesOptions, split: Split) -> Origins:
    """Row of the first target and series of each window of a split, in the order of the rows.

    Validation of a long file takes evenly spaced windows, which is said.
    """
    table, (starts, ends) = data.table, data.bounds[split]
    stride = data.stride if split == "train" else 1
    firsts = np.maximum(starts, table.offsets[:-1] + data.window)
    rows = [
        np.arange(first, end - data.horizon + 1, stride)
        for first, end in zip(firsts, ends, strict=True)
    ]
    series = np.repeat(np.arange(len(rows)), [len(part) for part in rows])
    row = np.concatenate(rows)
    if table.real is not None:  # a window without a measured target teaches and tells nothing
        measured = np.concatenate([[0], np.cumsum(table.real.any(1))])
        some = measured[row + data.horizon] > measured[row]
        row, series = row[some], series[some]
    every = -(-len(row) // _MOST_VALIDATED)
    if split == "val" and every > 1:
        say(f"validation takes one in {every} of its {len(row):,} windows")
        row, series = row[::every], series[::every]
    if split == "val":
        _say_few(len(row), data.horizon)
    if data.season and split == "test":
        early = row - table.offsets[series] < data.season
        if early.any():
            raise InputError(
                f"a season of {data.season} steps is longer than what {table.where} has before its "
                "first test window; shorten --data.season"
            )
    return Origins(torch.from_numpy(row), torch.from_numpy(series))


def _say_few(count: int, horizon: int) -> None:
    overlap = math.sqrt((2 * horizon**2 + 1) / (3 * horizon))  # as in the conformal widths
    needed = math.ceil(_FEWEST_APART * overlap)
    if count < needed:
        say(
            f"{count} validation windows are few for intervals of 95 %, which need {needed} of "
            f"horizon {horizon}: give more --data.val_rows, or read them as rough"
        )


def hash_rows(table: SeriesTable) -> Array:
    """Hash of each row, ``(rows,)`` uint64, by its series, its date and the targets up to it."""
    targets = table.values[:, : table.num_targets]
    hashes = np.zeros(len(targets), dtype=np.uint64)
    for column in targets.T:
        hashes = hashes * np.uint64(31) + pd.util.hash_array(np.ascontiguousarray(column))
    key = hashes.copy()
    for lag in (1, 2, 3):
        key[lag:] = key[lag:] * np.uint64(1_000_003) + hashes[:-lag]
    if table.dates is not None:
        key ^= pd.util.hash_array(table.dates.astype("datetime64[ns]").astype(np.int64))
    names = pd.util.hash_array(np.array([" ".join(n) for n in table.names], dtype=object))
    return np.asarray(key ^ np.repeat(names, np.diff(table.offsets)))
