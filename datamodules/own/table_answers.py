"""Predictions of a table's rows in the file's own names."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from datamodules.files.frames import plain_frame


def number_frame(columns: Mapping[str, Tensor], targets: Sequence[str]) -> pd.DataFrame:
    """Predicted numbers; those of several targets are named after them.

    Args:
        columns: Outputs of the model, ``(rows,)`` or ``(rows, K)``.
        targets: Names of the K targets.
    """
    frame = plain_frame(columns)
    if len(targets) > 1:
        frame.columns = [_of_target(name, targets) for name in frame.columns]
    return frame


def _of_target(column: str, targets: Sequence[str]) -> str:
    """``prediction_2`` as the prediction of the second target."""
    what, _, number = column.rpartition("_")
    is_one = number.isdecimal() and 1 <= int(number) <= len(targets)
    return f"{what}_{targets[int(number) - 1]}" if is_one else column


def class_frame(columns: Mapping[str, Tensor], class_names: Sequence[str]) -> pd.DataFrame:
    """Predicted classes, a probability each, and sets of classes, in the file's own names.

    Args:
        columns: Outputs of the model, ``(rows,)`` or ``(rows, K)``.
        class_names: Names of the K classes.
    """
    names = np.array(class_names, dtype=object)
    frame = pd.DataFrame({k: names[columns[k]] for k in ("class", "target") if k in columns})
    probability = columns["probability"].float().numpy()
    for k, name in enumerate(class_names):
        frame[f"probability_{name}"] = probability[:, k]
    sets = [name for name in columns if name.startswith("conformal_set_")]
    for name in sets:
        frame[name] = [" | ".join(names[held]) for held in columns[name].numpy()]
    taken = {*frame, *sets, "probability"}
    rest = {name: column for name, column in columns.items() if name not in taken}
    return pd.concat([frame, plain_frame(rest)], axis=1)
