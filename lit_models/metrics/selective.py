r"""Does a model know which of its answers are wrong? Rows are refused in order of uncertainty.

Of N rows, the n most certain are answered: a share :math:`n / N` (the coverage) at risk
:math:`r_n = \frac1n \sum_{i \le n} e_i`, the mean error of those. The area under the curve,
:math:`\mathrm{AURC} = \frac1N \sum_n r_n`, is that of Geifman, Uziel and El-Yaniv, "Bias-reduced
uncertainty estimation for deep neural classifiers" (2019). Rows that are equally uncertain share
their mean error, so that no order of theirs counts.

The same order tells rows unlike the training rows from rows like them:
:func:`detection_auroc`.
"""

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_auroc

from lit_models.layers.densities import GaussianMixture
from lit_models.layers.standardize import widest_float


def risk_curve(uncertainty: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """Coverage and risk of answering the n most certain rows, for n from 1 to N.

    Args:
        uncertainty: What the rows are ordered by, ``(N,)``.
        error: Error of each row, ``(N,)``.

    Returns:
        Two tensors ``(N,)``.
    """
    _, group, counts = torch.unique(uncertainty, return_inverse=True, return_counts=True)
    wide = error.to(widest_float(error.device))
    sums = torch.zeros_like(wide[: len(counts)]).index_add(0, group, wide)
    ordered = (sums / counts).repeat_interleave(counts)
    place = torch.arange(1, len(error) + 1, device=error.device)
    return place / len(error), ordered.cumsum(0) / place


def detection_auroc(known: Tensor, strange: Tensor) -> Tensor:
    """Probability that a strange row is more uncertain than a known one; 0.5 says nothing.

    Args:
        known: Uncertainty of rows like the training rows, ``(N,)``.
        strange: Uncertainty of others, ``(M,)``.
    """
    scores = torch.cat([known, strange])
    # Ranks, since torchmetrics would take numbers outside of [0, 1] for logits.
    _, ranks = torch.unique(scores, return_inverse=True)
    labels = torch.cat([torch.zeros_like(known), torch.ones_like(strange)]).long()
    ranks = ranks.to(widest_float(ranks.device))
    area: Tensor = binary_auroc(ranks / max(len(scores), 1), labels)
    return area


class DetectionAUROC(Metric):
    """Area under the ROC curve of telling strange rows from known ones by their uncertainty."""

    full_state_update = False
    higher_is_better = True
    known: list[Tensor]
    strange: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("known", [], dist_reduce_fx="cat")
        self.add_state("strange", [], dist_reduce_fx="cat")

    def update(self, uncertainty: Tensor, strange: bool) -> None:
        """Adds the uncertainty of some rows, ``(B,)``, all known or all strange."""
        (self.strange if strange else self.known).append(uncertainty)

    def compute(self) -> Tensor:
        """The area."""
        columns = (self.known, self.strange)
        return detection_auroc(*(torch.cat(c) if isinstance(c, list) else c for c in columns))


class AURC(Metric):
    """Area under the curve of risk over coverage; a subclass says what orders the rows."""

    full_state_update = False
    higher_is_better = False
    uncertainty: list[Tensor]
    error: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("uncertainty", [], dist_reduce_fx="cat")
        self.add_state("error", [], dist_reduce_fx="cat")

    def compute(self) -> Tensor:
        """The area; in the units of the error."""
        columns = (self.uncertainty, self.error)
        both = [torch.cat(c) if isinstance(c, list) else c for c in columns]
        return risk_curve(*both)[1].mean()


class ClassificationAURC(AURC):
    """The error is a wrong class, the uncertainty one minus the highest probability."""

    def update(self, log_probs: Tensor, target: Tensor) -> None:
        """Adds a batch of log probabilities ``(B, K)`` and classes ``(B,)``."""
        highest, label = log_probs.softmax(1).max(1)
        self.uncertainty.append(1 - highest)
        self.error.append((label != target).to(highest))


class RegressionAURC(AURC):
    """The error is the squared one, the uncertainty the variance; both summed over targets."""

    def update(self, mixture: GaussianMixture, target: Tensor) -> None:
        """Adds a batch of densities and targets ``(B, K)``."""
        self.uncertainty.append(mixture.variance.sum(1))
        self.error.append((mixture.mean - target).square().sum(1))
