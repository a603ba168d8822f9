"""A user's table: numbers, categories and dates; regression or classification."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from datamodules.base import Reference, Split
from datamodules.batches import SupervisedBatch
from datamodules.errors import InputError
from datamodules.files.table_encoding import Missing
from datamodules.files.tables import Header
from datamodules.own.table_answers import class_frame, number_frame
from datamodules.own.table_batches import (
    Encoded,
    OneHotLoader,
    column_scale,
    one_hot,
    scale_of,
)
from datamodules.own.table_reader import ClassWeight, TableReader, Task, known
from datamodules.own.table_rivals import Scores, rival_scores, trivial_scores
from datamodules.own.table_rows import Splitting, check_folds


class CSVTabularDataModule(TableReader):
    """Rows of a table, split into training, validation and test.

    Numbers enter as they are (the model scales them by the training rows), text as one indicator
    per category seen in training, dates as seconds with their cycles. Types, categories and classes
    are those of the training rows; a checkpoint keeps them, and reads a new file by them.

    Args:
        path: Table with a header: delimited text, also packed, or Parquet; in Python also a
            DataFrame, a mapping of columns, a matrix, or arrays ``(x, y)``.
        target: Column to predict, or several columns of numbers; without a header ``column_1`` and
            so on.
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
        weight: Column of the rows' weights in the loss; not a feature. Scores count every row once.
        class_weight: Whether the loss weighs every class alike, whatever its rows.
        folds: Number of parts that are the test in turn, in place of ``test_fraction``; a ``fit``
            that names no ``fold`` fits them all and gives mean and spread.
        fold: Which of the ``folds`` is the test, from 0.
        ood_path: Table of rows unlike the training rows, which uncertainty should tell from the
            test rows; its target may be absent.

    Raises:
        InputError: If a file, column or value is missing or wrong; the message names it.
    """

    def __init__(
        self,
        path: str | Any,
        target: str | list[str],
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
        weight: str | None = None,
        class_weight: ClassWeight = "none",
        folds: int = 0,
        fold: int = 0,
        ood_path: str | Any | None = None,
    ) -> None:
        super().__init__(batch_size or 32, seed)
        self.path, self._task = path, task
        self.targets = [target] if isinstance(target, str) else list(target)
        self.target = ", ".join(self.targets)
        self.categorical, self.drop = list(categorical), list(drop)
        self.predict_path, self.auto_batch_size = predict_path, batch_size == 0
        self.missing, self.sep, self.header, self.rare = missing, sep, header, rare
        self.group, self.time = group, time
        self.val_path, self.test_path = val_path, test_path
        self.weight, self.class_weight = weight, class_weight
        self.folds, self.fold, self.ood_path = folds, fold, ood_path
        check_folds(folds, fold, time, test_path is not None or test_rows is not None)
        given = {"val": val_path, "test": test_path}
        self._splitting = Splitting(
            *(val_fraction, test_fraction, test_rows, split, seed, group, time, folds, fold),
            [name for name, path in given.items() if path is not None],
        )
        self._check_targets()
        self._known: Mapping[str, Any] = {}

    def _check_targets(self) -> None:
        for target in self.targets:
            if target in self.drop:
                raise InputError(f"the target {target!r} cannot be dropped; leave it out of drop")
        if len(self.targets) != len(set(self.targets)) or not self.targets:
            raise InputError(f"target names each column once, got {self.targets}")
        if len(self.targets) > 1 and self._task == "classification":
            raise InputError(
                f"several targets are numbers, got {self.targets}; use --data.task regression"
            )

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
        return len(self.targets)

    @property
    def num_outputs(self) -> int:
        """Number of classes or of targets."""
        return len(self.class_names) or len(self.targets)

    @property
    def num_train(self) -> int:
        """Number of training rows."""
        return len(self._rows["train"])

    @property
    def column_widths(self) -> list[int]:
        """Columns of ``x`` for each number (1) and each category (one per level), in order."""
        return list(map(abs, self._widths))

    @property
    def in_features(self) -> int:
        """Number of columns of numbers plus the number of categories of the others."""
        return sum(self.column_widths)

    def make_split(self, split: Split) -> SupervisedBatch:
        """Rows of one split; categories as codes."""
        if split == "ood":
            data = self._strange
        else:
            data = self._to_predict if split == "predict" else self._encoded[split]
        return data.batch(0 if self.class_names else len(self.targets))

    def one_hot(self, batch: SupervisedBatch) -> SupervisedBatch:
        """Rows as models see them: each category as one column per level, in the file's order."""
        return one_hot(batch, self._widths)

    def _loader(
        self,
        data: Any,
        batch_size: int,
        shuffle: bool = False,
        drop_last: bool = False,
        make: Callable[..., Any] | None = None,
    ) -> Any:
        if shuffle:
            self._check_model()
        if self.auto_batch_size and shuffle:
            power = round(np.log2(max(len(data.x), 16) / 16))
            batch_size = int(2 ** min(max(power, 5), 8))
        loader = make or partial(OneHotLoader, self._widths)
        return super()._loader(data, batch_size, shuffle, drop_last, loader)

    @cached_property
    def _strange(self) -> Encoded:
        """Rows of ``ood_path``."""
        found = self._encode_new(self.ood_path)
        if not len(found.row):
            raise InputError("ood_path has no rows to tell from the test rows; give it some")
        return found

    def setup(self, stage: str) -> None:
        """As the base; what a test would refuse after the fit is refused before it.

        Raises:
            InputError: If ``ood_path`` cannot be read, or the model has no use for it.
        """
        super().setup(stage)
        if self.ood_path is None or stage not in ("fit", "test"):
            return
        model = None if self.trainer is None else self.trainer.lightning_module
        if model is not None and not hasattr(model, "epistemic"):
            raise InputError(
                f"{type(model).__name__} states no uncertainty to tell the rows of --data.ood_path "
                "by; choose --model LitLaplaceMLP or another of its family, or leave it out"
            )
        _ = self._strange

    def _check_model(self) -> None:
        """Refuses weights that the model would not see."""
        if self.trainer is None or (self.weight is None and self.class_weight == "none"):
            return
        model = self.trainer.lightning_module
        if not getattr(model, "weighs_rows", False):
            raise InputError(
                f"{type(model).__name__} does not weigh rows; choose --model LitTabularMLP, or "
                "leave out --data.weight and --data.class_weight"
            )

    @property
    def predict_split(self) -> Split:
        """The rows of ``predict_path``, where it is given."""
        return "test" if self.predict_path is None else "predict"

    @property
    def standardization(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Scale of the training rows; a constant column keeps its unit."""
        train = self.split("train")
        scales = {"x_scaler": scale_of(train, self._widths)}
        if self.task == "regression":
            scales["y_scaler"] = column_scale(train.y)
        return scales

    @property
    def baseline(self) -> dict[str, Reference]:
        """Majority class, or mean of the training targets."""
        return trivial_scores(self.split("train").y, self.split("test").y, len(self.class_names))

    @cached_property
    def rivals(self) -> Scores:
        """Logistic or ridge regression and gradient boosting, fitted on training and validation."""
        train, val, test = (self._encoded[split] for split in ("train", "val", "test"))
        weights = [part.weight for part in (train, val) if part.weight is not None]
        return rival_scores(
            (np.concatenate([train.numbers, val.numbers]), test.numbers),
            (np.concatenate([train.codes, val.codes]), test.codes),
            [encoding.num_levels for encoding in self.encodings if encoding.num_levels],
            (np.concatenate([known(train.y), known(val.y)]), known(test.y)),
            len(self.class_names),
            np.concatenate(weights) if weights else None,
        )

    def prediction_frame(self, outputs: Mapping[str, Tensor]) -> pd.DataFrame:
        """Predictions with the row's number in the file and the file's own class names."""
        predicting = self.predict_path is not None
        columns = {k: v for k, v in outputs.items() if not (predicting and k == "target")}
        if self.task == "regression":
            frame = number_frame(columns, self.targets)
        else:
            frame = class_frame(columns, self.class_names)
        rows = self._to_predict.row if predicting else self._encoded["test"].row
        frame.insert(0, "row", rows)
        return frame
