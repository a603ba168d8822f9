"""A stack of recurrent cells over padded rows, in operators that can be exported.

Packing depends on the lengths of the rows, which an exported program does not know. Here the
backward cells read each row's real part turned around, so that nothing depends on a value.

Shape letters: B batch, S length, E input width, W state width of both directions, N layers.
"""

import torch
from torch import Tensor, nn

_KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def without_packing(cell: nn.LSTM | nn.GRU, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """States ``(B, S, W)`` and the last state of each layer, ``(N, B, W)``, as packed rows give.

    Args:
        cell: The stack, in evaluation mode, with batches first.
        x: Inputs, ``(B, S, E)``.
        mask: True at real positions, which come first, ``(B, S)``.
    """
    lengths, place = mask.sum(1, keepdim=True), torch.arange(mask.shape[1], device=x.device)
    turned = torch.where(place < lengths, lengths - 1 - place, place)
    ends = []
    for layer in range(cell.num_layers):
        parts, last = [], []
        for suffix in ("", "_reverse") if cell.bidirectional else ("",):
            weights = [getattr(cell, f"{kind}_l{layer}{suffix}") for kind in _KINDS]
            states = _run(cell, _rows(x, turned) if suffix else x, weights)
            last.append(_rows(states, lengths - 1).squeeze(1))
            parts.append(_rows(states, turned) if suffix else states)
        x = torch.cat(parts, dim=-1)
        ends.append(torch.cat(last, dim=-1))
    return x, torch.stack(ends)


def _run(cell: nn.LSTM | nn.GRU, x: Tensor, weights: list[Tensor]) -> Tensor:
    """States of one layer in one direction."""
    start = x.new_zeros(1, x.shape[0], cell.hidden_size)
    options = (True, 1, 0.0, False, False, True)  # biases, layers, dropout, training, directions
    if isinstance(cell, nn.LSTM):
        return torch.lstm(x, [start, start], weights, *options)[0]
    return torch.gru(x, start, weights, *options)[0]


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """Positions ``(B, T)`` of each row of ``(B, S, W)``."""
    return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
