"""Rows of series on an even time grid: each step the file's own, or named and filled."""

import itertools
from typing import Any

import numpy as np
import pandas as pd

from datamodules.errors import InputError
from datamodules.files.notes import say
from datamodules.files.time_steps import Step, find_step
from datamodules.own.series_columns import Gaps
from datamodules.own.series_labels import SUNDAY, RowLabels

Array = np.ndarray[Any, Any]


class Grid:
    """Place of each row on the even grid of its series; without dates, where it is.

    Args:
        labels: Series and dates of the rows.
        gaps: Whether a missing step is an error.
        decided: What the training file decided: the step, put there where it is not known.
        where: The file, for messages.

    Attributes:
        position: Place of each row, ``(rows,)``.
        offsets: First place of each series, and the number of places, ``(S + 1,)``.
        dates: Date of each place; None where the file has none.
        step: Step of the dates; None where there are not two.

    Raises:
        InputError: If a step is missing that may not be, or dates are on no grid.
    """

    def __init__(self, labels: RowLabels, gaps: Gaps, decided: dict[str, Any], where: str) -> None:
        self._gaps, self._names, self._where = gaps, labels.names, where
        self.position, self.offsets = np.arange(len(labels.rows)), labels.offsets
        self.dates: Array | None = labels.dates
        self.step: Step | None = None
        if self.dates is None:
            return
        known = decided.get("step")
        step = find_step(self.dates, self.offsets) if known is None else Step(*known)
        if step is not None:
            self.step, decided["step"] = step, tuple(step)
            self._place(step, self.dates)

    def _place(self, step: Step, dates: Array) -> None:
        ticks = step.ticks(dates)
        lengths = np.diff(self.offsets)
        place = ticks - np.repeat(ticks[self.offsets[:-1]], lengths)
        whole = np.rint(place)
        self._check_steps(step, dates, place, whole)
        lasts = whole[self.offsets[1:] - 1].astype(np.int64)
        offsets = np.concatenate([[0], np.cumsum(lasts + 1)])
        count = len(dates)
        if offsets[-1] > 50 * count + 1000:
            raise InputError(
                f"{self._where}: the dates span {offsets[-1]:,} steps of {step} and hold "
                f"{count:,} rows; they are not on a grid, resample them"
            )
        self.position = whole.astype(np.int64) + np.repeat(offsets[:-1], lengths)
        self.offsets = offsets
        if offsets[-1] != count:
            filled = np.full(int(offsets[-1]), np.datetime64("NaT", "ns"))
            filled[self.position] = dates.astype("datetime64[ns]")
            for row in np.flatnonzero(np.isnat(filled)):  # the first of a series is never missing
                filled[row] = step.after(filled[row - 1], 1)[0]
            self.dates = filled

    def _check_steps(self, step: Step, dates: Array, place: Array, whole: Array) -> None:
        """Names the first step that is not the file's own."""
        steps = np.diff(whole)
        steps[self.offsets[1:-1] - 1] = 1
        uneven = np.abs(place - whole) > 1e-6
        odd = np.flatnonzero((steps != 1) | uneven[1:])
        if not len(odd):
            return
        before, after = (pd.Timestamp(dates[i]) for i in (odd[0], odd[0] + 1))
        text = (
            f"{self._where}{self._series_of(int(odd[0]))}: {after} follows {before}, but the "
            f"file's step is {step} "
            f"({len(odd):,} such places, {int((steps[steps > 1] - 1).sum()):,} rows missing)"
        )
        if uneven.any() or (steps < 1).any():
            raise InputError(f"{text}; these are not whole steps apart, resample the file")
        if self._gaps == "error":
            hour = (after - before) / pd.Timedelta(hours=1)
            summer = hour == 2 and after.dayofweek == SUNDAY
            raise InputError(
                f"{text}; use --data.gaps fill (the last value stands in) or mask (the model is "
                "told as well)"
                + ("; an hour missing on a Sunday is summer time: write UTC" if summer else "")
            )
        say(f"{text}; {how_filled(self._gaps)}")

    def _series_of(self, row: int) -> str:
        if len(self._names) == 1:
            return ""
        index = int(np.searchsorted(self.offsets, row, side="right")) - 1
        return f", series {' '.join(self._names[index])!r}"


def how_filled(gaps: Gaps) -> str:
    """What becomes of a missing row or value, in words."""
    told = "" if gaps == "fill" else ", which the model is told"
    return f"filled with the last value before{told}; such targets are not scored"


def carry_forward(values: Array, offsets: Array) -> None:
    """Fills missing values with the last before them in the same series, else the first after.

    Args:
        values: ``(rows, D)``, changed in place.
        offsets: First row of each series, and the number of rows, ``(S + 1,)``.
    """
    starts = np.zeros(len(values), dtype=np.int64)
    starts[offsets[:-1]] = offsets[:-1]
    starts = np.maximum.accumulate(starts)
    for column in values.T:
        missing = np.isnan(column)
        if not missing.any():
            continue
        last = np.maximum.accumulate(np.where(missing, -1, np.arange(len(column))))
        found = last >= starts
        column[:] = np.where(found, column[np.where(found, last, 0)], np.nan)
        for start, end in itertools.pairwise(offsets):
            part = column[start:end]
            gone = np.isnan(part)
            if gone.any():
                part[gone] = part[~gone][0] if not gone.all() else 0.0
