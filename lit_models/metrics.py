"""Metrics that torchmetrics lacks; sums over ranks, so that any number of devices agrees."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from datamodules.batches import PAD


class CrossEntropy(Metric):
    """Mean cross-entropy of logits, in nats.

    Args:
        ignore_index: Label that carries no loss.
    """

    full_state_update = False
    higher_is_better = False
    is_differentiable = True
    total: Tensor
    count: Tensor

    def __init__(self, ignore_index: int = -100) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Adds a batch.

        Args:
            logits: Unnormalised log-probabilities, ``(..., K)``.
            target: Class of each row, ``(...)``.
        """
        losses = F.cross_entropy(
            logits.flatten(0, -2).float()
            if logits.dtype == torch.bfloat16
            else logits.flatten(0, -2),
            target.flatten(),
            ignore_index=self.ignore_index,
            reduction="sum",
        )
        self.total += losses.double()
        self.count += (target != self.ignore_index).sum()

    def compute(self) -> Tensor:
        """Mean over all targets."""
        return (self.total / self.count).float()


class SequenceExactMatch(Metric):
    """Share of the sequences that are right from the first token to the last."""

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    correct: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("correct", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Adds a batch; the shorter side is padded.

        Args:
            preds: Tokens up to EOS, then PAD, ``(B, T)``.
            target: Tokens up to EOS, then PAD, ``(B, S)``.
        """
        width = max(preds.shape[1], target.shape[1])
        preds = F.pad(preds, (0, width - preds.shape[1]), value=PAD)
        target = F.pad(target, (0, width - target.shape[1]), value=PAD)
        self.correct += (preds == target).all(1).sum()
        self.count += len(preds)

    def compute(self) -> Tensor:
        """Share over all sequences."""
        return self.correct / self.count
