"""A user's samples in a NumPy file: vectors, grey images or images with channels."""

import sys
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np

from datamodules.errors import InputError
from datamodules.own.stored_samples import Stored, StoredSampleDataModule

Array = np.ndarray[Any, Any]
Channels = Literal["auto", "first", "last"]

_BLOCK = 2**22  # numbers that are looked at at once
_PICTURE = (1, 3, 4)  # channels of one


def read_array(path: str) -> Array:
    """Opens a ``.npy`` file of finite numbers, mapped into memory, without executing anything.

    Raises:
        InputError: If there is no such file, or it holds something else.
    """
    array = _open(path)
    if array.ndim == 0:
        raise InputError(f"{path} holds a single value; a row per sample is needed")
    if array.dtype.kind not in "fiub":
        raise InputError(f"{path} holds {array.dtype} values; numbers are needed")
    if array.dtype.kind == "f":
        step = max(1, _BLOCK // max(array[:1].size, 1))
        for start in range(0, len(array), step):
            finite = np.isfinite(array[start : start + step])
            if not finite.all():
                row = start + np.argwhere(~finite)[0][0]
                raise InputError(f"{path}: row {row} is not finite; drop or mend it")
    return array


def read_labels(path: str) -> Array:
    """Reads a ``.npy`` file of classes: whole numbers or words.

    Raises:
        InputError: If there is no such file, or it holds something else.
    """
    return _as_labels(_open(path), path)


def _as_labels(labels: Array, name: str) -> Array:
    if labels.dtype.kind == "O" and all(isinstance(label, str) for label in labels.flat):
        labels = labels.astype(str)
    if labels.dtype.kind not in "iubUS" or labels.ndim != 1:
        raise InputError(
            f"{name} holds {labels.dtype} values of shape {labels.shape}; whole numbers or words, "
            "one a row, are classes"
        )
    return labels.astype(str) if labels.dtype.kind == "S" else np.array(labels)


def _open(path: str) -> Array:
    if not Path(path).is_file():
        raise InputError(f"no file {path!r}; give the path of a .npy file")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        # The first sentence: numpy goes on to recommend loading the file unsafely.
        reason = (str(error).splitlines() or [type(error).__name__])[0].partition(". ")[0]
        raise InputError(f"{path} is no .npy array ({reason}); write it by numpy.save") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise InputError(f"{path} holds several arrays; save one of them by numpy.save")
    return array


class ArrayDataModule(StoredSampleDataModule):
    """Samples of a user's distribution, one per row of an array.

    The file stays on disk: a batch is read when it is due, in the file's own type until then.

    Args:
        path: File of the samples: ``(N,)`` or ``(N, D)`` vectors, ``(N, H, W)`` grey images,
            ``(N, C, H, W)`` or ``(N, H, W, C)`` images; or such an array itself.
        classes_path: File of each row's class, whole numbers or words, for conditional sampling; or
            such an array itself.
        channels: Which dimension of images with channels holds them: the ``first`` or the ``last``
            one after the rows; ``auto`` takes the last one if it alone counts 1, 3 or 4.
        val_fraction: Share of the rows for validation.
        test_fraction: Share of the rows for the test.
        num_test_samples: Samples that a test draws to compare with its rows; None for one a row.
        num_generated: Samples that `predict` draws.
        generated_class: Class that `predict` draws; every class in turn by default.
        flip: Whether training mirrors half of the pictures, left for right.
        batch_size: Rows per optimizer step.
        eval_batch_size: Rows per evaluation batch.
        seed: Seed of the split.

    Raises:
        InputError: If a file or an argument is wrong.

    Example:
        >>> pictures = np.zeros((20, 8, 12, 3), dtype=np.uint8)
        >>> data = ArrayDataModule(pictures, np.array(["cat", "dog"] * 10), channels="last")
        >>> data.sample_shape, list(data.class_names)
        ((3, 8, 12), ['cat', 'dog'])
    """

    def __init__(
        self,
        path: Any,
        classes_path: Any = None,
        channels: Channels = "auto",
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        num_test_samples: int | None = 1000,
        num_generated: int = 1000,
        generated_class: str | int | None = None,
        flip: bool = False,
        batch_size: int = 128,
        eval_batch_size: int = 500,
        seed: int = 0,
    ) -> None:
        super().__init__(
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            num_test_samples=num_test_samples,
            num_generated=num_generated,
            generated_class=generated_class,
            flip=flip,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            seed=seed,
        )
        self.path, self.classes_path = path, classes_path
        self.channels: Channels = channels

    def read(self) -> Stored:
        """Opens the files."""
        name = str(self.path) if isinstance(self.path, (str, Path)) else "the array"
        rows = read_array(str(self.path)) if isinstance(self.path, (str, Path)) else self.path
        if rows.ndim > 4 or 0 in rows.shape:
            raise InputError(f"{name} has shape {rows.shape}; 1 to 4 dimensions are read")
        labels = self._labels(len(rows), name)
        return Stored(rows, labels, rows.ndim == 4 and self._channels_last(rows.shape, name), name)

    def _labels(self, num_rows: int, name: str) -> Array | None:
        if self.classes_path is None:
            return None
        given = self.classes_path
        if isinstance(given, (str, Path)):
            labels = read_labels(str(given))
        else:
            labels = _as_labels(np.asarray(given), "classes_path")
        if labels.shape != (num_rows,):
            raise InputError(
                f"the classes have shape {labels.shape}; one for each of the {num_rows} rows of "
                f"{name} is needed"
            )
        return labels

    def _channels_last(self, shape: tuple[int, ...], name: str) -> bool:
        if self.channels != "auto":
            return self.channels == "last"
        could_be_last, could_be_first = shape[3] in _PICTURE, shape[1] in _PICTURE
        last = could_be_last and not could_be_first
        if could_be_last == could_be_first or last:
            channels, height, width = (shape[3], *shape[1:3]) if last else shape[1:]
            stand, other = ("last", "first") if last else ("first", "last")
            sys.stderr.write(
                f"lit-models: {name} is read as {height} x {width} pictures of {channels} "
                f"channel(s), which stand {stand}; --data.channels {other} if they do not\n"
            )
        return last
