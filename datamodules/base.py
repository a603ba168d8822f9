"""What every datamodule shares: seeds, splits, loaders, the known optimum and its baseline."""

import inspect
import reprlib
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

import lightning as L
import numpy as np
import torch
from torch import Tensor

from datamodules.errors import InputError
from datamodules.files.frames import plain_frame
from datamodules.files.whole_file import whole_file
from datamodules.loading.loader import EpochCount, TensorLoader
from datamodules.seeds import split_seed

if TYPE_CHECKING:
    import pandas as pd

Split = Literal["train", "val", "test", "predict", "ood"]
_STAGE_SPLITS: dict[str, tuple[Split, ...]] = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
}

B = TypeVar("B", bound=tuple[Any, ...])


class Reference(NamedTuple):
    """A score that needs no training: the optimum of a task, or a trivial baseline.

    Attributes:
        value: The score, in the units of the metric.
        how: How it was derived, in a few words; printed below the table of results.
    """

    value: float
    how: str


def _brief(value: Any) -> str:
    """An argument as one types it; a table or an array by its shape."""
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"<{type(value).__name__} {tuple(shape)}>"
    return reprlib.repr(value) if not isinstance(value, str) else repr(value)


class LitDataModule(L.LightningDataModule, Generic[B]):
    """Base of all datamodules whose splits fit in memory.

    A subclass writes :meth:`make_split`, a pure function of the arguments and the split: every
    rank, and every call of ``setup``, gets the same rows. ``__init__`` stores arguments and derives
    the sizes that models need; it generates nothing.

    Args:
        batch_size: Rows per optimizer step, over all devices.
        seed: Seed of the data; unrelated to ``seed_everything``, which seeds the model.
        eval_batch_size: Rows per evaluation batch, over all devices.
        drop_last: Whether training leaves out the last batch of an epoch when it is not full.
    """

    _given: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
    _loader_class: Callable[..., Any] = TensorLoader

    def __init__(
        self,
        batch_size: int = 32,
        seed: int = 0,
        eval_batch_size: int = 1024,
        drop_last: bool = True,
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        if seed < 0:
            raise InputError(f"seed must not be negative, got {seed}")
        self.batch_size = batch_size
        self.seed = seed
        self.eval_batch_size = eval_batch_size
        self.drop_last = drop_last
        self._splits: dict[Split, B] = {}
        self._trained_rows: Tensor | None = None
        self._plain_epochs = EpochCount()

    def __new__(cls, *args: Any, **kwargs: Any) -> "LitDataModule[B]":
        """Notes the arguments, for :meth:`__repr__`."""
        made = super().__new__(cls)
        made._given = (args, kwargs)
        return made

    def __repr__(self) -> str:
        """The class with the arguments that differ from their defaults; nothing is read."""
        args, kwargs = self._given
        signature = inspect.signature(type(self))
        given = signature.bind_partial(*args, **kwargs).arguments
        shown = []
        for name, value in given.items():
            parameter = signature.parameters[name]
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                shown += [f"{key}={_brief(item)}" for key, item in value.items()]
            elif repr(value) != repr(parameter.default):
                shown.append(f"{name}={_brief(value)}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def __str__(self) -> str:
        # Lightning's would make every loader, and so every split, to print their sizes.
        return repr(self)

    @abstractmethod
    def make_split(self, split: Split) -> B:
        """Generates or reads one split; the same rows at every call."""

    @property
    def optimum(self) -> dict[str, Reference]:
        """Best attainable test scores by metric name; empty where nobody knows them."""
        return {}

    @property
    def baseline(self) -> dict[str, Reference]:
        """Scores of a trivial predictor by metric name."""
        return {}

    @property
    def rivals(self) -> dict[str, dict[str, float]]:
        """Test scores of cheap strong methods fitted on the same rows: by metric, then by method.

        Only data of a user's own have them; a task with a known optimum needs none.
        """
        return {}

    def knowledge(self) -> dict[str, Any]:
        """What the training rows decided, as plain data for the checkpoint.

        Types of columns, categories, classes, vocabularies, scales: all that reading, predicting
        and naming need of the training file. Empty for generated data.
        """
        return {}

    def adopt(self, knowledge: Mapping[str, Any]) -> None:
        """Takes what a run knows, before anything is read; sizes and new rows follow it."""

    def row_hashes(self, split: Split) -> "np.ndarray[Any, Any] | None":
        """One 64-bit hash a row of a split, ``(rows,)`` uint64; None for generated data."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds of the data: their knowledge and which rows were trained on."""
        state: dict[str, Any] = {"knowledge": self.knowledge()}
        hashes = self.row_hashes("train")
        if hashes is not None:
            state["train_rows"] = torch.from_numpy(np.unique(hashes).view(np.int64))
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes what a checkpoint holds of the data it was trained on."""
        self.adopt(state_dict.get("knowledge", {}))
        self._trained_rows = state_dict.get("train_rows")

    def other_rows(self, split: Split) -> str | None:
        """One line where the training rows are not those of the checkpoint; None where they are.

        Args:
            split: The rows about to be scored.
        """
        train = None if self._trained_rows is None else self.row_hashes("train")
        if train is None or self._trained_rows is None:
            return None
        known = self._trained_rows.numpy().view(np.uint64)
        if np.array_equal(np.unique(train), known):
            return None
        rows = self.row_hashes(split)
        assert rows is not None
        seen = int(np.isin(rows, known).sum())
        return (
            f"the data are not those of the checkpoint: of the {len(rows):,} {split} rows it was "
            f"trained on {seen:,}"
        )

    @property
    def predict_split(self) -> Split:
        """Split that `predict` answers for; ``"predict"`` in a subclass that reads new rows."""
        return "test"

    @property
    def standardization(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Mean and standard deviation of the training rows, by name of the model's scaler."""
        return {}

    def generator(self, split: str) -> torch.Generator:
        """A random generator of one split's own."""
        return torch.Generator().manual_seed(split_seed(self.seed, split))

    def split(self, split: Split) -> B:
        """One split, generated at the first call and kept."""
        if split not in self._splits:
            self._splits[split] = self.make_split(split)
        return self._splits[split]

    def setup(self, stage: str) -> None:
        """Makes the splits of a stage; a second call does nothing."""
        splits = (self.predict_split,) if stage == "predict" else _STAGE_SPLITS[stage]
        for split in splits:
            if len(self.split(split)[0]) == 0:
                raise InputError(f"the {split} split has no rows; give it more data")

    def train_dataloader(self) -> Any:
        """Shuffled batches of the training split."""
        data = self.split("train")
        return self._loader(data, self.batch_size, shuffle=True, drop_last=self.drop_last)

    def ordered_dataloader(self, split: Split) -> Any:
        """Every row of a split once, in order."""
        return self._loader(self.split(split), self.eval_batch_size)

    def val_dataloader(self) -> Any:
        """Ordered batches of the validation split."""
        return self.ordered_dataloader("val")

    def test_dataloader(self) -> Any:
        """Ordered batches of the test split."""
        return self.ordered_dataloader("test")

    def predict_dataloader(self) -> Any:
        """Ordered batches of the rows to predict."""
        return self.ordered_dataloader(self.predict_split)

    def _loader(
        self,
        data: Any,
        batch_size: int,
        shuffle: bool = False,
        drop_last: bool = False,
        make: Callable[..., Any] | None = None,
    ) -> Any:
        """A loader of a split; ``make`` makes another kind than :meth:`_make_loader`."""
        rank, world_size = self.rank_and_world_size
        loader = (make or self._make_loader)(
            data,
            batch_size,
            shuffle=shuffle,
            seed=self.seed,
            drop_last=drop_last,
            rank=rank,
            world_size=world_size,
        )
        if shuffle and self.trainer is None:
            loader.sampler.epochs = self._plain_epochs
        elif shuffle and getattr(self.trainer, "overfit_batches", 0) > 0:
            loader.sampler.epochs = None
        return loader

    def _make_loader(self, data: Any, batch_size: int, **options: Any) -> Any:
        """Loader of the batches of this data; a subclass with another kind overrides it."""
        if options["shuffle"] and len(data[0]) < options["world_size"]:
            devices = options["world_size"]
            raise InputError(f"{len(data[0])} training rows cannot feed {devices} devices")
        return self._loader_class(data, batch_size, **options)

    @property
    def rank_and_world_size(self) -> tuple[int, int]:
        """Which share of each batch is this process's, and of how many; (0, 1) without a Trainer.

        Processes that share out a model's layers, and not the rows, have one share.
        """
        if self.trainer is None:
            return 0, 1
        shares = self.trainer.world_size
        return self.trainer.global_rank % shares, shares

    def write_predictions(self, outputs: Mapping[str, Tensor], folder: Path) -> Path:
        """Writes the outputs of ``predict_step``, in row order, into the run's folder.

        Args:
            outputs: Tensors ``(rows,)`` or ``(rows, columns)`` by name.
            folder: The run's folder.

        Returns:
            The file written.
        """
        path = folder / "predictions.csv"
        with whole_file(path) as file:
            self.prediction_frame(outputs).to_csv(file, index=False)
        return path

    def prediction_frame(self, outputs: Mapping[str, Tensor]) -> "pd.DataFrame":
        """Turns the outputs of ``predict_step``, in row order, into the table users read.

        Args:
            outputs: Tensors ``(rows,)`` or ``(rows, columns)`` by name.

        Returns:
            One row per sample; a wide output becomes ``name_1``, ``name_2``, ...
        """
        return plain_frame(outputs)
