"""Metrics that torchmetrics lacks; sums over ranks, so that any number of devices agrees."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.classification import MulticlassF1Score

from datamodules.batches import PAD


def accumulate_in(metrics: nn.Module, dtype: torch.dtype) -> None:
    """Makes metrics add up in a type of their own, whatever the model computes in.

    Args:
        metrics: Metrics, or modules that hold some.
        dtype: Type of their floating-point states.
    """
    for metric in metrics.modules():
        if not isinstance(metric, Metric):
            continue
        for name, default in metric._defaults.items():
            if isinstance(default, Tensor) and default.is_floating_point():
                metric._defaults[name] = default.to(dtype)
                setattr(metric, name, getattr(metric, name).to(dtype))


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
        self.total += losses.to(self.total.dtype)
        self.count += (target != self.ignore_index).sum()

    def compute(self) -> Tensor:
        """Mean over all targets."""
        return self.total / self.count


class Share(Metric):
    """Share of what is right among all that counts; a subclass writes ``update``."""

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    correct: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("correct", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def compute(self) -> Tensor:
        """Share over all batches."""
        return self.correct / self.count


class SequenceExactMatch(Share):
    """Share of the sequences that are right from the first token to the last."""

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


class Perplexity(CrossEntropy):
    """Exponential of the mean cross-entropy of logits."""

    def compute(self) -> Tensor:
        """Perplexity over all targets."""
        return (self.total / self.count).exp()


class TokenAccuracy(Share):
    """Share of labels whose logit is the largest.

    Args:
        ignore_index: Label that is not scored.
    """

    def __init__(self, ignore_index: int = -100) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Adds a batch.

        Args:
            logits: Unnormalised log-probabilities, ``(..., K)``.
            target: Class of each row, ``(...)``.
        """
        scored = target != self.ignore_index
        self.correct += (scored & (logits.argmax(-1) == target)).sum()
        self.count += scored.sum()


def classification_metrics(num_classes: int) -> dict[str, Metric]:
    """Metrics that judge a classifier of texts."""
    return {
        "accuracy": TokenAccuracy(),
        "cross_entropy": CrossEntropy(),
        "macro_f1": MulticlassF1Score(num_classes, average="macro"),
    }


class GroupedCrossEntropy(Metric):
    """Mean cross-entropy of logits, in nats, of each group of targets.

    Args:
        names: Name of each group; the results are called ``<name>_cross_entropy``.
    """

    full_state_update = False
    higher_is_better = False
    is_differentiable = False
    group_total: Tensor
    group_count: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        zeros = torch.zeros(len(self.names), dtype=torch.float64)
        self.add_state("group_total", zeros, dist_reduce_fx="sum")
        self.add_state("group_count", zeros.clone(), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor, group: Tensor | None = None) -> None:
        """Adds a batch.

        Args:
            logits: Unnormalised log-probabilities, ``(N, K)``.
            target: Class of each row, ``(N,)``; -100 carries no loss.
            group: Number of each row's group, ``(N,)``; -1 for none, as without the argument.
        """
        if group is None:
            return
        losses = F.cross_entropy(logits.float(), target, reduction="none")
        losses = losses.to(self.group_total.dtype)
        scored = (group >= 0) & (target != -100)
        self.group_total.index_add_(0, group[scored], losses[scored])
        self.group_count += torch.bincount(group[scored], minlength=len(self.names))

    def compute(self) -> dict[str, Tensor]:
        """Mean of each group that has targets."""
        return {
            f"{name}_cross_entropy": total / count
            for name, total, count in zip(
                self.names, self.group_total, self.group_count, strict=True
            )
            if count > 0
        }


class NextSentenceScores(Metric):
    """Cross-entropy, in nats, and accuracy of a next-sentence head."""

    full_state_update = False
    is_differentiable = False
    nsp_total: Tensor
    nsp_correct: Tensor
    nsp_count: Tensor

    def __init__(self) -> None:
        super().__init__()
        zero = torch.tensor(0.0, dtype=torch.float64)
        for name in ("nsp_total", "nsp_correct", "nsp_count"):
            self.add_state(name, zero.clone(), dist_reduce_fx="sum")

    def update(
        self, logits: Tensor, target: Tensor, next_logits: Tensor, next_target: Tensor
    ) -> None:
        """Adds a batch.

        Args:
            logits: Logits of the hidden tokens; other metrics' concern.
            target: Labels of the hidden tokens; other metrics' concern.
            next_logits: Logits of the two answers, ``(B, 2)``.
            next_target: The right answer, ``(B,)``.
        """
        losses = F.cross_entropy(next_logits.float(), next_target, reduction="sum")
        self.nsp_total += losses.to(self.nsp_total.dtype)
        self.nsp_correct += (next_logits.argmax(-1) == next_target).sum()
        self.nsp_count += len(next_target)

    def compute(self) -> dict[str, Tensor]:
        """Both scores over all pairs."""
        return {
            "nsp_cross_entropy": self.nsp_total / self.nsp_count,
            "nsp_accuracy": self.nsp_correct / self.nsp_count,
        }
