"""Forecasts of node series without the graph, on the same windows."""

import torch
from torch import Tensor

from datamodules.batches import GraphSeriesBatch

_MAX_WINDOWS = 4096  # so many, evenly spaced, tell a linear map


def forecasts(
    train: GraphSeriesBatch, test: GraphSeriesBatch, mean: Tensor, std: Tensor
) -> dict[str, Tensor]:
    """Forecasts of the test windows by name, ``(B, H, N)`` float64 in the units of the data.

    Args:
        train: Training windows.
        test: Test windows.
        mean: Mean of each node's training rows, ``(N,)``.
        std: Their standard deviation, ``(N,)``.
    """
    rows = torch.linspace(0, len(train.x) - 1, min(len(train.x), _MAX_WINDOWS)).long()
    past, asked = (_filled((x[..., 0] - mean) / std) for x in (train.x[rows], test.x))
    target = (train.y[rows] - mean) / std
    horizon = target.shape[1]
    found = {"last value": asked[:, -1:].expand(-1, horizon, -1)}
    known = target.isfinite().all(1)  # (B, N)
    inputs, questions = (_with_constant(x.permute(2, 0, 1)) for x in (past, asked))
    weighted = inputs * known.T.unsqueeze(2)
    gram = weighted.mT @ weighted
    cross = weighted.mT @ torch.where(known.unsqueeze(1), target, 0.0).permute(2, 0, 1)
    pooled = torch.linalg.pinv(gram.sum(0), rtol=1e-10, hermitian=True) @ cross.sum(0)
    found["pooled autoregression"] = (questions @ pooled).permute(1, 2, 0)
    penalty = torch.eye(gram.shape[-1], dtype=gram.dtype)
    penalty[-1, -1] = 1e-9  # the constant is free
    each = torch.linalg.solve(gram + penalty, cross)
    found["autoregression of each node"] = (questions @ each).permute(1, 2, 0)
    return {name: standard * std + mean for name, standard in found.items()}


def _with_constant(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)


def _filled(x: Tensor) -> Tensor:
    """Each gap ``(B, T, N)`` as the value before it, or the mean, 0."""
    last, steps = torch.zeros_like(x[:, 0]), []
    for step in x.unbind(1):
        last = torch.where(step.isfinite(), step, last)
        steps.append(last)
    return torch.stack(steps, dim=1)
