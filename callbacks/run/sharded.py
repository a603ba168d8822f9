"""Weights that are shared out among the processes, outside the steps of a fit."""

from collections.abc import Iterator
from contextlib import contextmanager

import lightning as L
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor


def takes_part(trainer: L.Trainer, pl_module: L.LightningModule) -> bool:
    """Whether this process runs the model for a figure: rank zero, and all that share weights."""
    return trainer.is_global_zero or is_shared(pl_module)


def is_shared(model: nn.Module) -> bool:
    """Whether the processes hold parts of the weights, which an evaluation may leave whole."""
    parts = any(isinstance(parameter, DTensor) for parameter in model.parameters())
    return parts or isinstance(model, FSDPModule)


@contextmanager
def whole_weights(pl_module: L.LightningModule) -> Iterator[None]:
    """Puts the weights of a sharded model together for calls beside its steps; on every rank."""
    for unit in _units(pl_module):
        unit.unshard()
    try:
        yield
    finally:
        reshard(pl_module)


def reshard(model: nn.Module) -> None:
    """Lets the parameters of a sharded model be its parts, which a forward pass leaves whole."""
    for unit in _units(model):
        unit.reshard()


def _units(model: nn.Module) -> list[FSDPModule]:
    return [unit for unit in model.modules() if isinstance(unit, FSDPModule)]
