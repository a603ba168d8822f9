"""The step from one date of a series to the next: even units, working days or calendar months."""

from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

Array = np.ndarray[Any, Any]
Unit = Literal["ns", "workday", "month"]

_DAY = 86_400 * 10**9
_NAMES = {_DAY: "day", 3600 * 10**9: "hour", 60 * 10**9: "minute", 10**9: "second"}


class Step(NamedTuple):
    """Distance from one row to the next.

    Attributes:
        size: Number of units.
        unit: Nanoseconds, days from Monday to Friday, or calendar months.
        month_end: Whether a monthly date is the last day of its month.
    """

    size: int
    unit: Unit
    month_end: bool = False

    def ticks(self, dates: Array) -> Array:
        """Position of each date in steps, ``(rows,)`` float64; whole where it is on the grid."""
        if self.unit == "month":
            months = dates.astype("datetime64[M]").astype(np.int64)
            return np.asarray(months / self.size)
        if self.unit == "workday":
            days = dates.astype("datetime64[D]")
            weekend = ~np.is_busday(days)  # between two steps, so that it is on no grid
            return np.busday_count(np.datetime64("1970-01-01"), days) - 0.5 * weekend
        whole, rest = np.divmod(dates.astype("datetime64[ns]").astype(np.int64), self.size)
        return np.asarray(whole + rest / self.size)

    def after(self, date: np.datetime64, num_steps: int) -> Array:
        """The dates 1 to ``num_steps`` steps after one, ``(num_steps,)``."""
        date = date.astype("datetime64[ns]")
        counts = np.arange(1, num_steps + 1)
        if self.unit == "ns":
            return np.asarray(date + (counts * self.size).astype("timedelta64[ns]"))
        if self.unit == "workday":
            days = np.busday_offset(date.astype("datetime64[D]"), counts, roll="backward")
            return np.asarray(days.astype("datetime64[ns]"))
        offset: Any = pd.offsets.MonthEnd if self.month_end else pd.DateOffset
        moved = [
            pd.Timestamp(date) + (offset(int(k)) if self.month_end else offset(months=int(k)))
            for k in counts * self.size
        ]
        return np.asarray(pd.DatetimeIndex(moved).to_numpy(dtype="datetime64[ns]"))

    def __str__(self) -> str:
        """The step in words."""
        if self.unit == "month":
            unit = ("year", self.size // 12) if self.size % 12 == 0 else ("month", self.size)
        elif self.unit == "workday":
            unit = ("working day", self.size)
        else:
            size = next((s for s in _NAMES if self.size % s == 0), None)
            unit = ("ns", self.size) if size is None else (_NAMES[size], self.size // size)
        return f"one {unit[0]}" if unit[1] == 1 else f"{unit[1]:,} {unit[0]}s"


def find_step(dates: Array, offsets: Array) -> Step | None:
    """The commonest step between neighbouring rows of the series; None where none has two rows.

    Args:
        dates: Ascending within each series, ``(rows,)``.
        offsets: First row of each series, and the number of rows, ``(S + 1,)``.
    """
    inner = np.ones(max(len(dates) - 1, 0), dtype=bool)
    inner[offsets[1:-1] - 1] = False
    if not inner.any():
        return None
    steps = np.diff(dates.astype("datetime64[ns]").astype(np.int64))[inner]
    size = _commonest(steps)
    if size == _DAY and _are_workdays(dates, steps):
        return Step(1, "workday")
    if size >= 28 * _DAY:
        months = dates.astype("datetime64[M]")
        days = (dates.astype("datetime64[D]") - months.astype("datetime64[D]")).astype(np.int64)
        lengths = ((months + 1).astype("datetime64[D]") - months.astype("datetime64[D]")).astype(
            np.int64
        )
        month_end = bool((days == lengths - 1).all())
        if month_end or len(np.unique(days)) == 1:
            return Step(_commonest(np.diff(months.astype(np.int64))[inner]), "month", month_end)
    return Step(size, "ns")


def _are_workdays(dates: Array, steps: Array) -> bool:
    """Whether whole days leave out every weekend, and do so twice at least."""
    days = dates.astype("datetime64[D]")
    whole = bool((days.astype(dates.dtype) == dates).all())
    return whole and bool(np.is_busday(days).all()) and int((steps >= 3 * _DAY).sum()) > 1


def _commonest(steps: Array) -> int:
    values, counts = np.unique(steps, return_counts=True)
    return int(values[counts.argmax()])


def cycles(dates: Array, step: Step) -> Array:
    """Sine and cosine of the day, week and year of dates, ``(rows, C)``, where steps resolve them.

    Args:
        dates: ``(rows,)`` datetime64.
        step: Step of the series; a cycle of at least two steps is resolved.
    """
    stamps = pd.DatetimeIndex(dates)
    seconds = stamps.hour * 3600 + stamps.minute * 60 + stamps.second
    days = {"month": 30 * step.size, "workday": step.size}.get(step.unit, step.size / _DAY)
    turns = [
        (1, seconds / 86_400),
        (7, (stamps.dayofweek + seconds / 86_400) / 7),
        (365, (stamps.dayofyear - 1 + seconds / 86_400) / (365 + stamps.is_leap_year)),
    ]
    found = [np.asarray(turn) for length, turn in turns if 2 * days <= length]
    waves = [wave(2 * np.pi * turn) for turn in found for wave in (np.sin, np.cos)]
    return np.stack(waves, axis=1) if waves else np.empty((len(dates), 0))
