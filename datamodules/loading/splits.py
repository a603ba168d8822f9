"""Seeded three-way splits of the rows of a table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import GroupShuffleSplit, KFold, StratifiedKFold, train_test_split

from datamodules.errors import InputError

Rows = np.ndarray[tuple[int], np.dtype[np.int64]]


def hold_out(
    rows: Rows,
    fraction: float,
    seed: int,
    labels: Rows | None = None,
    names: Sequence[str] = (),
) -> tuple[Rows, Rows]:
    """Splits rows in two at random, stratified where labels are given.

    Args:
        rows: Row numbers.
        fraction: Share of the rows that is held out.
        seed: Seed of the split.
        labels: Class of each of ``rows``.
        names: Names of the classes, for messages.

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
            number = int(classes[counts.argmin()])
            rare = names[number] if names else number
            raise InputError(
                f"class {rare!r} has {counts.min()} row(s) to split; each split needs one: add rows"
            )
        if min(num_held_out, len(rows) - num_held_out) < len(classes):
            raise InputError(
                f"a share of {fraction} of {len(rows)} rows cannot hold all {len(classes)} "
                "classes; give more rows or another share"
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


def group_out(
    rows: Rows, fraction: float, seed: int, groups: "np.ndarray[Any, Any]"
) -> tuple[Rows, Rows]:
    """Splits rows in two so that no group has rows in both.

    Args:
        rows: Row numbers.
        fraction: Share of the groups that is held out.
        seed: Seed of the split.
        groups: Group of each of ``rows``.

    Returns:
        Kept and held-out rows, each in ascending order.

    Raises:
        InputError: If there are too few groups.
    """
    if len(np.unique(groups)) < 2:
        raise InputError("a split by groups needs at least three groups; give more, or leave it")
    splitter = GroupShuffleSplit(1, test_size=fraction, random_state=seed)
    kept, held_out = next(splitter.split(rows, groups=groups))
    return np.sort(rows[kept]), np.sort(rows[held_out])


def latest_out(rows: Rows, fraction: float, times: "np.ndarray[Any, Any]") -> tuple[Rows, Rows]:
    """Splits rows in two: the latest are held out, and equal times stay together.

    Args:
        rows: Row numbers.
        fraction: Share of the rows that is held out, at most.
        times: Time of each of ``rows``.

    Returns:
        Kept and held-out rows, each in ascending order.

    Raises:
        InputError: If one part would be empty.
    """
    order = np.sort(times)
    late = times > order[len(order) - round(fraction * len(order)) - 1]
    if not late.any() or late.all():
        raise InputError(f"a share of {fraction} of the times leaves a split empty; give more rows")
    return np.sort(rows[~late]), np.sort(rows[late])


def given_rows(path: Path, split: int, num_rows: int) -> Rows:
    """Row numbers of one line of a file, each once and ascending.

    Args:
        path: File with one line of row numbers (from 0) per split.
        split: Which line, from 0.
        num_rows: Number of rows of the table.

    Raises:
        InputError: If there is no such file or line, or it holds no row numbers.
    """
    if not path.is_file():
        raise InputError(f"no file {str(path)!r}; test_rows holds one line per split")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path} ({error}); test_rows holds numbers") from error
    if not 0 <= split < len(lines):
        raise InputError(f"{path} has {len(lines)} splits; split {split} is none")
    try:
        rows = np.array([int(word) for word in lines[split].split()], dtype=np.int64)
    except ValueError as error:
        raise InputError(f"{path}, line {split + 1}: {error}") from error
    if len(rows) == 0 or rows.min() < 0 or rows.max() >= num_rows:
        raise InputError(f"{path}, line {split + 1}: row numbers must lie in [0, {num_rows - 1}]")
    return np.unique(rows)
