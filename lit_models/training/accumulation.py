r"""Gradient accumulation whose step is the step of the whole batch.

Lightning averages the gradients of the k micro-batches of a window. A mean over the window's
targets weights each by its number of targets. With the counts :math:`n_1, n_2, \dots` of one
window, over all ranks, the gradient after micro-batch i is the running mean

.. math::
    \bar g_i = \frac{N_{i-1}}{N_i} \bar g_{i-1} + \frac{n_i}{N_i} g_i, \qquad
    N_i = n_1 + \dots + n_i,

which needs no look ahead, holds in a last window that is short, and keeps the scale of a mean for
float16. A loss of several terms with counts of their own has a running mean for each: those of the
terms wait beside the gradients until the window's last micro-batch.

Statistics of a batch (batch normalisation), dropout and sampled noise are those of a micro-batch.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

LOSS = "loss"

Parts = Mapping[str, tuple[Tensor, int | Tensor]]
Gradients = list[Tensor | None]


class AccumulationWindow:
    """Targets and gradients of a window that is not over.

    Args:
        parameters: What is trained.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = [p for p in parameters if p.requires_grad]
        self._totals: dict[str, Tensor] = {}
        self._kept: dict[str, Tensor] = {}
        self._terms: dict[str, Gradients] = {}
        self._pending: dict[str, Tensor] = {}

    def open(self) -> None:
        """Starts a window; the gradients are zero."""
        self._totals, self._terms = {}, {}

    def weigh(self, parts: Parts, counts: Mapping[str, Tensor], ranks: int, last: bool) -> Tensor:
        """Counts a micro-batch in; returns the loss to differentiate.

        Args:
            parts: Parts of the loss by name: means over this rank's targets, and their number.
            counts: Number of targets over all ranks by name, ``()`` each.
            ranks: Number of ranks that gradients are averaged over.
            last: Whether the window ends here.
        """
        losses = {}
        for name, (loss, number) in parts.items():
            before = self._totals.get(name, torch.zeros_like(counts[name]))
            total = before + counts[name]
            safe = torch.where(total > 0, total, 1)
            self._kept[name] = before / safe
            losses[name] = loss * (number * ranks / safe).to(loss.dtype)
            self._totals[name] = total
        main = losses.pop(LOSS)
        self._pending = {} if last else losses
        return sum(losses.values(), start=main) if last else main

    def fold(self, scaler: Any, last: bool) -> None:
        """Brings the gradients so far to the window's new totals, before the backward pass.

        Args:
            scaler: Scaler of float16 gradients, or None.
            last: Whether the window ends here.
        """
        grads = [p.grad for p in self._parameters if p.grad is not None]
        if grads:
            _scale(grads, self._kept[LOSS])
        for name, sums in self._terms.items():
            _scale([g for g in sums if g is not None], self._kept[name])
        for name, loss in self._pending.items():
            new = self._differentiate(loss if scaler is None else scaler.scale(loss))
            self._terms[name] = _plus(self._terms.get(name, [None] * len(new)), new)
        if last:
            for sums in self._terms.values():
                for parameter, grad in zip(self._parameters, sums, strict=True):
                    if grad is not None:
                        held = parameter.grad
                        parameter.grad = grad if held is None else held.add_(grad)
            self._terms = {}

    def _differentiate(self, loss: Tensor) -> Gradients:
        """Gradients of one loss; the graph and the gradients in place stay."""
        parameters = self._parameters
        if not any(isinstance(parameter, DTensor) for parameter in parameters):
            return list(torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True))
        # Sharded parameters get their gradient from hooks of the backward pass alone.
        held = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = None
        loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
        new = [parameter.grad for parameter in parameters]
        for parameter, grad in zip(parameters, held, strict=True):
            parameter.grad = grad
        return new


def _scale(grads: list[Tensor], factor: Tensor) -> None:
    for grad in grads:
        grad.mul_(factor.to(grad.dtype))


def _plus(sums: Gradients, new: Iterable[Tensor | None]) -> Gradients:
    return [a if b is None else b if a is None else a + b for a, b in zip(sums, new, strict=True)]
