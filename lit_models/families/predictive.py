"""What the uncertainty models share beyond their equations: scores and columns of a predictive.

A model says how S networks answer a batch (:meth:`PredictiveRegressor.predictive`) and what
training minimises (``step``). Evaluation scores the mixture, prediction writes it out.

Shape letters: B batch, D inputs, K targets or classes.
"""

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from datamodules.batches import SupervisedBatch
from lit_models.base import LitModule, StepOutput
from lit_models.layers.densities import CategoricalMixture, GaussianMixture
from lit_models.layers.standardize import Standardize
from lit_models.metrics.predictive import classification_metrics, regression_metrics


class PredictiveRegressor(LitModule):
    """Base of the models that answer with a density of K numbers.

    Args:
        in_features: Size D of each input.
        out_features: Number K of targets.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None,
    ) -> None:
        super().__init__(regression_metrics(), optimizer, lr_scheduler)
        self.x_scaler = Standardize(in_features)
        self.y_scaler = Standardize(out_features)

    def predictive(self, x: Tensor, generator: torch.Generator | None = None) -> GaussianMixture:
        """Predictive density of each row in the units of the data: one component per network.

        Args:
            x: Inputs, ``(B, D)``.
            generator: Source of the draws; None gives the same networks at every call.
        """
        raise NotImplementedError(f"{type(self).__name__} must define predictive()")

    def forward(self, x: Tensor) -> Tensor:
        """Mean prediction in the units of the data, ``(B, K)``."""
        return self.predictive(x).mean

    def eval_step(self, batch: SupervisedBatch) -> StepOutput:
        """Negative log-likelihood of the mixture, and the mean size of both uncertainties."""
        mixture = self.predictive(batch.x)
        spread = {
            "epistemic_std": mixture.epistemic_variance.sqrt().mean(),
            "aleatoric_std": mixture.aleatoric_variance.sqrt().mean(),
        }
        loss = -mixture.log_prob(batch.y).mean()
        return StepOutput(loss, len(batch.y), mixture, batch.y, spread)

    def predict_step(self, batch: SupervisedBatch, batch_idx: int = 0) -> dict[str, Tensor]:
        """Mean, both kinds of uncertainty, the central 95 % interval and the target."""
        mixture = self.predictive(batch.x)
        lower, upper = mixture.interval()
        return {
            "prediction": mixture.mean,
            "epistemic_std": mixture.epistemic_variance.sqrt(),
            "aleatoric_std": mixture.aleatoric_variance.sqrt(),
            "lower_95": lower,
            "upper_95": upper,
            "target": batch.y,
        }


class PredictiveClassifier(LitModule):
    """Base of the models that answer with the probability of each of K classes.

    Args:
        in_features: Size D of each input.
        num_classes: Number K of classes.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None,
    ) -> None:
        super().__init__(classification_metrics(num_classes), optimizer, lr_scheduler)
        self.x_scaler = Standardize(in_features)

    def predictive(self, x: Tensor, generator: torch.Generator | None = None) -> CategoricalMixture:
        """Predictive distribution of each row, as in :meth:`PredictiveRegressor.predictive`."""
        raise NotImplementedError(f"{type(self).__name__} must define predictive()")

    def forward(self, x: Tensor) -> Tensor:
        """Log probability of each class, ``(B, K)``."""
        return self.predictive(x).log_probs

    def eval_step(self, batch: SupervisedBatch) -> StepOutput:
        """Negative log-likelihood of the mixture, and both parts of its entropy."""
        mixture = self.predictive(batch.x)
        scalars = {
            "predictive_entropy": mixture.entropy.mean(),
            "mutual_information": mixture.mutual_information.mean(),
        }
        log_probs = mixture.log_probs
        loss = F.nll_loss(log_probs, batch.y)
        return StepOutput(loss, len(batch.y), log_probs, batch.y, scalars)

    def predict_step(self, batch: SupervisedBatch, batch_idx: int = 0) -> dict[str, Tensor]:
        """Most probable class, probabilities, both uncertainties in nats, and the true class."""
        mixture = self.predictive(batch.x)
        probability = mixture.probs
        return {
            "class": probability.argmax(1),
            "probability": probability,
            "predictive_entropy": mixture.entropy,
            "mutual_information": mixture.mutual_information,
            "target": batch.y,
        }
