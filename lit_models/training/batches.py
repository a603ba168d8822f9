"""Batches as a model takes them, whatever loader they come from."""

from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from datamodules.errors import InputError

# Shapes of the parts a loader of plain tensors gives, by kind of batch, and which hold integers.
_SHAPES = {
    "SeriesBatch": {"x": ["B, T, D"], "y": ["B, H", "B, H, M"]},
    "ExamplesBatch": {"x": ["B, T, D"], "y": ["B, T"]},
    "TokenBatch": {"tokens": ["B, T"], "labels": ["B, T"]},
    "SequencePairBatch": {"src": ["B, S"], "tgt": ["B, T"]},
    "GraphSeriesBatch": {"x": ["B, T, N, F"], "y": ["B, H, N"]},
    "SupervisedBatch": {"x": ["B, D"]},
}
_INTEGERS = ("tokens", "labels", "src", "tgt")


def batch_type(model: type) -> Any:
    """Kind of batch that a model's ``step`` takes; Any where it does not say."""
    return get_type_hints(model.step).get("batch", Any)  # type: ignore[attr-defined]


def as_batch(batch: Any, kind: Any, numbers: bool = False) -> Any:
    """A plain tuple, list, mapping or tensor of a user's own loader as the batch it stands for.

    Args:
        batch: What the loader yields.
        kind: The NamedTuple that the model takes; any other kind takes everything as it is.
        numbers: Whether the model's targets are numbers, and no classes.

    Raises:
        InputError: If its parts cannot be the fields of the batch, by number, shape or type.
    """
    fields: tuple[str, ...] = getattr(kind, "_fields", ())
    if not fields or hasattr(batch, "_fields") or type(batch) not in (tuple, list, dict, Tensor):
        return batch
    if isinstance(batch, Tensor):
        batch = (batch,)
    needed = [name for name in fields if name not in kind._field_defaults]
    if isinstance(batch, Mapping):
        if set(needed) <= set(batch) <= set(fields):
            return _checked(kind(**batch), numbers)
        parts = "a mapping of " + ", ".join(map(str, batch))
    else:
        if len(needed) <= len(batch) <= len(fields):
            return _checked(kind(*batch), numbers)
        parts = f"{len(batch)} part{'s' * (len(batch) != 1)}"
    raise InputError(
        f"the loader gives {parts}; the model takes {kind.__name__}({', '.join(fields)})"
    )


def _checked(batch: Any, numbers: bool) -> Any:
    """The batch, if the tensors of its fields can be what they stand for."""
    kind = type(batch).__name__
    for name, shapes in _SHAPES.get(kind, {}).items():
        value = getattr(batch, name)
        if not isinstance(value, Tensor):
            continue
        wrong_type = name in _INTEGERS and value.is_floating_point()
        if wrong_type or value.dim() not in [len(shape.split()) for shape in shapes]:
            wanted = " or ".join(f"({shape})" for shape in shapes)
            raise InputError(
                f"the loader gives {name} of shape {tuple(value.shape)}, {value.dtype}; "
                f"{kind} takes {name} {wanted}{', integers' * (name in _INTEGERS)}"
            )
    if kind == "SampleBatch" and batch.y is not None and batch.y.is_floating_point():
        raise InputError(f"the loader gives classes y of {batch.y.dtype}; give integers: y.long()")
    y = batch.y if kind == "SupervisedBatch" else None
    if isinstance(y, Tensor) and y.dim() < 2 and (numbers or y.is_floating_point()):
        raise InputError(
            f"the targets have shape {tuple(y.shape)}; give numbers a column per output: "
            "y.reshape(len(y), -1), and classes as integers: y.long()"
        )
    return batch


def check_shapes(preds: Any, target: Any) -> None:
    """Checks that numbers and their targets agree in shape, which a loss would broadcast.

    Raises:
        InputError: Naming both shapes.
    """
    numbers = (
        isinstance(preds, Tensor) and isinstance(target, Tensor) and target.is_floating_point()
    )
    if numbers and preds.shape != target.shape:
        raise InputError(
            f"the targets have shape {tuple(target.shape)} and the predictions "
            f"{tuple(preds.shape)}; give y a column per output: y.reshape(len(y), -1)"
        )


def one_row(batch: Any) -> bool:
    """Whether a batch is a single row of features, whose variance is zero."""
    rows = batch[0] if isinstance(batch, Sequence) else batch
    return isinstance(rows, Tensor) and rows.dim() == 2 and len(rows) == 1


def narrow(batch: Any) -> Any:
    """The batch for a device without float64."""
    return apply_to_collection(batch, Tensor, _narrow)


def _narrow(value: Tensor) -> Tensor:
    return value.float() if value.dtype == torch.float64 else value


def narrow_buffers(module: nn.Module) -> None:
    """Makes float64 buffers float32, for a device that has no other."""
    for part in module.modules():
        for name, buffer in part._buffers.items():
            if buffer is not None and buffer.dtype == torch.float64:
                part._buffers[name] = buffer.float()
