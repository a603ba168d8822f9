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
        num_windows: Number of windows to read, spread evenly over the text; all where not given.
        end_token: Token at which a new document begins, numbered in the batch's ``segments``; None
            leaves the documents joined.
        options: Arguments of :class:`~datamodules.loading.loader.TensorLoader`.
    """

    def __init__(
        self,
        data: tuple[Tokens],
        batch_size: int,
        length: int,
        num_windows: int | None = None,
        end_token: int | None = None,
        **options: Any,
    ) -> None:
        (self.text,), self.length, self.end_token = data, length, end_token
        every = (len(self.text) - 1) // length
        self.shifted = bool(options.get("shuffle")) and every > 1
        count = every - self.shifted
        self.windows = np.arange(count)
        if num_windows is not None and num_windows < count:
            self.windows = np.linspace(0, count - 1, num_windows).round().astype(np.int64)
        rows: Any = (range(len(self.windows)),)
        super().__init__(rows, batch_size, **options)
        self.seed = int(options.get("seed", 0))

    def fetch(self, order: Tensor, batch_idx: int) -> TokenBatch:
        """This rank's share of a batch of windows."""
        offset = 0
        if self.shifted:
            key = seed_of(self.seed, self.sampler.epoch)
            generator = torch.Generator().manual_seed(key)
            offset = int(torch.randint(self.length, (), generator=generator))
        rows = self.windows[self._share(order, batch_idx).numpy()]
        starts = offset + rows * self.length
        columns = starts[:, None] + np.arange(self.length + 1)
        tokens = torch.from_numpy(self.text[columns].astype(np.int64))
        shown, labels = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
        if self.end_token is None:
            return TokenBatch(shown, labels)
        return TokenBatch(shown, labels, segments=(shown == self.end_token).cumsum(1))
