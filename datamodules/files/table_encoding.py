"""Columns as numbers and codes: decided by the training rows and kept as plain data."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from datamodules.errors import InputError
from datamodules.files.tables import Column, number_of

Array = np.ndarray[Any, Any]
Missing = Literal["error", "fill", "drop"]

_DAY = 86_400.0
_YEAR = 365.2425 * _DAY
_CYCLES = {"day": _DAY, "week": 7 * _DAY, "year": _YEAR}


@dataclass
class Encoding:
    """How one column enters a model.

    Attributes:
        name: Name of the column.
        kind: ``number``, ``category`` or ``date``.
        fill: What a missing number becomes.
        has_missing: Whether a missing cell of the training rows is known to the model.
        levels: Cells of the categories, in the order of their codes.
        others: Whether rare and unseen categories share a code of their own, the last.
        date_format: The one format of the dates.
        cycles: Cycles of the dates that the training rows span.
    """

    name: str
    kind: str
    fill: float = 0.0
    has_missing: bool = False
    levels: list[str] = field(default_factory=list)
    others: bool = False
    date_format: str = ""
    cycles: list[str] = field(default_factory=list)

    @property
    def num_levels(self) -> int:
        """Number of codes of a category; 0 of numbers and dates."""
        return len(self.levels) + self.has_missing + self.others if self.kind == "category" else 0

    @property
    def num_numbers(self) -> int:
        """Number of columns of numbers."""
        return 0 if self.kind == "category" else 1 + self.has_missing + 2 * len(self.cycles)

    def plain(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return asdict(self)


def decide(
    column: Column,
    rows: Array,
    missing: Missing,
    categorical: bool = False,
    min_rows: int = 1,
) -> Encoding:
    """Decides how a column enters, from its training rows.

    Args:
        column: The column.
        rows: The training rows.
        missing: What becomes of missing cells.
        categorical: Whether numbers are categories too.
        min_rows: Rows that a category needs for a code of its own; others share one.

    Raises:
        InputError: If a cell is missing and nothing may be filled, or the column is unclear.
    """
    fill = missing != "error"
    kind = "category" if categorical else column.kind(look_missing=fill)
    if not fill:
        column.check_complete()
    if kind == "category":
        return _decide_category(column, rows, fill, min_rows)
    encoding = Encoding(column.name, kind)
    if kind == "date":
        encoding.date_format = column.date_format(integers=True) or "ISO8601"
        values = _seconds(column, encoding.date_format)[rows]
        span = np.nanmax(values, initial=-np.inf) - np.nanmin(values, initial=np.inf)
        sub_daily = bool((values[~np.isnan(values)] % _DAY != 0).any())
        encoding.cycles = [
            name
            for name, length in _CYCLES.items()
            if span >= length and (name != "day" or sub_daily)
        ]
    else:
        values = column.numbers(look_missing=fill)[rows]
    present = values[~np.isnan(values)]
    encoding.fill = float(np.median(present)) if len(present) else 0.0
    encoding.has_missing = missing == "fill" and len(present) < len(values)
    return encoding


def _decide_category(column: Column, rows: Array, fill: bool, min_rows: int) -> Encoding:
    counts = Counter(column.text()[rows].tolist())
    empty = counts.pop("", 0)
    levels = sorted(cell for cell, count in counts.items() if count >= min_rows)
    return Encoding(
        column.name,
        "category",
        has_missing=fill and empty > 0,
        levels=levels,
        others=min_rows > 1,
    )


def _seconds(column: Column, form: str) -> Array:
    found = column.dates(form)
    if found.dt.tz is not None:
        found = found.dt.tz_convert("UTC").dt.tz_localize(None)
    seconds = found.to_numpy(dtype="datetime64[us]").astype(np.int64) / 1e6
    seconds[found.isna().to_numpy()] = np.nan
    return np.asarray(seconds)


def numbers_of(column: Column, encoding: Encoding, missing: Missing) -> tuple[Array, int]:
    """Columns of numbers, ``(rows, num_numbers)`` float64, and how many cells were filled.

    Raises:
        InputError: Naming a cell that is missing or no number.
    """
    fill = missing != "error"
    if encoding.kind == "date":
        values = _seconds(column, encoding.date_format)
    else:
        values = column.numbers(look_missing=fill, complete=not fill and not encoding.has_missing)
    gone = np.isnan(values)
    parts = [np.where(gone, encoding.fill, values)]
    if encoding.has_missing:
        parts.append(gone.astype(np.float64))
    for name in encoding.cycles:
        angle = 2 * np.pi * parts[0] / _CYCLES[name]
        parts += [np.sin(angle), np.cos(angle)]
    return np.stack(parts, axis=1), int(gone.sum())


def codes_of(column: Column, encoding: Encoding, check: bool = True) -> Array:
    """Code of each category, ``(rows,)`` int64; equal numbers are one category however written.

    Args:
        column: The column.
        encoding: How it enters.
        check: Whether a category that no training row has is an error where no code stands for it;
            else its code is -1.

    Raises:
        InputError: Naming a category that no training row has.
    """
    code = {level: number for number, level in enumerate(encoding.levels)}
    by_value: dict[float, int] = {}
    for level, number in code.items():
        value = number_of(level)
        if value is not None and not _has_leading_zero(level):
            by_value[value] = number
    if encoding.has_missing:
        code[""] = len(encoding.levels)
    other = encoding.num_levels - 1 if encoding.others else -1
    known = {}
    for cell in column.counts:
        known[cell] = code.get(cell, by_value.get(number_of(cell) or np.nan, other))
        if cell == "0" or number_of(cell) == 0:
            known[cell] = code.get(cell, by_value.get(0.0, other))
    unknown = [cell for cell, number in known.items() if number < 0]
    if unknown and check:
        row = int(column.where_cell(lambda cell: cell == unknown[0])[0])
        if unknown[0] == "":
            column.check_complete()
        raise InputError(f"{column.at(row)} is {unknown[0]!r}, a category no training row has")
    parts = [
        piece.spread(np.array([known[cell] for cell in piece.levels()], dtype=np.int64))
        for piece in column.pieces
    ]
    return np.concatenate(parts) if parts else np.array([], dtype=np.int64)


def _has_leading_zero(cell: str) -> bool:
    digits = cell.strip().lstrip("+-")
    return len(digits) > 1 and digits.startswith("0") and digits.isdecimal()


def class_order(cells: Sequence[str]) -> list[str]:
    """Distinct classes by value where all are numbers, else by text; the text stays the file's."""
    distinct = sorted(set(cells))
    numbers = [number_of(cell) for cell in distinct]
    if all(number is not None and number == number for number in numbers):
        return sorted(distinct, key=lambda cell: (float(cell.replace(",", ".")), cell))
    return distinct
