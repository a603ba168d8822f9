"""One date format a column: found from all of its cells, or refused."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from datamodules.errors import InputError

Array = np.ndarray[Any, Any]

_DAYS = [
    f"{first}{mark}{second}{mark}{year}"
    for mark in "/-."
    for first, second in (("%d", "%m"), ("%m", "%d"))
    for year in ("%Y", "%y")
]
_ORDERED = ["%Y/%m/%d", "%Y.%m.%d", "%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%d %B %Y", "%b %d, %Y"]
_ORDERED += ["%B %d, %Y", "%b %d %Y"]
_CLOCKS = ["", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p"]
_MONTHS = ["%m/%Y", "%Y/%m", "%b %Y", "%B %Y", "%b-%y", "%b-%Y", "%YQ"]
FORMATS = ["ISO8601", *(day + clock for day in _ORDERED + _DAYS for clock in _CLOCKS), *_MONTHS]
_INTEGERS = {4: "%Y", 6: "%Y%m", 8: "%Y%m%d"}
_NAME = re.compile(
    r"(^|[^a-z])(dates?|datetime|day|time|timestamp|year|month|ds|period)([^a-z]|$)", re.IGNORECASE
)


def named_a_date(name: str) -> bool:
    """Whether a column's name says that it holds dates."""
    return _NAME.search(name) is not None


def parse(cells: Sequence[str], form: str) -> "pd.Series[Any]":
    """Dates of cells in one format; NaT where a cell is none.

    Args:
        cells: Cells as text.
        form: A format of ``strftime``, ``ISO8601``, or ``seconds`` since 1970.

    Raises:
        ValueError: If the cells mix time zones.
    """
    if form == "seconds":
        return pd.Series(pd.to_datetime(np.array(cells, dtype=np.float64), unit="s"))
    if form == "%YQ":
        months = [re.sub(r"[ -]?[Qq]([1-4])$", lambda q: f"-{3 * int(q[1]) - 2}", c) for c in cells]
        return parse(months, "%Y-%m")
    read = pd.to_datetime(pd.Series(cells, dtype=object), format=form, errors="coerce")
    if read.dtype == object:  # pandas before 3 warns alone
        raise ValueError("mixed time zones")
    return pd.Series(read)


def find_format(cells: Sequence[str], integers: bool = False) -> str | None:
    """The one format in which every cell is a date; None where there is none.

    Args:
        cells: The distinct cells of a column, without the missing ones.
        integers: Whether a plain number may be a year, a month or a day such as 20210203.

    Raises:
        InputError: If day and month can be told apart nowhere.
    """
    if not cells:
        return None
    if all(cell.isdecimal() for cell in cells):
        return _integer_format(cells) if integers else None
    if not any(character.isdigit() for character in cells[0]):
        return None
    head = cells[:20]
    found = [form for form in FORMATS if bool(parse(head, form).notna().all())]
    readings = {form: parse(cells, form) for form in found}
    readings = {form: read for form, read in readings.items() if bool(read.notna().all())}
    if not readings:
        return None
    first, *others = readings.values()
    if not all(first.equals(other) for other in others):
        rows = zip(cells, *readings.values(), strict=True)
        example = next(cell for cell, *found_dates in rows if len(set(found_dates)) > 1)
        forms = " or ".join(list(readings)[:2])
        raise InputError(f"{example!r} may be {forms}; write the dates as year-month-day")
    return next(iter(readings))


def _integer_format(cells: Sequence[str]) -> str | None:
    lengths = {len(cell) for cell in cells}
    if lengths == {10}:
        return "seconds"
    form = _INTEGERS.get(lengths.pop()) if len(lengths) == 1 else None
    if form is None:
        return None
    dates = parse(cells, form)
    plausible = dates.notna().all() and dates.dt.year.between(1000, 2999).all()
    return form if plausible else None
