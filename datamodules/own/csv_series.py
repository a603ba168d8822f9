"""Time series of a user's own: one or many in a file, splits in time, forecasts beyond the end."""

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from datamodules.base import LitDataModule, Reference, Split
from datamodules.batches import SeriesBatch
from datamodules.errors import InputError, at_least
from datamodules.loading.loader import TensorLoader
from datamodules.loading.windows import Origins, SeriesRows, WindowLoader
from datamodules.own.series_forecast import forecast_frame, last_windows
from datamodules.own.series_options import Bounds
from datamodules.own.series_rivals import (
    Errors,
    LinearStart,
    Power,
    Scaler,
    fit_ridge,
    rival_errors,
)
from datamodules.own.series_scale import Transform, choose_power, series_scales
from datamodules.own.series_splits import split_bounds, split_origins
from datamodules.own.series_table import Columns, Gaps, SeriesTable

Array = np.ndarray[Any, Any]
_MAX_BATCH = 512


class CSVSeriesDataModule(LitDataModule[SeriesBatch]):
    """Windows of a file of series with one row per time step, oldest first.

    The rows of each series are split in time from its end: training, then validation, then test. A
    window's targets lie in its own split; the values it observes may reach back into the split
    before, as they would in use. The model scales by the training rows alone; where there are
    several series, each by its own.

    Args:
        path: CSV or Parquet file with a header, or a DataFrame.
        target: Column to forecast; several columns are a series each.
        covariates: Further columns the model observes, numbers or categories.
        window: Number T of observed steps.
        horizon: Number H of steps to forecast.
        date: Column of dates, which are checked and forecast on; found by itself when it is the
            first column and holds dates as text. Years (2024), months (202401) and days (20240131)
            may be plain numbers.
        num_train_rows: Rows of each series for training; by default what the others leave.
        val_rows: Rows of each series for validation, or their share.
        test_rows: Rows of each series for the test, or their share.
        stride: Distance between the starts of two training windows.
        season: Steps of one season for the seasonal rival, such as 24 for hours; 0 for none.
        predict_path: File whose series are forecast beyond their end; ``path`` by default.
        batch_size: Windows per optimizer step; an eighth of the training windows, 512 at most, by
            default.
        seed: Seed of the order of the windows.
        series: Column or columns that tell the series of a file apart.
        known: Columns that are known ahead, such as a price or a holiday; a file to predict gives
            them in rows behind the last target.
        static: Columns that are constant in each series.
        calendar: Whether the cycles of the dates (day, week, year) are known ahead too.
        gaps: What missing rows and values are: an error, filled with the last value before, or
            filled and told to the model. Filled targets are neither trained on nor scored.
        transform: Transform of the target before it is scaled; ``boxcox`` chooses the exponent, and
            ``auto`` the transform, by the ridge regression's error on the validation rows.
        folds: Number of test parts of a backtest with a rolling origin; 0 for a single one.
        fold: Which of the ``folds``, from 0 for the earliest; a fit uses the rows before it alone.
        predict_windows: Whether to predict the steps behind each series' ``last`` row, or all
            windows of the ``test``.

    Raises:
        InputError: If a file, column, date or value is missing or wrong; the message names it.
    """

    def __init__(
        self,
        path: Any,
        target: str | Sequence[str],
        covariates: Sequence[str] = (),
        window: int = 48,
        horizon: int = 1,
        date: str | None = None,
        num_train_rows: int | None = None,
        val_rows: int | float = 0.2,
        test_rows: int | float = 0.2,
        stride: int = 1,
        season: int = 0,
        predict_path: Any = None,
        batch_size: int | None = None,
        seed: int = 0,
        series: str | Sequence[str] = (),
        known: Sequence[str] = (),
        static: Sequence[str] = (),
        calendar: bool = False,
        gaps: Gaps = "error",
        transform: Transform = "none",
        folds: int = 0,
        fold: int = 0,
        predict_windows: Literal["last", "test"] = "last",
    ) -> None:
        super().__init__(1 if batch_size is None else batch_size, seed, eval_batch_size=2048)
        at_least(window=(window, 1), horizon=(horizon, 1), stride=(stride, 1), season=(season, 0))
        at_least(folds=(folds, 0), fold=(fold, 0))
        if fold >= max(folds, 1):
            raise InputError(f"fold {fold} is none of {folds}; the first is fold 0")
        self.columns = Columns(
            _names(target), _names(series), date, list(known), list(covariates), list(static),
            calendar,
        )  # fmt: skip
        _check_columns(self.columns)
        self.path, self.predict_path = path, predict_path
        self.window, self.horizon, self.season, self.stride = window, horizon, season, stride
        self.num_train_rows, self.val_rows, self.test_rows = num_train_rows, val_rows, test_rows
        self.gaps, self.transform = gaps, transform
        self.folds, self.fold, self.predict_windows = folds, fold, predict_windows
        self.num_auxiliary = 0
        self._automatic_batch = batch_size is None
        self._known: dict[str, Any] = {}

    # What the model needs ------------------------------------------------------------------------

    @property
    def in_features(self) -> int:
        """Number of observed channels."""
        return int(self._known.get("in_features") or self._table.values.shape[1])

    @property
    def num_known(self) -> int:
        """Number of channels known ahead."""
        return int(self._known["num_known"] if self._known else self._table.num_known)

    @property
    def num_series(self) -> int:
        """Number of series of the training file."""
        return len(self._known["names"] if self._known else self._table.names)

    @property
    def series_names(self) -> list[str]:
        """Name of each series of the training file."""
        names = self._known["names"] if self._known else self._table.names
        return [" ".join(name) for name in names]

    @property
    def target_power(self) -> Power | None:
        """Exponent and shift of the target's transform, and its least value; None for none."""
        return self._known["power"] if self._known else self._power

    @property
    def num_train(self) -> int:
        """Number of training windows."""
        return len(self.origins("train").row)

    @property
    def standardization(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Scale of the training rows, the mean over the series where each has its own."""
        mean, std = self._scales[0].mean(0), self._scales[1].mean(0)
        return {"x_scaler": (mean, std), "y_scaler": (mean[:1], std[:1])}

    @cached_property
    def linear_start(self) -> LinearStart | None:
        """The ridge regression in the model's units, for a model that starts from it."""
        train, val = self.origins("train"), self.origins("val")
        return fit_ridge(self._rows, train, val, self._scaler)

    # Rows, scales and splits ---------------------------------------------------------------------

    @property
    def grouped(self) -> bool:
        """Whether each series has a scale of its own."""
        return bool(self.columns.series) or len(self.columns.targets) > 1

    @cached_property
    def _table(self) -> SeriesTable:
        return SeriesTable(self.path, self.columns, self.gaps, self._known.get("decided"))

    @cached_property
    def _bounds(self) -> Bounds:
        return split_bounds(self)

    def make_split(self, split: Split) -> Any:
        """Origins of the windows of a split, or the windows at the end of each series."""
        if split == "predict":
            history = None if self.predict_path is None else lambda: self._table
            return last_windows(self, self._predict_table, history)
        return split_origins(self, split)

    def origins(self, split: Split) -> Origins:
        """Places of the windows of a split."""
        places: Any = self.split(split)
        assert isinstance(places, Origins)
        return places

    @cached_property
    def _power(self) -> Power | None:
        return choose_power(self, self.transform)

    @cached_property
    def _scales(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and standard deviation of each channel, ``(S, D)``, and naive error, ``(S,)``."""
        return series_scales(self, self._table, self.target_power)

    @cached_property
    def _scaler(self) -> Scaler:
        return Scaler(self._scales[0][:1], self._scales[1][:1], self.target_power)

    @cached_property
    def _rows(self) -> SeriesRows:
        return self.rows_with(self._scales)

    def rows_with(self, scales: tuple[Tensor, Tensor, Tensor]) -> SeriesRows:
        """The rows of the file with a scale of each series."""
        table, (center, scale, naive) = self._table, scales
        own = (center, scale) if self.grouped else (None, None)
        sizes = (self.window, self.horizon, table.num_known)
        numbers = self._numbers
        return SeriesRows(table.values, *sizes, table.real, own[0], own[1], naive, numbers)

    @cached_property
    def _numbers(self) -> Tensor:
        """Number of each series of the file among those of the training file; -1 for a new one."""
        return self.numbers_of(self._table.names)

    def numbers_of(self, names: Sequence[tuple[str, ...]]) -> Tensor:
        """Number of each series among those of the training file; -1 for one it did not have."""
        if not self._known:
            return torch.arange(len(names))
        known = {tuple(name): number for number, name in enumerate(self._known["names"])}
        return torch.tensor([known.get(name, -1) for name in names])

    def windows(self, split: Split, rows: Tensor | None = None) -> SeriesBatch:
        """Windows of a split as one batch in the units of the file.

        Args:
            split: The split.
            rows: Which of its windows, ``(N,)``; all by default.
        """
        data: Any = self.split(split)
        if rows is None:
            rows = torch.arange(len(data[0]))
        if not isinstance(data, Origins):
            fields: Any = (None if field is None else field[rows] for field in data)
            return SeriesBatch(*fields)
        return self._rows.gather(Origins(data.row[rows], data.series[rows]))

    def time_of(self, batch: SeriesBatch) -> Array | None:
        """Dates of a batch's steps, from the window's first to the last forecast, ``(B, T + H)``.

        None where the file has no dates.
        """
        if self._table.dates is None or batch.time is None:
            return None
        steps = torch.arange(-self.window, self.horizon)
        return np.asarray(self._table.dates[(batch.time.unsqueeze(1) + steps).numpy()])

    def train_dataloader(self) -> Any:
        """Shuffled batches of the training windows."""
        if self._automatic_batch:
            self.batch_size = min(_MAX_BATCH, max(8, self.num_train // 8))
        return super().train_dataloader()

    def _loader(self, data: Any, batch_size: int, *args: Any, **options: Any) -> Any:
        if isinstance(data, Origins):
            options.setdefault("make", partial(WindowLoader, rows=self._rows))
        else:
            options.setdefault("make", TensorLoader)
        return super()._loader(data, batch_size, *args, **options)

    # What a run keeps ----------------------------------------------------------------------------

    def knowledge(self) -> dict[str, Any]:
        """Types, dates, channels, series and scales that the training file decided."""
        if self._known:
            return self._known
        center, scale, naive = self._scales
        table = self._table
        return {
            "decided": {**table.decided, "targets": list(self.columns.targets)},
            "in_features": table.values.shape[1],
            "num_known": table.num_known,
            "kinds": list(table.kinds),
            "names": [list(name) for name in table.names],
            "center": center,
            "scale": scale,
            "naive_error": naive,
            "power": self.target_power,
        }

    def adopt(self, knowledge: Mapping[str, Any]) -> None:
        """Takes what a run knows; new files are read by it."""
        self._known = dict(knowledge)

    def row_hashes(self, split: Split) -> Array | None:
        """Hash of each target row by its series, its date and the values that lead to it."""
        if split == "predict":
            return None
        table, bounds = self._table, self._bounds
        hashes = pd.util.hash_array(table.values[:, 0])
        key = hashes.copy()
        for lag in (1, 2, 3):
            key[lag:] = key[lag:] * np.uint64(1_000_003) + hashes[:-lag]
        if table.dates is not None:
            key ^= pd.util.hash_array(table.dates.astype("datetime64[ns]").astype(np.int64))
        names = pd.util.hash_array(np.array([" ".join(n) for n in table.names], dtype=object))
        key ^= np.repeat(names, np.diff(table.offsets))
        spans = zip(*bounds[split], strict=True)
        return np.concatenate([key[start:end] for start, end in spans])

    # References ----------------------------------------------------------------------------------

    @cached_property
    def _rival_errors(self) -> dict[str, Errors]:
        """Errors of each rival; the ridge regression is that of the target as it stands."""
        plain = self._scaler.power is None
        scales = self._scales if plain else series_scales(self, self._table, None, recall=False)
        rows = self._rows if plain else self.rows_with(scales)
        scaler = Scaler(scales[0][:1], scales[1][:1])
        ridge = self.linear_start
        if not plain:
            ridge = fit_ridge(rows, self.origins("train"), self.origins("val"), scaler)
        return rival_errors(rows, self.origins("test"), scaler, ridge, self.season)

    @cached_property
    def _rival_scores(self) -> dict[str, dict[str, float]]:
        return {name: errors.means() for name, errors in self._rival_errors.items()}

    @property
    def rival_errors_per_step(self) -> dict[str, Tensor]:
        """Mean squared error of each rival at each step, ``(H,)``."""
        return {name: errors.per_step() for name, errors in self._rival_errors.items()}

    @property
    def target_names(self) -> list[str]:
        """Columns that are forecast."""
        return list(self.columns.targets)

    @property
    def baselines(self) -> dict[str, tuple[float, float]]:
        """Test error of the rivals: mean squared and mean absolute, in the file's units."""
        return {name: (found["mse"], found["mae"]) for name, found in self._rival_scores.items()}

    @property
    def rivals(self) -> dict[str, dict[str, float]]:
        """Test scores of the last value, the last season and the ridge regression."""
        metrics = next(iter(self._rival_scores.values()))
        return {
            f"test/{metric}": {name: found[metric] for name, found in self._rival_scores.items()}
            for metric in metrics
        }

    @property
    def baseline(self) -> dict[str, Reference]:
        """The best of the rivals by each score."""
        found = {}
        for metric, scores in self.rivals.items():
            best = min(scores, key=lambda name: scores[name])
            found[metric] = Reference(scores[best], best)
        return found

    # Predictions ---------------------------------------------------------------------------------

    @property
    def predict_split(self) -> Split:
        """The windows at the end of each series, or those of the test."""
        return "test" if self.predict_windows == "test" else "predict"

    @cached_property
    def _predict_table(self) -> SeriesTable:
        if self.predict_path is None:
            return self._table
        known = self._known or self.knowledge()
        return SeriesTable(self.predict_path, self.columns, self.gaps, known["decided"])

    def prediction_frame(self, outputs: Mapping[str, Tensor]) -> pd.DataFrame:
        """One row a forecast step: series, date or row, step, forecast, interval, truth."""
        if self.predict_windows == "test":
            return forecast_frame(self, self._table, outputs, self.origins("test"))
        return forecast_frame(self, self._predict_table, outputs, None)


def _names(columns: str | Sequence[str]) -> list[str]:
    return [columns] if isinstance(columns, str) else list(columns)


def _check_columns(columns: Columns) -> None:
    """Refuses a column in two places."""
    if not columns.targets:
        raise InputError("target names no column; give one to forecast")
    seen: set[str] = set()
    for name in columns.named:
        if name in seen and name in columns.targets and name in columns.covariates:
            raise InputError(f"the target {name!r} is observed anyway; leave it out of covariates")
        if name in seen:
            raise InputError(
                f"{name!r} is named twice among target, series, date, known, covariates, static"
            )
        seen.add(name)
