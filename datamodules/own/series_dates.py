"""Dates of series: one format a column, read piece by piece; in UTC where cells have offsets."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from datamodules.errors import InputError
from datamodules.files import dates as date_cells
from datamodules.files.notes import say
from datamodules.files.tables import Column, Table

Array = np.ndarray[Any, Any]
_UNITS = ("year", "month", "day", "hour", "minute", "second")


def holds_dates(column: Column) -> bool:
    """Whether the first cells are dates; a wrong one further down is named when they are read."""
    head = [cell.strip() for cell in column.text()[:50] if cell.strip()]
    parsed = [date_cells.parse([cell], form).notna() for form in ("ISO8601",) for cell in head]
    if sum(bool(found.all()) for found in parsed) > len(head) / 2:
        return True
    return bool(head) and any(
        date_cells.parse(head, form).notna().mean() > 0.5 for form in date_cells.FORMATS
    )


def parse_dates(column: Column, decided: dict[str, Any]) -> Array:
    """Dates of a column, ``(rows,)`` datetime64 in ns; with offsets from UTC, in UTC.

    Args:
        column: The column.
        decided: Its format under ``date_format``, put there where it is not known.
    """
    form = decided.get("date_format")
    if form is None:
        form = decided["date_format"] = _format(column)
    parts = []
    for piece in column.pieces:  # piece by piece: a million cells at once weigh 100 MB
        cells = [cell.strip() for cell in piece.levels()]
        if form == "UTC":
            read = pd.Series(pd.to_datetime(pd.Series(cells), format="ISO8601", utc=True))
        else:
            read = date_cells.parse(cells, form)
        if read.isna().any():
            column.dates(form)  # names the cell
        if read.dt.tz is not None:
            read = read.dt.tz_convert("UTC").dt.tz_localize(None)
        parts.append(piece.spread(read.to_numpy(dtype="datetime64[ns]")))
    return np.concatenate(parts)


def assembled_dates(table: Table, names: Sequence[str]) -> Array:
    """Dates whose parts stand in columns of their own, ``(rows,)`` datetime64 in ns.

    Args:
        table: The file.
        names: Columns called ``year``, ``month``, ``day`` and perhaps ``hour``, ``minute`` and
            ``second``, in capitals or not.

    Raises:
        InputError: If a column has another name, or a row is no date.
    """
    units = [name.lower().removesuffix("s") for name in names]
    if not {"year", "month", "day"} <= set(units) <= set(_UNITS):
        raise InputError(
            f"{table.where}: several columns are one date if they are called {', '.join(_UNITS)} "
            f"(the first three at least), got {', '.join(names)}"
        )
    parts = {unit: table[name].numbers() for unit, name in zip(units, names, strict=True)}
    dates = pd.to_datetime(pd.DataFrame(parts), errors="coerce")
    wrong = np.flatnonzero(dates.isna())
    if len(wrong):
        cells = "-".join(str(table[name].text()[wrong[0]]) for name in names)
        raise InputError(f"{table[names[0]].at(int(wrong[0]))}: {cells} is no date")
    return dates.to_numpy(dtype="datetime64[ns]")


def _format(column: Column) -> str:
    first = column.pieces[0].levels()
    try:
        form = date_cells.find_format([cell.strip() for cell in first], integers=True)
        if form is not None:
            return form
    except InputError:
        pass  # day or month: the whole column may tell
    except ValueError:
        return _utc(column)
    try:
        form = column.date_format(integers=True)
    except InputError as error:
        if isinstance(error.__cause__, InputError):
            raise
        return _utc(column)
    return form or _most(column)


def _most(column: Column) -> str:
    """The format of most cells, so that the first that differs is named."""
    cells = [cell.strip() for cell in column.text()[:1000]]
    best = max(date_cells.FORMATS, key=lambda f: int(date_cells.parse(cells, f).notna().sum()))
    column.dates(best)
    return best


def _utc(column: Column) -> str:
    say(f"{column.where}: {column.name!r} has several offsets from UTC; the dates are read in UTC")
    return "UTC"
