"""One optimizer step is that of the whole batch, over ranks and accumulated micro-batches."""

from typing import Any

import torch
from torch import Tensor, nn

from datamodules.errors import InputError
from lit_models.layers.standardize import widest_float
from lit_models.training.accumulation import AccumulationWindow, Parts
from lit_models.training.batches import one_row
from lit_models.training.lightning_repairs import window_ends
from lit_models.training.ranks import RankSums


class WholeBatchGradients(RankSums):
    """A module whose gradient is that of the one large batch, also where shares differ in size."""

    _window: AccumulationWindow
    _needs_rows = False

    def on_train_start(self) -> None:
        """Starts without gradients."""
        super().on_train_start()
        self._window = AccumulationWindow(self.parameters())
        self._needs_rows = any(isinstance(m, nn.BatchNorm1d) for m in self.modules())

    def _check_rows(self, batch: Any) -> None:
        if self._needs_rows and one_row(batch):
            raise InputError(
                "batch normalisation needs more than one row in a training batch of a process; "
                "raise --data.batch_size, or add --data.drop_last true"
            )

    def _weigh(self, batch_idx: int, total: Tensor, parts: Parts) -> Tensor:
        """What to differentiate, so that micro-batches and ranks add up to the whole batch.

        Args:
            batch_idx: Number of the batch in the epoch.
            total: Sum of the parts, the loss of this rank's batch alone.
            parts: Parts of the loss by name: means over this rank's targets, and their number.
        """
        ranks, every = self.trainer.world_size, self.trainer.accumulate_grad_batches
        if ranks == every == 1:
            return total
        if batch_idx % every == 0:
            self._window.open()
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
