"""What all models of graphs share: the task of a target, its loss, metrics and predictions."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Accuracy, MeanAbsoluteError, MeanSquaredError, Metric
from torchmetrics.classification import MultilabelF1Score

from datamodules.batches import GraphBatch
from datamodules.errors import InputError
from lit_models.base import LitModule, StepOutput
from lit_models.families.linear_share import LinearShare
from lit_models.layers.standardize import Standardize
from lit_models.metrics.graph_scores import BinaryCrossEntropy, LinkScores
from lit_models.metrics.scores import CrossEntropy

Level = Literal["node", "edge", "graph"]
Task = Literal["classification", "multilabel", "regression"]
NO_STATE = (
    "the state of a graph cannot be read from sampled neighbours; add --model.global_state false, "
    "or leave num_neighbors out"
)


class LitGraphModel(LitModule):
    """What all models of graphs share: a task's loss, and the columns of its predictions.

    A model makes its metrics with :func:`task_metrics`, says its ``task`` and writes
    :meth:`outputs`; for numbers it has a ``y_scaler``, and a ``linear`` where a linear model has a
    share of the scores.

    Args:
        metrics: Metrics by name; copies of them judge validation and test.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer.
    """

    task: Task = "classification"
    y_scaler: Standardize

    def __init__(
        self,
        metrics: Mapping[str, Metric],
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(metrics, optimizer, lr_scheduler)
        self.linear: LinearShare | None = None
        self._validated: list[tuple[Tensor, Tensor, Tensor]] = []

    def take_scale(self, datamodule: Any) -> None:
        """As every model, and solves the linear model on the training targets."""
        super().take_scale(datamodule)
        if self.linear is not None and hasattr(datamodule, "fitting_batches"):
            scale = self.y_scaler if self.task == "regression" else None
            self.linear.fit(datamodule.fitting_batches(), self.task, scale)

    def mixed(self, batch: GraphBatch) -> Tensor:
        """As :meth:`outputs`, with the share of the linear model."""
        out = self.outputs(batch)
        return out if self.linear is None else self.linear(out, self.linear.features(batch))

    def eval_step(self, batch: GraphBatch) -> StepOutput:
        """As :meth:`step`, of the scores with the share of the linear model."""
        return self.judged(self.mixed(batch)[batch.mask], batch.y[batch.mask])

    def on_validation_epoch_start(self) -> None:
        """Forgets what was kept of the validation before."""
        super().on_validation_epoch_start()
        self._validated = []

    def validation_step(self, batch: GraphBatch, batch_idx: int) -> dict[str, Tensor]:
        """Keeps both models' scores until the best share is known."""
        if self.linear is None:
            return super().validation_step(batch, batch_idx)
        scores, target = self.outputs(batch)[batch.mask], batch.y[batch.mask]
        linear = self.linear.model(self.linear.features(batch))[batch.mask]
        self._validated.append((scores, linear, target))
        output = self.judged(scores, target)
        return {"preds": output.preds, "target": output.target}

    def on_validation_epoch_end(self) -> None:
        """Takes the share of the linear model that is best on the validation targets."""
        if self.linear is not None:
            kept, self._validated = self._validated, []

            def loss_of(scores: Tensor, target: Tensor) -> tuple[Tensor, int | Tensor]:
                output = self.judged(scores, target)
                return output.loss, output.num_targets

            self.linear.choose(kept, loss_of, self._sum_over_ranks)
            share = self.linear.share
            for scores, linear, target in kept:
                output = self.judged(scores + share * (linear - scores), target)
                self._accumulate("val", output)
                self.update_metrics(self.val_metrics, output)
        super().on_validation_epoch_end()

    def setup(self, stage: str) -> None:
        """As every model, once the layers can read the neighbours that are sampled."""
        super().setup(stage)
        wanted = getattr(getattr(self.trainer, "datamodule", None), "num_neighbors", None)
        if wanted is None:
            return
        layers = self.hparams["num_layers"]
        if len(wanted) != layers:
            raise InputError(
                f"num_neighbors is {wanted}, and the network has {layers} layers: give {layers} "
                "numbers, or --model.num_layers"
            )
        if self.hparams.get("global_state"):
            raise InputError(NO_STATE)

    def outputs(self, batch: GraphBatch) -> Tensor:
        """Logits, or standardised numbers, of all targets: ``(N, K)``, ``(E, K)`` or ``(G, K)``."""
        raise NotImplementedError(f"{type(self).__name__} must define outputs()")

    def step(self, batch: GraphBatch) -> StepOutput:
        """Cross-entropy, or standardised squared error, of the scored targets.

        Raises:
            ValueError: If the targets are not of the model's task.
        """
        return self.judged(self.outputs(batch)[batch.mask], batch.y[batch.mask])

    def judged(self, out: Tensor, target: Tensor) -> StepOutput:
        """Loss and predictions of scores ``(M, K)`` of some targets."""
        if self.task == "classification":
            if target.is_floating_point():
                raise ValueError(
                    "the targets are numbers and the model's task is classification; "
                    "make it with task='regression' or 'multilabel'"
                )
            return StepOutput(F.cross_entropy(out, target), len(target), out, target)
        known = target.isfinite()  # a label or number of several that nobody knows is NaN
        count = int(known.sum())
        if self.task == "multilabel":
            losses = F.binary_cross_entropy_with_logits(
                out[known], target[known].to(out.dtype), reduction="sum"
            )
            labels = torch.where(known, target, -1).long()
            return StepOutput(losses / max(count, 1), count, out, labels)
        losses = (out - self.y_scaler(target))[known].square()
        preds = self.y_scaler.inverse(out)
        return StepOutput(losses.sum() / max(count, 1), count, preds[known], target[known])

    def predict_step(self, batch: GraphBatch, batch_idx: int = 0) -> dict[str, Tensor]:
        """Class and probabilities, or numbers, of each scored target, and its true value."""
        out, target = self.mixed(batch)[batch.mask], batch.y[batch.mask]
        if self.task == "regression":
            return {"prediction": self.y_scaler.inverse(out), "target": target}
        if self.task == "multilabel":
            return {"probability": out.sigmoid(), "target": target}
        probability = out.softmax(1)
        return {"class": probability.argmax(1), "probability": probability, "target": target}


def task_metrics(task: Task, out_features: int, level: Level = "node") -> dict[str, Metric]:
    """Metrics of a task by name.

    Args:
        task: What a target is.
        out_features: Number of classes, labels or numbers of a target.
        level: What a target belongs to; classes of edges are also ranked.
    """
    if task == "regression":
        return {"mse": MeanSquaredError(), "mae": MeanAbsoluteError()}
    if task == "multilabel":
        f1 = MultilabelF1Score(out_features, average="micro", ignore_index=-1)
        return {"f1": f1, "cross_entropy": BinaryCrossEntropy()}
    metrics: dict[str, Metric] = {
        "accuracy": Accuracy(task="multiclass", num_classes=out_features, average="micro"),
        "cross_entropy": CrossEntropy(),
    }
    if level == "edge" and out_features == 2:
        metrics["links"] = LinkScores()
    return metrics
