"""A user's samples in a NumPy file: vectors, grey images or images with channels."""

import zipfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datamodules.base import Split
from datamodules.batches import SampleBatch
from datamodules.errors import InputError
from datamodules.loading.splits import Rows, hold_out
from datamodules.samples import SampleDataModule

Array = np.ndarray[Any, Any]


def read_array(path: str) -> Array:
    """Reads a ``.npy`` file of finite numbers, without executing anything.

    Raises:
        InputError: If there is no such file, or it holds something else.
    """
    if not Path(path).is_file():
        raise InputError(f"no file {path!r}; give the path of a .npy file")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} is no .npy array ({reason}); write it by numpy.save") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} holds several arrays; save one of them by numpy.save")
    if array.dtype.kind not in "fiub" or array.ndim == 0:
        raise InputError(f"{path} holds {array.dtype} values; numbers are needed")
    finite = np.isfinite(array)
    if not finite.all():
        row = np.argwhere(~finite)[0][0]
        raise InputError(f"{path}: row {row} is not finite; drop or mend it")
    return array


class ArrayDataModule(SampleDataModule):
    """Samples of a user's distribution, one per row of an array.

    Args:
        path: File of the samples: ``(N,)`` or ``(N, D)`` vectors, ``(N, H, W)`` grey images or
            ``(N, C, H, W)`` images.
        classes_path: File of each row's class, whole numbers from 0, for conditional sampling.
        val_fraction: Share of the rows for validation.
        test_fraction: Share of the rows for the test.
        num_generated: Samples that `predict` draws.
        batch_size: Rows per optimizer step.
        eval_batch_size: Rows per evaluation batch.
        seed: Seed of the split.

    Raises:
        InputError: If a file or an argument is wrong.
    """

    def __init__(
        self,
        path: str,
        classes_path: str | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        num_generated: int = 1000,
        batch_size: int = 128,
        eval_batch_size: int = 2000,
        seed: int = 0,
    ) -> None:
        super().__init__(num_generated, batch_size, eval_batch_size, seed)
        if min(val_fraction, test_fraction) <= 0 or val_fraction + test_fraction >= 1:
            raise InputError(
                f"val_fraction and test_fraction must be positive and sum to less than 1, got "
                f"{val_fraction} and {test_fraction}"
            )
        self.path, self.classes_path = path, classes_path
        self.val_fraction, self.test_fraction = val_fraction, test_fraction

    @cached_property
    def _samples(self) -> Array:
        array = read_array(self.path)
        if array.ndim > 4 or 0 in array.shape:
            raise InputError(f"{self.path} has shape {array.shape}; 1 to 4 dimensions are read")
        if array.ndim == 1:
            return array[:, None]
        return array[:, None] if array.ndim == 3 else array

    @cached_property
    def _classes(self) -> Array | None:
        if self.classes_path is None:
            return None
        classes = read_array(self.classes_path)
        if classes.shape != (len(self._samples),):
            raise InputError(
                f"{self.classes_path} has shape {classes.shape}; one class for each of the "
                f"{len(self._samples)} rows of {self.path} is needed"
            )
        if classes.dtype.kind not in "iu" or classes.min() < 0:
            raise InputError(f"{self.classes_path} must hold whole numbers from 0")
        return classes.astype(np.int64)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return tuple(self._samples.shape[1:])

    @cached_property
    def num_classes(self) -> int:
        """Largest class plus 1; 0 without classes."""
        return 0 if self._classes is None else int(self._classes.max()) + 1

    @cached_property
    def _rows(self) -> Mapping[str, Rows]:
        rows = np.arange(len(self._samples))
        labels = self._classes
        rest, test = hold_out(rows, self.test_fraction, self.seed, labels)
        share = self.val_fraction / (1 - self.test_fraction)
        left = None if labels is None else labels[rest]
        train, val = hold_out(rest, share, self.seed, left)
        return {"train": train, "val": val, "test": test}

    def make_split(self, split: Split) -> SampleBatch:
        """Rows of one split."""
        if split == "predict":
            return self.blank_rows()
        rows = self._rows[split]
        x0 = torch.from_numpy(self._samples[rows]).to(torch.get_default_dtype())
        classes = None if self._classes is None else torch.from_numpy(self._classes[rows])
        return SampleBatch(x0, classes)
