"""What a user's arrays and pictures share: three parts, classes by any name, batches read late."""

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.base import Split
from datamodules.batches import SampleBatch
from datamodules.errors import InputError
from datamodules.loading.sample_loader import SampleLoader
from datamodules.loading.splits import Rows, hold_out
from datamodules.samples import SampleDataModule

Array = np.ndarray[Any, Any]

_BLOCK = 2**20  # numbers that are read at once
_EXACT = ("u1", "i1", "u2", "i2", "f2", "f4", "b1")  # types that single precision holds


class Stored(NamedTuple):
    """A user's samples where they are stored.

    Attributes:
        rows: One sample a row, ``(N, ...)``: in memory or mapped from a file.
        labels: Class of each, ``(N,)`` whole numbers or words.
        channels_last: Whether images are ``(H, W, C)``.
        source: The file or folder, for messages.
    """

    rows: Array
    labels: Array | None
    channels_last: bool
    source: str


class StoredSampleDataModule(SampleDataModule):
    """Base of the datamodules of a user's samples.

    Args:
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
        InputError: If an argument is out of range.
    """

    def __init__(
        self,
        val_fraction: float,
        test_fraction: float,
        num_test_samples: int | None,
        num_generated: int,
        generated_class: str | int | None,
        flip: bool,
        batch_size: int,
        eval_batch_size: int,
        seed: int,
    ) -> None:
        super().__init__(num_generated, batch_size, eval_batch_size, seed)
        if min(val_fraction, test_fraction) <= 0 or val_fraction + test_fraction >= 1:
            raise InputError(
                f"val_fraction and test_fraction must be positive and sum to less than 1, got "
                f"{val_fraction} and {test_fraction}"
            )
        if num_test_samples is not None and num_test_samples < 2:
            raise InputError(f"num_test_samples must be at least 2, got {num_test_samples}")
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.num_test_samples, self.generated_class = num_test_samples, generated_class
        self.flip = flip
        self._known: dict[str, Any] = {}
        self._hashes: dict[str, Array] = {}

    def read(self) -> Stored:
        """Opens the user's file; called once."""
        raise NotImplementedError(f"{type(self).__name__} must define read()")

    @cached_property
    def _stored(self) -> Stored:
        stored = self.read()
        shape = _sample_shape(stored)
        if self._known and list(shape) != self._known["sample_shape"]:
            raise InputError(
                f"{stored.source} holds samples of shape {shape}, the run was trained on "
                f"{tuple(self._known['sample_shape'])}"
            )
        return stored

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one row, channels first."""
        known = self._known.get("sample_shape")
        return _sample_shape(self._stored) if known is None else tuple(known)

    @cached_property
    def class_names(self) -> Sequence[Any]:
        """The classes as the user's file has them, in order; those of the training rows."""
        if self._known:
            return list(self._known["classes"])
        labels = self._stored.labels
        return [] if labels is None else np.unique(labels).tolist()

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 without classes."""
        return len(self.class_names)

    @cached_property
    def _codes(self) -> Rows | None:
        """Place of each row's class among ``class_names``."""
        labels = self._stored.labels
        if labels is None or not self.class_names:
            return None
        place = {name: code for code, name in enumerate(self.class_names)}
        unseen = next((name for name in labels.tolist() if name not in place), None)
        if unseen is not None:
            raise InputError(
                f"{self._stored.source} has the class {unseen!r}, which the run was not trained on"
            )
        codes: Rows = np.array([place[name] for name in labels.tolist()], dtype=np.int64)
        return codes

    @cached_property
    def _rows(self) -> Mapping[str, Rows]:
        codes, count = self._codes, len(self._stored.rows)
        shares = {"test": self.test_fraction, "val": self.val_fraction}
        sizes = {name: max(1, round(share * count)) for name, share in shares.items()}
        if count < 3:
            raise InputError(f"{self._stored.source} holds {count} sample(s); at least 3 are split")
        smallest = 0 if codes is None else int(np.bincount(codes).min())
        stratified = codes is not None and min(sizes.values()) >= self.num_classes and smallest > 2
        if codes is not None and not stratified:
            _say(f"{count} samples of {self.num_classes} classes are too few to split by class")
        if min(sizes.values()) < 5:
            _say(
                f"{self._stored.source} holds {count} samples: {sizes['val']} validate, "
                f"{sizes['test']} test; their scores say little"
            )
        rows = np.arange(count)
        labels = codes if stratified else None
        rest, test = hold_out(rows, sizes["test"] / count, self.seed, labels)
        left = None if labels is None else labels[rest]
        train, val = hold_out(rest, sizes["val"] / len(rest), self.seed, left)
        # In an order of their own: the first rows of a test are compared with samples.
        shuffled = np.random.default_rng([self.seed, 1]).permutation(test)
        return {"train": train, "val": val, "test": shuffled}

    def read_rows(self, rows: Rows) -> Tensor:
        """Samples of row numbers, ``(B, *sample_shape)``, in a type that holds them exactly."""
        array = np.asarray(self._stored.rows[rows])
        exact = array.dtype.str[1:] in _EXACT
        x0 = torch.from_numpy(array.astype(np.float32 if exact else np.float64))
        if self._stored.channels_last:
            return x0.movedim(-1, 1).contiguous()
        return x0.reshape(len(rows), *self.sample_shape)

    def training_blocks(self, limit: int | None = None) -> Iterator[Tensor]:
        """The training rows, some at a time; no more than a limit, evenly spread."""
        train = self._rows["train"]
        train = train[:: 1 if limit is None else -(-len(train) // limit)]
        size = max(1, _BLOCK // int(np.prod(self.sample_shape)))
        for start in range(0, len(train), size):
            yield self.read_rows(train[start : start + size])

    @cached_property
    def value_range(self) -> tuple[float, float]:
        """Of bytes 0 and 255, else the smallest and largest number of the training rows."""
        if self._known:
            low, high = self._known["value_range"]
            return low, high
        if self._stored.rows.dtype == np.uint8:
            return 0.0, 255.0
        ends = [(block.min().item(), block.max().item()) for block in self.training_blocks()]
        return min(low for low, _ in ends), max(high for _, high in ends)

    def make_split(self, split: Split) -> SampleBatch:
        """Rows of one split, all of them in memory."""
        if split == "predict":
            return self._blank_rows()
        rows, codes = self._rows[split], self._codes
        classes = None if codes is None else torch.from_numpy(codes[rows])
        return SampleBatch(self.read_rows(rows), classes)

    def _blank_rows(self) -> SampleBatch:
        blank = self.blank_rows()
        if self.generated_class is None:
            return blank
        names = [str(name) for name in self.class_names]
        if str(self.generated_class) not in names:
            known = f"choose from {', '.join(names[:20])}" if names else "the data have no classes"
            raise InputError(f"generated_class {self.generated_class!r} was never seen; {known}")
        code = names.index(str(self.generated_class))
        return blank._replace(y=torch.full((self.num_generated,), code))

    def setup(self, stage: str) -> None:
        """Opens the file and splits its rows; the samples stay where they are."""
        if stage == "predict":
            self.split("predict")
        else:
            _ = self._rows

    def train_dataloader(self) -> Any:
        """Shuffled batches of the training split."""
        return self._stored_loader("train", self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self) -> Any:
        """Ordered batches of the validation split."""
        return self._stored_loader("val", self.eval_batch_size)

    def test_dataloader(self) -> Any:
        """Ordered batches of the test split."""
        return self._stored_loader("test", self.eval_batch_size)

    def _stored_loader(
        self, split: Split, batch_size: int, shuffle: bool = False, drop_last: bool = False
    ) -> Any:
        rows, codes = self._rows[split], self._codes
        classes = None if codes is None else torch.from_numpy(codes[rows])
        flip = self.flip and split == "train" and len(self.sample_shape) == 3
        make = partial(SampleLoader, read=self.read_rows, flip=flip)
        return self._loader(
            SampleBatch(torch.from_numpy(rows), classes), batch_size, shuffle, drop_last, make
        )

    def knowledge(self) -> dict[str, Any]:
        """Shape, classes, and the range and type of the numbers."""
        if self._known:
            return self._known
        return {
            "sample_shape": list(self.sample_shape),
            "classes": list(self.class_names),
            "value_range": list(self.value_range),
            "type": self._stored.rows.dtype.str[1:],
        }

    def adopt(self, knowledge: Mapping[str, Any]) -> None:
        """Takes what the run knows; nothing is read."""
        self._known = dict(knowledge)

    def row_hashes(self, split: Split) -> "Array | None":
        """A 64-bit hash of each row's bytes."""
        if split not in self._hashes:
            rows = self._stored.rows
            digests = (
                hashlib.blake2b(np.ascontiguousarray(rows[i]).tobytes(), digest_size=8).digest()
                for i in self._rows[split]
            )
            self._hashes[split] = np.frombuffer(b"".join(digests), dtype=np.uint64)
        return self._hashes[split]

    def in_file_type(self, samples: Array) -> Array:
        """Bytes where the user's samples are bytes, else numbers as wide as theirs."""
        kind = self.knowledge()["type"]
        if kind == "u1":
            return samples.round().clip(0, 255).astype(np.uint8)
        return samples.astype(np.float32 if kind in _EXACT else np.float64)


def _sample_shape(stored: Stored) -> tuple[int, ...]:
    shape = stored.rows.shape[1:]
    if stored.channels_last:
        return (shape[2], *shape[:2])
    return {0: (1,), 2: (1, *shape)}.get(len(shape), tuple(shape))


def _say(line: str) -> None:
    sys.stderr.write(f"lit-models: {line}\n")
