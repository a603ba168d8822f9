"""Which rows of a table take part, and in which split each is."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datamodules.errors import InputError
from datamodules.files.cells import looks_missing
from datamodules.files.columns import Column
from datamodules.files.notes import say
from datamodules.files.table_encoding import Missing
from datamodules.files.tables import Table
from datamodules.loading.splits import Rows, folds, given_rows, group_out, hold_out, latest_out

Array = np.ndarray[Any, Any]
# Whole numbers of at most so many values are taken for classes.
_MAX_CLASSES = 20


def infer_task(columns: Sequence[Column], look_missing: bool) -> str:
    """Whether targets are a class or numbers, by their values; says which.

    Args:
        columns: The targets; several are numbers.
        look_missing: Whether cells such as ``?`` count as missing.
    """
    column, task = columns[0], "regression"
    if len(columns) == 1:
        task = "classification"
        if column.kind(look_missing=look_missing) == "number":
            values = np.unique(column.numbers(look_missing=look_missing))
            values = values[~np.isnan(values)]
            if len(values) > _MAX_CLASSES or bool((values % 1 != 0).any()):
                task = "regression"
    say(f"{column.name!r} is taken for a {task}; --data.task decides otherwise")
    return task


def rows_with_values(
    table: Table, targets: Sequence[str], features: Sequence[str], missing: Missing, **kinds: Any
) -> Rows:
    """Rows that take part: all, or those with a target and, with ``drop``, every value.

    Args:
        table: The table.
        targets: Its targets.
        features: Its features.
        missing: What becomes of a missing value.
        kinds: ``numeric``, whether the targets are numbers, and ``categorical``, names of columns
            whose numbers are categories.

    Raises:
        InputError: If a target is missing and nothing may be left out.
    """
    if missing == "error":
        for name in targets:
            table[name].check_complete()
        return np.arange(len(table))
    numeric, categorical = bool(kinds["numeric"]), kinds["categorical"]
    gone = np.zeros(len(table), dtype=bool)
    for name in targets:
        gone[table[name].where_cell(lambda c: c == "" or (numeric and looks_missing(c)))] = True
    if gone.any():
        say(f"{int(gone.sum())} rows without a value in {targets[0]!r} are left out")
    before = int(gone.sum())
    if missing == "drop":
        for name in features:
            gone |= _lacks(table[name], name in categorical)
        if gone.sum() > before:
            say(f"{int(gone.sum()) - before} rows with a missing value are dropped")
    return np.flatnonzero(~gone)


def _lacks(column: Column, categorical: bool) -> Array:
    if not categorical and column.kind(look_missing=True) == "number":
        return np.isnan(column.numbers(look_missing=True))
    return column.missing


class Splitting(NamedTuple):
    """How a table is split.

    Attributes:
        val_fraction: Share of the rows, after the test rows are taken, for validation.
        test_fraction: Share of the rows for the test.
        test_rows: File of given test rows.
        split: Which line of ``test_rows``.
        seed: Seed of the splits.
        group: Column whose rows of one value stay together.
        time: Column by which the rows are split in time.
        folds: Number of parts that are the test in turn; 0 takes ``test_fraction``.
        fold: Which of them is the test.
        given: Splits that are files of their own.
    """

    val_fraction: float
    test_fraction: float
    test_rows: str | None
    split: int
    seed: int
    group: str | None
    time: str | None
    folds: int
    fold: int
    given: Collection[str]

    def rows(
        self, table: Table, rows: Rows, labels: Rows | None, names: Sequence[str]
    ) -> dict[str, Rows]:
        """Rows of each split among the table's rows, from 0.

        Args:
            table: The table.
            rows: Rows that take part.
            labels: Class of each row of the table; None for numbers.
            names: Names of the classes.
        """
        rest, test = rows, rows[:0]
        if "test" not in self.given:
            rest, test = self._test(table, rows, labels, names)
        train, val = rest, rest[:0]
        if "val" not in self.given:
            train, val = self._cut(table, rest, self.val_fraction, labels, names)
        return {"train": train, "val": val, "test": test}

    def _test(
        self, table: Table, rows: Rows, labels: Rows | None, names: Sequence[str]
    ) -> tuple[Rows, Rows]:
        if self.test_rows is not None:
            test = given_rows(Path(self.test_rows), self.split, len(table))
            return np.setdiff1d(rows, test), np.intersect1d(rows, test)
        if not self.folds:
            return self._cut(table, rows, self.test_fraction, labels, names)
        if self.group is not None:
            groups = table[self.group].text()[rows]
            parts = folds(np.unique(groups), self.folds, self.seed)
            held = np.isin(groups, parts[self.fold])
            return rows[~held], rows[held]
        strata = None if labels is None else labels[rows]
        test = folds(rows, self.folds, self.seed, strata)[self.fold]
        return np.setdiff1d(rows, test), np.sort(test)

    def _cut(
        self, table: Table, rows: Rows, fraction: float, labels: Rows | None, names: Sequence[str]
    ) -> tuple[Rows, Rows]:
        if self.group is not None:
            return group_out(rows, fraction, self.seed, table[self.group].text()[rows])
        if self.time is not None:
            column = table[self.time]
            kind = column.kind(look_missing=False)
            times = column.numbers(complete=True) if kind == "number" else column.dates()
            return latest_out(rows, fraction, np.asarray(times)[rows])
        strata = None if labels is None else labels[rows]
        return hold_out(rows, fraction, self.seed, strata, names)


def check_folds(num_folds: int, fold: int, time: str | None, test_given: bool) -> None:
    """Checks the options of a cross-validation.

    Raises:
        InputError: If they contradict each other.
    """
    if num_folds == 0 and fold == 0:
        return
    if num_folds < 2 or not 0 <= fold < num_folds:
        raise InputError(f"folds must be at least 2 and fold below it, got {num_folds} and {fold}")
    if time is not None:
        raise InputError("folds mix the times; leave out --data.folds or --data.time")
    if test_given:
        raise InputError("folds make the test rows; leave out test_path and test_rows, or folds")
