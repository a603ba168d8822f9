"""Weights, gradients and optimizer state shared out over the processes (FSDP2).

Lightning's :class:`ModelParallelStrategy` leaves it to a model to say what is sharded. Here the
strategy says it for all models alike: the blocks of a deep network one by one, so that no more than
one of them is whole at a time, and what is around them with the model.

https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html
"""

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.optim import Optimizer

# What Lightning calls on a model that may run its network.
_HOOKS = (
    *("training_step", "validation_step", "test_step", "predict_step"),
    *("on_train_epoch_end", "on_validation_start", "on_test_epoch_end"),
)


class ShardedStrategy(ModelParallelStrategy):
    """Each process keeps an equal part of every weight, its gradient and its optimizer state.

    Args:
        save_distributed_checkpoint: Whether every process writes its part, and a checkpoint is a
            folder; else the parts are put together and a checkpoint is the one file of an
            unsharded run.
    """

    def __init__(self, save_distributed_checkpoint: bool = False) -> None:
        super().__init__(
            data_parallel_size="auto",
            tensor_parallel_size=1,
            save_distributed_checkpoint=save_distributed_checkpoint,
        )
        self._reads_parts = False

    def check(self, model: L.LightningModule) -> None:
        """Raises an InputError for a model that cannot be shared out, before processes start."""

    def setup_environment(self) -> None:
        """Starts the processes; the model is sharded once it is there."""
        processes = self.num_processes * self.num_nodes
        self._data_parallel_size = processes // int(self._tensor_parallel_size)
        super().setup_environment()
        assert self.lightning_module is not None
        self._share_out(self.lightning_module)

    def _share_out(self, model: L.LightningModule) -> None:
        mesh = self.device_mesh["data_parallel"]
        model.configure_model = partial(shard, model, mesh)  # type: ignore[method-assign]

    def setup_optimizers(self, trainer: L.Trainer) -> None:
        """Makes the optimizer; torch shards no fused kernel but Adam's (2.13.0)."""
        super().setup_optimizers(trainer)
        for optimizer in self.optimizers:
            if not isinstance(optimizer, torch.optim.Adam):
                for group in optimizer.param_groups:
                    group["fused"] = False

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """State of an optimizer; whole, it numbers the parameters as an unsharded run does.

        Lightning numbers them by their place in the model (2.6.6), torch by that in the groups.
        """
        if self._save_distributed_checkpoint:
            return super().optimizer_state(optimizer)
        assert self.model is not None
        plain = getattr(optimizer, "_optimizer", optimizer)
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state = get_optimizer_state_dict(self.model, plain, options=options)
        numbers = {name: number for number, name in enumerate(self._names(plain))}
        return _renamed(state, numbers) if self.is_global_zero else {}

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None
    ) -> None:
        """Saves; one process alone takes a folder of parts away that a file is to replace.

        Lightning lets all of them do so at once, and the second fails (2.6.6).
        """
        path = Path(self.broadcast(filepath))
        if not self._save_distributed_checkpoint:
            if self.is_global_zero and (path / ".metadata").is_file():
                shutil.rmtree(path)
            self.barrier()
        super().save_checkpoint(checkpoint, path, storage_options)

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Reads a file whole, so that model and callbacks may change it; a folder part by part."""
        self._reads_parts = Path(checkpoint_path).is_dir()
        if not self._reads_parts:
            return dict(self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=True))
        optimizers = self.optimizers
        if not self._fits():
            self.optimizers = []
        checkpoint = super().load_checkpoint(checkpoint_path, weights_only)
        self.optimizers = optimizers
        return checkpoint

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Shares out the weights of a file; those of a folder are in place."""
        if not self._reads_parts:
            assert self.model is not None
            options = StateDictOptions(full_state_dict=True, strict=strict)
            set_model_state_dict(self.model, checkpoint["state_dict"], options=options)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Whether :meth:`load_optimizer_state_dict` is to be called: not for a folder."""
        return not self._reads_parts

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Shares out the optimizer's state of a file."""
        assert self.model is not None
        options = StateDictOptions(full_state_dict=True)
        states = checkpoint["optimizer_states"]
        for optimizer, state in zip(self.optimizers, states, strict=True):
            named = _renamed(state, dict(enumerate(self._names(optimizer))))
            set_optimizer_state_dict(self.model, optimizer, named, options=options)

    def _fits(self) -> bool:
        trainer = self.lightning_module.trainer  # type: ignore[union-attr]
        return trainer.state.fn == TrainerFn.FITTING

    def _names(self, optimizer: Optimizer) -> list[str]:
        """Names of the parameters, group by group."""
        assert self.model is not None
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        return [names[p] for group in optimizer.param_groups for p in group["params"]]


def _renamed(state: Mapping[str, Any], names: Mapping[Any, Any]) -> dict[str, Any]:
    """An optimizer's state with other keys for its parameters."""
    groups = [
        {**group, "params": [names[key] for key in group["params"]]}
        for group in state["param_groups"]
    ]
    return {"state": {names[k]: v for k, v in state["state"].items()}, "param_groups": groups}


def check_shared(strategy: Strategy, model: L.LightningModule) -> bool:
    """Whether processes are to share a model's weights out; checks that they can.

    Raises:
        InputError: If they cannot.
    """
    if isinstance(strategy, ShardedStrategy):
        strategy.check(model)
    return isinstance(strategy, ShardedStrategy)


def shard(model: L.LightningModule, mesh: DeviceMesh) -> None:
    """Shards a model in place, once.

    Args:
        model: Its parameters become DTensors. A block with other methods that use its weights
            names them as ``forward_methods``; its ``forward`` calls none of them.
        mesh: The processes to share among.
    """
    if isinstance(model, FSDPModule):
        return
    for block in blocks(model):
        fully_shard(block, mesh=mesh)
        for name in getattr(block, "forward_methods", ()):
            register_fsdp_forward_method(block, name)
    name = type(model).__name__
    fully_shard(model, mesh=mesh)
    type(model).__name__ = name  # of the class torch makes; results and errors show it
    for name in _HOOKS:
        register_fsdp_forward_method(model, name)


def blocks(model: nn.Module) -> list[nn.Module]:
    """The repeated parts of a deep network: modules in a ``ModuleList`` that have modules."""
    return [
        block
        for parent in model.modules()
        if isinstance(parent, nn.ModuleList)
        for block in parent
        if any(True for _ in block.children()) and any(True for _ in block.parameters())
        if not isinstance(block, nn.ModuleList)
    ]
