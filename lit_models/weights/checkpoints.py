"""Checkpoints are read as data, never executed, and checked before a run begins."""

import io
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from datamodules.errors import InputError
from datamodules.files.torch_file import load_plain
from datamodules.files.whole_file import whole_file

# What Lightning calls the file beside the parts of several processes.
_BESIDE_PARTS = "meta.pt"
# What a fit continues from, beside the weights.
_PROGRESS = ("global_step", "loops", "optimizer_states", "lr_schedulers", "callbacks")


class WholeCheckpointIO(TorchCheckpointIO):
    """Saves a checkpoint whole or not at all.

    Lightning writes into the system's folder for temporary files and moves the file from there,
    which copies it where that is another file system: a full disk then leaves half a checkpoint in
    the place of a good one (lightning 2.6.6).
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Writes the file beside its place and moves it there.

        Raises:
            OSError: If it cannot be written; the file that stood there stays.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with whole_file(path, "wb") as file:
            file.write(content.getbuffer())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Loads a checkpoint as plain data; of a folder of parts what stands beside the weights.

    Raises:
        InputError: If the file is truncated, no checkpoint, or holds more than plain data.
    """
    if path.is_dir():
        return dict(load_plain(path / _BESIDE_PARTS, "checkpoint", "give an earlier one"))
    checkpoint = load_plain(path, "checkpoint", "give an earlier one")
    found: dict[str, Any] = checkpoint if isinstance(checkpoint, dict) else {}
    weights = found.get("state_dict")
    if not isinstance(weights, dict) or not all(isinstance(w, Tensor) for w in weights.values()):
        raise InputError(f"{path} is no Lightning checkpoint: it has no state_dict of tensors")
    return found


def check_resumable(path: Path, checkpoint: dict[str, Any], optimizer: str | None = None) -> None:
    """Checks that a checkpoint holds where its run stood, and that it can be gone on from.

    Args:
        path: The file.
        checkpoint: What it holds.
        optimizer: Name of the class of the optimizer at hand.

    Raises:
        InputError: Naming what it lacks, or the optimizer whose state it holds.
    """
    for name in _PROGRESS:
        if name not in checkpoint and not (path.is_dir() and name == "optimizer_states"):
            raise InputError(
                f"{path} holds weights alone, without {name!r}; give a last.ckpt to continue from"
            )
    known = checkpoint["callbacks"].get("OptimizerOptions", {}).get("classes") or [optimizer]
    if optimizer not in (None, *known):
        raise InputError(
            f"{path} holds the state of {known[0]}, from which {optimizer} cannot go on; leave "
            "--model.optimizer out, or fit a new run"
        )


def check_compatible(
    path: Path, checkpoint: dict[str, Any], model: nn.Module, sharded: bool = False
) -> None:
    """Compares names and shapes of a checkpoint's weights with a model's.

    Args:
        path: The checkpoint.
        checkpoint: What :func:`read_checkpoint` found there.
        model: The model.
        sharded: Whether the run shares its weights out, and so reads a folder of parts itself.

    Raises:
        InputError: Naming the first weight that differs.
    """
    if path.is_dir():
        if not sharded:
            raise InputError(f"{path} holds the parts of several processes; add --config fsdp")
        return
    found = {**checkpoint, "state_dict": dict(checkpoint["state_dict"])}
    if isinstance(model, L.LightningModule):
        model.on_load_checkpoint(found)  # it may know the weights of an earlier version
    have, want = found["state_dict"], model.state_dict()
    fix = "use the options of the run it comes from"
    for name in want:
        if name not in have:
            raise InputError(f"{path} lacks the weight {name!r} of {type(model).__name__}; {fix}")
        if have[name].shape != want[name].shape:
            shapes = f"{tuple(have[name].shape)}, the model has {tuple(want[name].shape)}"
            raise InputError(f"{path}: weight {name!r} has shape {shapes}; {fix}")
    surplus = next((name for name in have if name not in want), None)
    if surplus is not None:
        raise InputError(f"{path} holds the weight {surplus!r}, unknown to the model; {fix}")
