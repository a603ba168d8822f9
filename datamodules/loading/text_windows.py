"""Windows of a long text, read from its tokens as they are asked for."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.batches import TokenBatch
from datamodules.loading.loader import TensorLoader
from datamodules.seeds import seed_of

Tokens = np.ndarray[Any, Any]


class WindowLoader(TensorLoader[TokenBatch]):
    """Windows of a long text, side by side, shifted by a random offset in every epoch.

    Window i of an epoch holds the tokens from ``offset + i T`` on and, as labels, those one
    further. The offset is 0 without shuffling.

    Args:
        data: The text alone, ``(N,)``, read as the windows are asked for.
        batch_size: Windows per batch, over all ranks.
        length: Length T of a window.
        options: Arguments of :class:`~datamodules.loading.loader.TensorLoader`.
    """

    def __init__(self, data: tuple[Tokens], batch_size: int, length: int, **options: Any) -> None:
        (self.text,), self.length = data, length
        num_windows = (len(self.text) - 1) // length
        self.shifted = bool(options.get("shuffle")) and num_windows > 1
        windows: Any = (range(num_windows - self.shifted),)
        super().__init__(windows, batch_size, **options)
        self.seed = int(options.get("seed", 0))

    def fetch(self, order: Tensor, batch_idx: int) -> TokenBatch:
        """This rank's share of a batch of windows."""
        offset = 0
        if self.shifted:
            key = seed_of(self.seed, self.sampler.epoch)
            generator = torch.Generator().manual_seed(key)
            offset = int(torch.randint(self.length, (), generator=generator))
        starts = offset + self._share(order, batch_idx).numpy() * self.length
        columns = starts[:, None] + np.arange(self.length + 1)
        tokens = torch.from_numpy(self.text[columns].astype(np.int64))
        return TokenBatch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
