"""Columns of a file of series as channels: numbers as they stand, categories as indicators."""

from typing import Any, NamedTuple

import numpy as np

from datamodules.errors import InputError
from datamodules.files.cells import looks_missing
from datamodules.files.notes import say
from datamodules.files.tables import Table
from datamodules.own.series_columns import Columns, Gaps
from datamodules.own.series_labels import RowLabels

Array = np.ndarray[Any, Any]


class Channels(NamedTuple):
    """Channels beside the targets, those known ahead first.

    Attributes:
        values: ``(rows, C)`` in the order of the labels, NaN where missing.
        kinds: How each is scaled: ``series``, ``all`` or ``none``.
        names: Column of each.
        num_known: How many of them are columns known ahead.
    """

    values: Array
    kinds: list[str]
    names: list[str]
    num_known: int


class ChannelReader:
    """Reads columns in the order of the labels.

    Args:
        table: The file.
        columns: Which column is what.
        labels: Series of the rows, and their order.
        gaps: Whether a missing value is an error.
        decided: What the training file decided: the categories, put there where they are not known.
    """

    def __init__(
        self,
        table: Table,
        columns: Columns,
        labels: RowLabels,
        gaps: Gaps,
        decided: dict[str, Any],
    ) -> None:
        self._table, self._columns, self._labels = table, columns, labels
        self._gaps, self._decided = gaps, decided

    def targets(self) -> Array:
        """The target columns, ``(rows, targets)``; NaN where the file to predict has none."""
        rows = self._labels.rows
        columns = [
            self._numbers(name)[rows] if name in self._table.columns else np.full(len(rows), np.nan)
            for name in self._columns.targets
        ]
        return np.stack(columns, axis=1)

    def explanations(self) -> Channels:
        """Channels of the known, the observed and the static columns, in this order.

        Raises:
            InputError: If a static column changes within a series.
        """
        parts: list[Array] = [np.empty((len(self._labels.rows), 0))]
        kinds: list[str] = []
        names: list[str] = []
        num_known = 0
        for group, kind in (("known", "series"), ("covariates", "series"), ("static", "all")):
            for name in getattr(self._columns, group):
                found, categories = self._channel(name)
                parts.append(found)
                kinds += ["none" if categories else kind] * found.shape[1]
                names += [name] * found.shape[1]
            if group == "known":
                num_known = len(names)
        self._check_static()
        return Channels(np.concatenate(parts, axis=1), kinds, names, num_known)

    def _numbers(self, name: str) -> Array:
        column = self._table[name]
        try:
            return column.numbers(look_missing=self._gaps != "error")
        except InputError as error:
            cells = column.text()
            absent = [row for row, cell in enumerate(cells) if cell and looks_missing(cell)]
            if self._gaps != "error" or not absent:
                raise
            raise InputError(
                f"{column.at(absent[0])} is {cells[absent[0]]!r}, no number ({len(absent):,} such "
                "in all); use --data.gaps fill (the last value stands in) or mask (the model is "
                "told)"
            ) from error

    def _channel(self, name: str) -> tuple[Array, bool]:
        """A column as one channel, or one channel a category; and whether it holds categories."""
        column = self._table[name]
        known = self._decided.setdefault("categories", {})
        if name not in known:
            numeric = column.is_numeric or column.kind(self._gaps != "error") == "number"
            known[name] = None if numeric else sorted(set(column.text()) - {""})
        if known[name] is None:
            return self._numbers(name)[self._labels.rows, None], False
        cells = column.text()[self._labels.rows]
        other = set(cells) - set(known[name]) - {""}
        if other:
            say(
                f"{self._table.where}: {name!r} has {len(other)} categories that training did not "
                f"have, such as {min(other)!r}; they are read as none of the others"
            )
        indicators = np.stack([cells == category for category in known[name]], axis=1)
        found = indicators.astype(np.float64)
        found[cells == ""] = np.nan
        return found, True

    def _check_static(self) -> None:
        offsets, rows = self._labels.offsets, self._labels.rows
        for name in self._columns.static:
            cells = self._table[name].text()[rows]
            firsts = cells[np.repeat(offsets[:-1], np.diff(offsets))]
            wrong = np.flatnonzero(cells != firsts)
            if len(wrong):
                raise InputError(
                    f"{self._table[name].at(int(rows[wrong[0]]))} is {cells[wrong[0]]!r} "
                    f"after {firsts[wrong[0]]!r} in the same series; a static column is constant"
                )
