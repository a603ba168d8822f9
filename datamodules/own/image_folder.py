"""A user's pictures: a folder of PNG or JPEG files, a subfolder for each class."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np

from datamodules.errors import InputError
from datamodules.files.images import Color, find_images, read_image
from datamodules.own.stored_samples import Stored, StoredSampleDataModule


class ImageFolderDataModule(StoredSampleDataModule):
    """Pictures to learn a distribution of; they stay bytes until a batch is due.

    Args:
        path: Folder of PNG or JPEG files. Pictures in subfolders have the first one's name as
            their class.
        image_size: Side of the pictures, or height and width: each is scaled to cover it and cut
            at its centre. Needed where their sizes differ.
        color: ``grey``, ``rgb``, or ``auto``: grey where every file is.
        val_fraction: Share of the pictures for validation.
        test_fraction: Share of the pictures for the test.
        num_test_samples: Samples that a test draws to compare with its rows; None for one a row.
        num_generated: Samples that `predict` draws.
        generated_class: Class that `predict` draws; every class in turn by default.
        flip: Whether training mirrors half of the pictures, left for right.
        batch_size: Pictures per optimizer step.
        eval_batch_size: Pictures per evaluation batch.
        seed: Seed of the split.

    Raises:
        InputError: If a file or an argument is wrong.
    """

    def __init__(
        self,
        path: str,
        image_size: int | tuple[int, int] | None = None,
        color: Color = "auto",
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        num_test_samples: int | None = 1000,
        num_generated: int = 100,
        generated_class: str | int | None = None,
        flip: bool = False,
        batch_size: int = 128,
        eval_batch_size: int = 128,
        seed: int = 0,
    ) -> None:
        super().__init__(
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            num_test_samples=num_test_samples,
            num_generated=num_generated,
            generated_class=generated_class,
            flip=flip,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            seed=seed,
        )
        size = (image_size, image_size) if isinstance(image_size, int) else image_size
        if size is not None and min(size) < 1:
            raise InputError(f"image_size must be positive, got {image_size}")
        self.path, self.color = path, color
        self.image_size = None if size is None else (int(size[0]), int(size[1]))

    def read(self) -> Stored:
        """Reads every picture, whole."""
        paths, classes = find_images(self.path)
        seen: set[str] = set()
        first = read_image(paths[0], self.image_size, self.color, seen)
        rows = np.empty((len(paths), *first.shape), dtype=np.uint8)
        for i, path in enumerate(paths):
            image = read_image(path, self.image_size, self.color, seen)
            if image.shape[2] > rows.shape[3]:  # the first colours among grey pictures
                rows = np.repeat(rows, image.shape[2], axis=3)
            if image.shape[:2] != rows.shape[1:3]:
                raise InputError(self._sizes_differ(paths))
            rows[i] = image
        for line in sorted(seen):
            sys.stderr.write(f"lit-models: {self.path}: {line}\n")
        return Stored(rows, None if classes is None else np.array(classes), True, self.path)

    def _sizes_differ(self, paths: list[Path]) -> str:
        from PIL import Image

        sizes: Counter[tuple[int, int]] = Counter()
        for path in paths[:1000]:
            with Image.open(path) as file:
                sizes[file.size] += 1
        (width, height), count = sizes.most_common(1)[0]
        return (
            f"the pictures of {self.path} differ in size, {count} of the first "
            f"{sum(sizes.values())} are {width} x {height}; give --data.image_size"
        )
