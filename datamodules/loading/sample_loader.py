"""Batches of samples that stay where they are stored and are read row by row number."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.batches import SampleBatch
from datamodules.loading.loader import TensorLoader


class SampleLoader(TensorLoader[SampleBatch]):
    """Reads the samples of a batch when it is due.

    Args:
        data: Row numbers, ``(N,)``, in the place of the samples, and classes.
        batch_size: Rows per batch, over all ranks.
        read: Samples of row numbers, ``(B, ...)``.
        flip: Whether each epoch mirrors half of the pictures, left for right.
        options: As for :class:`~datamodules.loading.loader.TensorLoader`.
    """

    def __init__(
        self,
        data: SampleBatch,
        batch_size: int,
        *,
        read: Callable[[np.ndarray[Any, Any]], Tensor],
        flip: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(data, batch_size, **options)
        self.read, self.flip = read, flip

    def fetch(self, order: Tensor, batch_idx: int) -> SampleBatch:
        """This rank's share of a batch."""
        share = self._share(order, batch_idx)
        rows, y = self.data
        x0 = self.read(rows[share].numpy())
        if self.flip:
            # A coin for every row of the set: the same on any number of ranks, and after a resume.
            coins = torch.rand(self.num_rows, generator=self.sampler.generator())[share] < 0.5
            x0[coins] = x0[coins].flip(-1)
        return SampleBatch(x0, None if y is None else y[share])
