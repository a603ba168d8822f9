"""Real images to generate: scikit-learn's 1,797 handwritten digits of 8 x 8 pixels."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch

from datamodules.base import Split
from datamodules.batches import SampleBatch
from datamodules.loading.splits import Rows, hold_out
from datamodules.samples import SampleDataModule


class DigitsDataModule(SampleDataModule):
    """Handwritten digits with pixel values from 0 to 16 and their class; part of scikit-learn.

    A tenth of the rows validates, a fifth tests; every split holds the ten classes in their shares.

    Args:
        conditional: Whether samples have their digit as class.
        num_generated: Samples that `predict` draws, of each class in turn.
        batch_size: Rows per optimizer step.
        seed: Seed of the split.
    """

    sample_shape = (1, 8, 8)

    def __init__(
        self,
        conditional: bool = True,
        num_generated: int = 1000,
        batch_size: int = 128,
        seed: int = 0,
    ) -> None:
        super().__init__(num_generated, batch_size, eval_batch_size=64, seed=seed)
        self.conditional = conditional

    @property
    def num_classes(self) -> int:
        """Ten, or 0 where samples have no class."""
        return 10 if self.conditional else 0

    @cached_property
    def _digits(self) -> Any:
        from sklearn.datasets import load_digits

        return load_digits()

    @cached_property
    def _rows(self) -> Mapping[str, Rows]:
        labels = self._digits.target
        rest, test = hold_out(np.arange(len(labels)), 0.2, self.seed, labels)
        train, val = hold_out(rest, 0.125, self.seed, labels[rest])
        return {"train": train, "val": val, "test": test}

    def make_split(self, split: Split) -> SampleBatch:
        """Rows of one split."""
        if split == "predict":
            return self.blank_rows()
        rows = self._rows[split]
        images = torch.from_numpy(self._digits.images[rows]).to(torch.get_default_dtype())
        labels = torch.from_numpy(self._digits.target[rows]) if self.conditional else None
        return SampleBatch(images.unsqueeze(1), labels)
