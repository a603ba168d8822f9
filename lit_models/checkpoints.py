"""Checkpoints are read as data, never executed, and checked before a run begins."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from datamodules.errors import InputError


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Loads a checkpoint with ``weights_only=True``.

    Raises:
        InputError: If the file is truncated, no checkpoint, or holds more than plain data.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else "empty file"
        raise InputError(
            f"{path} is no readable checkpoint ({reason}); give an earlier one"
        ) from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise InputError(f"{path} is no Lightning checkpoint: it has no state_dict")
    return checkpoint


def check_compatible(path: Path, checkpoint: dict[str, Any], model: nn.Module) -> None:
    """Compares names and shapes of a checkpoint's weights with a model's.

    Raises:
        InputError: Naming the first weight that differs.
    """
    have, want = checkpoint["state_dict"], model.state_dict()
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
