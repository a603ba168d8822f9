r"""A linear autoregression at the nodes of a graph, solved in closed form.

.. math::
    \hat y_i = A\, w_i + c_i, \qquad
    \text{pooled: } w_i = w, \qquad \text{with the graph: } A = [x_i, (\hat A x)_i]

Four candidates, each richer than the one before: pooled over the nodes on their own window; pooled
on the window and the neighbours'; the same with a correction of each node's own, shrunk strongly or
weakly. A richer one is taken where its error on the validation windows is smaller by more than one
standard error, so that the choice is never worse there than the pooled autoregression.

Shape letters: N nodes, B windows, T steps, P inputs (T, or 2 T with neighbours), H horizon.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

_SHRINKAGES = (100.0, 10.0)


class NodeAutoregression(nn.Module):
    """Coefficients of each node; zero, the mean of the training data, until :meth:`fit`.

    Args:
        num_nodes: Number N of nodes.
        window: Length T of the window.
        horizon: Number H of steps to forecast.

    Shape:
        Window ``(N, B, T)`` and that of the neighbours, ``(N, B, T)``, to ``(N, B, H)``.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, num_nodes: int, window: int, horizon: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(num_nodes, 2 * window, horizon))
        self.register_buffer("bias", torch.zeros(num_nodes, 1, horizon))

    def forward(self, own: Tensor, neighbours: Tensor) -> Tensor:
        """Forecasts."""
        inputs = torch.cat([own, neighbours], dim=-1)
        return inputs @ self.weight.to(inputs.dtype) + self.bias.to(inputs.dtype)

    def fit(self, train: tuple[Tensor, Tensor, Tensor], val: tuple[Tensor, Tensor, Tensor]) -> str:
        """Solves for the coefficients and takes the candidate that validation supports.

        Args:
            train: Standardised window, its neighbours' and the targets ``(N, B, H)``, NaN where
                unknown.
            val: The same of the validation windows.

        Returns:
            Name of the candidate.
        """
        best: tuple[str, Tensor, Tensor, Tensor] | None = None
        for name, weight, bias in _candidates(*(part.double() for part in train)):
            own, neighbours, target = (part.double() for part in val)
            error = torch.cat([own, neighbours], dim=-1) @ weight + bias - target
            loss = error.square().nanmean((0, 2))  # (B,)
            if best is None:
                best = (name, weight, bias, loss)
                continue
            gain = (best[3] - loss)[(best[3] - loss).isfinite()]
            spread = gain.std(correction=0) / max(len(gain), 1) ** 0.5
            if len(gain) and gain.mean() > spread:
                best = (name, weight, bias, loss)
        assert best is not None
        self.weight.copy_(best[1].expand_as(self.weight))
        self.bias.copy_(best[2].expand_as(self.bias))
        return best[0]


def _candidates(own: Tensor, near: Tensor, target: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, coefficients ``(N or 1, 2 T, H)`` and constants, from simple to rich."""
    window, horizon = own.shape[2], target.shape[2]
    known = target.isfinite().all(2, keepdim=True).to(own.dtype)
    filled = torch.where(known > 0, target, 0.0)
    ones = torch.ones_like(own[..., :1])
    inputs = torch.cat([own, near, ones], dim=-1) * known
    gram, cross = inputs.mT @ inputs, inputs.mT @ filled
    outer = torch.zeros(1, 2 * window + 1, horizon, dtype=own.dtype)
    alone = torch.cat([torch.arange(window), torch.tensor([2 * window])])
    pooled = gram.sum(0, keepdim=True), cross.sum(0, keepdim=True)
    least = outer.clone()
    least[:, alone] = _solved(pooled[0][:, alone][..., alone], pooled[1][:, alone])
    yield "pooled autoregression", least[:, :-1], least[:, -1:]
    graph = _solved(*pooled)
    yield "pooled autoregression with neighbours", graph[:, :-1], graph[:, -1:]
    left = cross - gram @ graph
    identity = torch.eye(2 * window + 1, dtype=own.dtype)
    for shrinkage in _SHRINKAGES:
        corrected = graph + torch.linalg.solve(gram + shrinkage * identity, left)
        yield (
            f"autoregression of each node, shrunk by {shrinkage:g}",
            corrected[:, :-1],
            corrected[:, -1:],
        )


def _solved(gram: Tensor, cross: Tensor) -> Tensor:
    """Least squares; the smallest solution where the inputs depend on each other."""
    solution: Tensor = torch.linalg.pinv(gram, rtol=1e-10, hermitian=True) @ cross
    return solution
