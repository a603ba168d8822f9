"""Outputs of ``predict_step`` as the table users read."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from datamodules.files.whole_file import whole_file

if TYPE_CHECKING:
    import pandas as pd


def plain_frame(outputs: Mapping[str, Tensor]) -> "pd.DataFrame":
    """A row per sample and a column per output; a wide one becomes ``name_1``, ``name_2``, ...

    Args:
        outputs: Tensors ``(rows,)`` or ``(rows, columns)`` by name, in row order.
    """
    import pandas as pd  # a third of a second that a fit need not wait for

    columns: dict[str, np.ndarray[Any, Any]] = {}
    for name, tensor in outputs.items():
        narrow = tensor.dtype in (torch.bfloat16, torch.float16)
        values = tensor.float().numpy() if narrow else tensor.numpy()
        if values.ndim == 1 or values.shape[1] == 1:
            columns[name] = values.reshape(len(values))
        else:
            flat = values.reshape(len(values), -1)
            columns |= {f"{name}_{i + 1}": flat[:, i] for i in range(flat.shape[1])}
    return pd.DataFrame(columns)


def write_frame(outputs: Mapping[str, Tensor], folder: Path) -> Path:
    """Writes them to ``predictions.csv`` in a folder; returns the file."""
    path = folder / "predictions.csv"
    with whole_file(path) as file:
        plain_frame(outputs).to_csv(file, index=False)
    return path
