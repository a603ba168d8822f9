r"""A linear model of features, solved before training: logistic or ridge regression.

.. math:: s = W^T x + b, \qquad
    \min_{W, b} \sum_n \ell(s_n, y_n) + \tfrac{1}{2} \lVert W \rVert^2

of standardised features, by L-BFGS for classes and labels and in closed form for numbers. Shape
letters: M rows, F features, K outputs.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Task = Literal["classification", "multilabel", "regression"]
_MAX_STEPS = 100
_LEAST_DEVIATION = 1e-12


class FeatureRegression(nn.Module):
    """Linear scores of features; zero until :meth:`fit`.

    Args:
        in_features: Number F of features.
        out_features: Number K of outputs.

    Shape:
        Input ``(M, F)``, dense or sparse, output ``(M, K)``.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(in_features, out_features))
        self.register_buffer("bias", torch.zeros(out_features))

    def forward(self, input: Tensor) -> Tensor:
        """Scores."""
        return input.to(self.weight.dtype) @ self.weight + self.bias

    @torch.no_grad()
    def fit(self, x: Tensor, y: Tensor, task: Task) -> None:
        """Solves for weights and constants.

        Args:
            x: Features, ``(M, F)`` dense.
            y: Classes ``(M,)``, or labels or standardised numbers ``(M, K)``, NaN where unknown.
            task: What a target is.
        """
        x = x.double()
        mean, std = x.mean(0), x.std(0, correction=0)
        std = torch.where(std > _LEAST_DEVIATION, std, torch.inf)  # a constant tells nothing
        columns = torch.cat([(x - mean) / std, torch.ones_like(x[:, :1])], dim=1)
        if task == "regression":
            solved = _ridge(columns, y.double())
        else:
            solved = _logistic(columns, self.weight.shape[1], _loss_of(y, task))
        weight = solved[:-1] / std.unsqueeze(1)
        self.weight.copy_(weight)
        self.bias.copy_(solved[-1] - mean @ weight)


def _ridge(columns: Tensor, y: Tensor) -> Tensor:
    """Coefficients ``(F + 1, K)``; the constant is free."""
    penalty = torch.ones(columns.shape[1]).to(columns)
    penalty[-1] = 1e-9
    found = []
    for target in y.unbind(1):
        known = target.isfinite()
        rows = columns[known]
        found.append(torch.linalg.solve(rows.T @ rows + penalty.diag(), rows.T @ target[known]))
    return torch.stack(found, dim=1)


def _loss_of(y: Tensor, task: Task) -> Callable[[Tensor], Tensor]:
    if task == "classification":
        return lambda scores: F.cross_entropy(scores, y, reduction="sum")
    known = y.isfinite()

    def loss(scores: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(scores[known], y[known].double(), reduction="sum")

    return loss


def _logistic(columns: Tensor, num_outputs: int, loss_of: Callable[[Tensor], Tensor]) -> Tensor:
    """Coefficients ``(F + 1, K)``; the constant is free."""
    solved = torch.zeros(columns.shape[1], num_outputs).to(columns).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [solved], max_iter=_MAX_STEPS, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    @torch.enable_grad()
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(columns @ solved) + 0.5 * solved[:-1].square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return solved.detach()
