"""A user's time series: splits in time, covariates, forecasts in the file's units and dates."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from datamodules.base import LitDataModule, Reference, Split
from datamodules.batches import SeriesBatch
from datamodules.errors import InputError
from datamodules.files.csv_files import (
    check_complete,
    is_numeric,
    numeric_column,
    read_csv,
    require_columns,
)

Array = np.ndarray[Any, Any]


class CSVSeriesDataModule(LitDataModule[SeriesBatch]):
    """Windows of a CSV file with one row per time step, oldest first.

    The rows are split in time: training, then validation, then test, and rows after these three
    are left out. A window's targets lie in its own split; the values it observes may reach back
    into the split before, as they would in use. The model scales by the training rows alone.

    Args:
        path: CSV file with a header.
        target: Column to forecast.
        covariates: Further columns the model observes.
        window: Number T of observed steps.
        horizon: Number H of steps to forecast.
        date: Column of dates for checks and predictions; found by itself when it is the first
            column and holds text.
        num_train_rows: Rows for training; by default what the other two splits leave.
        val_rows: Rows for validation, or their share of all rows.
        test_rows: Rows for the test, or their share of all rows.
        stride: Distance between the starts of two training windows.
        season: Steps of one season for the seasonal baseline, such as 24 for hours; 0 for none.
        predict_path: CSV file whose last window is forecast; by default every test window is.
        batch_size: Windows per optimizer step.
        seed: Seed of the order of the windows.

    Raises:
        InputError: If a file, column, date or value is missing or wrong; the message names it.
    """

    def __init__(
        self,
        path: str,
        target: str,
        covariates: Sequence[str] = (),
        window: int = 48,
        horizon: int = 1,
        date: str | None = None,
        num_train_rows: int | None = None,
        val_rows: int | float = 0.2,
        test_rows: int | float = 0.2,
        stride: int = 1,
        season: int = 0,
        predict_path: str | None = None,
        batch_size: int = 128,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, eval_batch_size=2048)
        for name, value in (("window", window), ("horizon", horizon), ("stride", stride)):
            if value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        if target in covariates:
            raise InputError(
                f"the target {target!r} is observed anyway; leave it out of covariates"
            )
        self.path, self.target, self.covariates = path, target, list(covariates)
        self.window, self.horizon, self.date = window, horizon, date
        self.num_train_rows, self.val_rows, self.test_rows = num_train_rows, val_rows, test_rows
        self.stride, self.season, self.predict_path = stride, season, predict_path
        self.num_auxiliary = 0

    @property
    def in_features(self) -> int:
        """Number of observed series."""
        return 1 + len(self.covariates)

    @property
    def num_train(self) -> int:
        """Number of training windows."""
        return len(self._origins("train"))

    def _read(self, path: str) -> tuple[Array, pd.Series | None]:
        """Observed series, ``(rows, D)``, and the dates where there are any."""
        frame = read_csv(path)
        columns = [self.target, *self.covariates]
        require_columns(frame, path, columns + ([self.date] if self.date else []))
        values = np.stack([numeric_column(frame, path, column) for column in columns], axis=1)
        first = str(frame.columns[0])
        found = first if first not in columns and not is_numeric(frame, first) else None
        date = self.date or found
        return values, None if date is None else dates_of(frame, path, date, bool(self.date))

    @cached_property
    def _series(self) -> tuple[Array, pd.Series | None]:
        return self._read(self.path)

    @cached_property
    def _bounds(self) -> dict[str, tuple[int, int]]:
        """First and last row (exclusive) of each split."""
        num_rows = len(self._series[0])
        val, test = (_count(value, num_rows) for value in (self.val_rows, self.test_rows))
        train = num_rows - val - test if self.num_train_rows is None else self.num_train_rows
        if train + val + test > num_rows:
            raise InputError(
                f"{self.path} has {num_rows} rows; {train} + {val} + {test} were asked for"
            )
        ends = {"train": train, "val": train + val, "test": train + val + test}
        starts = {"train": 0, "val": train, "test": train + val}
        need = {"train": self.window + self.horizon, "val": self.horizon, "test": self.horizon}
        for split, end in ends.items():
            rows = end - starts[split]
            if rows < need[split]:
                raise InputError(
                    f"the {split} part of {self.path} has {max(rows, 0)} rows; window "
                    f"{self.window} and horizon {self.horizon} need {need[split]}: shorten them "
                    "or give more rows"
                )
        return {split: (starts[split], ends[split]) for split in ends}

    def _origins(self, split: Split) -> Array:
        """Row of the first target of each window."""
        start, end = self._bounds[split]
        first = max(start, self.window)
        return np.arange(first, end - self.horizon + 1, self.stride if split == "train" else 1)

    def make_split(self, split: Split) -> SeriesBatch:
        """Windows of one split."""
        dtype = torch.get_default_dtype()
        if split == "predict":
            values, _ = self._read(str(self.predict_path))
            if len(values) < self.window:
                raise InputError(
                    f"{self.predict_path} has {len(values)} rows; a window needs {self.window}"
                )
            x = torch.tensor(values[None, -self.window :], dtype=dtype)
            return SeriesBatch(x, torch.full((1, self.horizon), torch.nan, dtype=dtype))
        values, _ = self._series
        origins = self._origins(split)
        past = origins[:, None] + np.arange(-self.window, 0)
        ahead = origins[:, None] + np.arange(self.horizon)
        return SeriesBatch(
            torch.tensor(values[past], dtype=dtype), torch.tensor(values[ahead, 0], dtype=dtype)
        )

    @property
    def predict_split(self) -> Split:
        """The last window of ``predict_path``, where it is given."""
        return "test" if self.predict_path is None else "predict"

    @property
    def standardization(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Scale of the training rows; a constant column keeps its unit."""
        start, end = self._bounds["train"]
        rows = torch.tensor(self._series[0][start:end])
        mean, std = rows.mean(0), rows.std(0, correction=0)
        std = torch.where(std > 0, std, torch.ones_like(std))
        return {"x_scaler": (mean, std), "y_scaler": (mean[:1], std[:1])}

    @cached_property
    def baselines(self) -> dict[str, tuple[float, float]]:
        """Test error of simple forecasts: mean squared and mean absolute, in the file's units."""
        train, val, test = (self.split(split) for split in ("train", "val", "test"))
        truth = test.y.double().numpy()
        last = test.x[:, -1:, 0].double().numpy()
        forecasts = {
            "last value": np.broadcast_to(last, truth.shape),
            "ridge regression on differences from the last value": _ridge(train, val, test),
        }
        if 0 < self.season <= self.window:
            steps = np.arange(self.horizon) % self.season - self.season
            forecasts["same step of the last season"] = test.x[:, steps, 0].double().numpy()
        errors = {name: forecast - truth for name, forecast in forecasts.items()}
        return {name: (float((e**2).mean()), float(abs(e).mean())) for name, e in errors.items()}

    @property
    def baseline(self) -> dict[str, Reference]:
        """The best of the simple forecasts, and what the others cost."""
        found = {}
        for index, metric in enumerate(("test/mse", "test/mae")):
            best = min(self.baselines, key=lambda name: self.baselines[name][index])
            others = [
                f"{name} {errors[index]:.4g}"
                for name, errors in self.baselines.items()
                if name != best
            ]
            how = f"{best} ({', '.join(others)})"
            found[metric] = Reference(self.baselines[best][index], how)
        return found

    def prediction_frame(self, outputs: Mapping[str, Tensor]) -> pd.DataFrame:
        """One row per forecast, with the date (or row) of its last observed step."""
        predicting = self.predict_path is not None
        columns = {k: v for k, v in outputs.items() if not (predicting and k == "target")}
        frame = super().prediction_frame(columns)
        values, dates = self._read(str(self.predict_path)) if predicting else self._series
        last = np.array([len(values)]) - 1 if predicting else self._origins("test") - 1
        frame.insert(0, "last_observed_row", last)
        if dates is not None:
            frame.insert(0, "last_observed", dates.iloc[last].to_numpy())
        return frame


def _count(rows: int | float, num_rows: int) -> int:
    return round(rows * num_rows) if isinstance(rows, float) else rows


def dates_of(frame: pd.DataFrame, path: str, column: str, required: bool) -> pd.Series | None:
    """A column of ascending dates.

    Raises:
        InputError: Naming the first that is missing, no date, repeated or out of order.
    """
    check_complete(frame, path, column)
    try:
        dates = pd.to_datetime(frame[column], errors="coerce", format="mixed")
    except ValueError as error:
        raise InputError(
            f"{path}: {column!r} mixes time zones; write all dates in one of them"
        ) from error
    wrong = np.flatnonzero(dates.isna())
    if len(wrong):
        if not required and len(wrong) == len(dates):
            return None  # a first column of names, not of dates
        cell = frame[column].iloc[wrong[0]]
        raise InputError(f"{path}, row {wrong[0] + 2}: {column!r} is {cell!r}, not a date")
    steps = np.flatnonzero(dates.diff().dt.total_seconds().to_numpy()[1:] <= 0)
    if len(steps):
        row = steps[0] + 3
        raise InputError(
            f"{path}, row {row}: {column!r} {dates.iloc[steps[0] + 1]} does not follow "
            f"{dates.iloc[steps[0]]}; sort the rows by date and drop repeated ones"
        )
    return dates


def _ridge(train: SeriesBatch, val: SeriesBatch, test: SeriesBatch) -> Array:
    """Ridge regression on differences from the last value, its penalty chosen by validation."""

    def differences(batch: SeriesBatch) -> tuple[Array, Array, Array]:
        last = batch.x[:, -1:, :1].double()
        x = batch.x.double().clone()
        x[:, :, :1] -= last
        return (
            x.flatten(1).numpy(),
            (batch.y.double() - last[:, :, 0]).numpy(),
            last[:, :, 0].numpy(),
        )

    x, y, _ = differences(train)
    x_val, y_val, _ = differences(val)
    fits = [Ridge(alpha=alpha).fit(x, y) for alpha in (0.1, 1.0, 10.0, 100.0, 1000.0)]
    best = min(
        fits, key=lambda fit: ((fit.predict(x_val).reshape(y_val.shape) - y_val) ** 2).mean()
    )
    x_test, y_test, last = differences(test)
    forecast: Array = best.predict(x_test).reshape(y_test.shape) + last
    return forecast
