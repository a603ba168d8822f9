"""What the uncertainty models share beyond their equations: scores and columns of a predictive.

A model says how S networks answer a batch (:meth:`PredictiveRegressor.predictive`) and what
training minimises (``step``). Evaluation scores the mixture, prediction writes it out.

Where the data name rows that are unlike the training rows (``ood_path`` of a table), the test says
how well the epistemic part tells them from the test rows: ``test/ood_auroc``. Beside the scores of
a regression on fewer than 2,000 rows stand those of an exact Gaussian process.

Shape letters: B batch, D inputs, K targets or classes.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from datamodules.batches import SupervisedBatch
from lit_models.base import LitModule, StepOutput
from lit_models.layers.densities import CategoricalMixture, GaussianMixture
from lit_models.layers.standardize import Standardize
from lit_models.metrics.gaussian_process import NAME, affordable, gaussian_process
from lit_models.metrics.predictive import classification_metrics, regression_metrics
from lit_models.metrics.selective import DetectionAUROC


class PredictiveModel(LitModule):
    """What regressions and classifications share: strange rows are told by the epistemic part."""

    detection: DetectionAUROC

    def epistemic(self, x: Tensor) -> Tensor:
        """What more data would tell about each row, ``(B,)``."""
        raise NotImplementedError(f"{type(self).__name__} must define epistemic()")

    def _ordered(self, split: str) -> Iterator[Any]:
        """Every row of a split once, on the model's device."""
        trainer: Any = self.trainer
        for batch in trainer.datamodule.ordered_dataloader(split):
            yield trainer.strategy.batch_to_device(batch)

    def on_test_epoch_end(self) -> None:
        """Logs the metrics, and how well strange rows are told where the data name some."""
        super().on_test_epoch_end()
        trainer: Any = self.trainer
        if getattr(trainer.datamodule, "ood_path", None) is None:
            return
        self.detection = DetectionAUROC().to(self.device)
        for split in ("test", "ood"):
            for batch in self._ordered(split):
                self.detection.update(self.epistemic(batch.x), strange=split == "ood")
        area = self.detection.compute()
        self.scores["test/ood_auroc"] = float(area)
        self.log("test/ood_auroc", area.float())


class PredictiveRegressor(PredictiveModel):
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

    def epistemic(self, x: Tensor) -> Tensor:
        """Variance of the networks' means in units of the targets' variance, summed, ``(B,)``."""
        variance = self.predictive(x).epistemic_variance
        return (variance / self.y_scaler.std.to(variance).square()).sum(1)

    @property
    def rivals(self) -> Mapping[str, Mapping[str, float]]:
        """Test scores of an exact Gaussian process, where the rows are few enough for one."""
        if self._trainer is None:
            return {}
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        if not hasattr(datamodule, "split"):
            return {}
        train, test = (datamodule.split(name) for name in ("train", "test"))
        if not affordable(len(train.x), len(test.x)):
            return {}
        if train.categories is not None:
            train, test = (datamodule.one_hot(batch) for batch in (train, test))
        found = [
            gaussian_process(train.x.double().numpy(), y.numpy(), test.x.double().numpy())
            for y in train.y.double().unbind(1)
        ]
        mean, std = (torch.from_numpy(np.stack(part, 1)) for part in zip(*found, strict=True))
        scores = regression_metrics()
        for name in ("nll", "crps", "rmse"):
            # All rows are here, and rank zero asks alone.
            scores[name].distributed_available_fn = lambda: False
            scores[name].update(GaussianMixture(mean.unsqueeze(0), std.unsqueeze(0)), test.y)
        return {f"test/{n}": {NAME: scores[n].compute().item()} for n in ("nll", "crps", "rmse")}

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


class PredictiveClassifier(PredictiveModel):
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

    def epistemic(self, x: Tensor) -> Tensor:
        """Mutual information of label and network in nats, ``(B,)``."""
        return self.predictive(x).mutual_information

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
