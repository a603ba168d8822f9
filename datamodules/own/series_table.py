"""A file of one or many series as rows on an even time grid, with whatever explains them."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from datamodules.errors import InputError
from datamodules.files.notes import say
from datamodules.files.tables import read_table
from datamodules.files.time_steps import Step, cycles, find_step
from datamodules.own.series_dates import holds_dates, parse_dates

Array = np.ndarray[Any, Any]
Gaps = Literal["error", "fill", "mask"]

_SUNDAY = 6


class Columns(NamedTuple):
    """Which column is what.

    Attributes:
        targets: Columns to forecast, each a series of its own.
        series: Columns that tell the series apart.
        date: Column of dates; None where it is to be found.
        known: Columns known ahead.
        covariates: Columns observed up to the last row.
        static: Columns that are constant in each series.
        calendar: Whether to add cycles of the dates to what is known.
    """

    targets: Sequence[str]
    series: Sequence[str] = ()
    date: str | None = None
    known: Sequence[str] = ()
    covariates: Sequence[str] = ()
    static: Sequence[str] = ()
    calendar: bool = False

    @property
    def named(self) -> list[str]:
        """All columns that must be in the file."""
        date = [] if self.date is None else [self.date]
        return [*self.targets, *self.series, *date, *self.known, *self.covariates, *self.static]


class Labels(NamedTuple):
    """Rows of a file by series.

    Attributes:
        names: Cells of the series columns, one tuple a series, in order of appearance.
        rows: Rows of the file, series by series, ``(rows,)``.
        offsets: First of ``rows`` of each series, and their number, ``(S + 1,)``.
    """

    names: list[tuple[str, ...]]
    rows: Array
    offsets: Array


class SeriesTable:
    """The rows of a file, sorted by series, on the grid of its commonest step.

    Args:
        source: Path of the file, or what else :func:`read_table` takes.
        columns: Which column is what.
        gaps: Whether a missing row or value is an error, or stands for the last one before it.
        known: Types, categories and dates that the training file decided; None to decide them.

    Attributes:
        names: Label of each series, one cell a series column and, of several targets, the target.
        values: Channels of each row, ``(rows, D)`` float64.
        real: True where the target stood in the file, ``(rows,)``; None where it does everywhere.
        offsets: First row of each series, and the number of rows, ``(S + 1,)``.
        ends: Row behind the last one with a target of each series, ``(S,)``; what follows is known
            ahead.
        dates: Date of each row; None where the file has none.
        step: Step of the dates.
        kinds: How each channel is scaled: ``series``, ``all`` or ``none``.
        num_known: Number K of channels known ahead; they are channels 1 to K.
        decided: What prediction needs to read another file alike.

    Raises:
        InputError: If a column, date, value or step is missing or wrong; the message names it.
    """

    def __init__(
        self,
        source: Any,
        columns: Columns,
        gaps: Gaps = "error",
        known: Mapping[str, Any] | None = None,
    ) -> None:
        self.columns, self.gaps = columns, gaps
        self.decided: dict[str, Any] = dict(known or {})
        self.table = read_table(source)
        self.where = self.table.where
        self._require()
        if not len(self.table):
            raise InputError(f"{self.where} has no rows below its header")
        labels = self._labels()
        self.names, self.offsets = labels.names, labels.offsets
        self.dates = self._dates(labels)
        self.step: Step | None = None
        self._lay_out(labels)

    def _require(self) -> None:
        ahead = self.decided.get("targets") is not None
        absent = set(self.columns.targets) if ahead and self.columns.known else set()
        self.table.require([name for name in self.columns.named if name not in absent])

    def _labels(self) -> Labels:
        if not self.columns.series:
            count = len(self.table)
            return Labels([()], np.arange(count), np.array([0, count]))
        cells = []
        for name in self.columns.series:
            self.table[name].check_complete()
            cells.append(self.table[name].text())
        keys = pd.MultiIndex.from_arrays(cells) if len(cells) > 1 else pd.Index(cells[0])
        codes, levels = pd.factorize(keys)
        rows = np.argsort(codes, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(codes))])
        names = [key if isinstance(key, tuple) else (key,) for key in levels]
        return Labels(names, rows, offsets)

    # Dates ---------------------------------------------------------------------------------------

    def _dates(self, labels: Labels) -> Array | None:
        name = self.columns.date or self.decided.get("date") or self._found_date()
        self._check_one_series(name)
        self.decided["date"] = name
        if name is None:
            return None
        column = self.table[name]
        column.check_complete()
        dates = parse_dates(column, self.decided)[labels.rows]
        self._check_ascending(dates, labels, name)
        return dates

    def _found_date(self) -> str | None:
        """The first column beside the series', if it is not used and holds dates as text."""
        name = next((n for n in self.table.columns if n not in self.columns.series), None)
        if name is None or name in self.columns.named:
            return None
        column = self.table[name]
        if column.is_numeric or bool(column.missing.all()):
            return None
        return name if holds_dates(column) else None

    def _check_one_series(self, date: str | None) -> None:
        """Refuses a column of names that would be glued over."""
        if self.columns.series or (date is not None and self._ascends(date)):
            return
        for name, column in self.table.columns.items():
            if name in self.columns.named or name == date or column.is_numeric:
                continue
            cells = column.text()
            if date is not None or _cuts_in_series(cells):
                raise InputError(
                    f"{self.where}: {name!r} holds {len(set(cells)):,} different names such as "
                    f"{cells[0]!r}; use --data.series {name} if each is a series of its own"
                    + ("" if date is not None else ", or remove the column")
                )

    def _ascends(self, name: str) -> bool:
        column = self.table[name]
        if len(column.missing) and column.missing.any():
            return True  # another message names the cell
        dates = parse_dates(column, self.decided).astype(np.int64)
        return bool((np.diff(dates) > 0).all())

    def _check_ascending(self, dates: Array, labels: Labels, name: str) -> None:
        steps = np.diff(dates.astype(np.int64))
        steps[labels.offsets[1:-1] - 1] = 1
        wrong = np.flatnonzero(steps <= 0)
        if not len(wrong):
            return
        index = int(wrong[0])
        before, after = (pd.Timestamp(dates[i]) for i in (index, index + 1))
        hour = (before - after) / pd.Timedelta(hours=1)
        if hour <= 1 and after.dayofweek == _SUNDAY and after.hour < 4 and self._steps_in_day():
            fix = "it looks like the end of summer time; write the dates in UTC"
        else:
            other = self._separating(dates, labels)
            fix = "sort the rows by date and drop repeated ones" + (
                f", or use --data.series {other} if the file holds several series" if other else ""
            )
        place = self.table[name].at(int(labels.rows[index + 1]))
        raise InputError(f"{place} {after} does not follow {before}; {fix}")

    def _steps_in_day(self) -> bool:
        return any(":" in str(cell) for cell in self.table[str(self.decided["date"])].text()[:2])

    def _separating(self, dates: Array, labels: Labels) -> str | None:
        """A column within whose values the dates ascend."""
        for name, column in self.table.columns.items():
            if name in self.columns.named or name == self.decided["date"]:
                continue
            codes, levels = pd.factorize(column.text()[labels.rows])
            order = np.argsort(codes, kind="stable")
            steps = np.diff(dates[order].astype(np.int64))
            if 1 < len(levels) < len(codes) and (steps[np.diff(codes[order]) == 0] > 0).all():
                return name
        return None

    # Values --------------------------------------------------------------------------------------

    def _lay_out(self, labels: Labels) -> None:
        """Puts the rows on the grid, fills what is missing and lines the channels up."""
        target = self._targets(labels)
        channels, self.kinds, names = self._explanations(labels)
        position = self._grid()
        count = int(self.offsets[-1])
        values = np.full((count, 1 + channels.shape[1]), np.nan)
        values[position, 1:] = channels
        self._row = np.full(count, -1)
        self._row[position] = labels.rows
        tables = []
        for column in range(target.shape[1]):
            one = values if column == target.shape[1] - 1 else values.copy()
            one[position, 0] = target[:, column]
            tables.append(one)
        self.num_channels, self._channel_names = values.shape[1], names
        self._repeat_for_targets(tables)
        self._trim_and_fill()
        self._add_channels()

    def _targets(self, labels: Labels) -> Array:
        columns = []
        for name in self.columns.targets:
            if name in self.table.columns:
                columns.append(self._numbers(name)[labels.rows])
            else:
                columns.append(np.full(len(labels.rows), np.nan))
        return np.stack(columns, axis=1)

    def _numbers(self, name: str) -> Array:
        return self.table[name].numbers(look_missing=self.gaps != "error")

    def _explanations(self, labels: Labels) -> tuple[Array, list[str], list[str]]:
        """Channels beside the target, how each is scaled, and their names: known ones first."""
        parts: list[Array] = []
        kinds, names = ["series"], [self.columns.targets[0]]
        for group, kind in (("known", "series"), ("covariates", "series"), ("static", "all")):
            for name in getattr(self.columns, group):
                found, categories = self._channel(name, labels)
                parts.append(found)
                kinds += ["none"] * found.shape[1] if categories else [kind]
                names += [name] * found.shape[1]
            if group == "known":
                self.num_known_columns: int = sum(part.shape[1] for part in parts)
        self._check_static(labels)
        empty = np.empty((len(labels.rows), 0))
        return np.concatenate([empty, *parts], axis=1), kinds, names

    def _channel(self, name: str, labels: Labels) -> tuple[Array, bool]:
        """A column as one channel, or one channel a category; and whether it holds categories."""
        column = self.table[name]
        known = self.decided.setdefault("categories", {})
        if name not in known:
            numeric = column.is_numeric or column.kind(self.gaps != "error") == "number"
            known[name] = None if numeric else sorted(set(column.text()) - {""})
        if known[name] is None:
            return self._numbers(name)[labels.rows, None], False
        cells = column.text()[labels.rows]
        other = set(cells) - set(known[name]) - {""}
        if other:
            say(
                f"{self.where}: {name!r} has {len(other)} categories that training did not have, "
                f"such as {min(other)!r}; they are read as none of the others"
            )
        indicators = np.stack([cells == category for category in known[name]], axis=1)
        found = indicators.astype(np.float64)
        found[cells == ""] = np.nan
        return found, True

    def _check_static(self, labels: Labels) -> None:
        for name in self.columns.static:
            cells = self.table[name].text()[labels.rows]
            firsts = cells[np.repeat(labels.offsets[:-1], np.diff(labels.offsets))]
            wrong = np.flatnonzero(cells != firsts)
            if len(wrong):
                raise InputError(
                    f"{self.table[name].at(int(labels.rows[wrong[0]]))} is {cells[wrong[0]]!r} "
                    f"after {firsts[wrong[0]]!r} in the same series; a static column is constant"
                )

    def _grid(self) -> Array:
        """Place of each row on the even grid of its series; without dates, where it is."""
        count = int(self.offsets[-1])
        if self.dates is None:
            return np.arange(count)
        known = self.decided.get("step")
        step = find_step(self.dates, self.offsets) if known is None else Step(*known)
        if step is None:
            return np.arange(count)
        self.step, self.decided["step"] = step, tuple(step)
        ticks = step.ticks(self.dates)
        firsts = ticks[self.offsets[:-1]]
        lengths = np.diff(self.offsets)
        place = ticks - np.repeat(firsts, lengths)
        whole = np.rint(place)
        self._check_steps(place, whole)
        lasts = whole[self.offsets[1:] - 1].astype(np.int64)
        offsets = np.concatenate([[0], np.cumsum(lasts + 1)])
        position = whole.astype(np.int64) + np.repeat(offsets[:-1], lengths)
        if offsets[-1] > 50 * count + 1000:
            raise InputError(
                f"{self.where}: the dates span {offsets[-1]:,} steps of {step} and hold "
                f"{count:,} rows; they are not on a grid, resample them"
            )
        if offsets[-1] != count:
            self.dates = self._grid_dates(position, offsets)
        self.offsets = offsets
        return np.asarray(position)

    def _check_steps(self, place: Array, whole: Array) -> None:
        """Names the first step that is not the file's own."""
        assert self.dates is not None
        assert self.step is not None
        steps = np.diff(whole)
        steps[self.offsets[1:-1] - 1] = 1
        uneven = np.abs(place - whole) > 1e-6
        odd = np.flatnonzero((steps != 1) | uneven[1:])
        if not len(odd):
            return
        before, after = (pd.Timestamp(self.dates[i]) for i in (odd[0], odd[0] + 1))
        series = self._series_of(int(odd[0]))
        text = (
            f"{self.where}{series}: {after} follows {before}, but the file's step is {self.step} "
            f"({len(odd):,} such places, {int((steps[steps > 1] - 1).sum()):,} rows missing)"
        )
        if uneven.any() or (steps < 1).any():
            raise InputError(f"{text}; these are not whole steps apart, resample the file")
        if self.gaps == "error":
            hour = (after - before) / pd.Timedelta(hours=1)
            summer = hour == 2 and after.dayofweek == _SUNDAY
            raise InputError(
                f"{text}; use --data.gaps fill (the last value stands in) or mask (the model is "
                "told as well)"
                + ("; an hour missing on a Sunday is summer time: write UTC" if summer else "")
            )
        say(f"{text}; {_filled(self.gaps)}")

    def _series_of(self, row: int) -> str:
        if len(self.names) == 1:
            return ""
        index = int(np.searchsorted(self.offsets, row, side="right")) - 1
        return f", series {' '.join(self.names[index])!r}"

    def _grid_dates(self, position: Array, offsets: Array) -> Array:
        assert self.dates is not None
        assert self.step is not None
        dates = np.full(int(offsets[-1]), np.datetime64("NaT", "ns"))
        dates[position] = self.dates.astype("datetime64[ns]")
        for row in np.flatnonzero(np.isnat(dates)):  # the first of a series is never missing
            dates[row] = self.step.after(dates[row - 1], 1)[0]
        return dates

    def _repeat_for_targets(self, tables: list[Array]) -> None:
        """Makes each target column a series of its own."""
        count, single = len(tables), self.offsets
        self.values = tables[0] if count == 1 else np.concatenate(tables)
        if count == 1:
            return
        rows = int(single[-1])
        starts = [single[:-1] + k * rows for k in range(count)]
        self.offsets = np.concatenate([*starts, [count * rows]])
        self._row = np.tile(self._row, count)
        self.dates = None if self.dates is None else np.tile(self.dates, count)
        self.names = [(*name, target) for target in self.columns.targets for name in self.names]

    def _trim_and_fill(self) -> None:
        """Leaves out rows before a first target, marks those behind a last one, fills the rest."""
        missing = np.isnan(self.values[:, 0])
        keep = np.ones(len(missing), dtype=bool)
        ends = self.offsets[1:].copy()
        for index, (start, end) in enumerate(zip(self.offsets[:-1], self.offsets[1:], strict=True)):
            present = np.flatnonzero(~missing[start:end])
            first, last = (present[0], present[-1]) if len(present) else (0, -1)
            if first and self.gaps != "error":
                keep[start : start + first] = False
            if last + 1 < end - start and (self.num_ahead or not len(present)):
                ends[index] = start + last + 1
        if not keep.all():
            say(f"{self.where}: {int((~keep).sum()):,} rows before a first target are left out")
        self._check_missing(ends, keep)
        dropped = np.concatenate([[0], np.cumsum(~keep)])
        self.offsets, self.ends = self.offsets - dropped[self.offsets], ends - dropped[ends]
        if not keep.all():
            self.values, missing, self._row = self.values[keep], missing[keep], self._row[keep]
            self.dates = None if self.dates is None else self.dates[keep]
        if not np.isnan(self.values).any():
            self.real = None
            return
        carry_forward(self.values, self.offsets)
        ahead = np.zeros(len(missing), dtype=bool)
        for end, stop in zip(self.ends, self.offsets[1:], strict=True):
            ahead[end:stop] = True
        self.real = ~missing if (missing & ~ahead).any() else None

    @property
    def num_ahead(self) -> int:
        """Number of columns known ahead."""
        return len(self.columns.known)

    def _check_missing(self, ends: Array, keep: Array) -> None:
        """Names the first missing value that no option explains."""
        missing = np.isnan(self.values) & keep[:, None] & (self._row >= 0)[:, None]
        for end, stop in zip(ends, self.offsets[1:], strict=True):
            missing[end:stop, 0] = False
            missing[end:stop, 1 + self.num_known_columns :] = False
        if not missing.any():
            return
        row, channel = (int(i) for i in np.argwhere(missing)[0])
        name = self._channel_names[channel]
        place = self.table[name].at(int(self._row[row]))
        count = int(missing[:, channel].sum())
        if self.gaps == "error":
            where, named = place.rsplit(": ", 1)
            raise InputError(
                f"{where}: no value in column {named} ({count:,} missing in all); fill them in, "
                "or use --data.gaps fill (the last value stands in) or mask (the model is told)"
            )
        say(f"{self.where}: {int(missing.sum()):,} missing values, {_filled(self.gaps)}")

    def _add_channels(self) -> None:
        """Cycles of the dates behind the known columns; at the end what was really observed."""
        behind = 1 + self.num_known_columns
        added = np.empty((len(self.values), 0))
        if self.columns.calendar:
            if self.dates is None or self.step is None:
                raise InputError(
                    f"{self.where} has no dates to take a calendar from; name --data.date"
                )
            added = cycles(self.dates, self.step)
        self.num_known = self.num_known_columns + added.shape[1]
        flags = np.empty((len(self.values), 0))
        if self.gaps == "mask":
            real = np.ones(len(self.values), dtype=bool) if self.real is None else self.real
            flags = real[:, None].astype(np.float64)
        if added.shape[1] + flags.shape[1]:
            parts = [self.values[:, :behind], added, self.values[:, behind:], flags]
            self.values = np.concatenate(parts, axis=1)
            self.kinds[behind:behind] = ["none"] * added.shape[1]
            self.kinds += ["none"] * flags.shape[1]


def _filled(gaps: Gaps) -> str:
    told = "" if gaps == "fill" else ", which the model is told"
    return f"filled with the last value before{told}; such targets are not scored"


def _cuts_in_series(cells: Array) -> bool:
    """Whether names come in blocks, one a name, or take turns."""
    codes, levels = pd.factorize(cells)
    if not 1 < len(levels) < len(cells):
        return False
    blocks = 1 + int((np.diff(codes) != 0).sum())
    turns = bool((codes == np.arange(len(codes)) % len(levels)).all())
    return blocks == len(levels) or turns


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
