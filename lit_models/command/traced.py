"""What an export traces a model with: a few rows of its data as tensors with free axes."""

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from datamodules.batches import GraphBatch, GraphSeriesBatch, SequencePairBatch, TokenBatch
from lit_models.base import LitModule

_NUM_ROWS = 4
_SHORTEST = 4  # positions of a row from which on its length is tried to be left free


class Example(NamedTuple):
    """What a model is traced with.

    Attributes:
        module: Takes tensors alone.
        names: Names of its arguments.
        inputs: One tensor each.
        axes: The axis of each that is free: of rows, nodes or edges; None for a graph that all
            rows share.
        lengths: The axis of each that is a length, free where the model allows it; None for none.
    """

    module: nn.Module
    names: list[str]
    inputs: tuple[Tensor, ...]
    axes: list[int | None]
    lengths: list[int | None]

    def eager(self, *inputs: Tensor) -> list[Tensor]:
        """Outputs of the model itself."""
        with torch.no_grad():
            return tensors_of(self.module(*inputs))

    @property
    def dynamic_shapes(self) -> Any:
        """The dimension that stays free of each input."""
        kinds = torch.export.Dim
        free: list[dict[int, Any]] = []
        for axis, length in zip(self.axes, self.lengths, strict=True):
            free.append({} if axis is None else {axis: kinds.DYNAMIC})
            free[-1] |= {} if length is None else {length: kinds.AUTO}
        wrapped = isinstance(self.module, OnTensors | ByName)
        return (tuple(free),) if wrapped else tuple(free)

    def shorter(self) -> tuple[Tensor, ...] | None:
        """The inputs without their last positions; None where they have no length."""
        if all(length is None for length in self.lengths):
            return None
        return tuple(
            tensor if length is None else tensor.narrow(length, 0, tensor.shape[length] - 1)
            for tensor, length in zip(self.inputs, self.lengths, strict=True)
        )

    def with_more_rows(self) -> tuple[Tensor, ...]:
        """Other inputs: the rows, or a graph's edges, one and a half times."""
        return tuple(
            tensor if axis is None else torch.cat([tensor, _half(tensor, axis)], axis)
            for tensor, axis in zip(self.inputs, self.axes, strict=True)
        )


def _half(tensor: Tensor, axis: int) -> Tensor:
    return tensor.narrow(axis, 0, (tensor.shape[axis] + 1) // 2)


class OnTensors(nn.Module):
    """A model whose ``forward`` takes a whole batch, called with the batch's tensors.

    Args:
        model: The model.
        batch: A batch; what is no tensor of it stays as it is.
        names: Fields that become arguments; targets are left out.
    """

    def __init__(self, model: nn.Module, batch: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.make, self.names = model, type(batch), list(names)
        self.rest = {
            name: None if isinstance(value, Tensor) else value
            for name, value in batch._asdict().items()
            if name not in names
        }

    def forward(self, *tensors: Tensor) -> Any:
        """The model's output."""
        return self.model(self.make(**dict(zip(self.names, tensors, strict=True)), **self.rest))


class ByName(nn.Module):
    """A model whose example leaves out an argument in the middle, called by names.

    Args:
        model: The model.
        names: Names of the arguments that there are.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, list(names)

    def forward(self, *tensors: Tensor) -> Any:
        """The model's output."""
        return self.model(**dict(zip(self.names, tensors, strict=True)))


def example_of(model: LitModule, batch: Any) -> Example:
    """A model with a few rows of a batch, or its graph, as its arguments."""
    takes_batch = list(inspect.signature(model.forward).parameters) == ["batch"]
    given = batch._asdict() if takes_batch else model.example_inputs(batch)
    scored = ("y", "mask") if takes_batch else ()
    names, inputs, axes, lengths = [], [], [], []
    for name, value in given.items():
        if not isinstance(value, Tensor) or name in scored:
            continue
        axis: int | None = 1 if name == "edge_index" else 0
        if isinstance(batch, GraphSeriesBatch) and name.startswith("edge"):
            axis = None
        elif not isinstance(batch, GraphBatch):
            value = value[:_NUM_ROWS]
        names.append(name)
        inputs.append((value if value.layout == torch.strided else value.to_dense()).contiguous())
        axes.append(axis)
        of_length = isinstance(batch, TokenBatch | SequencePairBatch) and value.dim() == 2
        of_length &= not getattr(model, "unrolls_lengths", False)
        long = of_length and value.shape[1] > _SHORTEST
        # One position less than a row has: a length that fills the context would count as its size.
        inputs[-1] = inputs[-1][:, :-1].contiguous() if long else inputs[-1]
        lengths.append(1 if long else None)
    module: nn.Module = model
    if takes_batch:
        module = OnTensors(model, batch, names)
    elif names != list(given)[: len(names)]:
        module = ByName(model, names)
    return Example(module, names, tuple(inputs), axes, lengths)


def tensors_of(outputs: Any) -> list[Tensor]:
    """Tensors among a model's outputs, in order."""
    return [leaf for leaf in torch.utils._pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]
