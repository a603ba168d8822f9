r"""A linear autoregression at the nodes of a graph, solved in closed form.

.. math::
    \hat y_i = A\, w_i + c_i, \qquad
    \text{pooled: } w_i = w, \qquad \text{with the graph: } A = [x_i, (\hat A x)_i]
    \text{ or } [x_i, (\hat A \sigma x)_i / \sigma_i]

Candidates: the mean, the last value, a regression pooled over the nodes on their own window, one
on the window and the neighbours', the same with a correction of each node's own, shrunk strongly to
weakly, and each node on its own window alone. Neighbours are added up as they are standardised, or
in the units of the data, as what flows into a place adds up whatever the places' scales
:math:`\sigma`. The forecast is the weighted mean of them, weights
positive and of sum 1, that has the least squared error on the validation windows, in the units of
the data (Breiman, "Stacked Regressions", 1996): there no candidate alone is better.

Shape letters: N nodes, B windows, T steps, P inputs (T, or 2 T with neighbours), H horizon.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

_SHRINKAGES = (100.0, 10.0, 1.0)
_STEPS = 2000
_NAMED = 0.05  # a smaller weight is not worth a name


class NodeAutoregression(nn.Module):
    """Coefficients of each node; zero, the mean of the training data, until :meth:`fit`.

    Args:
        num_nodes: Number N of nodes.
        window: Length T of the window.
        horizon: Number H of steps to forecast.

    Shape:
        Window ``(N, B, T)`` and the neighbours', standardised and in units, ``(N, B, 2 T)``, to
        ``(N, B, H)``.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, num_nodes: int, window: int, horizon: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(num_nodes, 3 * window, horizon))
        self.register_buffer("bias", torch.zeros(num_nodes, 1, horizon))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Reads also what knows neighbours in one unit alone."""
        found = state_dict.get(f"{prefix}weight")
        if found is not None and 3 * found.shape[1] == 2 * self.weight.shape[1]:
            more = found.new_zeros(len(found), found.shape[1] // 2, found.shape[2])
            state_dict[f"{prefix}weight"] = torch.cat([found, more], dim=1)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, own: Tensor, neighbours: Tensor) -> Tensor:
        """Forecasts."""
        inputs = torch.cat([own, neighbours], dim=-1)
        return inputs @ self.weight.to(inputs.dtype) + self.bias.to(inputs.dtype)

    def fit(
        self,
        train: tuple[Tensor, Tensor, Tensor],
        val: tuple[Tensor, Tensor, Tensor],
        scale: Tensor | None = None,
    ) -> str:
        """Solves for the coefficients of each candidate and for the weights of the candidates.

        Args:
            train: Standardised window, its neighbours' and the targets ``(N, B, H)``, NaN where
                unknown.
            val: The same of the validation windows.
            scale: Unit of each node's targets, ``(N,)``; 1 when None.

        Returns:
            The candidates that count, with their weights.
        """
        own, neighbours, target = (part.double() for part in val)
        inputs = torch.cat([own, neighbours], dim=-1)
        candidates = list(_candidates(*(part.double() for part in train)))
        unit = torch.ones(len(own)).to(own) if scale is None else scale.to(own)
        known = target.isfinite()
        unit = unit[:, None, None].expand_as(target)[known]
        errors = [
            ((inputs @ weight + bias - target)[known] * unit) for _, weight, bias in candidates
        ]
        shares = least_squares_shares(torch.stack(errors))
        self.weight.zero_()
        self.bias.zero_()
        for share, (_, weight, bias) in zip(shares.tolist(), candidates, strict=True):
            self.weight += share * weight.to(self.weight)
            self.bias += share * bias.to(self.bias)
        named = zip(shares.tolist(), candidates, strict=True)
        return ", ".join(f"{share:.2f} {name}" for share, (name, *_) in named if share > _NAMED)


def least_squares_shares(errors: Tensor) -> Tensor:
    """Weights of forecasts, none negative and of sum 1, whose weighted error is least.

    Projected gradient steps from the best single forecast; the last of equal ones is taken.

    Args:
        errors: Errors of each forecast, ``(K, M)``.

    Returns:
        The weights, ``(K,)``.
    """
    gram = errors @ errors.T
    count = len(gram)
    shares = torch.zeros(count).to(gram).index_fill_(0, gram.diagonal().argmin(), 1.0)
    largest = torch.linalg.eigvalsh(gram)[-1]
    if not largest > 0:
        return shares
    place = torch.arange(1, count + 1, device=gram.device)
    for _ in range(_STEPS):
        moved = shares - gram @ shares / largest
        ordered = moved.sort(descending=True).values
        beyond = (ordered.cumsum(0) - 1) / place
        last = int((ordered > beyond).sum()) - 1
        shares = (moved - beyond[last]).clamp(min=0)
    return shares


def _candidates(own: Tensor, near: Tensor, target: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, coefficients ``(N or 1, 3 T, H)`` and constants, from simple to rich."""
    window, horizon = own.shape[2], target.shape[2]
    none = torch.zeros(1, 3 * window, horizon).to(own)
    yield "the mean", none, none[:, :1]
    last = none.clone()
    last[:, window - 1] = 1.0
    yield "last value", last, none[:, :1]
    known = target.isfinite().all(2, keepdim=True).to(own.dtype)
    filled = torch.where(known > 0, target, 0.0)
    inputs = torch.cat([own, near, torch.ones_like(own[..., :1])], dim=-1) * known
    gram, cross = inputs.mT @ inputs, inputs.mT @ filled
    columns = torch.arange(3 * window + 1, device=own.device)
    alone = torch.cat([columns[:window], columns[-1:]])
    pooled = _pooled(gram, cross, alone)
    yield "pooled autoregression", pooled[:, :-1], pooled[:, -1:]
    for unit, first in (("", window), (" in units of the data", 2 * window)):
        read = torch.cat([alone[:-1], columns[first : first + window], alone[-1:]])
        graph = _pooled(gram, cross, read)
        yield f"pooled autoregression with neighbours{unit}", graph[:, :-1], graph[:, -1:]
        left = (cross - gram @ graph)[:, read]
        small, identity = gram[:, read][..., read], torch.eye(len(read)).to(own)
        for shrinkage in _SHRINKAGES:
            own_part = torch.linalg.solve(small + shrinkage * identity, left)
            found = graph + _widened(own_part, read, gram)
            name = f"corrections of each node{unit}, shrunk by {shrinkage:g}"
            yield name, found[:, :-1], found[:, -1:]
    penalty = torch.ones(window + 1).to(own)
    penalty[-1] = 1e-9  # the constant is free
    small = gram[:, alone][..., alone] + penalty.diag()
    each = _widened(torch.linalg.solve(small, cross[:, alone]), alone, gram)
    yield "autoregression of each node", each[:, :-1], each[:, -1:]


def _pooled(gram: Tensor, cross: Tensor, read: Tensor) -> Tensor:
    """Coefficients ``(1, P + 1, H)`` of all nodes together, of the inputs that are read."""
    every, right = gram.sum(0, keepdim=True), cross.sum(0, keepdim=True)
    return _widened(_solved(every[:, read][..., read], right[:, read]), read, gram)


def _widened(solution: Tensor, alone: Tensor, gram: Tensor) -> Tensor:
    """Coefficients of all inputs of those of some, ``(., P + 1, H)``."""
    found = gram.new_zeros(len(solution), gram.shape[-1], solution.shape[-1])
    return found.index_copy_(1, alone, solution)


def _solved(gram: Tensor, cross: Tensor) -> Tensor:
    """Least squares; the smallest solution where the inputs depend on each other."""
    solution: Tensor = torch.linalg.pinv(gram, rtol=1e-10, hermitian=True) @ cross
    return solution
