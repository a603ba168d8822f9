"""A file of one or many series as rows on an even time grid, with whatever explains them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from datamodules.errors import InputError
from datamodules.files.notes import say
from datamodules.files.tables import read_table
from datamodules.files.time_steps import cycles
from datamodules.own.series_channels import ChannelReader, Channels
from datamodules.own.series_columns import Columns, Gaps
from datamodules.own.series_grid import Grid, carry_forward, how_filled
from datamodules.own.series_labels import RowLabels

Array = np.ndarray[Any, Any]


class SeriesTable:
    """The rows of a file, sorted by series, on the grid of its commonest step.

    Args:
        source: Path of the file, or what else :func:`read_table` takes.
        columns: Which column is what.
        gaps: Whether a missing row or value is an error, or stands for the last one before it.
        known: Types, categories and dates that the training file decided; None to decide them.

    Attributes:
        names: Label of each series, one cell a series column and, where each of several targets is
            a series, the target.
        values: Channels of each row, ``(rows, D)`` float64: M targets, K channels known ahead, the
            others.
        real: True where a target stood in the file, ``(rows, M)``; None where all do.
        offsets: First row of each series, and the number of rows, ``(S + 1,)``.
        ends: Row behind the last one with a target of each series, ``(S,)``; what follows is known
            ahead.
        dates: Date of each row; None where the file has none.
        step: Step of the dates.
        kinds: How each channel is scaled: ``series``, ``all`` or ``none``.
        num_targets: Number M of targets that a window forecasts.
        num_known: Number K of channels known ahead.
        num_known_columns: How many of them are columns of the file.
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
        self.table = read_table(_with_dates(source))
        self.where = self.table.where
        self._require()
        if not len(self.table):
            raise InputError(f"{self.where} has no rows below its header")
        labels = RowLabels(self.table, columns, self.decided)
        reader = ChannelReader(self.table, columns, labels, gaps, self.decided)
        targets, channels = reader.targets(), reader.explanations()
        grid = Grid(labels, gaps, self.decided, self.where)
        self.names, self.dates, self.step = labels.names, grid.dates, grid.step
        self._lay_out(targets, channels, grid, labels.rows)
        self._trim_and_fill()
        self._add_channels()

    def _require(self) -> None:
        ahead = self.decided.get("targets") is not None
        absent = set(self.columns.targets) if ahead and self.columns.known else set()
        self.table.require([name for name in self.columns.named if name not in absent])

    def _lay_out(self, targets: Array, channels: Channels, grid: Grid, rows: Array) -> None:
        """Puts the rows on the grid, and each target that is a series of its own below the last."""
        self.num_targets = self.columns.num_targets
        self.num_known_columns = channels.num_known
        self.kinds = ["series"] * self.num_targets + channels.kinds
        names = self.columns.targets[: self.num_targets]
        self._channel_names = [*names, *channels.names]
        count = int(grid.offsets[-1])
        values = np.full((count, self.num_targets + channels.values.shape[1]), np.nan)
        values[grid.position, self.num_targets :] = channels.values
        self._row = np.full(count, -1)
        self._row[grid.position] = rows
        parts = np.split(targets, targets.shape[1] // self.num_targets, axis=1)
        copies = [values, *(values.copy() for _ in parts[1:])]
        for copy, part in zip(copies, parts, strict=True):
            copy[grid.position, : self.num_targets] = part
        self.values, self.offsets = values, grid.offsets
        if len(parts) > 1:
            self._stack(copies)

    def _stack(self, copies: list[Array]) -> None:
        count, rows = len(copies), len(copies[0])
        starts = [self.offsets[:-1] + k * rows for k in range(count)]
        self.values = np.concatenate(copies)
        self.offsets = np.concatenate([*starts, [count * rows]])
        self._row = np.tile(self._row, count)
        self.dates = None if self.dates is None else np.tile(self.dates, count)
        self.names = [(*name, target) for target in self.columns.targets for name in self.names]

    # Missing values ------------------------------------------------------------------------------

    def _trim_and_fill(self) -> None:
        """Leaves out rows before a first target, marks those behind a last one, fills the rest."""
        missing: Array = np.isnan(self.values[:, : self.num_targets])
        none = np.asarray(missing.all(1))
        keep: Array = np.ones(len(none), dtype=bool)
        ends = self.offsets[1:].copy()
        for index, (start, end) in enumerate(zip(self.offsets[:-1], self.offsets[1:], strict=True)):
            present = np.flatnonzero(~none[start:end])
            first, last = (present[0], present[-1]) if len(present) else (0, -1)
            if first and self.gaps != "error":
                keep[start : start + first] = False
            if last + 1 < end - start and (self.columns.known or not len(present)):
                ends[index] = start + last + 1
        if not keep.all():
            say(f"{self.where}: {int((~keep).sum()):,} rows before a first target are left out")
        self._check_missing(ends, keep)
        dropped = np.concatenate([[0], np.cumsum(~keep)])
        self.offsets, self.ends = self.offsets - dropped[self.offsets], ends - dropped[ends]
        if not keep.all():
            self.values, missing, self._row = self.values[keep], missing[keep], self._row[keep]
            self.dates = None if self.dates is None else self.dates[keep]
        self.real: Array | None = None
        if not np.isnan(self.values).any():
            return
        carry_forward(self.values, self.offsets)
        ahead = np.zeros(len(missing), dtype=bool)
        for end, stop in zip(self.ends, self.offsets[1:], strict=True):
            ahead[end:stop] = True
        if (missing & ~ahead[:, None]).any():
            self.real = ~missing

    def _check_missing(self, ends: Array, keep: Array) -> None:
        """Names the first missing value that no option explains."""
        missing = np.isnan(self.values) & keep[:, None] & (self._row >= 0)[:, None]
        for end, stop in zip(ends, self.offsets[1:], strict=True):
            missing[end:stop, : self.num_targets] = False
            missing[end:stop, self.num_targets + self.num_known_columns :] = False
        if not missing.any():
            return
        if self.gaps != "error":
            say(f"{self.where}: {int(missing.sum()):,} missing values, {how_filled(self.gaps)}")
            return
        row, channel = (int(i) for i in np.argwhere(missing)[0])
        name = self._channel_names[channel]
        column = name if channel >= self.num_targets else self._target_at(row, channel)
        where, _ = self.table[column].at(int(self._row[row])).rsplit(": ", 1)
        raise InputError(
            f"{where}: no value in column {column} ({int(missing[:, channel].sum()):,} missing in "
            "all); fill them in, or use --data.gaps fill (the last value stands in) or mask (the "
            "model is told)"
        )

    def _target_at(self, row: int, channel: int) -> str:
        """Column of the target that a row holds."""
        if self.columns.joint or len(self.columns.targets) == 1:
            return self.columns.targets[channel]
        index = int(np.searchsorted(self.offsets, row, side="right")) - 1
        return self.names[index][-1]

    def _add_channels(self) -> None:
        """Cycles of the dates behind the known columns; at the end what was really observed."""
        behind = self.num_targets + self.num_known_columns
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
            every = np.ones((len(self.values), self.num_targets), dtype=bool)
            flags = (every if self.real is None else self.real).astype(np.float64)
        if added.shape[1] + flags.shape[1]:
            parts = [self.values[:, :behind], added, self.values[:, behind:], flags]
            self.values = np.concatenate(parts, axis=1)
            self.kinds[behind:behind] = ["none"] * added.shape[1]
            self.kinds += ["none"] * flags.shape[1]


def _with_dates(source: Any) -> Any:
    """A table whose index holds dates with a column of them; anything else as it is."""
    if not isinstance(source, pd.DataFrame):
        return source
    index = source.index
    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp()
    if not isinstance(index, pd.DatetimeIndex):
        return source
    name = str(index.name or "date")
    if name in source.columns:
        raise InputError(f"the table has {name!r} both as its index and as a column; drop one")
    return source.set_axis(index).rename_axis(name).reset_index()
