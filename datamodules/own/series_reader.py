"""Rows, scales and windows of a file of series: what its splits are made of."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from datamodules.base import LitDataModule, Split
from datamodules.batches import SeriesBatch
from datamodules.loading.loader import TensorLoader
from datamodules.loading.windows import Origins, SeriesRows, WindowLoader
from datamodules.own.series_columns import Columns, Gaps
from datamodules.own.series_forecast import followed_windows, last_windows
from datamodules.own.series_options import Bounds, Scales
from datamodules.own.series_rivals import Power, Scaler
from datamodules.own.series_scale import Transform, choose_power, series_scales
from datamodules.own.series_splits import hash_rows, split_bounds, split_origins
from datamodules.own.series_table import SeriesTable

Array = np.ndarray[Any, Any]
_MAX_BATCH = 512


class SeriesReader(LitDataModule[SeriesBatch]):
    """Base of the series of a user's own; :class:`CSVSeriesDataModule` says what the options mean.

    Attributes:
        memory: What a run knows of its training file; empty for a file that decides by itself.
    """

    path: Any
    predict_path: Any
    predict_windows: Literal["last", "test"]
    columns: Columns
    window: int
    horizon: int
    stride: int
    season: int
    folds: int
    fold: int | None
    num_train_rows: int | None
    val_rows: int | float
    test_rows: int | float
    gaps: Gaps
    transform: Transform
    memory: dict[str, Any]
    _automatic_batch: bool

    # What the model needs ------------------------------------------------------------------------

    @property
    def in_features(self) -> int:
        """Number of observed channels."""
        return int(self.memory.get("in_features") or self.table.values.shape[1])

    @property
    def num_targets(self) -> int:
        """Number of targets that a window forecasts together."""
        return self.columns.num_targets

    @property
    def num_known(self) -> int:
        """Number of channels known ahead."""
        return int(self.memory["num_known"] if self.memory else self.table.num_known)

    @property
    def num_series(self) -> int:
        """Number of series of the training file."""
        return len(self.memory["names"] if self.memory else self.table.names)

    @property
    def series_names(self) -> list[str]:
        """Name of each series of the training file."""
        names = self.memory["names"] if self.memory else self.table.names
        return [" ".join(name) for name in names]

    @property
    def target_names(self) -> list[str]:
        """Columns that are forecast."""
        return list(self.columns.targets)

    @property
    def target_power(self) -> Power | None:
        """Exponent and shift of the target's transform, and its least value; None for none."""
        return self.memory["power"] if self.memory else self._power

    @property
    def num_train(self) -> int:
        """Number of training windows."""
        return len(self.origins("train").row)

    @property
    def standardization(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Scale of the training rows, the mean over the series where each has its own."""
        mean, std = self.scales[0].mean(0), self.scales[1].mean(0)
        targets = slice(self.num_targets)
        return {"x_scaler": (mean, std), "y_scaler": (mean[targets], std[targets])}

    # Rows and scales -----------------------------------------------------------------------------

    @property
    def grouped(self) -> bool:
        """Whether each series, or each of several targets, has a scale of its own."""
        return bool(self.columns.series) or len(self.columns.targets) > 1

    @cached_property
    def table(self) -> SeriesTable:
        """The rows of the file."""
        return SeriesTable(self.path, self.columns, self.gaps, self.memory.get("decided"))

    @cached_property
    def _power(self) -> Power | None:
        return choose_power(self, self.transform)

    @cached_property
    def scales(self) -> Scales:
        """Mean and deviation of each channel, ``(S, D)``, and naive error, ``(S,)`` or (S, M)."""
        return series_scales(self, self.table, self.target_power)

    @cached_property
    def scaler(self) -> Scaler:
        """The units of the model."""
        return self.scaler_of(self.scales, self.target_power)

    def scaler_of(self, scales: Scales, power: Power | None) -> Scaler:
        """Units of some scales and a transform."""
        return Scaler(scales[0][:1], scales[1][:1], power, self.num_targets)

    @cached_property
    def rows(self) -> SeriesRows:
        """The rows of the file with the scale of each series."""
        return self.rows_with(self.scales)

    def rows_with(self, scales: Scales, table: SeriesTable | None = None) -> SeriesRows:
        """The rows of a file, this one's by default, with some scale of each series."""
        table, (center, scale, naive) = table or self.table, scales
        own = (center, scale) if self.grouped else (None, None)
        return SeriesRows(
            table.values,
            self.window,
            self.horizon,
            table.num_known,
            table.real,
            own[0],
            own[1],
            naive,
            self.numbers_of(table.names),
            table.num_targets,
        )

    def numbers_of(self, names: Sequence[tuple[str, ...]]) -> Tensor:
        """Number of each series among those of the training file; negative for new ones."""
        trained = self.memory["names"] if self.memory else self.table.names
        known = {tuple(name): number for number, name in enumerate(trained)}
        new = [name for name in map(tuple, names) if name not in known]
        known |= {name: -1 - place for place, name in enumerate(new)}
        return torch.tensor([known[tuple(name)] for name in names])

    # Splits and windows --------------------------------------------------------------------------

    @cached_property
    def bounds(self) -> Bounds:
        """First and last row (exclusive) of each split of each series."""
        return split_bounds(self)

    @property
    def trained_rows(self) -> Array | None:
        """Hashes of the training rows; None where nobody knows them."""
        if self._trained_rows is not None:
            return self._trained_rows.numpy().view(np.uint64)
        return None if self.memory else self.row_hashes("train")

    @cached_property
    def predict_table(self) -> SeriesTable:
        """The rows of the file to predict, read as the training file was."""
        if self.predict_path is None:
            return self.table
        known = self.memory or self.knowledge()
        return SeriesTable(self.predict_path, self.columns, self.gaps, known["decided"])

    def make_split(self, split: Split) -> Any:
        """Origins of the windows of a split, or the windows at the end of each series."""
        if split == "predict":
            return last_windows(self)
        return split_origins(self, split)

    def origins(self, split: Split) -> Origins:
        """Places of the windows of a split."""
        places: Any = self.split(split)
        assert isinstance(places, Origins)
        return places

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
        return self.rows.gather(Origins(data.row[rows], data.series[rows]))

    def followed_windows(self) -> Iterator[SeriesBatch]:
        """Windows whose errors the intervals of a prediction follow, then those to predict."""
        return followed_windows(self)

    def time_of(self, batch: SeriesBatch) -> Array | None:
        """Dates of a batch's steps, from the window's first to the last forecast, ``(B, T + H)``.

        None where the file has no dates.
        """
        if self.table.dates is None or batch.time is None:
            return None
        steps = torch.arange(-self.window, self.horizon)
        return np.asarray(self.table.dates[(batch.time.unsqueeze(1) + steps).numpy()])

    def row_hashes(self, split: Split) -> Array | None:
        """Hash of each target row by its series, its date and the values that lead to it."""
        if split == "predict":
            return None
        key = hash_rows(self.table)
        return np.concatenate([key[s:e] for s, e in zip(*self.bounds[split], strict=True)])

    def train_dataloader(self) -> Any:
        """Shuffled batches of the training windows."""
        if self._automatic_batch:
            self.batch_size = min(_MAX_BATCH, max(8, self.num_train // 8))
        return super().train_dataloader()

    def _loader(self, data: Any, batch_size: int, *args: Any, **options: Any) -> Any:
        if isinstance(data, Origins):
            options.setdefault("make", partial(WindowLoader, rows=self.rows))
        else:
            options.setdefault("make", TensorLoader)
        return super()._loader(data, batch_size, *args, **options)
