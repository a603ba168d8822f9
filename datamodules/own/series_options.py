"""What the parts of a series reader ask of it: its options, and what a run knows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from datamodules.base import Split
    from datamodules.loading.windows import Origins, SeriesRows
    from datamodules.own.series_rivals import Power
    from datamodules.own.series_table import Columns, SeriesTable

Array = np.ndarray[Any, Any]
Bounds = dict[str, tuple[Array, Array]]


class SeriesOptions(Protocol):
    """A series reader as its parts see it; the reader's class documents the options."""

    columns: "Columns"
    predict_path: Any
    window: int
    horizon: int
    stride: int
    season: int
    folds: int
    fold: int
    num_train_rows: int | None
    val_rows: int | float
    test_rows: int | float
    transform: Any
    _known: dict[str, Any]

    @property
    def _table(self) -> "SeriesTable": ...

    @property
    def _bounds(self) -> Bounds: ...

    @property
    def num_known(self) -> int:
        """Number of channels known ahead."""
        ...

    @property
    def grouped(self) -> bool:
        """Whether each series has a scale of its own."""
        ...

    @property
    def target_power(self) -> "Power | None":
        """The target's transform; None for none."""
        ...

    def numbers_of(self, names: Sequence[tuple[str, ...]]) -> Tensor:
        """Number of each series among those of the training file, ``(S,)``."""
        ...

    def rows_with(self, scales: tuple[Tensor, Tensor, Tensor]) -> "SeriesRows":
        """The rows of the file with a scale of each series."""
        ...

    def origins(self, split: "Split") -> "Origins":
        """Places of the windows of a split."""
        ...
