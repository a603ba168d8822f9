"""Batches of in-memory tensors: one index operation each, the same on any number of ranks.

``torch.utils.data.DataLoader`` collates row by row and, like every sampler it takes, cannot
continue bit-identically both at an epoch's boundary and in its middle. This loader fetches a whole
batch at once, and its order is a pure function of ``(seed, epoch)``.
"""

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from datamodules.seeds import order_seed

# A NamedTuple of tensors that share their first dimension; fields may be None.
B = TypeVar("B", bound=tuple[Any, ...])


def take(data: B, rows: Tensor) -> B:
    """Returns the given rows of every field of a batch; what its rows share stays whole."""
    make: Callable[..., B] = type(data)
    shared: tuple[str, ...] = getattr(data, "shared", ())
    names: tuple[str, ...] = getattr(data, "_fields", ())
    return make(
        *(
            field if field is None or name in shared else field[rows]
            for name, field in zip(names, data, strict=True)
        )
    )


class EpochCount:
    """Number of the epoch that comes next, which loaders that follow each other share."""

    def __init__(self) -> None:
        self.next = 0


class EpochSampler:
    """Row order of each epoch.

    Lightning tells it the epoch; in a plain loop every iteration is the next one, as with a
    ``DataLoader``.

    Args:
        num_rows: Number of rows to order.
        shuffle: Whether each epoch has an order of its own.
        seed: Seed of the orders.

    Attributes:
        epoch: The current epoch.
        epochs: Counts the epochs that nobody tells. None keeps the first epoch whatever is told, to
            overfit its batches.
    """

    def __init__(self, num_rows: int, shuffle: bool, seed: int) -> None:
        self.num_rows, self.shuffle, self.seed = num_rows, shuffle, seed
        self.epoch = 0
        self.epochs: EpochCount | None = EpochCount()
        self._told = False

    def set_epoch(self, epoch: int) -> None:
        """Selects the order of an epoch for the next iteration."""
        if self.epochs is not None:
            self.epoch, self._told = epoch, True

    def begin(self) -> int:
        """The epoch of the iteration that begins: the one told, else the next."""
        if self.epochs is not None:
            if not self._told:
                self.epoch = self.epochs.next
            self.epochs.next, self._told = self.epoch + 1, False
        return self.epoch

    def generator(self) -> torch.Generator:
        """A random generator of the current epoch's own."""
        return torch.Generator().manual_seed(order_seed(self.seed, self.epoch))

    def order(self) -> Tensor:
        """Row numbers in the order of the current epoch, ``(num_rows,)``."""
        if not self.shuffle:
            return torch.arange(self.num_rows)
        return torch.randperm(self.num_rows, generator=self.generator())


class TensorLoader(Generic[B]):
    """Iterates over a NamedTuple of tensors in batches of the same type.

    ``batch_size`` counts the rows of one optimizer step over *all* ranks: rank r of R takes every
    R-th row of each batch, nothing is padded or repeated, so that any number of ranks sees the same
    batches. Its state makes a resumed run continue with the batch that was due.

    Args:
        data: Tensors with equal first dimension.
        batch_size: Rows per batch, over all ranks.
        shuffle: Whether to reorder the rows each epoch.
        seed: Seed of the order.
        drop_last: Whether to leave out a last batch that is not full. A set smaller than one batch
            is one batch.
        rank: Rank of this process.
        world_size: Number of processes.

    Example:
        >>> from datamodules.batches import SupervisedBatch
        >>> loader = TensorLoader(SupervisedBatch(torch.arange(5), torch.arange(5)), batch_size=2)
        >>> [batch.x.tolist() for batch in loader]
        [[0, 1], [2, 3], [4]]
    """

    batch_sampler = None  # Lightning reads it on anything that has a ``sampler``

    def __init__(
        self,
        data: B,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.data = data
        self.num_rows = len(data[0])
        self.batch_size = min(batch_size, max(self.num_rows, 1))
        self.drop_last = drop_last
        self.rank, self.world_size = rank, world_size
        self.sampler = EpochSampler(self.num_rows, shuffle, seed)
        self._position = 0
        self._resume: tuple[int, int] | None = None

    def __len__(self) -> int:
        full, rest = divmod(self.num_rows, self.batch_size)
        return full if self.drop_last or rest <= self.rank else full + 1

    def rows(self, batch_idx: int) -> Tensor:
        """Row numbers of this rank's share of batch ``batch_idx`` of an unshuffled loader."""
        return self._share(self.sampler.order(), batch_idx)

    def _share(self, order: Tensor, batch_idx: int) -> Tensor:
        batch = order[batch_idx * self.batch_size : (batch_idx + 1) * self.batch_size]
        return batch[self.rank :: self.world_size]

    def __iter__(self) -> Iterator[B]:
        # A generator: Lightning calls iter() before set_epoch(), so nothing may run before next().
        epoch = self.sampler.begin()
        start = self._resume[1] if self._resume and self._resume[0] == epoch else 0
        self._resume = None
        order = self.sampler.order()
        for batch_idx in range(start, len(self)):
            self._position = batch_idx + 1
            yield self.fetch(order, batch_idx)

    def fetch(self, order: Tensor, batch_idx: int) -> B:
        """This rank's share of a batch; a subclass may read it from elsewhere or change it."""
        return take(self.data, self._share(order, batch_idx))

    def state_dict(self) -> dict[str, Any]:
        """Epoch and number of batches already served."""
        return {"epoch": self.sampler.epoch, "position": self._position}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues after the batches already served."""
        self._resume = (state_dict["epoch"], state_dict["position"])
