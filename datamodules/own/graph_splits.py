"""Splits of a user's targets: given ones, shares of them, or folds."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.base import Split
from datamodules.errors import InputError
from datamodules.graph_base import Level
from datamodules.loading.splits import folds, hold_out
from datamodules.own.graph_targets import Targets

Array = np.ndarray[Any, Any]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class Shares(NamedTuple):
    """How rows are split.

    Attributes:
        val_fraction: Share of what the test leaves, for validation.
        test_fraction: Share for the test.
        folds: Number of parts, in place of the shares; None for shares.
        fold: Part that is the test; the next validates.
        seed: Seed of the split.
    """

    val_fraction: float
    test_fraction: float
    folds: int | None
    fold: int
    seed: int

    def split(self, rows: Array, labels: Array | None) -> dict[Split, Array]:
        """Rows of each split, by class where labels are given."""
        if self.folds is not None:
            parts = folds(rows, self.folds, self.seed, labels)
            val = (self.fold + 1) % self.folds
            kept = [part for k, part in enumerate(parts) if k not in (self.fold, val)]
            train = np.sort(np.concatenate(kept))
            return {"train": train, "val": parts[val], "test": parts[self.fold]}
        of = dict(zip(rows.tolist(), labels.tolist(), strict=True)) if labels is not None else {}
        rest, test = hold_out(rows, self.test_fraction, self.seed, labels)
        left = np.array([of[row] for row in rest.tolist()]) if of else None
        train, validation = hold_out(rest, self.val_fraction, self.seed, left)
        return {"train": train, "val": validation, "test": test}


def split_targets(
    targets: Targets,
    graph: Array,
    level: Level,
    masks: list[dict[str, Tensor]] | None,
    shares: Shares,
    where: str,
) -> dict[Split, Array]:
    """Numbers of each split's targets.

    Args:
        targets: All targets.
        graph: Graph of each, ``(M,)`` ascending.
        level: What a target belongs to.
        masks: Given splits of each graph's nodes.
        shares: How targets, or whole graphs where there are several, are split without them.
        where: Place, for messages.

    Raises:
        InputError: If a split is empty, or lacks what it needs.
    """
    known = targets.known.numpy()
    if masks is not None:
        found: dict[Split, Array] = {
            split: torch.cat([mask[split] for mask in masks]).nonzero()[:, 0].numpy()
            for split in SPLITS
        }
    else:
        by_graph = graph[-1] > 0
        groups = np.unique(graph[known]) if by_graph else np.flatnonzero(known)
        one_each = not by_graph or level == "graph"
        classes = one_each and targets.task == "classification"
        parts = shares.split(groups, targets.y.numpy()[groups] if classes else None)
        keep = graph if by_graph else np.arange(len(known))
        found = {s: np.flatnonzero(np.isin(keep, rows) & known) for s, rows in parts.items()}
    _check(found, targets, known, level, where)
    return found


def _check(
    found: dict[Split, Array], targets: Targets, known: Array, level: Level, where: str
) -> None:
    for split, rows in found.items():
        if len(rows) == 0:
            raise InputError(f"{where}: the {split} split has no {level}")
        if not known[rows].all():
            what = "class" if targets.task == "classification" else "target"
            raise InputError(f"{where}: a {level} of the {split} split has no {what}")
    if targets.task == "classification":
        y = targets.y.numpy()
        unseen = np.setdiff1d(y[y >= 0], y[found["train"]])
        if len(unseen):
            raise InputError(f"{where}: class {targets.names[unseen[0]]!r} has no training {level}")
