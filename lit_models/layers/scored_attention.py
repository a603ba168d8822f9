r"""Attention of a recurrent network: a weighted mean of encoder states, by one of three scores.

.. math::
    \text{dot:}\; s^T h, \qquad \text{general:}\; s^T W_a h, \qquad
    \text{concat:}\; v^T \tanh(W_s s + W_h h)

Luong et al., "Effective Approaches to Attention-based Neural Machine Translation" (2015); the
concat score as Bahdanau et al. (2015) write it, so that :math:`W_h h` is computed once for each
source.

Shape letters: B batch, S source length, T target length, W state width.
"""

from typing import Literal

import torch
from torch import Tensor, nn

Score = Literal["dot", "general", "concat"]


class Attention(nn.Module):
    """Weighted mean of encoder states, scored against decoder states.

    Shape:
        Queries ``(B, T, W)`` and memory ``(B, S, W)`` to contexts ``(B, T, W)`` and weights
        ``(B, T, S)``.
    """

    def __init__(self, hidden_size: int, score: Score) -> None:
        super().__init__()
        self.kind = score
        if score != "dot":
            self.key = nn.Linear(hidden_size, hidden_size, bias=False)
        if score == "concat":
            self.query = nn.Linear(hidden_size, hidden_size)
            self.energy = nn.Linear(hidden_size, 1, bias=False)

    def keys(self, memory: Tensor) -> Tensor:
        """What the queries are compared with; once for each source."""
        return memory if self.kind == "dot" else self.key(memory)

    def forward(
        self, query: Tensor, keys: Tensor, memory: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Contexts and weights; the mask ``(B, S)`` is True at real positions, None if all are."""
        if self.kind == "concat":
            hidden = torch.tanh(self.query(query).unsqueeze(2) + keys.unsqueeze(1))
            scores = self.energy(hidden).squeeze(-1)
        else:
            scores = query @ keys.transpose(1, 2)
        if mask is not None:
            scores = scores.masked_fill(~mask.unsqueeze(1), -torch.inf)
        weights = scores.softmax(-1)
        return weights @ memory, weights
