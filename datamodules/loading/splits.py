"""Seeded three-way splits of the rows of a table."""

import numpy as np
from sklearn.model_selection import train_test_split

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
