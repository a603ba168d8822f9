"""Scores of graph models: of candidate edges, and of several labels at once."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_auroc, binary_average_precision
from torchmetrics.utilities import dim_zero_cat

from lit_models.layers.standardize import widest_float
from lit_models.metrics.scores import CrossEntropy


class LinkScores(Metric):
    """Area under the ROC curve, average precision and hits at k of candidate edges.

    Hits at k is the share of the true edges that score above the k-th best of the candidates
    without an edge; 1 where there are fewer than k (Hu et al., "Open Graph Benchmark", 2020).

    Args:
        hits_at: The k.

    Attributes:
        names: Names of the three scores.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    scores: list[Tensor]
    targets: list[Tensor]

    def __init__(self, hits_at: int = 50) -> None:
        super().__init__()
        self.hits_at = hits_at
        self.names = ("auc", "average_precision", f"hits_at_{hits_at}")
        self.add_state("scores", [], dist_reduce_fx="cat")
        self.add_state("targets", [], dist_reduce_fx="cat")

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Adds a batch.

        Args:
            logits: Logits of no edge and of an edge, ``(M, 2)``.
            target: 1 for an edge, ``(M,)``.
        """
        self.scores.append((logits[:, 1] - logits[:, 0]).detach().float())
        self.targets.append(target)

    def compute(self) -> dict[str, Tensor]:
        """The three scores over all candidates."""
        scores, targets = dim_zero_cat(self.scores), dim_zero_cat(self.targets)
        # Ranks in place of scores: torchmetrics squeezes scores into [0, 1], where large ones tie.
        ranks = torch.unique(scores, return_inverse=True)[1].to(widest_float(scores.device))
        ranks = (ranks + 1) / (len(scores) + 2)
        absent = scores[targets == 0].sort(descending=True).values
        true = scores[targets == 1]
        bar = absent[self.hits_at - 1] if len(absent) >= self.hits_at else -torch.inf
        found = (
            binary_auroc(ranks, targets),
            binary_average_precision(ranks, targets),
            (true > bar).float().mean(),
        )
        return dict(zip(self.names, found, strict=True))


class BinaryCrossEntropy(CrossEntropy):
    """Mean cross-entropy of labels that may hold together, in nats per known label."""

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Adds a batch.

        Args:
            logits: Log-odds of each label, ``(M, K)``.
            target: 1, 0, or -1 where it is not known, ``(M, K)``.
        """
        known = target >= 0
        losses = F.binary_cross_entropy_with_logits(
            logits[known].float(), target[known].float(), reduction="sum"
        )
        self.total += losses.to(self.total.dtype)
        self.count += known.sum()
