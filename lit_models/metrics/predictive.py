"""Metrics of predictive densities: sums over rows and ranks, so that any number of ranks agrees."""

import torch
from torch import Tensor
from torchmetrics import Accuracy, CalibrationError, Metric

from lit_models.layers.densities import GaussianMixture
from lit_models.metrics.scores import CrossEntropy
from lit_models.metrics.selective import ClassificationAURC, RegressionAURC


class MixtureMetric(Metric):
    """Mean of a score over rows; a subclass says what one row scores."""

    full_state_update = False
    higher_is_better: bool | None = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def score(self, mixture: GaussianMixture, target: Tensor) -> Tensor:
        """Score of each row, ``(B,)`` or ``(B, K)``."""
        raise NotImplementedError(f"{type(self).__name__} must define score()")

    def update(self, mixture: GaussianMixture, target: Tensor) -> None:
        """Adds a batch.

        Args:
            mixture: Predictive densities of B rows.
            target: Targets, ``(B, K)``.
        """
        scores = self.score(mixture, target)
        self.total += scores.to(self.total.dtype).sum()
        self.count += scores.numel()

    def compute(self) -> Tensor:
        """Mean over all rows."""
        return self.total / self.count


class MixtureNLL(MixtureMetric):
    """Negative log-likelihood of a row's targets under the mixture, in nats."""

    def score(self, mixture: GaussianMixture, target: Tensor) -> Tensor:
        """Minus the log-mean-exp of the components' log densities."""
        return -mixture.log_prob(target)


class MixtureCRPS(MixtureMetric):
    """Continuous ranked probability score, in units of the target."""

    def score(self, mixture: GaussianMixture, target: Tensor) -> Tensor:
        """Closed form for a mixture."""
        return mixture.crps(target)


class MixtureRMSE(MixtureMetric):
    """Root mean squared error of the mixture's mean, in units of the target."""

    def score(self, mixture: GaussianMixture, target: Tensor) -> Tensor:
        """Squared error."""
        return (mixture.mean - target).square()

    def compute(self) -> Tensor:
        """Root of the mean over all rows."""
        return (self.total / self.count).sqrt()


class IntervalWidth(MixtureMetric):
    """Mean width of the central interval, in units of the target.

    Args:
        level: Probability the interval holds.
    """

    def __init__(self, level: float = 0.95) -> None:
        super().__init__()
        self.level = level

    def score(self, mixture: GaussianMixture, target: Tensor) -> Tensor:
        """Distance between two quantiles."""
        lower, upper = mixture.interval(self.level)
        return upper - lower


class IntervalCoverage(MixtureMetric):
    """Share of the targets inside the central interval; calibrated where it equals ``level``.

    Args:
        level: Probability the interval holds.
    """

    higher_is_better = None

    def __init__(self, level: float = 0.95) -> None:
        super().__init__()
        self.level = level

    def score(self, mixture: GaussianMixture, target: Tensor) -> Tensor:
        """Whether the target lies between the quantiles, seen from its cumulative probability."""
        return ((mixture.cdf(target) - 0.5).abs() <= self.level / 2).to(self.total.dtype)


class QuantileCalibration(Metric):
    """Distance between nominal and observed quantiles (Kuleshov et al., 2018).

    A density is calibrated where the share of targets with cumulative probability at most p is p.

    Args:
        num_levels: Levels p, evenly spread inside (0, 1).
    """

    full_state_update = False
    higher_is_better = False
    below: Tensor
    num_targets: Tensor

    def __init__(self, num_levels: int = 19) -> None:
        super().__init__()
        self.num_levels = num_levels
        self.add_state("below", torch.zeros(num_levels, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("num_targets", torch.tensor(0), dist_reduce_fx="sum")

    @property
    def levels(self) -> Tensor:
        """Nominal levels, ``(num_levels,)``."""
        steps = torch.arange(1, self.num_levels + 1, device=self.below.device)
        return steps / (self.num_levels + 1)

    def update(self, mixture: GaussianMixture, target: Tensor) -> None:
        """Adds a batch of B rows with targets ``(B, K)``."""
        cumulative = mixture.cdf(target).flatten()
        self.below += (cumulative.unsqueeze(1) <= self.levels).sum(0)
        self.num_targets += cumulative.numel()

    def curve(self) -> tuple[Tensor, Tensor]:
        """Nominal and observed levels, each ``(num_levels,)``."""
        return self.levels, self.below / self.num_targets

    def compute(self) -> Tensor:
        """Mean absolute distance between nominal and observed levels."""
        nominal, observed = self.curve()
        return (observed - nominal).abs().mean()


class PredictiveStd(MixtureMetric):
    """Mean standard deviation of the densities, in units of the target: their sharpness.

    Gneiting, Balabdaoui and Raftery, "Probabilistic forecasts, calibration and sharpness" (2007):
    of the densities that are calibrated, the sharpest are the best.
    """

    def score(self, mixture: GaussianMixture, target: Tensor) -> Tensor:
        """Square root of the total variance."""
        return mixture.variance.sqrt()


class BrierScore(Metric):
    r"""Squared distance of the probabilities from the class, :math:`\sum_k (p_k - 1[y = k])^2`.

    Brier, "Verification of forecasts expressed in terms of probability" (1950): between 0 and 2.
    """

    full_state_update = False
    higher_is_better = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, log_probs: Tensor, target: Tensor) -> None:
        """Adds a batch.

        Args:
            log_probs: Logits or log probabilities, ``(B, K)``.
            target: Classes, ``(B,)``.
        """
        probs = log_probs.softmax(1)
        at_target = probs.gather(1, target.unsqueeze(1))[:, 0]
        scores = probs.square().sum(1) - 2 * at_target + 1
        self.total += scores.to(self.total.dtype).sum()
        self.count += len(target)

    def compute(self) -> Tensor:
        """Mean over all rows."""
        return self.total / self.count


def regression_metrics() -> dict[str, Metric]:
    """Metrics of a predictive density by name, fed with ``(GaussianMixture, target)``."""
    return {
        "nll": MixtureNLL(),
        "coverage_95": IntervalCoverage(0.95),
        "rmse": MixtureRMSE(),
        "width_95": IntervalWidth(0.95),
        "crps": MixtureCRPS(),
        "calibration_error": QuantileCalibration(),
        "coverage_50": IntervalCoverage(0.5),
        "coverage_80": IntervalCoverage(0.8),
        "coverage_90": IntervalCoverage(0.9),
        "sharpness": PredictiveStd(),
        "aurc": RegressionAURC(),
    }


def classification_metrics(num_classes: int) -> dict[str, Metric]:
    """Metrics of predicted classes by name, fed with log probabilities ``(B, K)``."""
    return {
        "accuracy": Accuracy(task="multiclass", num_classes=num_classes),
        "cross_entropy": CrossEntropy(),
        "calibration_error": CalibrationError(task="multiclass", num_classes=num_classes),
        "brier": BrierScore(),
        "aurc": ClassificationAURC(),
    }
