"""Batches of sequences of similar length, the same on any number of ranks."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from datamodules.batches import SequencePairBatch
from datamodules.errors import InputError
from datamodules.loading.loader import EpochSampler, TensorLoader, take


class BucketSampler(EpochSampler):
    """Rows of similar length together, in batches of about equal size in tokens.

    Rows are sorted by length, ties in an order of the epoch's own, and cut so that rows times
    longest row stays within ``batch_tokens``. The cuts are the same in every epoch.

    Args:
        lengths: Length of each row, ``(num_rows,)``.
        batch_tokens: Most tokens of a batch, padding included; the remainder of the shortest rows
            may join a batch and exceed it.
        shuffle: Whether each epoch orders ties and batches anew.
        seed: Seed of the orders.
    """

    def __init__(self, lengths: Tensor, batch_tokens: int, shuffle: bool, seed: int) -> None:
        super().__init__(len(lengths), shuffle, seed)
        self.lengths = lengths
        self.sizes = _cut(lengths.sort(descending=True).values.tolist(), batch_tokens)

    def batches(self) -> list[Tensor]:
        """Row numbers of each batch of the current epoch."""
        generator = self.generator()
        rows = torch.arange(self.num_rows)
        if self.shuffle:
            rows = torch.randperm(self.num_rows, generator=generator)
        by_length = rows[self.lengths[rows].sort(descending=True, stable=True).indices]
        batches = torch.split(by_length, self.sizes)
        if not self.shuffle:
            return list(batches)
        return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def _cut(lengths: list[int], batch_tokens: int) -> list[int]:
    """Sizes of consecutive batches of rows that are sorted from long to short."""
    sizes: list[int] = []
    start = 0
    while start < len(lengths):
        size = min(max(batch_tokens // lengths[start], 1), len(lengths) - start)
        sizes.append(size)
        start += size
    # A remainder of a few rows would be a noisy step, and could leave a rank without rows.
    if len(sizes) > 1 and sizes[-1] < sizes[-2] / 2:
        last = sizes.pop()
        sizes[-1] += last
    return sizes


class BucketLoader(TensorLoader[SequencePairBatch]):
    """Iterates over sentence pairs in batches of similar length, trimmed to their longest row.

    As in :class:`~datamodules.loading.loader.TensorLoader`, ``batch_tokens`` counts one optimizer
    step over all ranks, no row is padded in or repeated, and a resumed run continues with the batch
    that was due.

    Args:
        data: All pairs, padded.
        batch_tokens: Most tokens of the longer side of a batch.
        shuffle: Whether each epoch has batches and an order of its own.
        seed: Seed of the order.
        rank: Rank of this process.
        world_size: Number of processes.

    Raises:
        InputError: If a training batch of the longest rows cannot feed every rank.
    """

    def __init__(
        self,
        data: SequencePairBatch,
        batch_tokens: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(data, batch_tokens, seed=seed, rank=rank, world_size=world_size)
        lengths = torch.maximum(data.src_mask.sum(1), data.tgt_mask.sum(1) - 1)
        self.buckets = BucketSampler(lengths, batch_tokens, shuffle, seed)
        self.sampler = self.buckets
        if shuffle and min(self.buckets.sizes) < world_size:
            raise InputError(
                f"a batch of {min(self.buckets.sizes)} rows of {int(lengths.max())} tokens cannot "
                f"feed {world_size} devices; raise batch_tokens={batch_tokens}"
            )

    def __len__(self) -> int:
        return sum(size > self.rank for size in self.buckets.sizes)

    def rows(self, batch_idx: int) -> Tensor:
        """Row numbers of this rank's share of batch ``batch_idx`` of an unshuffled loader."""
        return self._shares()[batch_idx]

    def _shares(self) -> list[Tensor]:
        shares = [batch[self.rank :: self.world_size] for batch in self.buckets.batches()]
        return [rows for rows in shares if len(rows)]

    def __iter__(self) -> Iterator[SequencePairBatch]:
        epoch = self.sampler.begin()
        start = self._resume[1] if self._resume and self._resume[0] == epoch else 0
        self._resume = None
        shares = self._shares()
        for batch_idx in range(start, len(shares)):
            self._position = batch_idx + 1
            yield trim(take(self.data, shares[batch_idx]))


def trim(batch: SequencePairBatch) -> SequencePairBatch:
    """The batch without columns that hold padding alone."""
    num_src, num_tgt = (int(mask.sum(1).max()) for mask in (batch.src_mask, batch.tgt_mask))
    fields: dict[str, Any] = {
        "src": batch.src[:, :num_src],
        "tgt": batch.tgt[:, :num_tgt],
        "src_mask": batch.src_mask[:, :num_src],
        "tgt_mask": batch.tgt_mask[:, :num_tgt],
    }
    return SequencePairBatch(**fields)
