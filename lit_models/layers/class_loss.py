"""Cross-entropy of classes that may weigh differently."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def weights_of(weights: Sequence[float] | None, num_classes: int) -> Tensor | None:
    """Weights of the classes as a tensor ``(K,)``.

    Raises:
        ValueError: If there is not one above 0 for each class.
    """
    if weights is None:
        return None
    if len(weights) != num_classes or min(weights) <= 0:
        raise ValueError(
            f"class_weights needs a number above 0 for each of the {num_classes} classes, got "
            f"{list(weights)}"
        )
    return torch.tensor(weights)


def class_loss(
    logits: Tensor, y: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, int | Tensor]:
    """Mean over the rows, each with the weight of its class, and the sum of the weights.

    Args:
        logits: ``(B, K)``.
        y: Classes, ``(B,)``.
        weights: Weight of each class, ``(K,)``; all 1 where not given.
    """
    if weights is None:
        return F.cross_entropy(logits, y), len(y)
    weights = weights.to(logits.dtype)
    return F.cross_entropy(logits, y, weights), weights[y].sum()
