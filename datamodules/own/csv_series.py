"""Time series of a user's own: one or many in a file, splits in time, forecasts beyond the end."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import pandas as pd
from torch import Tensor

from datamodules.base import Reference, Split
from datamodules.errors import InputError, at_least
from datamodules.own.series_columns import Columns, Gaps, names_of
from datamodules.own.series_forecast import forecast_frame
from datamodules.own.series_reader import SeriesReader
from datamodules.own.series_rivals import (
    Errors,
    LinearFits,
    LinearStart,
    fit_linear,
    fit_ridge,
    rival_errors,
)
from datamodules.own.series_scale import Transform, series_scales
from datamodules.own.series_statistics import statistical_errors


class CSVSeriesDataModule(SeriesReader):
    """Windows of a file of series with one row per time step, oldest first.

    The rows of each series are split in time from its end: training, then validation, then test. A
    window's targets lie in its own split; the values it observes may reach back into the split
    before, as they would in use. The model scales by the training rows alone; where there are
    several series, each by its own.

    Args:
        path: CSV or Parquet file with a header, or a DataFrame.
        target: Column to forecast; several columns are a series each, or see ``joint``.
        covariates: Further columns the model observes, numbers or categories.
        window: Number T of observed steps.
        horizon: Number H of steps to forecast.
        date: Column of dates, which are checked and forecast on; found by itself when it is the
            first column and holds dates as text. Years (2024), months (202401) and days (20240131)
            may be plain numbers. Several columns (year, month, day, ...) are one date together.
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
            Without it the command fits every fold in turn; in Python it is the earliest.
        predict_windows: Whether to predict the steps behind each series' ``last`` row, or all
            windows of the ``test``.
        joint: Whether several targets are forecast together, each from a window of all.

    Raises:
        InputError: If a file, column, date or value is missing or wrong; the message names it.
    """

    def __init__(
        self,
        path: Any,
        target: str | Sequence[str],
        covariates: str | Sequence[str] = (),
        window: int = 48,
        horizon: int = 1,
        date: str | Sequence[str] | None = None,
        num_train_rows: int | None = None,
        val_rows: int | float = 0.2,
        test_rows: int | float = 0.2,
        stride: int = 1,
        season: int = 0,
        predict_path: Any = None,
        batch_size: int | None = None,
        seed: int = 0,
        series: str | Sequence[str] = (),
        known: str | Sequence[str] = (),
        static: str | Sequence[str] = (),
        calendar: bool = False,
        gaps: Gaps = "error",
        transform: Transform = "none",
        folds: int = 0,
        fold: int | None = None,
        predict_windows: Literal["last", "test"] = "last",
        joint: bool = False,
    ) -> None:
        super().__init__(1 if batch_size is None else batch_size, seed, eval_batch_size=2048)
        at_least(window=(window, 1), horizon=(horizon, 1), stride=(stride, 1), season=(season, 0))
        at_least(folds=(folds, 0), fold=(fold, 0), num_train_rows=(num_train_rows, 1))
        if folds == 1:
            raise InputError("folds must be 2 or more, or 0 for a single test part, got 1")
        if (fold or 0) >= max(folds, 1):
            raise InputError(f"fold {fold} is none of {folds}; the first is fold 0")
        self.columns = Columns(
            names_of(target), names_of(series), date, names_of(known), names_of(covariates),
            names_of(static), calendar, joint,
        )  # fmt: skip
        self.columns.check()
        self.path, self.predict_path = path, predict_path
        self.window, self.horizon, self.season, self.stride = window, horizon, season, stride
        self.num_train_rows, self.val_rows, self.test_rows = num_train_rows, val_rows, test_rows
        self.gaps, self.transform = gaps, transform
        self.folds, self.fold, self.predict_windows = folds, fold, predict_windows
        self.num_auxiliary = 0
        self._automatic_batch = batch_size is None
        self.memory = {}

    @cached_property
    def _linear(self) -> LinearFits | None:
        return fit_linear(self.rows, self.origins("train"), self.origins("val"), self.scaler)

    @property
    def linear_start(self) -> LinearStart | None:
        """The linear forecast in the model's units, for a model that starts from it."""
        return None if self._linear is None else self._linear.start

    # What a run keeps ----------------------------------------------------------------------------

    def knowledge(self) -> dict[str, Any]:
        """Types, dates, channels, series and scales that the training file decided."""
        if self.memory:
            return self.memory
        center, scale, naive = self.scales
        table = self.table
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
        self.memory = dict(knowledge)

    # References ----------------------------------------------------------------------------------

    @cached_property
    def _rival_errors(self) -> dict[str, Errors]:
        """Errors of each rival; the ridge regression is that of the target as it stands."""
        rows, scaler = self.rows, self.scaler
        ridge = None if self._linear is None else self._linear.ridge
        test = self.origins("test")
        if scaler.power is not None:
            scales = series_scales(self, self.table, None, recall=False)
            rows, scaler = self.rows_with(scales), self.scaler_of(scales, None)
            ridge = fit_ridge(rows, self.origins("train"), self.origins("val"), scaler)
        cheap = rival_errors(rows, test, scaler, ridge, self.season)
        return cheap | statistical_errors(rows, test, self.table.offsets[:-1], self.season)

    @cached_property
    def _rival_scores(self) -> dict[str, dict[str, float]]:
        return {name: errors.means() for name, errors in self._rival_errors.items()}

    @property
    def rival_errors_per_step(self) -> dict[str, Tensor]:
        """Mean squared error of each rival at each step, ``(H,)``."""
        return {name: errors.per_step() for name, errors in self._rival_errors.items()}

    @property
    def baselines(self) -> dict[str, tuple[float, float]]:
        """Test error of the rivals: mean squared and mean absolute, in the file's units."""
        return {name: (found["mse"], found["mae"]) for name, found in self._rival_scores.items()}

    @property
    def rivals(self) -> dict[str, dict[str, float]]:
        """Test scores of the last value, the last season, the ridge regression, and others."""
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

    def prediction_frame(self, outputs: Mapping[str, Tensor]) -> pd.DataFrame:
        """One row a forecast step: series, date or row, step, forecast, interval, truth."""
        test = self.predict_windows == "test"
        return forecast_frame(self, outputs, self.origins("test") if test else None)
