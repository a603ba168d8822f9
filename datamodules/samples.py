"""What the datamodules of generative models share: shapes, classes, and samples to be drawn."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datamodules.base import LitDataModule, Split
from datamodules.batches import SampleBatch
from datamodules.errors import InputError
from datamodules.files.whole_file import whole_file
from datamodules.laws.mixture_law import MixtureLaw


class SampleDataModule(LitDataModule[SampleBatch]):
    """Base of the datamodules whose rows are samples of a distribution to be learned.

    Args:
        num_generated: Samples that `predict` draws.
        batch_size: Rows per optimizer step, over all devices.
        eval_batch_size: Rows per evaluation batch, over all devices.
        seed: Seed of the data.

    Raises:
        InputError: If an argument is out of range.
    """

    def __init__(
        self, num_generated: int, batch_size: int, eval_batch_size: int, seed: int
    ) -> None:
        super().__init__(batch_size, seed, eval_batch_size)
        if num_generated < 1:
            raise InputError(f"num_generated must be at least 1, got {num_generated}")
        self.num_generated = num_generated

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        raise NotImplementedError(f"{type(self).__name__} must define sample_shape")

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 for samples without one."""
        return 0

    @property
    def law(self) -> MixtureLaw | None:
        """The distribution itself, where it is known."""
        return None

    @property
    def predict_split(self) -> Split:
        """Blank rows, one for each sample to draw."""
        return "predict"

    def blank_rows(self) -> SampleBatch:
        """Rows that say how many samples to draw, and of which class: each in turn."""
        x0 = torch.zeros(()).expand(self.num_generated, *self.sample_shape)
        classes = torch.arange(self.num_generated) % self.num_classes if self.num_classes else None
        return SampleBatch(x0, classes)

    @property
    def standardization(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Scale of the training rows: per column of vectors, one for all pixels of images."""
        x0 = self.split("train").x0
        flat = x0.double() if x0.dim() == 2 else x0.double().reshape(-1, 1)
        mean, std = flat.mean(0), flat.std(0, correction=0)
        return {"x_scaler": (mean, torch.where(std > 0, std, torch.ones_like(std)))}

    def write_predictions(self, outputs: Mapping[str, Tensor], folder: Path) -> Path:
        """Writes ``samples.npy``, and ``classes.npy`` where samples have a class."""
        with whole_file(folder / "samples.npy", "wb") as file:
            np.save(file, outputs["sample"].float().numpy())
        if "class" in outputs:
            with whole_file(folder / "classes.npy", "wb") as file:
                np.save(file, outputs["class"].numpy())
        return folder / "samples.npy"
