"""The only base class of the models: three stages, metrics, log names and optimizer injection.

A model says what one batch costs (:meth:`LitModule.step`) and which metrics judge it; it owns
nothing about devices, loggers, files or plots. Scores are exact on any number of ranks: means are
weighted by the number of targets, metrics are torchmetrics objects, and the gradient of several
ranks is the gradient of the one large batch, also where the ranks' shares differ in size.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import lightning as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from lightning.pytorch.plugins.precision import HalfPrecision, MixedPrecision, Precision
from lightning.pytorch.utilities.enums import GradClipAlgorithmType
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.optim import Optimizer
from torchmetrics import Metric, MetricCollection

from datamodules.errors import InputError
from lit_models.layers.standardize import Standardize, widest_float
from lit_models.metrics.scores import accumulate_in

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


class LitModule(L.LightningModule):
    """Base of all models.

    Args:
        metrics: Metrics by name; copies of them judge validation and test.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer. A schedule class with an
            attribute ``interval = "step"`` advances at every optimizer step, any other one every
            epoch; one whose ``total_steps`` is None is told the length of the run.

    Attributes:
        step_seed: Seed of the current batch, the same on every rank; None outside a Trainer.
        scores: Last value of every evaluation metric in double precision; Lightning logs in single.
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
        ignore = ["optimizer", "lr_scheduler", "metrics", "pretrained"]
        self.save_hyperparameters(ignore=ignore, logger=False)
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        # Compute groups merge metrics whose states agree after one batch, such as two shares of 1.
        collection = MetricCollection(dict(metrics), compute_groups=False)
        self.val_metrics = collection.clone(prefix="val/")
        self.test_metrics = collection.clone(prefix="test/")
        self._sums: dict[str, dict[str, Tensor]] = {"train": {}, "val": {}, "test": {}}
        self._open_schedule: Any = None
        self.scores: dict[str, float] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the running hook's name some 50 times a step; torch's search among
        # parameters and submodules would make that a thirtieth of a small model's step.
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

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
            plugin.convert_input = _half_precision_inputs(plugin)  # type: ignore[method-assign, assignment]
        datamodule = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and datamodule is not None:
            self.take_scale(datamodule)
        self._prepare_for_device()

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

    def _prepare_for_device(self) -> None:
        """Narrows batches for a device without float64, where that tells all values apart."""
        device = self.trainer.strategy.root_device
        if widest_float(device) == torch.float64:
            return
        # Defined for every run, the hook would have Lightning warn that it hides the datamodule's.
        self.on_before_batch_transfer = _narrow_batch  # type: ignore[method-assign]
        narrow_buffers(self)
        for name, scaler in self.named_children():
            if isinstance(scaler, Standardize):
                lost = (scaler.mean.abs() > 2.0**18 * scaler.std).nonzero()
                if len(lost):
                    raise InputError(
                        f"column {lost[0, 0].item() + 1} of {name.removesuffix('_scaler')} varies "
                        f"too little for its size in single precision, all that {device.type} has; "
                        "add --trainer.accelerator cpu"
                    )

    def on_train_start(self) -> None:
        """Tells a schedule without a length the length of the run."""
        # Asked for in configure_optimizers, the length makes the Trainer set its loader up before a
        # checkpoint is restored, and the loader's place in the epoch is lost (lightning 2.6.6).
        if self._open_schedule is not None:
            self._open_schedule.total_steps = int(self.trainer.estimated_stepping_batches)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Loss whose gradient, averaged over the ranks, is that of the whole batch."""
        output = self.step(batch)
        self._accumulate("train", output)
        loss = self._over_ranks(output.loss, output.num_targets)
        for term, num_targets in output.terms.values():
            loss = loss + self._over_ranks(term, num_targets)
        return loss

    def _over_ranks(self, loss: Tensor, num_targets: int | Tensor) -> Tensor:
        """A mean weighted such that the mean over the ranks is that of all targets."""
        if self.trainer.world_size == 1:
            return loss
        count = torch.as_tensor(num_targets, device=self.device, dtype=widest_float(self.device))
        total = self.trainer.strategy.reduce(count.clone(), reduce_op="sum")
        return loss * (count * self.trainer.world_size / total).to(loss.dtype)

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
        self.log_dict(self._means("train"), sync_dist=True)

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
        scores = {**self._means(stage), **metrics.compute()}
        self.scores.update({name: float(value) for name, value in scores.items()})
        self.log_dict(scores, sync_dist=True)
        metrics.reset()

    def _accumulate(self, stage: Stage, output: StepOutput) -> None:
        # self.log costs about 250 us per key and step, this about 5.
        sums, count = self._sums[stage], output.num_targets
        counts = {"count": count}
        means = [("loss", output.loss, count)]
        means += [(name, value, count) for name, value in output.scalars.items()]
        for name, (value, term_count) in output.terms.items():
            means.append((name, value, term_count))
            counts[f"count/{name}"] = term_count
        for name, value, number in means:
            weighted = value.detach().to(widest_float(value.device)) * number
            sums[name] = sums[name] + weighted if name in sums else weighted
        for name, number in counts.items():
            device = output.loss.device
            counted = torch.as_tensor(number, dtype=widest_float(device), device=device)
            sums[name] = sums[name] + counted if name in sums else counted

    def _means(self, stage: Stage) -> dict[str, Tensor]:
        """Means over the targets of all ranks, and a fresh start."""
        sums, self._sums[stage] = self._sums[stage], {}
        totals = {name: self._sum_over_ranks(value) for name, value in sums.items()}
        counts = {name: totals.pop(name) for name in list(totals) if name.startswith("count")}
        means = {
            name: total / counts.get(f"count/{name}", counts["count"])
            for name, total in totals.items()
        }
        for name in counts:
            if name != "count":
                means["loss"] = means["loss"] + means[name.removeprefix("count/")]
        return {f"{stage}/{name}": mean for name, mean in means.items()}

    def _sum_over_ranks(self, value: Tensor) -> Tensor:
        if self.trainer.world_size == 1:
            return value
        reduced = self.trainer.strategy.reduce(value.clone(), reduce_op="sum")
        assert isinstance(reduced, Tensor)
        return reduced

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the sums of an unfinished epoch, so that a resumed epoch reports all of it."""
        sums = {name: self._sum_over_ranks(v) for name, v in self._sums["train"].items()}
        checkpoint["train_sums"] = {name: value.cpu() for name, value in sums.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the sums of an unfinished epoch back; rank 0 holds them for all ranks."""
        if self._trainer is not None and self.trainer.is_global_zero:
            sums = checkpoint.get("train_sums", {})
            self._sums["train"] = {name: value.to(self.device) for name, value in sums.items()}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips, also for a fused optimizer in bfloat16, which Lightning refuses."""
        plugin = self.trainer.precision_plugin
        if isinstance(plugin, MixedPrecision) and plugin.scaler is None and gradient_clip_val:
            # Lightning fears scaled gradients; without a scaler there are none.
            algorithm = GradClipAlgorithmType(gradient_clip_algorithm or "norm")
            Precision.clip_gradients(plugin, optimizer, gradient_clip_val, algorithm)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def configure_optimizers(self) -> Any:
        """Optimizer and schedule as injected."""
        optimizer: Any = self.optimizer(self.parameters())
        plugin = None if self._trainer is None else self.trainer.precision_plugin
        if getattr(plugin, "scaler", None) is None:
            # Lightning will not clip for a fused optimizer in mixed precision, since that unscales
            # gradients itself; without a scaler, as in bfloat16, there is nothing to unscale.
            optimizer._step_supports_amp_scaling = False
        if self.lr_scheduler is None:
            return optimizer
        scheduler: Any = self.lr_scheduler(optimizer)
        if getattr(scheduler, "total_steps", 0) is None:
            self._open_schedule = scheduler
        config: dict[str, Any] = {
            "scheduler": scheduler,
            "interval": getattr(scheduler, "interval", "epoch"),
        }
        if isinstance(scheduler, ReduceLROnPlateau):
            config["monitor"] = scheduler.monitor
        return {"optimizer": optimizer, "lr_scheduler": config}


def narrow_buffers(module: torch.nn.Module) -> None:
    """Makes float64 buffers float32, for a device that has no other."""
    for part in module.modules():
        for name, buffer in part._buffers.items():
            if buffer is not None and buffer.dtype == torch.float64:
                part._buffers[name] = buffer.float()


def _narrow_batch(batch: Any, dataloader_idx: int) -> Any:
    """Float64 as float32, for a device that has no other."""

    def narrow(value: Tensor) -> Tensor:
        return value.float() if value.dtype == torch.float64 else value

    return apply_to_collection(batch, Tensor, narrow)


def _half_precision_inputs(plugin: HalfPrecision) -> Callable[[Any], Any]:
    """Converts the inputs of a half-precision model, but for numbers in a file's units."""

    def convert(value: Tensor) -> Tensor:
        wide = value.dtype == torch.float64 or not value.is_floating_point()
        return value if wide else value.to(plugin._desired_input_dtype)

    return lambda data: apply_to_collection(data, Tensor, convert)
