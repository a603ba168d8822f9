"""What the parts of a series reader ask of it: its options, and what a run knows."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from torch import Tensor

from datamodules.base import Split
from datamodules.batches import SeriesBatch
from datamodules.loading.windows import Origins, SeriesRows
from datamodules.own.series_columns import Columns
from datamodules.own.series_rivals import Power, Scaler
from datamodules.own.series_table import SeriesTable

Array = np.ndarray[Any, Any]
Bounds = dict[str, tuple[Array, Array]]
Scales = tuple[Tensor, Tensor, Tensor]


class SeriesOptions(Protocol):
    """A series reader as its parts see it; the reader's class documents the options."""

    columns: Columns
    predict_path: Any
    predict_windows: Literal["last", "test"]
    window: int
    horizon: int
    stride: int
    season: int
    folds: int
    fold: int | None
    num_train_rows: int | None
    val_rows: int | float
    test_rows: int | float
    memory: dict[str, Any]

    @property
    def table(self) -> SeriesTable:
        """The rows of the file."""
        ...

    @property
    def predict_table(self) -> SeriesTable:
        """The rows of the file to predict."""
        ...

    @property
    def bounds(self) -> Bounds:
        """First and last row (exclusive) of each split of each series."""
        ...

    @property
    def trained_rows(self) -> Array | None:
        """Hashes of the training rows."""
        ...

    @property
    def rows(self) -> SeriesRows:
        """The rows of the file with the scale of each series."""
        ...

    @property
    def num_known(self) -> int:
        """Number of channels known ahead."""
        ...

    @property
    def num_targets(self) -> int:
        """Number of targets that a window forecasts."""
        ...

    @property
    def target_names(self) -> list[str]:
        """Columns that are forecast."""
        ...

    @property
    def grouped(self) -> bool:
        """Whether each series has a scale of its own."""
        ...

    @property
    def target_power(self) -> Power | None:
        """The target's transform; None for none."""
        ...

    def knowledge(self) -> dict[str, Any]:
        """What the training file decided."""
        ...

    def numbers_of(self, names: Sequence[tuple[str, ...]]) -> Tensor:
        """Number of each series among those of the training file, ``(S,)``."""
        ...

    def scaler_of(self, scales: Scales, power: Power | None) -> Scaler:
        """Units of some scales and a transform."""
        ...

    def rows_with(self, scales: Scales, table: SeriesTable | None = None) -> SeriesRows:
        """The rows of a file with a scale of each series."""
        ...

    def origins(self, split: Split) -> Origins:
        """Places of the windows of a split."""
        ...

    def windows(self, split: Split, rows: Tensor | None = None) -> SeriesBatch:
        """Windows of a split."""
        ...
