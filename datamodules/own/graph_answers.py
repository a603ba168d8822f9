"""What a run on a user's graphs is compared with and answers: baselines, columns, hashes."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from datamodules.base import Reference, Split
from datamodules.own.graph_targets import Targets, Task

Array = np.ndarray[Any, Any]


def trivial_scores(targets: Targets, train: Tensor, test: Tensor) -> dict[str, Reference]:
    """Scores of the most frequent class, mean or share of the training targets.

    Args:
        targets: All targets.
        train: Numbers of the training targets.
        test: Numbers of the test targets.
    """
    known, asked = targets.y[train], targets.y[test]
    if targets.task == "classification":
        counts = torch.bincount(known, minlength=len(targets.names)).double()
        accuracy = (asked == counts.argmax()).double().mean().item()
        loss = -(counts / counts.sum())[asked].log().mean().item()
        return {
            "test/accuracy": Reference(accuracy, "most frequent training class"),
            "test/cross_entropy": Reference(loss, "class shares of the training targets"),
        }
    mean = known.nanmean(0)
    if targets.task == "regression":
        error, how = (asked - mean)[asked.isfinite()], "mean of the training targets"
        return {
            "test/mse": Reference(error.square().mean().item(), how),
            "test/mae": Reference(error.abs().mean().item(), how),
        }
    share = mean.clamp(1e-6, 1 - 1e-6).expand_as(asked)
    losses = -torch.where(asked == 1, share.log(), (1 - share).log())
    value = losses[asked.isfinite()].mean().item()
    return {"test/cross_entropy": Reference(value, "share of each label in training")}


def answers(outputs: Mapping[str, Tensor], task: Task, names: Sequence[str]) -> pd.DataFrame:
    """The outputs of ``predict_step`` as columns named by classes, labels or numbers."""
    if task == "classification":
        labels = np.array([*names, ""], dtype=object)
        target = np.where(outputs["target"] < 0, len(names), outputs["target"])
        columns: dict[str, Any] = {"class": labels[outputs["class"]], "target": labels[target]}
        for k, name in enumerate(names):
            columns[f"probability_{name}"] = outputs["probability"][:, k].float().numpy()
        return pd.DataFrame(columns)
    what = "prediction" if task == "regression" else "probability"
    short = what == "prediction" and len(names) == 1
    columns = {}
    for key in (what, "target"):
        for k, name in enumerate(names):
            column = key if short else f"{key}_{name}"
            columns[column] = outputs[key].reshape(-1, len(names))[:, k].double().numpy()
    return pd.DataFrame(columns)


def with_nodes(
    frame: pd.DataFrame,
    rows: Array,
    sizes: Sequence[int],
    ids: Sequence[str] | None,
    splits: Mapping[Split, Array] | None,
) -> pd.DataFrame:
    """Answers beside the graph, the node and the split of each.

    Args:
        frame: A row per answer.
        rows: Number of each one's node, counted over all graphs.
        sizes: Number of nodes of each graph.
        ids: Names of the nodes of the one graph; their numbers in their graphs when None.
        splits: Numbers of each split's rows; no column when None.
    """
    graph = np.repeat(np.arange(len(sizes)), sizes)
    starts = np.cumsum(sizes) - sizes
    frame.insert(0, "node", ids or rows - starts[graph[rows]])
    if len(sizes) > 1:
        frame.insert(0, "graph", graph[rows])
    if splits is not None:
        names = np.full(len(frame), "", dtype=object)
        for split, of_split in splits.items():
            names[of_split] = split
        frame.insert(1, "split", names)
    return frame


def hash_bytes(*tensors: Tensor, name: str = "") -> int:
    """A 64-bit hash of tensors and a name."""
    digest = hashlib.blake2b(name.encode(), digest_size=8)
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().tobytes())
    return int.from_bytes(digest.digest(), "little")
