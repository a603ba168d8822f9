"""``average.ckpt``: the mean of the weights of a fit's last checkpoints."""

from collections import deque
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from datamodules.files.notes import say

Weights = dict[str, Tensor]


class LastAverage(L.Callback):
    """Averages the weights of the last validations of a fit into ``checkpoints/average.ckpt``.

    Vaswani et al. (2017), section 6.1, average the last five or twenty checkpoints for their
    translations. Score the file with ``--ckpt_path average``. The weights averaged so far stand in
    every checkpoint, so that a continued fit averages as an uninterrupted one.

    Args:
        num_checkpoints: Number k of validations, the last ones, whose weights are averaged.

    Raises:
        ValueError: If k is below 2.
    """

    def __init__(self, num_checkpoints: int = 5) -> None:
        if num_checkpoints < 2:
            raise ValueError(f"num_checkpoints must be at least 2, got {num_checkpoints}")
        self.num_checkpoints = num_checkpoints
        self.kept: deque[Weights] = deque(maxlen=num_checkpoints)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keeps the weights that were scored."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            state = pl_module.state_dict()
            self.kept.append({name: value.detach().cpu().clone() for name, value in state.items()})

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the average; the model keeps its own weights."""
        if trainer.fast_dev_run or len(self.kept) < 2:  # type: ignore[attr-defined]
            return
        own = {name: value.detach().clone() for name, value in pl_module.state_dict().items()}
        pl_module.load_state_dict(mean_of(list(self.kept)))
        path = Path(trainer.default_root_dir) / "checkpoints" / "average.ckpt"
        trainer.save_checkpoint(path, weights_only=True)
        pl_module.load_state_dict(own)
        say(f"{path}: the mean of the weights of the last {len(self.kept)} validations")

    def state_dict(self) -> dict[str, Any]:
        """The weights kept so far."""
        return {"kept": list(self.kept)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the weights of the run that is continued."""
        self.kept = deque(state_dict["kept"], maxlen=self.num_checkpoints)


def mean_of(states: list[Weights]) -> Weights:
    """Mean of each floating-point weight, in double precision; of others the last value."""
    mean: Weights = {}
    for name, last in states[-1].items():
        mean[name] = last
        if last.is_floating_point():
            values = torch.stack([state[name].double() for state in states])
            mean[name] = values.mean(0).to(last.dtype)
    return mean
