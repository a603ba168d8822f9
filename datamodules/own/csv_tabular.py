"""A user's table: numbers, categories and dates; regression or classification."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from datamodules.base import LitDataModule, Reference, Split
from datamodules.batches import SupervisedBatch
from datamodules.errors import InputError
from datamodules.files.notes import say
from datamodules.files.table_encoding import (
    Encoding,
    Missing,
    class_order,
    codes_of,
    decide,
    numbers_of,
)
from datamodules.files.tables import Header, Table, looks_missing, read_table
from datamodules.loading.loader import TensorLoader
from datamodules.loading.splits import Rows, given_rows, group_out, hold_out, latest_out
from datamodules.own.table_rivals import Scores, rival_scores

Array = np.ndarray[Any, Any]
Task = Literal["auto", "classification", "regression"]
# Whole numbers of at most so many values are taken for classes.
_MAX_CLASSES = 20
_RARE = 3


class Encoded(NamedTuple):
    """All rows of a table as a model may take them.

    Attributes:
        numbers: Numbers in the file's units, ``(rows, columns)`` float64.
        codes: Codes of the categories, ``(rows, C)`` int32.
        y: Classes ``(rows,)`` or numbers ``(rows,)``; None where the file has no target.
        row: Number of each row among the file's rows, from 0.
    """

    numbers: Array
    codes: Array
    y: Array | None
    row: Rows


class CSVTabularDataModule(LitDataModule[SupervisedBatch]):
    """Rows of a table, split into training, validation and test.

    Numbers enter as they are (the model scales them by the training rows), text as one indicator
    per category seen in training, dates as seconds with their cycles. Types, categories and classes
    are those of the training rows; a checkpoint keeps them, and reads a new file by them.

    Args:
        path: Table with a header: delimited text, also packed, or Parquet; in Python also a
            DataFrame, a mapping of columns, a matrix, or arrays ``(x, y)``.
        target: Column to predict; without a header ``column_1`` and so on.
        task: Whether the target is a class or a number; ``auto`` decides by its values.
        categorical: Numeric columns to treat as categories, beside all text columns.
        drop: Columns to leave out, such as a row number.
        val_fraction: Share of the rows, after the test rows are taken, used for validation.
        test_fraction: Share of the rows for the test.
        test_rows: File of given splits: line k holds the row numbers (from 0) of split k's test
            set, separated by blanks; replaces ``test_fraction``.
        split: Which line of ``test_rows``, from 0.
        predict_path: Table to predict; the test rows by default. Its target may be absent.
        batch_size: Rows per optimizer step; 0 takes a power of two near a sixteenth of the training
            rows, from 32 to 256.
        seed: Seed of the splits.
        missing: What becomes of a missing value: an ``error``; ``fill`` it with the median of the
            training rows and flag it, a category of its own in text; ``drop`` its row.
        sep: Character between the cells of a text file, or ``tab``; found from the file by default.
        header: Whether the first row names the columns.
        rare: Whether categories with fewer than three training rows, and those that no training
            row has, share one; otherwise an unseen one is an error.
        group: Column whose rows of one value stay together in one split; not a feature.
        time: Column by which the rows are split in time, oldest for training.
        val_path: Table of the validation rows; replaces ``val_fraction``.
        test_path: Table of the test rows; replaces ``test_fraction``.

    Raises:
        InputError: If a file, column or value is missing or wrong; the message names it.
    """

    def __init__(
        self,
        path: str | Any,
        target: str,
        task: Task = "classification",
        categorical: Sequence[str] = (),
        drop: Sequence[str] = (),
        val_fraction: float = 0.15,
        test_fraction: float = 0.2,
        test_rows: str | None = None,
        split: int = 0,
        predict_path: str | Any | None = None,
        batch_size: int = 32,
        seed: int = 0,
        missing: Missing = "error",
        sep: str | None = None,
        header: Header = "auto",
        rare: bool = False,
        group: str | None = None,
        time: str | None = None,
        val_path: str | Any | None = None,
        test_path: str | Any | None = None,
    ) -> None:
        super().__init__(batch_size or 32, seed)
        self.path, self.target, self._task = path, target, task
        self.categorical, self.drop = list(categorical), list(drop)
        if target in self.drop:
            raise InputError(f"the target {target!r} cannot be dropped; leave it out of drop")
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.test_rows, self.split_index = test_rows, split
        self.predict_path, self.auto_batch_size = predict_path, batch_size == 0
        self.missing, self.sep, self.header, self.rare = missing, sep, header, rare
        self.group, self.time = group, time
        self.val_path, self.test_path = val_path, test_path
        self._known: Mapping[str, Any] = {}

    @cached_property
    def _table(self) -> Table:
        table = read_table(self.path, self.sep, self.header)
        named = [self.target, *self.categorical, *self.drop]
        table.require([*named, *(name for name in (self.group, self.time) if name)])
        if len(table) < 4:
            raise InputError(f"{table.where} has {len(table)} rows; three splits need at least 4")
        return table

    @cached_property
    def _feature_columns(self) -> list[str]:
        out = {self.target, self.group, *self.drop}
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
        column = self._table[self.target]
        task = "classification"
        if column.kind(look_missing=self.missing != "error") == "number":
            values = np.unique(column.numbers(look_missing=self.missing != "error"))
            values = values[~np.isnan(values)]
            if len(values) > _MAX_CLASSES or bool((values % 1 != 0).any()):
                task = "regression"
        say(f"{self.target!r} is taken for a {task}; --data.task decides otherwise")
        return task

    @cached_property
    def _scored(self) -> Rows:
        """Rows that take part: all, or those with a target and, with ``drop``, every value."""
        target = self._table[self.target]
        if self.missing == "error":
            target.check_complete()
            return np.arange(len(target))
        gone = np.zeros(len(target), dtype=bool)
        numeric = self.task == "regression"
        gone[target.where_cell(lambda c: c == "" or (numeric and looks_missing(c)))] = True
        if gone.any():
            say(f"{int(gone.sum())} rows without a value in {self.target!r} are left out")
        if self.missing == "drop":
            before = int(gone.sum())
            for name in self._feature_columns:
                column = self._table[name]
                if column.kind(look_missing=True) == "number" and name not in self.categorical:
                    gone |= np.isnan(column.numbers(look_missing=True))
                else:
                    gone |= column.missing
            if gone.sum() > before:
                say(f"{int(gone.sum()) - before} rows with a missing value are dropped")
        return np.flatnonzero(~gone)

    @cached_property
    def _rows(self) -> dict[str, Rows]:
        """Rows of each split among the file's rows, from 0."""
        labels = self._labels if self.task == "classification" else None
        rest, test = self._cut(self._scored, self.test_fraction, labels, self.test_path)
        train, val = self._cut(rest, self.val_fraction, labels, self.val_path, given=False)
        if labels is not None:
            unseen = np.setdiff1d(labels[self._scored], labels[train])
            if len(unseen):
                name = self.class_names[unseen[0]]
                raise InputError(f"class {name!r} of {self.target!r} has no training row; add rows")
        return {"train": train, "val": val, "test": test}

    def _cut(
        self, rows: Rows, fraction: float, labels: Rows | None, path: Any, given: bool = True
    ) -> tuple[Rows, Rows]:
        if path is not None:
            return rows, rows[:0]
        if given and self.test_rows is not None:
            test = given_rows(Path(self.test_rows), self.split_index, len(self._table))
            return np.setdiff1d(rows, test), np.intersect1d(rows, test)
        if self.group is not None:
            groups = self._table[self.group].text()[rows]
            return group_out(rows, fraction, self.seed, groups)
        if self.time is not None:
            column = self._table[self.time]
            kind = column.kind(look_missing=False)
            times = column.numbers(complete=True) if kind == "number" else column.dates()
            return latest_out(rows, fraction, np.asarray(times)[rows])
        strata = None if labels is None else labels[rows]
        return hold_out(rows, fraction, self.seed, strata, self.class_names)

    @cached_property
    def _labels(self) -> Rows:
        """Class of each row of the file; -1 without one."""
        return _classes(self._table[self.target].text(), self.class_names)

    @cached_property
    def class_names(self) -> list[str]:
        """Classes as the file writes them, in order of their values where all are numbers."""
        if "class_names" in self._known:
            return list(self._known["class_names"])
        if self.task == "regression":
            return []
        cells = self._table[self.target].text()[self._scored]
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

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        if self.task == "regression":
            raise InputError(
                f"{self.target!r} is a number (task=regression); use a regression model such as "
                "--model LitMLPRegressor, or --data.task classification"
            )
        return len(self.class_names)

    @property
    def out_features(self) -> int:
        """Number of targets."""
        if self.task == "classification":
            raise InputError(
                f"{self.target!r} is a class (task=classification); use a classifier, or "
                "--data.task regression"
            )
        return 1

    @property
    def num_outputs(self) -> int:
        """Number of classes or of targets."""
        return len(self.class_names) or 1

    @property
    def num_train(self) -> int:
        """Number of training rows."""
        return len(self._rows["train"])

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

    @property
    def column_widths(self) -> list[int]:
        """Columns of ``x`` for each number (1) and each category (one per level), in order."""
        widths: list[int] = []
        for encoding in self.encodings:
            widths += [1] * encoding.num_numbers
            widths += [encoding.num_levels] if encoding.num_levels else []
        return widths

    @property
    def in_features(self) -> int:
        """Number of columns of numbers plus the number of categories of the others."""
        return sum(self.column_widths)

    def _encode(self, table: Table, rows: Rows, with_target: bool = True) -> Encoded:
        numbers, codes, filled, columns = [np.zeros((len(rows), 0))], [], 0, 0
        table.require([encoding.name for encoding in self.encodings])
        for encoding in self.encodings:
            column = table[encoding.name]
            if encoding.kind == "category":
                codes.append(codes_of(column, encoding)[rows].astype(np.int32))
                continue
            values, gone = numbers_of(column, encoding, self.missing)
            numbers.append(values[rows])
            filled, columns = filled + gone, columns + (gone > 0)
        if filled and self.missing == "fill":
            say(f"{filled} missing numbers in {columns} columns filled with training medians")
        y = self._encode_target(table, rows) if with_target else None
        empty = np.zeros((len(rows), 0), dtype=np.int32)
        return Encoded(
            np.concatenate(numbers, axis=1), np.stack(codes, 1) if codes else empty, y, rows
        )

    def _encode_target(self, table: Table, rows: Rows) -> Array:
        table.require([self.target])
        column = table[self.target]
        if self.task == "regression":
            fill = self.missing != "error"
            return np.asarray(column.numbers(look_missing=fill, complete=not fill)[rows])
        classes = _classes(column.text(), self.class_names)[rows]
        if (classes < 0).any():
            row = int(rows[np.flatnonzero(classes < 0)[0]])
            raise InputError(f"{column.at(row)} is {column.text()[row]!r}, no class of training")
        return classes

    @cached_property
    def _encoded(self) -> dict[str, Encoded]:
        """The three splits; the text of the table is given back."""
        rows = self._rows
        found = {
            split: self._encode(self._table, rows[split]) for split in ("train", "val", "test")
        }
        for split, path in (("val", self.val_path), ("test", self.test_path)):
            if path is not None:
                table = read_table(path, self.sep, self.header)
                found[split] = self._encode(table, np.arange(len(table)))
        train = found["train"].y
        assert train is not None
        if self.task == "regression" and len(train) and bool((train == train[0]).all()):
            raise InputError(
                f"{self._table.where}: {self.target!r} is {train[0]:g} in all training rows"
            )
        _ = self.class_names
        self.__dict__.pop("_table", None)
        self.__dict__.pop("_labels", None)
        return found

    @cached_property
    def _to_predict(self) -> Encoded:
        table = read_table(self.predict_path, self.sep, self.header)
        return self._encode(table, np.arange(len(table)), with_target=False)

    def make_split(self, split: Split) -> SupervisedBatch:
        """Rows of one split; categories as codes."""
        data = self._to_predict if split == "predict" else self._encoded[split]
        if data.y is None:
            size = (len(data.row),)
            y = torch.full(size, -1) if self.class_names else torch.full((*size, 1), torch.nan)
        else:
            y = torch.from_numpy(data.y)
            y = y if self.class_names else y.unsqueeze(1)
        codes = torch.from_numpy(data.codes) if data.codes.shape[1] else None
        return SupervisedBatch(torch.from_numpy(data.numbers), y, codes)

    def one_hot(self, batch: SupervisedBatch) -> SupervisedBatch:
        """Rows as models see them: each category as one column per level, in the file's order."""
        if batch.categories is None:
            return batch
        x = batch.x.new_zeros(len(batch.x), self.in_features)
        start = number = category = 0
        for width in self._widths:
            if width < 0:
                codes = batch.categories[:, category : category + 1].long()
                x[:, start : start - width].scatter_(1, codes, 1.0)
                category += 1
            else:
                x[:, start] = batch.x[:, number]
                number += 1
            start += abs(width)
        return SupervisedBatch(x, batch.y)

    @cached_property
    def _widths(self) -> list[int]:
        """1 for a number, minus the number of levels for a category, in order."""
        widths: list[int] = []
        for encoding in self.encodings:
            widths += [1] * encoding.num_numbers
            widths += [-encoding.num_levels] if encoding.num_levels else []
        return widths

    def _loader(
        self,
        data: Any,
        batch_size: int,
        shuffle: bool = False,
        drop_last: bool = False,
        make: Callable[..., Any] | None = None,
    ) -> Any:
        if self.auto_batch_size and shuffle:
            power = round(np.log2(max(len(data.x), 16) / 16))
            batch_size = int(2 ** min(max(power, 5), 8))
        loader = make or partial(OneHotLoader, self)
        return super()._loader(data, batch_size, shuffle, drop_last, loader)

    @property
    def predict_split(self) -> Split:
        """The rows of ``predict_path``, where it is given."""
        return "test" if self.predict_path is None else "predict"

    @property
    def standardization(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Scale of the training rows; a constant column keeps its unit."""
        train = self.split("train")
        mean, std = _scale(train.x)
        means, stds, number, category = [], [], 0, 0
        for width in self._widths:
            if width > 0:
                means.append(mean[number : number + 1])
                stds.append(std[number : number + 1])
                number += 1
                continue
            assert train.categories is not None
            codes = train.categories[:, category].long()
            share = torch.bincount(codes, minlength=-width).double() / len(codes)
            spread = (share * (1 - share)).sqrt()
            means.append(share)
            stds.append(torch.where(spread > 0, spread, torch.ones_like(spread)))
            category += 1
        scales = {"x_scaler": (torch.cat(means), torch.cat(stds))}
        if self.task == "regression":
            scales["y_scaler"] = _scale(train.y)
        return scales

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
        columns = [*data.numbers.T, *data.codes.T, *([] if data.y is None else [data.y])]
        for column in columns:
            hashed = pd.util.hash_array(np.ascontiguousarray(column))
            total = total * np.uint64(1_099_511_628_211) + hashed
        return total

    @property
    def baseline(self) -> dict[str, Reference]:
        """Majority class, or mean of the training targets."""
        train, test = self.split("train").y, self.split("test").y
        if self.task == "regression":
            mse = (test - train.mean()).square().mean().item()
            how = "mean of the training targets"
            return {
                "test/mse": Reference(mse, how),
                "test/rmse": Reference(mse**0.5, how),
                "test/mae": Reference((test - train.mean()).abs().mean().item(), how),
            }
        counts = torch.bincount(train, minlength=self.num_classes)
        shares = counts.double() / counts.sum()
        return {
            "test/accuracy": Reference(
                (test == counts.argmax()).double().mean().item(), "most frequent training class"
            ),
            "test/cross_entropy": Reference(
                -shares[test].log().mean().item(), "class shares of the training rows"
            ),
        }

    @cached_property
    def rivals(self) -> Scores:
        """Logistic or ridge regression and gradient boosting, fitted on training and validation."""
        train, val, test = (self._encoded[split] for split in ("train", "val", "test"))
        assert train.y is not None
        assert val.y is not None
        assert test.y is not None
        return rival_scores(
            (np.concatenate([train.numbers, val.numbers]), test.numbers),
            (np.concatenate([train.codes, val.codes]), test.codes),
            [encoding.num_levels for encoding in self.encodings if encoding.num_levels],
            (np.concatenate([train.y, val.y]), test.y),
            len(self.class_names),
        )

    def prediction_frame(self, outputs: Mapping[str, Tensor]) -> pd.DataFrame:
        """Predictions with the row's number in the file and the file's own class names."""
        predicting = self.predict_path is not None
        columns = {k: v for k, v in outputs.items() if not (predicting and k == "target")}
        if self.task == "regression":
            frame = super().prediction_frame(columns)
        else:
            names = np.array(self.class_names, dtype=object)
            frame = pd.DataFrame(
                {k: names[columns[k]] for k in ("class", "target") if k in columns}
            )
            probability = columns.pop("probability").float().numpy()
            for k, name in enumerate(self.class_names):
                frame[f"probability_{name}"] = probability[:, k]
            rest = {k: v for k, v in columns.items() if k not in frame}
            frame = pd.concat([frame, super().prediction_frame(rest)], axis=1)
        rows = self._to_predict.row if predicting else self._encoded["test"].row
        frame.insert(0, "row", rows)
        return frame


class OneHotLoader(TensorLoader[SupervisedBatch]):
    """Batches of a table, its codes turned into one column per category as each batch is fetched.

    Args:
        table: The datamodule, which knows the columns.
        args: As of :class:`TensorLoader`.
        kwargs: As of :class:`TensorLoader`.
    """

    def __init__(self, table: CSVTabularDataModule, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._table = table

    def fetch(self, order: Tensor, batch_idx: int) -> SupervisedBatch:
        """This rank's share of a batch, as models see it."""
        return self._table.one_hot(super().fetch(order, batch_idx))


def _classes(cells: Array, names: Sequence[str]) -> Rows:
    """Number of each cell's class; -1 for none."""
    number = {name: index for index, name in enumerate(names)}
    return np.array([number.get(cell, -1) for cell in cells], dtype=np.int64)


def _scale(values: Tensor) -> tuple[Tensor, Tensor]:
    mean = values.double().mean(0)
    std = values.double().std(0, correction=0)
    return mean, torch.where(std > 0, std, torch.ones_like(std))
