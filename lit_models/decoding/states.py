"""What a Transformer's decoder remembers of the prefixes it has read.

Shape letters: B batch, H heads, S source length, K head width.
"""

import torch
from torch import Tensor

from lit_models.layers.attention import KeyValueCache

# Projected keys and values of the memory, (B, H, S, K) each.
Memory = tuple[Tensor, Tensor]


class CachedState:
    """Keys and values of the prefixes decoded so far, and of the memory.

    Args:
        memories: Projected memory of each layer.
        mask: True at real source positions, ``(B, 1, 1, S)``.
        max_length: Positions the caches can hold.
    """

    def __init__(self, memories: list[Memory], mask: Tensor, max_length: int) -> None:
        self.memories, self.mask = memories, mask
        key = memories[0][0]
        batch_size, num_heads, _, head_size = key.shape
        self.caches = [
            KeyValueCache(batch_size, num_heads, max_length, head_size, key.device, key.dtype)
            for _ in memories
        ]

    @property
    def length(self) -> int:
        """Positions decoded so far."""
        return self.caches[0].length

    @property
    def device(self) -> torch.device:
        """Where the prefixes are."""
        return self.mask.device

    def reorder(self, rows: Tensor) -> None:
        """Replaces prefix i by prefix ``rows[i]`` of the same source."""
        for cache in self.caches:
            cache.reorder(rows)
