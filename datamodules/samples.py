"""What the datamodules of generative models share: shapes, classes, and samples to be drawn."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.base import LitDataModule, Split
from datamodules.batches import SampleBatch
from datamodules.errors import InputError
from datamodules.files.images import (
    as_bytes,
    class_folder,
    columns_of,
    image_grid,
    write_image,
)
from datamodules.files.whole_file import whole_file
from datamodules.laws.linear_denoiser import LinearDenoiser
from datamodules.laws.mixture_law import MixtureLaw

_BLOCK = 2**20  # numbers that are read at once
_MOMENT_ROWS = 20_000  # rows whose moments the linear denoiser knows
_GRID = 100  # pictures


class SampleDataModule(LitDataModule[SampleBatch]):
    """Base of the datamodules whose rows are samples of a distribution to be learned.

    Args:
        num_generated: Samples that `predict` draws.
        batch_size: Rows per optimizer step, over all devices.
        eval_batch_size: Rows per evaluation batch, over all devices.
        seed: Seed of the data.

    Attributes:
        num_test_samples: Samples that a test draws to compare with its rows; None for one a row.

    Raises:
        InputError: If an argument is out of range.
    """

    num_test_samples: int | None = None

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
    def class_names(self) -> Sequence[Any]:
        """What each class is called in the user's file."""
        return range(self.num_classes)

    @property
    def value_range(self) -> tuple[float, float]:
        """Smallest and largest number of the training rows: black and white of a picture."""
        x0 = self.split("train").x0
        return x0.min().item(), x0.max().item()

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

    def training_blocks(self, limit: int | None = None) -> Iterator[Tensor]:
        """The training rows, some at a time; no more than a limit, evenly spread."""
        x0 = self.split("train").x0
        x0 = x0[:: 1 if limit is None else -(-len(x0) // limit)]
        yield from torch.split(x0, max(1, _BLOCK // max(x0[0].numel(), 1)))

    def linear_denoiser(self, mean: Tensor, std: Tensor) -> LinearDenoiser | None:
        """The best linear prediction of the noise, a rival of a model where the law is unknown.

        Knows the moments of the training rows, evenly spread ones where they are many.

        Args:
            mean: Mean that the model subtracts from a row, as :attr:`standardization`.
            std: Standard deviation that it divides by.

        Returns:
            The prediction for noised rows in standard units; None for vectors too long for it.
        """
        mean, std = mean.double().cpu(), std.double().cpu()

        def blocks() -> Iterator[Tensor]:
            for block in self.training_blocks(_MOMENT_ROWS):
                yield (block - mean) / std

        try:
            return LinearDenoiser(blocks, self.sample_shape)
        except ValueError:
            return None

    @property
    def standardization(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Scale of the training rows: per column of vectors, one for all pixels of images."""
        columns = len(self.sample_shape) == 1

        def numbers() -> Iterator[Tensor]:
            for block in self.training_blocks():
                wide = block.to(torch.float64, copy=True)
                yield wide if columns else wide.reshape(-1, 1)

        # Sums in place: a list of small tensors between the blocks keeps their memory from return.
        width = self.sample_shape[0] if columns else 1
        mean, square = torch.zeros(2, width, dtype=torch.float64)
        count = 0
        for block in numbers():
            count += len(block)
            mean += len(block) / count * (block.mean(0) - mean)
        del block  # before the next one is made
        for block in numbers():
            square += block.sub_(mean).square_().sum(0) / count
        std = square.sqrt()
        return {"x_scaler": (mean, torch.where(std > 0, std, torch.ones_like(std)))}

    def write_predictions(self, outputs: Mapping[str, Tensor], folder: Path) -> Path:
        """Writes ``samples.npy``, ``classes.npy`` where samples have a class, and pictures.

        Samples of 1, 3 or 4 channels are pictures: ``samples/`` has a PNG file of each, in a folder
        of its class where there are classes, and ``samples.png`` shows the first hundred.
        """
        samples = self.in_file_type(outputs["sample"].double().numpy())
        codes = outputs["class"].tolist() if "class" in outputs else None
        with whole_file(folder / "samples.npy", "wb") as file:
            np.save(file, samples)
        if codes is not None:
            with whole_file(folder / "classes.npy", "wb") as file:
                np.save(file, np.array([self.class_names[code] for code in codes]))
        if len(self.sample_shape) == 3 and self.sample_shape[0] in (1, 3, 4):
            self._write_images(as_bytes(samples, *self.value_range), codes, folder)
        return folder / "samples.npy"

    def in_file_type(self, samples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Samples as the user's file has them."""
        return samples.astype(np.float32)

    def _write_images(
        self, images: np.ndarray[Any, Any], codes: list[int] | None, folder: Path
    ) -> None:
        shutil.rmtree(folder / "samples", ignore_errors=True)  # of an earlier prediction
        digits = len(str(len(images) - 1))
        for i, image in enumerate(images):
            place = folder / "samples"
            if codes is not None:
                place = place / class_folder(self.class_names[codes[i]])
            place.mkdir(parents=True, exist_ok=True)
            write_image(place / f"{i:0{digits}}.png", image)
        some = images[:_GRID]
        shown = None if codes is None else codes[:_GRID]
        write_image(folder / "samples.png", image_grid(some, columns_of(len(some), shown)))
