"""The only base class of the models: three stages, metrics, log names and optimizer injection.

A model says what one batch costs (:meth:`LitModule.step`) and which metrics judge it; it owns
nothing about devices, loggers, files or plots. Scores are exact on any number of ranks: means are
weighted by the number of targets, metrics are torchmetrics objects, and the gradient of several
ranks is the gradient of the one large batch, also where the ranks' shares differ in size.
"""

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import lightning as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.plugins.precision import HalfPrecision
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import Metric, MetricCollection

from datamodules.errors import InputError
from lit_models.layers.ranges import check_ranges
from lit_models.layers.standardize import Standardize, widest_float
from lit_models.metrics.means import WeightedMeans
from lit_models.metrics.scores import accumulate_in
from lit_models.optim import AdamWMatrixDecay
from lit_models.training import rates
from lit_models.training.accumulation import LOSS, AccumulationWindow
from lit_models.training.batches import (
    as_batch,
    batch_type,
    check_shapes,
    half_precision_inputs,
    narrow,
    narrow_buffers,
    one_row,
)
from lit_models.training.lightning_repairs import (
    QuickHookNames,
    allow_fused_clipping,
    clip_gradients,
    window_ends,
)

Stage = Literal["train", "val", "test"]


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


class LitModule(QuickHookNames):
    """Base of all models.

    Args:
        metrics: Metrics by name; copies of them judge validation and test.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer; one without a length is
            told that of the run.

    Attributes:
        lr_scheduler_interval: Whether the schedule advances every ``"step"`` or every ``"epoch"``;
            None as its class means it (:mod:`lit_models.training.rates`).
        step_seed: Seed of the current batch, the same on every rank; None outside a Trainer.
        scores: Last value of every evaluation metric in double precision; Lightning logs in single.
    """

    lr_scheduler_interval: rates.Interval | None = None
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
        # Compute groups merge metrics whose states agree after one batch, such as two shares of 1.
        collection = MetricCollection(dict(metrics), compute_groups=False)
        self.val_metrics = collection.clone(prefix="val/")
        self.test_metrics = collection.clone(prefix="test/")
        self._means: dict[Stage, WeightedMeans] = {
            "train": WeightedMeans(),
            "val": WeightedMeans(),
            "test": WeightedMeans(),
        }
        self._window = AccumulationWindow([])
        self._has_open_length = False
        self._needs_rows = False
        self.scores: dict[str, float] = {}

    def step(self, batch: Any) -> StepOutput:
        """Loss and predictions of one batch."""
        raise NotImplementedError(f"{type(self).__name__} must define step()")

    def eval_step(self, batch: Any) -> StepOutput:
        """As :meth:`step`, at evaluation; a model overrides it where the two differ."""
        return self.step(batch)

    def example_inputs(self, batch: Any) -> dict[str, Any]:
        """Arguments of ``forward`` by name, from a batch, to export the model with."""
        names = inspect.signature(self.forward).parameters
        missing = next((name for name in names if not hasattr(batch, name)), None)
        if missing is not None:
            raise NotImplementedError(f"its forward takes {missing!r}, which no batch holds")
        return {name: getattr(batch, name) for name in names}

    def update_metrics(self, metrics: MetricCollection, output: StepOutput) -> None:
        """Shows a batch to the metrics."""
        metrics.update(output.preds, output.target, **output.metric_inputs)

    def setup(self, stage: str) -> None:
        """Takes the scale of the training data from the datamodule before a fit."""
        plugin = self.trainer.precision_plugin
        if isinstance(plugin, HalfPrecision):
            # It would round a file's numbers before they are centred (lightning 2.6.6).
            plugin.convert_input = half_precision_inputs(plugin)  # type: ignore[method-assign, assignment]
        datamodule = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and datamodule is not None:
            self.take_scale(datamodule)
        self._prepare_batches(datamodule)

    def take_scale(self, datamodule: Any) -> None:
        """Takes the scale of the training data; a Trainer with a datamodule calls it by itself.

        Args:
            datamodule: Publishes ``standardization``; data without one are taken as they are.

        Raises:
            InputError: If the data have another number of features than the model.
        """
        published = getattr(datamodule, "standardization", {})
        for name, scaler in self.named_children():
            if not isinstance(scaler, Standardize):
                continue
            if name not in published:
                scaler.is_fitted = True
                continue
            try:
                scaler.fit(*published[name])
            except ValueError as error:
                raise InputError(f"{type(self).__name__}.{name}: {error}") from error

    def _prepare_batches(self, datamodule: Any) -> None:
        """Takes plain batches of a user's own loaders, and narrows for a device without float64."""
        device = self.trainer.strategy.root_device
        wide = widest_float(device) == torch.float64
        if not wide or not hasattr(datamodule, "standardization"):
            # Defined for every run, it would have Lightning warn that it hides the datamodule's.
            take = partial(_given_batch, batch_type(type(self)), wide)
            self.on_before_batch_transfer = take  # type: ignore[method-assign]
        scalers = {k: m for k, m in self.named_children() if isinstance(m, Standardize)}
        unfitted = next((name for name, scaler in scalers.items() if not scaler.is_fitted), None)
        if self.trainer.state.fn == "fit" and unfitted is not None:
            rank_zero_warn(
                f"{unfitted} has no scale, so the data are taken as they are; "
                "model.take_scale(datamodule) gives it one"
            )
        if not wide:
            narrow_buffers(self)
            for name, scaler in scalers.items():
                scaler.check_single_precision(name.removesuffix("_scaler"), device.type)

    def on_train_start(self) -> None:
        """Tells a schedule without a length that of the run, which may be longer than before."""
        if self._has_open_length:
            rates.tell_length(self.trainer.lr_scheduler_configs[0].scheduler, self.trainer)
        self._window = AccumulationWindow(self.parameters())
        self._needs_rows = any(isinstance(m, nn.BatchNorm1d) for m in self.modules())

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Loss whose gradient, over micro-batches and ranks, is that of the whole batch."""
        if self._needs_rows and one_row(batch):
            raise InputError(
                "batch normalisation needs more than one row in a training batch of a process; "
                "raise --data.batch_size, or add --data.drop_last true"
            )
        output = self.step(batch)
        self._accumulate("train", output)
        ranks, every = self.trainer.world_size, self.trainer.accumulate_grad_batches
        if ranks == every == 1:
            return output.total
        if batch_idx % every == 0:
            self._window.open()
        parts = {LOSS: (output.loss, output.num_targets), **output.terms}
        wide = widest_float(self.device)
        counts = {
            name: self._sum_over_ranks(torch.as_tensor(number, dtype=wide, device=self.device))
            for name, (_, number) in parts.items()
        }
        loss = self._window.weigh(parts, counts, ranks, window_ends(self.trainer))
        return loss * every if every > 1 else loss  # Lightning divides by it

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Differentiates; the gradients of earlier micro-batches keep their share."""
        if self.trainer.accumulate_grad_batches > 1:
            scaler = getattr(self.trainer.precision_plugin, "scaler", None)
            self._window.fold(scaler, window_ends(self.trainer))
        super().backward(loss, *args, **kwargs)

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Updates the validation metrics; returns what callbacks may score further."""
        output = self.eval_step(batch)
        self._accumulate("val", output)
        self.update_metrics(self.val_metrics, output)
        return {"preds": output.preds, "target": output.target}

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Updates the test metrics; returns what callbacks may score further."""
        output = self.eval_step(batch)
        self._accumulate("test", output)
        self.update_metrics(self.test_metrics, output)
        return {"preds": output.preds, "target": output.target}

    def predict_step(self, batch: Any, batch_idx: int = 0) -> dict[str, Tensor]:
        """Columns of the prediction file, each ``(B,)`` or ``(B, columns)``."""
        output = self.eval_step(batch)
        return {"prediction": output.preds, "target": output.target}

    def on_train_epoch_end(self) -> None:
        """Logs the means of the epoch."""
        self.log_dict(self._take_means("train"), sync_dist=True)

    def on_validation_epoch_start(self) -> None:
        """Lets the metrics add up in the widest type there is."""
        accumulate_in(self.val_metrics, widest_float(self.device))

    def on_test_epoch_start(self) -> None:
        """Lets the metrics add up in the widest type there is."""
        accumulate_in(self.test_metrics, widest_float(self.device))

    def on_validation_epoch_end(self) -> None:
        """Logs means and metrics of the validation set."""
        self._log_evaluation("val", self.val_metrics)

    def on_test_epoch_end(self) -> None:
        """Logs means and metrics of the test set."""
        self._log_evaluation("test", self.test_metrics)

    def _log_evaluation(self, stage: Stage, metrics: MetricCollection) -> None:
        scores = {**self._take_means(stage), **metrics.compute()}
        self.scores.update({name: float(value) for name, value in scores.items()})
        self.log_dict(scores, sync_dist=True)
        metrics.reset()

    def _accumulate(self, stage: Stage, output: StepOutput) -> None:
        check_shapes(output.preds, output.target)
        means = self._means[stage]
        means.add(output.loss, output.num_targets, output.scalars, output.terms)

    def _take_means(self, stage: Stage) -> dict[str, Tensor]:
        means = self._means[stage].take(self._sum_over_ranks)
        return {f"{stage}/{name}": mean for name, mean in means.items()}

    def _sum_over_ranks(self, value: Tensor) -> Tensor:
        if self.trainer.world_size == 1:
            return value
        reduced = self.trainer.strategy.reduce(value.clone(), reduce_op="sum")
        assert isinstance(reduced, Tensor)
        return reduced

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the sums of an unfinished epoch, so that a resumed epoch reports all of it."""
        sums = {name: self._sum_over_ranks(v) for name, v in self._means["train"].sums.items()}
        checkpoint["train_sums"] = {name: value.cpu() for name, value in sums.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the sums of an unfinished epoch back; rank 0 holds them for all ranks."""
        if self._trainer is not None and self.trainer.is_global_zero:
            sums = checkpoint.get("train_sums", {})
            self._means["train"].sums = {k: value.to(self.device) for k, value in sums.items()}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips, also for a fused optimizer in bfloat16, which Lightning refuses."""
        clip_gradients(self, optimizer, gradient_clip_val, gradient_clip_algorithm)

    def configure_optimizers(self) -> Any:
        """Optimizer and schedule as injected."""
        length = None if self._trainer is None else rates.run_length(self._trainer)
        return self._optimizers(self._trainer, length)

    def check_optimizers(self, trainer: L.Trainer) -> None:
        """Builds optimizer and schedule for a Trainer that has not begun, to see that they can be.

        Raises:
            InputError: If they do not suit the Trainer.
            TypeError, ValueError: torch's, for a wrong argument.
        """
        self._optimizers(trainer, 1 if trainer.max_epochs != -1 else rates.max_steps(trainer))

    def _optimizers(self, trainer: L.Trainer | None, length: float | None) -> Any:
        optimizer: Any = self.optimizer(self.parameters())
        if isinstance(optimizer, AdamWMatrixDecay):
            optimizer.exempt(self)
        allow_fused_clipping(optimizer, trainer)
        if self.lr_scheduler is None:
            return optimizer
        scheduler = rates.make_schedule(self.lr_scheduler, optimizer, length)
        self._has_open_length = rates.has_open_length(scheduler, self.lr_scheduler)
        config = rates.schedule_config(scheduler, self.lr_scheduler_interval, trainer)
        return {"optimizer": optimizer, "lr_scheduler": config}


def _given_batch(kind: Any, wide: bool, batch: Any, dataloader_idx: int) -> Any:
    batch = as_batch(batch, kind)
    return batch if wide else narrow(batch)
