"""A user's table: numeric and categorical columns, regression or classification."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from datamodules.base import LitDataModule, Reference, Split
from datamodules.batches import SupervisedBatch
from datamodules.errors import InputError
from datamodules.files.csv_files import (
    check_complete,
    is_numeric,
    numeric_column,
    read_csv,
    require_columns,
)
from datamodules.loading.splits import Rows, hold_out

Array = np.ndarray[Any, Any]


class CSVTabularDataModule(LitDataModule[SupervisedBatch]):
    """Rows of a CSV file, split at random into training, validation and test.

    Numeric columns enter as they are (the model scales them by the training rows), text columns as
    one indicator per category seen in training. Classification is split by class. A missing value
    is reported, never filled in.

    Args:
        path: CSV file with a header.
        target: Column to predict.
        task: Whether the target is a class or a number.
        categorical: Numeric columns to treat as categories, beside all text columns.
        drop: Columns to leave out, such as a row number.
        val_fraction: Share of the rows, after the test rows are taken, used for validation.
        test_fraction: Share of the rows for the test.
        test_rows: File of given splits: line k holds the row numbers (from 0) of split k's test
            set, separated by blanks; replaces ``test_fraction``.
        split: Which line of ``test_rows``, from 0.
        predict_path: CSV file to predict; the test rows by default. Its target may be absent.
        batch_size: Rows per optimizer step.
        seed: Seed of the splits.

    Raises:
        InputError: If a file, column or value is missing or wrong; the message names it.
    """

    def __init__(
        self,
        path: str,
        target: str,
        task: Literal["classification", "regression"] = "classification",
        categorical: Sequence[str] = (),
        drop: Sequence[str] = (),
        val_fraction: float = 0.15,
        test_fraction: float = 0.2,
        test_rows: str | None = None,
        split: int = 0,
        predict_path: str | None = None,
        batch_size: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        self.path, self.target, self.task = path, target, task
        self.categorical, self.drop = list(categorical), list(drop)
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.test_rows, self.split_index = test_rows, split
        self.predict_path = predict_path

    @cached_property
    def _frame(self) -> pd.DataFrame:
        frame = read_csv(self.path)
        named = [self.target, *self.categorical, *self.drop]
        require_columns(frame, self.path, named)
        if len(frame) < 4:
            raise InputError(f"{self.path} has {len(frame)} rows; three splits need at least 4")
        if self.task == "regression":
            numeric_column(frame, self.path, self.target)
        check_complete(frame, self.path, self.target)
        return frame.drop(columns=self.drop)

    @cached_property
    def _feature_columns(self) -> list[str]:
        columns = [str(name) for name in self._frame.columns if name != self.target]
        if not columns:
            raise InputError(f"{self.path} has no column beside the target {self.target!r}")
        for column in columns:  # of the whole file, so that a message names the file's row
            if is_numeric(self._frame, column):
                numeric_column(self._frame, self.path, column)
            else:
                check_complete(self._frame, self.path, column)
        return columns

    @cached_property
    def _rows(self) -> dict[str, Rows]:
        rows = np.arange(len(self._frame))
        labels = self._labels if self.task == "classification" else None
        if self.test_rows is None:
            rest, test = hold_out(rows, self.test_fraction, self.seed, labels)
        else:
            test = self._given_test_rows()
            rest = np.setdiff1d(rows, test)
        rest_labels = None if labels is None else labels[rest]
        train, val = hold_out(rest, self.val_fraction, self.seed, rest_labels)
        if labels is not None:
            unseen = np.setdiff1d(labels, labels[train])
            if len(unseen):
                name = self.class_names[unseen[0]]
                raise InputError(f"class {name!r} of {self.target!r} has no training row; add rows")
        return {"train": train, "val": val, "test": test}

    def _given_test_rows(self) -> Rows:
        path = Path(str(self.test_rows))
        if not path.is_file():
            raise InputError(f"no file {str(path)!r}; test_rows holds one line per split")
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read {path} ({error}); test_rows holds numbers") from error
        if not 0 <= self.split_index < len(lines):
            raise InputError(f"{path} has {len(lines)} splits; split {self.split_index} is none")
        try:
            rows = np.array([int(word) for word in lines[self.split_index].split()])
        except ValueError as error:
            raise InputError(f"{path}, line {self.split_index + 1}: {error}") from error
        if len(rows) == 0 or rows.min() < 0 or rows.max() >= len(self._frame):
            raise InputError(
                f"{path}, line {self.split_index + 1}: row numbers must lie in "
                f"[0, {len(self._frame) - 1}]"
            )
        return np.sort(rows)

    @cached_property
    def _labels(self) -> Rows:
        codes = pd.Categorical(self._frame[self.target].astype(str), categories=self.class_names)
        return np.asarray(codes.codes, dtype=np.int64)

    @cached_property
    def class_names(self) -> list[str]:
        """Classes in the order of their numbers: by value, as numbers where they are numbers."""
        if self.task == "regression":
            return []
        names = [str(value) for value in sorted(self._frame[self.target].unique())]
        if len(names) < 2:
            raise InputError(f"{self.path}: {self.target!r} has the single class {names[0]!r}")
        if len(names) > max(len(self._frame) // 2, 2):
            raise InputError(
                f"{self.target!r} has {len(names)} classes in {len(self._frame)} rows; "
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
    def num_train(self) -> int:
        """Number of training rows."""
        return len(self._rows["train"])

    @property
    def in_features(self) -> int:
        """Number of numeric columns plus the number of categories of the others."""
        return sum(max(len(categories), 1) for categories in self._categories.values())

    @cached_property
    def _categories(self) -> dict[str, list[str]]:
        """Categories seen in training, by column; empty for a numeric column."""
        train = self._frame.iloc[self._rows["train"]]
        return {
            column: []
            if is_numeric(self._frame, column) and column not in self.categorical
            else sorted(train[column].astype(str).unique())
            for column in self._feature_columns
        }

    def _features(self, frame: pd.DataFrame, path: str, first: Rows) -> Array:
        """Feature matrix; ``first`` holds the row numbers in the file, for messages."""
        columns = []
        for column, categories in self._categories.items():
            if not categories:
                columns.append(numeric_column(frame, path, column)[:, None])
                continue
            check_complete(frame, path, column)
            codes = pd.Categorical(frame[column].astype(str), categories=categories).codes
            unseen = np.flatnonzero(codes < 0)
            if len(unseen):
                raise InputError(
                    f"{path}, row {first[unseen[0]] + 2}: {column!r} is "
                    f"{frame[column].iloc[unseen[0]]!r}, a category no training row has"
                )
            columns.append(np.eye(len(categories))[codes])
        return np.concatenate(columns, axis=1)

    def _targets(self, frame: pd.DataFrame, path: str) -> Tensor:
        if self.task == "regression":
            values = numeric_column(frame, path, self.target)
            return torch.tensor(values[:, None], dtype=torch.get_default_dtype())
        codes = pd.Categorical(frame[self.target].astype(str), categories=self.class_names).codes
        return torch.tensor(np.asarray(codes, dtype=np.int64))

    def make_split(self, split: Split) -> SupervisedBatch:
        """Rows of one split."""
        if split == "predict":
            return self._rows_to_predict()
        rows = self._rows[split]
        frame = self._frame.iloc[rows]
        x = self._features(frame, self.path, rows)
        y = self._targets(frame, self.path)
        if self.task == "regression" and split == "train" and bool((y == y[0]).all()):
            raise InputError(
                f"{self.path}: {self.target!r} is {y[0].item():g} in all training rows"
            )
        return SupervisedBatch(torch.tensor(x, dtype=torch.get_default_dtype()), y)

    def _rows_to_predict(self) -> SupervisedBatch:
        path = str(self.predict_path)
        frame = read_csv(path)
        require_columns(frame, path, self._feature_columns)
        x = self._features(frame, path, np.arange(len(frame)))
        empty = torch.full((len(x), 1), torch.nan)
        y = empty if self.task == "regression" else torch.full((len(x),), -1)
        return SupervisedBatch(torch.tensor(x, dtype=torch.get_default_dtype()), y)

    @property
    def predict_split(self) -> Split:
        """The rows of ``predict_path``, where it is given."""
        return "test" if self.predict_path is None else "predict"

    @property
    def standardization(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Scale of the training rows; a constant column keeps its unit."""
        train = self.split("train")
        scales = {"x_scaler": _scale(train.x)}
        if self.task == "regression":
            scales["y_scaler"] = _scale(train.y)
        return scales

    @property
    def baseline(self) -> dict[str, Reference]:
        """Majority class, or mean of the training targets."""
        train, test = self.split("train").y, self.split("test").y
        if self.task == "regression":
            error = (test - train.mean()).square().mean().sqrt().item()
            how = "mean of the training targets"
            return {
                "test/mse": Reference(error**2, how),
                "test/rmse": Reference(error, how),
                "test/mae": Reference((test - train.mean()).abs().mean().item(), how),
            }
        counts = torch.bincount(train, minlength=self.num_classes)
        shares = counts / counts.sum()
        return {
            "test/accuracy": Reference(
                (test == counts.argmax()).float().mean().item(), "most frequent training class"
            ),
            "test/cross_entropy": Reference(
                -shares[test].log().mean().item(), "class shares of the training rows"
            ),
        }

    def prediction_frame(self, outputs: Mapping[str, Tensor]) -> pd.DataFrame:
        """Predictions with the row's number in the file and the file's own class names."""
        predicting = self.predict_path is not None
        columns = {k: v for k, v in outputs.items() if not (predicting and k == "target")}
        if self.task == "regression":
            frame = super().prediction_frame(columns)
        else:
            names = np.array(self.class_names)
            frame = pd.DataFrame(
                {k: names[columns[k]] for k in ("class", "target") if k in columns}
            )
            probability = columns.pop("probability").float().numpy()
            for k, name in enumerate(self.class_names):
                frame[f"probability_{name}"] = probability[:, k]
            rest = {k: v for k, v in columns.items() if k not in frame}
            frame = pd.concat([frame, super().prediction_frame(rest)], axis=1)
        rows = np.arange(len(frame)) if predicting else self._rows["test"]
        frame.insert(0, "row", rows)
        return frame


def _scale(values: Tensor) -> tuple[Tensor, Tensor]:
    std = values.std(0, correction=0)
    return values.mean(0), torch.where(std > 0, std, torch.ones_like(std))
