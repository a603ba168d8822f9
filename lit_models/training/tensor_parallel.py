"""Every layer of a transformer shared out over the processes (tensor parallelism).

The processes see the same rows. Each holds some heads of every self-attention and some units of
every feed-forward network, and they add up their parts of the two outputs (Shoeybi et al.,
"Megatron-LM", 2019), by torch's own plans:
https://docs.pytorch.org/docs/stable/distributed.tensor.parallel.html

The three input projections of an attention are one matrix here, whose rows torch's plan cuts in
equal parts, whatever head they belong to: so their outputs are exchanged before each process
attends with its own heads. Embeddings, norms, heads of the task and attention to another sequence
are whole on every process.
"""

from functools import partial
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    parallelize_module,
)
from torchmetrics import Metric

from datamodules.errors import InputError
from lit_models.layers.attention import MultiHeadAttention
from lit_models.training.sharding import ShardedStrategy


class TensorParallelStrategy(ShardedStrategy):
    """Each process keeps some heads of every attention and some units of every network.

    Args:
        save_distributed_checkpoint: Whether every process writes its part, and a checkpoint is a
            folder; else the parts are put together and a checkpoint is the one file of one process.
    """

    @property
    def world_size(self) -> int:
        """Number of shares of a batch: one, once the processes are there."""
        return super().world_size if self._device_mesh is None else 1

    def check(self, model: L.LightningModule) -> None:
        """Checks that the processes can share the model's layers out.

        Raises:
            InputError: If it has none to share, or their heads or units do not divide.
        """
        processes = self.num_processes * self.num_nodes
        shared = _shared(model)
        if not any(isinstance(module, MultiHeadAttention) for _, module in shared):
            raise InputError(
                f"tensor_parallel shares out the attention of a transformer; "
                f"{type(model).__name__} has none: take --config fsdp or ddp"
            )
        for name, module in shared:
            heads = isinstance(module, MultiHeadAttention)
            count = module.num_heads if heads else _units(module)
            if count % processes:
                raise InputError(
                    f"{name}: {processes} processes cannot share {count} "
                    f"{'heads' if heads else 'units'} out evenly"
                )

    def setup_environment(self) -> None:
        """Starts the processes; the model is shared out once it is there."""
        self._device_mesh = None  # that of a fit; the test after it has one of its own
        self._tensor_parallel_size = self.num_processes * self.num_nodes
        super().setup_environment()

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        """Whether all processes, or any, say yes; Lightning counts the shares of a batch."""
        votes = self.reduce(torch.tensor(int(decision), device=self.root_device), reduce_op="sum")
        return int(votes) == self.device_mesh.size() if all else bool(votes)

    def _share_out(self, model: L.LightningModule) -> None:
        mesh = self.device_mesh["tensor_parallel"]
        model.configure_model = partial(parallelize, model, mesh)  # type: ignore[method-assign]

    def setup_optimizers(self, trainer: L.Trainer) -> None:
        """Makes the optimizer; no kernel takes shared and whole weights at once (torch 2.13.0)."""
        super().setup_optimizers(trainer)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["fused"] = group["foreach"] = False


def parallelize(model: L.LightningModule, mesh: DeviceMesh) -> None:
    """Shares the layers of a transformer out, once.

    Args:
        model: The weights of its self-attention and feed-forward networks become DTensors.
        mesh: The processes to share among.
    """
    if any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        return
    for module in model.modules():
        if isinstance(module, Metric):  # each process has seen every row
            module.distributed_available_fn = _never
    for _, module in _shared(model):
        parallelize_module(module, mesh, _plan(module))
        if isinstance(module, MultiHeadAttention):
            module.in_proj.register_forward_hook(partial(_own_heads, module.head_size))
            module.num_heads //= mesh.size()


def _never() -> bool:
    return False


def _shared(model: nn.Module) -> list[tuple[str, Any]]:
    """Self-attentions and feed-forward networks by name."""
    found = []
    for name, module in model.named_modules():
        leaf = name.rpartition(".")[2]
        attends = isinstance(module, MultiHeadAttention) and not leaf.startswith("cross")
        if attends or (leaf == "feed_forward" and isinstance(module, nn.Sequential)):
            found.append((name, module))
    return found


def _units(network: Any) -> int:
    units: int = network[0].out_features
    return units


def _plan(module: nn.Module) -> dict[str, ParallelStyle]:
    if isinstance(module, MultiHeadAttention):
        whole = ColwiseParallel(output_layouts=Replicate(), use_local_output=False)
        return {"in_proj": whole, "out_proj": RowwiseParallel()}
    return {"0": ColwiseParallel(), "2": RowwiseParallel()}


def _own_heads(head_size: int, in_proj: nn.Module, args: Any, projected: DTensor) -> Tensor:
    """Queries, keys and values of this process's heads, side by side: ``(B, T, 3 D / N)``."""
    parts = projected.view(*projected.shape[:2], 3, -1, head_size)
    assert isinstance(parts, DTensor)
    by_head = parts.redistribute(placements=[Shard(3)])
    own: Tensor = by_head.to_local()
    return own.flatten(2)
