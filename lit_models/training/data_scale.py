"""Scale of the training data, and batches of any loader as the model takes them."""

from functools import partial
from typing import Any

import torch
from lightning.pytorch.plugins.precision import HalfPrecision

from datamodules.errors import InputError
from lit_models.layers.standardize import check_fitted, scalers_of, widest_float
from lit_models.training.batches import (
    as_batch,
    batch_type,
    narrow,
    narrow_buffers,
)
from lit_models.training.lightning_repairs import QuickHookNames, half_precision_inputs


class DataScale(QuickHookNames):
    """A module whose :class:`~lit_models.layers.standardize.Standardize` parts learn from data."""

    def setup(self, stage: str) -> None:
        """Takes the scale of the training data from the datamodule before a fit."""
        plugin = self.trainer.precision_plugin
        if isinstance(plugin, HalfPrecision):
            plugin.convert_input = half_precision_inputs(plugin)  # type: ignore[method-assign, assignment]
        datamodule = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and datamodule is not None:
            self.take_scale(datamodule)
        self._prepare_batches(datamodule)

    def take_scale(self, datamodule: Any) -> None:
        """Takes the scale of the training data; a Trainer with a datamodule calls it by itself.

        Args:
            datamodule: Publishes ``standardization``; data without one, or None, are taken as they
                are.

        Raises:
            InputError: If the data have another number of features than the model.
        """
        published = getattr(datamodule, "standardization", {})
        for name, scaler in scalers_of(self):
            if name not in published:
                scaler.is_fitted = True
                continue
            try:
                scaler.fit(*published[name])
            except ValueError as error:
                raise InputError(f"{type(self).__name__}.{name}: {error}") from error

    def on_fit_start(self) -> None:
        """Checks that a scale was given, by the datamodule, by hand or by a checkpoint."""
        super().on_fit_start()
        if self.trainer.ckpt_path is None:
            check_fitted(self)

    def _prepare_batches(self, datamodule: Any) -> None:
        """Takes plain batches of a user's own loaders, and narrows for a device without float64."""
        device = self.trainer.strategy.root_device
        wide = widest_float(device) == torch.float64
        if not wide or not hasattr(type(datamodule), "standardization"):
            # Defined for every run, it would have Lightning warn that it hides the datamodule's.
            numbers = any(name == "y_scaler" for name, _ in scalers_of(self))
            take = partial(_given_batch, batch_type(type(self)), wide, numbers)
            self.on_before_batch_transfer = take  # type: ignore[method-assign]
        if not wide:
            narrow_buffers(self)
            for name, scaler in scalers_of(self):
                scaler.check_single_precision(name.removesuffix("_scaler"), device.type)


def _given_batch(kind: Any, wide: bool, numbers: bool, batch: Any, dataloader_idx: int) -> Any:
    batch = as_batch(batch, kind, numbers)
    return batch if wide else narrow(batch)
