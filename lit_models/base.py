"""What a model is: what one batch costs, what judges it, and what it writes of a batch.

A model writes :meth:`LitModule.step` and names its metrics; it owns nothing about devices, loggers,
files or plots. What every model needs beside it stands in ``lit_models/training``, an idea a file:

* :class:`~lit_models.training.stage_scores.StageScores`: names and exact means of what is logged;
* :class:`~lit_models.training.whole_batch.WholeBatchGradients`: the gradient over ranks and
  micro-batches is that of the one large batch;
* :class:`~lit_models.training.data_scale.DataScale`: the scale of the data, batches of any loader;
* :class:`~lit_models.training.injected_optimizer.InjectedOptimizer`: optimizer and schedule.
"""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from lit_models.layers.ranges import check_ranges
from lit_models.training.accumulation import LOSS, Parts
from lit_models.training.batches import check_shapes
from lit_models.training.data_scale import DataScale
from lit_models.training.injected_optimizer import InjectedOptimizer
from lit_models.training.stage_scores import Stage, StageScores
from lit_models.training.whole_batch import WholeBatchGradients


class StepOutput(NamedTuple):
    """What a model says about one batch.

    Attributes:
        loss: Mean loss over the batch's targets, ``()``.
        num_targets: Number of targets the mean is over: rows, tokens or masked nodes.
        preds: Predictions as the model's metrics take them: a tensor, or a predictive density.
        target: Targets as the model's metrics take them.
        scalars: Further means over the same targets, logged under their names.
        terms: Further losses by name, each with the number of targets its mean is over; training
            minimises their sum with ``loss``, and they are logged under their names.
        metric_inputs: Further arguments of the metrics' ``update``, by name.
    """

    loss: Tensor
    num_targets: int | Tensor
    preds: Any
    target: Tensor
    scalars: Mapping[str, Tensor] = {}
    terms: Mapping[str, tuple[Tensor, int | Tensor]] = {}
    metric_inputs: Mapping[str, Tensor] = {}

    @property
    def total(self) -> Tensor:
        """What training minimises: the loss and the terms, each a mean over this rank's targets."""
        return sum((term for term, _ in self.terms.values()), start=self.loss)

    @property
    def parts(self) -> Parts:
        """The loss and the terms by name, each with the number its mean is over."""
        return {LOSS: (self.loss, self.num_targets), **self.terms}


class LitModule(StageScores, WholeBatchGradients, DataScale, InjectedOptimizer):
    """Base of all models.

    Args:
        metrics: Metrics by name; copies of them judge validation and test.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer; one without a length is
            told that of the run.

    Attributes:
        step_seed: Seed of the current batch, the same on every rank; None outside a Trainer.
    """

    step_seed: int | None = None

    def __init__(
        self,
        metrics: Mapping[str, Metric],
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        # Kept out of the checkpoint: on resume the command line decides, and a checkpoint loads
        # with weights_only=True.
        # A checkpoint holds the weights that `pretrained` names; loading it needs no other file.
        ignore = ["optimizer", "lr_scheduler", "metrics", "pretrained", "network"]
        self.save_hyperparameters(ignore=ignore, logger=False)
        check_ranges(self.hparams)
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self._judge_by(metrics)

    def step(self, batch: Any) -> StepOutput:
        """Loss and predictions of one batch."""
        raise NotImplementedError(f"{type(self).__name__} must define step()")

    def eval_step(self, batch: Any) -> StepOutput:
        """As :meth:`step`, at evaluation; a model overrides it where the two differ."""
        return self.step(batch)

    def update_metrics(self, metrics: MetricCollection, output: StepOutput) -> None:
        """Shows a batch to the metrics."""
        metrics.update(output.preds, output.target, **output.metric_inputs)

    def predict_step(self, batch: Any, batch_idx: int = 0) -> dict[str, Tensor]:
        """Columns of the prediction file, each ``(B,)`` or ``(B, columns)``."""
        output = self.eval_step(batch)
        return {"prediction": output.preds, "target": output.target}

    def example_inputs(self, batch: Any) -> dict[str, Any]:
        """Arguments of ``forward`` by name, from a batch, to export the model with."""
        names = inspect.signature(self.forward).parameters
        missing = next((name for name in names if not hasattr(batch, name)), None)
        if missing is not None:
            raise NotImplementedError(f"its forward takes {missing!r}, which no batch holds")
        return {name: getattr(batch, name) for name in names}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Loss whose gradient, over micro-batches and ranks, is that of the whole batch."""
        self._check_rows(batch)
        output = self.step(batch)
        self._accumulate("train", output)
        return self._weigh(batch_idx, output.total, output.parts)

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Updates the validation metrics; returns what callbacks may score further."""
        return self._evaluate("val", self.val_metrics, batch)

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Updates the test metrics; returns what callbacks may score further."""
        return self._evaluate("test", self.test_metrics, batch)

    def _evaluate(self, stage: Stage, metrics: MetricCollection, batch: Any) -> dict[str, Tensor]:
        output = self.eval_step(batch)
        self._accumulate(stage, output)
        self.update_metrics(metrics, output)
        return {"preds": output.preds, "target": output.target}

    def _accumulate(self, stage: Stage, output: StepOutput) -> None:
        check_shapes(output.preds, output.target)
        means = self._means[stage]
        means.add(output.loss, output.num_targets, output.scalars, output.terms)
