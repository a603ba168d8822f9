"""What a decoder remembers of the prefixes it has read: a Transformer's, and a recurrent one.

Shape letters: B batch, H heads, S source length, K head width, N layers, W state width.
"""

from dataclasses import dataclass

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
        num_heads: Heads H of the attention to the prefixes; as many as the memory's if not given.
    """

    def __init__(
        self, memories: list[Memory], mask: Tensor, max_length: int, num_heads: int | None = None
    ) -> None:
        self.memories, self.mask = memories, mask
        key = memories[0][0]
        batch_size, heads, _, head_size = key.shape
        shape = (batch_size, num_heads or heads, max_length, head_size)
        self.caches = [KeyValueCache(*shape, key.device, key.dtype) for _ in memories]

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


@dataclass
class RecurrentState:
    r"""What a recurrent decoder knows between two tokens.

    Attributes:
        memory: Encoder states, ``(B, S, W)``.
        keys: Their projection for the scores, ``(B, S, W)``.
        mask: True at real source positions, ``(B, S)``.
        context: Fixed context, ``(B, W)``.
        hidden: State of each layer, ``(N, B, W)``.
        cell: Cell of each LSTM layer, ``(N, B, W)``.
        fed: Attentional state :math:`\tilde s_{t-1}`, ``(B, W)``.
    """

    memory: Tensor
    keys: Tensor
    mask: Tensor
    context: Tensor
    hidden: Tensor
    cell: Tensor
    fed: Tensor

    @property
    def device(self) -> torch.device:
        """Where the prefixes are."""
        return self.hidden.device

    def reorder(self, rows: Tensor) -> None:
        """Replaces prefix i by prefix ``rows[i]`` of the same source."""
        self.hidden, self.cell = self.hidden[:, rows], self.cell[:, rows]
        self.fed = self.fed[rows]
