"""A user's table as a run reads it: its task, classes, splits, and how columns enter."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from datamodules.base import LitDataModule, Split
from datamodules.batches import SupervisedBatch
from datamodules.errors import InputError
from datamodules.files.table_encoding import Encoding, Missing, class_order, decide
from datamodules.files.tables import Header, Table, read_table
from datamodules.loading.splits import Rows
from datamodules.own.table_batches import (
    Encoded,
    check_not_constant,
    class_balance,
    classes_of,
    encode_features,
    encode_targets,
    row_weights,
)
from datamodules.own.table_rows import Splitting, infer_task, rows_with_values

Array = np.ndarray[Any, Any]
Task = Literal["auto", "classification", "regression"]
ClassWeight = Literal["none", "balanced"]
_RARE = 3


class TableReader(LitDataModule[SupervisedBatch]):
    """Reads a table and encodes its splits; :class:`CSVTabularDataModule` documents the options."""

    path: Any
    targets: list[str]
    target: str
    categorical: Sequence[str]
    drop: Sequence[str]
    missing: Missing
    sep: str | None
    header: Header
    rare: bool
    group: str | None
    time: str | None
    val_path: Any
    test_path: Any
    predict_path: Any
    weight: str | None
    class_weight: ClassWeight
    _task: Task
    _splitting: Splitting
    _known: Mapping[str, Any]

    @cached_property
    def _table(self) -> Table:
        table = read_table(self.path, self.sep, self.header)
        named = [*self.targets, *self.categorical, *self.drop]
        table.require([*named, *(n for n in (self.group, self.time, self.weight) if n)])
        if len(table) < 4:
            raise InputError(f"{table.where} has {len(table)} rows; three splits need at least 4")
        return table

    @cached_property
    def _feature_columns(self) -> list[str]:
        out = {*self.targets, self.group, self.weight, *self.drop}
        columns = [name for name in self._table.columns if name not in out]
        if not columns:
            raise InputError(f"{self._table.where} has no column beside the target {self.target!r}")
        return columns

    @cached_property
    def task(self) -> str:
        """``classification`` or ``regression``."""
        if "task" in self._known:
            return str(self._known["task"])
        if self._task != "auto":
            return self._task
        columns = [self._table[name] for name in self.targets]
        return infer_task(columns, look_missing=self.missing != "error")

    @cached_property
    def _scored(self) -> Rows:
        """Rows that take part."""
        return rows_with_values(
            *(self._table, self.targets, self._feature_columns, self.missing),
            numeric=self.task == "regression",
            categorical=self.categorical,
        )

    @cached_property
    def _rows(self) -> dict[str, Rows]:
        """Rows of each split among the file's rows, from 0."""
        labels = self._labels if self.task == "classification" else None
        rows = self._splitting.rows(self._table, self._scored, labels, self.class_names)
        if labels is not None:
            unseen = np.setdiff1d(labels[self._scored], labels[rows["train"]])
            if len(unseen):
                name = self.class_names[unseen[0]]
                raise InputError(f"class {name!r} of {self.target!r} has no training row; add rows")
        return rows

    @cached_property
    def _labels(self) -> Rows:
        """Class of each row of the file; -1 without one."""
        return classes_of(self._table[self.targets[0]].text(), self.class_names)

    @cached_property
    def class_names(self) -> list[str]:
        """Classes as the file writes them, in order of their values where all are numbers."""
        if "class_names" in self._known:
            return list(self._known["class_names"])
        if self.task == "regression":
            return []
        cells = self._table[self.targets[0]].text()[self._scored]
        names = class_order(cells.tolist())
        where = self._table.where
        if len(names) < 2:
            raise InputError(f"{where}: {self.target!r} has the single class {names[0]!r}")
        if len(names) > max(len(cells) // 2, 2):
            raise InputError(
                f"{self.target!r} has {len(names)} classes in {len(cells)} rows; "
                "use --data.task regression for a number"
            )
        return names

    @cached_property
    def encodings(self) -> list[Encoding]:
        """How each column enters, in the order of the file's columns."""
        if "encodings" in self._known:
            return [Encoding(**plain) for plain in self._known["encodings"]]
        rows = self._rows["train"]
        return [
            decide(
                self._table[name],
                rows,
                self.missing,
                name in self.categorical,
                _RARE if self.rare else 1,
            )
            for name in self._feature_columns
        ]

    @cached_property
    def _widths(self) -> list[int]:
        """1 for a number, minus the number of levels for a category, in order."""
        widths: list[int] = []
        for encoding in self.encodings:
            widths += [1] * encoding.num_numbers
            widths += [-encoding.num_levels] if encoding.num_levels else []
        return widths

    def _encode(self, table: Table, splits: Mapping[str, Rows], known: bool = True) -> Any:
        """Some splits' rows of a table; without targets and weights where they are not known."""
        made = encode_features(table, self.encodings, list(splits.values()), self.missing)
        found = {}
        for (split, rows), (numbers, codes) in zip(splits.items(), made, strict=True):
            y = None
            if known:
                y = encode_targets(table, self.targets, self.class_names, rows, self.missing)
            weight = self._weights(table, rows, y) if known and split != "test" else None
            found[split] = Encoded(numbers, codes, y, rows, weight)
        return found

    def _weights(self, table: Table, rows: Rows, y: Array | None) -> Array | None:
        """Weights of the rows in the loss; None where all weigh the same."""
        weight = None
        if self.weight is not None:
            table.require([self.weight])
            weight = row_weights(table[self.weight], rows)
        if self.class_weight == "none" or y is None:
            return weight
        if self.task == "regression":
            raise InputError(f"class_weight needs classes; {self.target!r} is a number")
        balance = class_balance(self._labels[self._rows["train"]], len(self.class_names))[y]
        return balance if weight is None else weight * balance

    @cached_property
    def _encoded(self) -> dict[str, Encoded]:
        """The three splits; the text of the table is given back."""
        rows = {s: r for s, r in self._rows.items() if s not in self._splitting.given}
        found: dict[str, Encoded] = self._encode(self._table, rows)
        for split, path in (("val", self.val_path), ("test", self.test_path)):
            if path is not None:
                table = read_table(path, self.sep, self.header)
                found |= self._encode(table, {split: np.arange(len(table))})
        if self.task == "regression":
            check_not_constant(self._table.where, self.targets, known(found["train"].y))
        _ = self.class_names
        for name in ("_table", "_labels"):
            self.__dict__.pop(name, None)
        return found

    @cached_property
    def _to_predict(self) -> Encoded:
        return self._encode_new(self.predict_path)

    def _encode_new(self, path: str | Any | None) -> Encoded:
        """Rows of another table, whose target may be absent."""
        table = read_table(path, self.sep, self.header)
        rows = {"predict": np.arange(len(table))}
        return self._encode(table, rows, known=False)["predict"]  # type: ignore[no-any-return]

    def knowledge(self) -> dict[str, Any]:
        """Types, categories, classes and task, by which a new file is read."""
        return {
            "task": self.task,
            "class_names": self.class_names,
            "encodings": [encoding.plain() for encoding in self.encodings],
        }

    def adopt(self, knowledge: Mapping[str, Any]) -> None:
        """Takes what a run knows of its training file."""
        self._known = knowledge
        for name in ("task", "class_names", "encodings", "_widths"):
            self.__dict__.pop(name, None)

    def row_hashes(self, split: Split) -> Array | None:
        """One hash a row, of its values and its target."""
        data = self._encoded[split] if split != "predict" else self._to_predict
        total = np.zeros(len(data.row), dtype=np.uint64)
        targets = [] if data.y is None else [*data.y.reshape(len(data.row), -1).T]
        columns = [*data.numbers.T, *data.codes.T.astype(np.int32), *targets]
        for column in columns:
            hashed = pd.util.hash_array(np.ascontiguousarray(column))
            total = total * np.uint64(1_099_511_628_211) + hashed
        return total


def known(y: Array | None) -> Array:
    """The targets of rows that have them."""
    assert y is not None
    return y
