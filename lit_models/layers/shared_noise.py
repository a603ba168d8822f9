"""Random numbers that belong to the rows of a batch, whatever rank a row is on."""

import torch
from torch import Tensor

from datamodules.seeds import Key, seed_of

_BLOCK = 16  # torch's normal generator on a CPU fills whole blocks of this many numbers


class SharedNoise:
    """Draws for the rows of the global batch; every rank draws all rows and keeps its own.

    A denoising model draws noise for each row. With noise of a rank's own, two ranks would train on
    other noise than one; with this, they train and sample alike: exactly on CPUs, and on
    accelerators wherever the ranks' shares are equal. Rank r of R holds the rows r, r + R, ... as
    :class:`~datamodules.loading.loader.TensorLoader` deals them.

    Args:
        seed: Seed of the batch, or a key that holds it, the same on every rank.
        num_rows: Rows of this rank.
        rank: Rank of this process.
        world_size: Number of processes.
        device: Where to draw.
    """

    def __init__(
        self, seed: Key, num_rows: int, rank: int, world_size: int, device: torch.device
    ) -> None:
        self.num_rows, self.rank, self.world_size = num_rows, rank, world_size
        self.device = device
        # Rounded up, so that a rank whose share is one row short draws the same numbers.
        self._drawn = -(-num_rows * world_size // _BLOCK) * _BLOCK
        self._generator = torch.Generator(device=device)
        self._seed, self._count = seed, 0

    def _share(self, draws: Tensor) -> Tensor:
        return draws[self.rank :: self.world_size][: self.num_rows].contiguous()

    def _reseeded(self) -> torch.Generator:
        # A seed for each draw: the ranks may draw different amounts.
        self._generator.manual_seed(seed_of(self._seed, self._count))
        self._count += 1
        return self._generator

    def normal(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Standard normal numbers, ``(rows, *shape)``."""
        size = (self._drawn, *shape)
        generator = self._reseeded()
        return self._share(torch.randn(size, generator=generator, device=self.device, dtype=dtype))

    def uniform(self) -> Tensor:
        """Numbers uniform on [0, 1), ``(rows,)`` in single precision."""
        generator = self._reseeded()
        return self._share(
            torch.rand(self._drawn, generator=generator, device=self.device, dtype=torch.float32)
        )
