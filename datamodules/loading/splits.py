"""Seeded three-way splits of the rows of a table."""

from typing import Any

import numpy as np
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split

from datamodules.errors import InputError

Rows = np.ndarray[tuple[int], np.dtype[np.int64]]


def hold_out(
    rows: Rows, fraction: float, seed: int, labels: Rows | None = None
) -> tuple[Rows, Rows]:
    """Splits rows in two at random, stratified where labels are given.

    Args:
        rows: Row numbers.
        fraction: Share of the rows that is held out.
        seed: Seed of the split.
        labels: Class of each of ``rows``.

    Returns:
        Kept and held-out rows, each in ascending order.

    Raises:
        InputError: If one part would be empty, or a class is too rare to be in both.
    """
    if not 0 < fraction < 1:
        raise InputError(f"the share of a split must lie in (0, 1), got {fraction}")
    num_held_out = round(fraction * len(rows))
    if not 0 < num_held_out < len(rows):
        raise InputError(
            f"a share of {fraction} of {len(rows)} rows leaves a split empty; give more rows"
        )
    if labels is not None:
        classes, counts = np.unique(labels, return_counts=True)
        if counts.min() < 2:
            rare = classes[counts.argmin()]
            raise InputError(
                f"class {rare} has {counts.min()} row(s) to split; each split needs one: add rows"
            )
        if min(num_held_out, len(rows) - num_held_out) < len(classes):
            raise InputError(
                f"a share of {fraction} of {len(rows)} rows cannot hold all {len(classes)} classes"
            )
    kept, held_out = train_test_split(
        rows, test_size=num_held_out, random_state=seed, stratify=labels
    )
    return np.sort(kept), np.sort(held_out)


def folds(
    rows: Rows, num_folds: int, seed: int, labels: "np.ndarray[Any, Any] | None" = None
) -> list[Rows]:
    """Splits rows into parts of equal size at random, stratified where labels are given.

    Args:
        rows: Row numbers.
        num_folds: Number of parts.
        seed: Seed of the split.
        labels: Class of each of ``rows``.

    Raises:
        InputError: If there are fewer rows, or rows of a class, than parts.
    """
    fewest = len(rows) if labels is None else int(np.unique(labels, return_counts=True)[1].min())
    if fewest < num_folds:
        what = "rows" if labels is None else "rows of the rarest class"
        raise InputError(f"{fewest} {what} cannot fill {num_folds} folds; give fewer folds")
    make = KFold if labels is None else StratifiedKFold
    split = make(num_folds, shuffle=True, random_state=seed).split(rows, labels)
    return [rows[test] for _, test in split]
