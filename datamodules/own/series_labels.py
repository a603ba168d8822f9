"""Series and date of each row of a file, told apart and in order, or refused."""

from typing import Any

import numpy as np
import pandas as pd

from datamodules.errors import InputError
from datamodules.files.tables import Table
from datamodules.own.series_columns import Columns, names_of
from datamodules.own.series_dates import assembled_dates, holds_dates, parse_dates

Array = np.ndarray[Any, Any]

SUNDAY = 6


class RowLabels:
    """Rows of a file by series.

    Args:
        table: The file.
        columns: Which column is what.
        decided: What the training file decided: the column of dates and their format; what is not
            there yet is put there.

    Attributes:
        names: Cells of the series columns, one tuple a series, in order of appearance.
        rows: Rows of the file, series by series, ``(rows,)``.
        offsets: First of ``rows`` of each series, and their number, ``(S + 1,)``.
        dates: Date of each of ``rows``; None where the file has none.

    Raises:
        InputError: If series are not told apart, or dates do not ascend.
    """

    def __init__(self, table: Table, columns: Columns, decided: dict[str, Any]) -> None:
        self._table, self._columns, self._decided = table, columns, decided
        self.names: list[tuple[str, ...]] = [()]
        self.rows = np.arange(len(table))
        self.offsets = np.array([0, len(table)])
        if columns.series:
            self._tell_apart()
        self.dates = self._read_dates()

    def _tell_apart(self) -> None:
        cells = []
        for name in self._columns.series:
            self._table[name].check_complete()
            cells.append(self._table[name].text())
        keys = pd.MultiIndex.from_arrays(cells) if len(cells) > 1 else pd.Index(cells[0])
        codes, levels = pd.factorize(keys)
        self.rows = np.argsort(codes, kind="stable")
        self.offsets = np.concatenate([[0], np.cumsum(np.bincount(codes))])
        self.names = [key if isinstance(key, tuple) else (key,) for key in levels]

    def _read_dates(self) -> Array | None:
        given = self._columns.date or self._decided.get("date") or self._found_date()
        names = [] if given is None else names_of(given)
        self._check_one_series(names)
        self._decided["date"] = given
        if not names:
            return None
        dates = self._parsed(names)[self.rows]
        self._check_ascending(dates, names)
        return dates

    def _parsed(self, names: list[str]) -> Array:
        """Dates in the order of the file."""
        for name in names:
            self._table[name].check_complete()
        if len(names) > 1:
            return assembled_dates(self._table, names)
        return parse_dates(self._table[names[0]], self._decided)

    def _found_date(self) -> str | None:
        """The first column beside the series', if it is not used and holds dates as text."""
        name = next((n for n in self._table.columns if n not in self._columns.series), None)
        if name is None or name in self._columns.named:
            return None
        column = self._table[name]
        if column.is_numeric or bool(column.missing.all()):
            return None
        return name if holds_dates(column) else None

    def _check_one_series(self, date: list[str]) -> None:
        """Refuses a column of names that would be glued over."""
        if self._columns.series or (date and self._ascends(date)):
            return
        for name, column in self._table.columns.items():
            if name in self._columns.named or name in date or column.is_numeric:
                continue
            cells = column.text()
            if date or _cuts_in_series(cells):
                raise InputError(
                    f"{self._table.where}: {name!r} holds {len(set(cells)):,} different names such "
                    f"as {cells[0]!r}; use --data.series {name} if each is a series of its own"
                    + ("" if date else ", or remove the column")
                )

    def _ascends(self, names: list[str]) -> bool:
        if any(self._table[name].missing.any() for name in names):
            return True  # another message names the cell
        return bool((np.diff(self._parsed(names).astype(np.int64)) > 0).all())

    def _check_ascending(self, dates: Array, names: list[str]) -> None:
        steps = np.diff(dates.astype(np.int64))
        steps[self.offsets[1:-1] - 1] = 1
        wrong = np.flatnonzero(steps <= 0)
        if not len(wrong):
            return
        index = int(wrong[0])
        before, after = (pd.Timestamp(dates[i]) for i in (index, index + 1))
        hour = (before - after) / pd.Timedelta(hours=1)
        if hour <= 1 and after.dayofweek == SUNDAY and after.hour < 4 and self._steps_in_day(names):
            fix = "it looks like the end of summer time; write the dates in UTC"
        else:
            other = self._separating(dates, names)
            fix = "sort the rows by date and drop repeated ones" + (
                f", or use --data.series {other} if the file holds several series" if other else ""
            )
        place = self._table[names[0]].at(int(self.rows[index + 1]))
        raise InputError(f"{place} {after} does not follow {before}; {fix}")

    def _steps_in_day(self, names: list[str]) -> bool:
        return len(names) > 3 or any(":" in str(cell) for cell in self._table[names[0]].text()[:2])

    def _separating(self, dates: Array, names: list[str]) -> str | None:
        """A column within whose values the dates ascend."""
        for name, column in self._table.columns.items():
            if name in self._columns.named or name in names:
                continue
            codes, levels = pd.factorize(column.text()[self.rows])
            order = np.argsort(codes, kind="stable")
            steps = np.diff(dates[order].astype(np.int64))
            if 1 < len(levels) < len(codes) and (steps[np.diff(codes[order]) == 0] > 0).all():
                return name
        return None


def _cuts_in_series(cells: Array) -> bool:
    """Whether names come in blocks, one a name, or take turns."""
    codes, levels = pd.factorize(cells)
    if not 1 < len(levels) < len(cells):
        return False
    blocks = 1 + int((np.diff(codes) != 0).sum())
    turns = bool((codes == np.arange(len(codes)) % len(levels)).all())
    return blocks == len(levels) or turns
