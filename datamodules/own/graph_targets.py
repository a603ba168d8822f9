"""What the targets of a user's graphs are: classes, several labels at once, or numbers."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.errors import InputError
from datamodules.files.columns import LARGEST
from datamodules.files.notes import say
from datamodules.files.tables import Column, Table
from datamodules.graph_base import Level

Task = Literal["classification", "multilabel", "regression"]
UNKNOWN = -100  # a class that carries no loss
_FEW = 20  # whole numbers of so many values at most are taken for classes


class Targets(NamedTuple):
    """All targets of a set of graphs.

    Attributes:
        task: What a target is.
        y: Class of each, ``(M,)`` long, -100 where unknown; or its labels or numbers, ``(M, K)``
            float64, NaN where unknown.
        names: Names of the classes, labels or numbers.
    """

    task: Task
    y: Tensor
    names: list[str]

    @property
    def known(self) -> Tensor:
        """Where something is known of a target, ``(M,)``."""
        return self.y >= 0 if self.task == "classification" else self.y.isfinite().any(1)


def scale_of_targets(y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of numbers ``(M, K)``, NaN where unknown; 1 for one that is constant."""
    mean = y.nanmean(0)
    std = (y - mean).square().nanmean(0).sqrt()
    return mean, torch.where(std > 0, std, torch.ones_like(std))


def unknown_targets(task: Task, count: int, width: int) -> Tensor:
    """Targets of rows that only are to be predicted."""
    if task == "classification":
        return torch.full((count,), UNKNOWN)
    return torch.full((count, width), torch.nan, dtype=torch.float64)


def classes(cells: Sequence[str], names: Sequence[str] | None, where: str) -> Targets:
    """Targets that are classes, named by text; an empty text is unknown.

    Args:
        cells: Class of each target.
        names: Classes that a run knows; those of the cells when None.
        where: Place, for messages.

    Raises:
        InputError: If there are fewer than two, or one that the run does not know.
    """
    present = set(cells) - {""}
    if names is None:
        names = _sorted(present)
        if len(names) < 2:
            raise InputError(f"{where} needs at least two classes")
        if len(names) > max(sum(cell != "" for cell in cells) // 2, 2):
            raise InputError(
                f"{where} has {len(names)} classes in {len(cells)} targets; for a number add "
                "--data.task regression"
            )
    number = {name: k for k, name in enumerate(names)} | {"": UNKNOWN}
    new = _sorted(present - set(names))
    if new:
        raise InputError(f"{where} has a class {new[0]!r} that no training target has")
    y = torch.tensor([number[cell] for cell in cells], dtype=torch.long)
    return Targets("classification", y, list(names))


def _sorted(names: set[str]) -> list[str]:
    """Numbers by value, names by letters."""
    try:
        return sorted(names, key=lambda name: (float(name), name))
    except ValueError:
        return sorted(names)


def table_targets(
    table: Table, columns: Sequence[str], task: Task | None, known: dict[str, Any] | None
) -> Targets:
    """Targets of a table's rows.

    Args:
        table: The table.
        columns: Columns of the target.
        task: What a target is; decided by the columns when None.
        known: What a run knows of its targets: ``task`` and ``names``.

    Raises:
        InputError: If the columns are not of the task.
    """
    table.require(columns)
    where = f"{table.where}: {', '.join(map(repr, columns))}"
    if known is not None:
        task = known["task"]
    values = None
    if task is None or task != "classification":
        numeric = all(_is_number(table[name]) for name in columns)
        if task is not None and not numeric:
            raise InputError(f"{where} holds text; for classes add --data.task classification")
        if numeric:
            values = np.stack([table[name].numbers() for name in columns], axis=1)
    if task is None:
        task = "classification" if values is None else _task_of(values, where)
    if task == "classification":
        if len(columns) > 1:
            raise InputError(f"{where}: a node has one class; name one column in --data.target")
        cells = table[columns[0]].text().tolist()
        return classes(cells, None if known is None else known["names"], where)
    assert values is not None
    return _numbers(task, torch.from_numpy(values), list(columns), where)


def _is_number(column: Column) -> bool:
    """Whether a column of targets holds numbers; names such as 01 are classes."""
    zeros = any(len(cell) > 1 and cell[0] == "0" and cell.isdecimal() for cell in column.counts)
    return column.is_numeric or (not zeros and column.kind() == "number")


def _task_of(values: "np.ndarray[Any, Any]", where: str) -> Task:
    """What a table's columns of numbers are, said where it could be meant otherwise."""
    found = values[~np.isnan(values)]
    if values.shape[1] > 1:
        return "multilabel" if bool(np.isin(found, (0, 1)).all()) else "regression"
    if not bool((found == found.round()).all()):
        return "regression"
    distinct = len(np.unique(found))
    task: Task = "classification" if distinct <= _FEW else "regression"
    other = "regression" if task == "classification" else "classification"
    what = f"{distinct} classes" if task == "classification" else "a number"
    say(f"{where} is read as {what}; otherwise add --data.task {other}")
    return task


def _numbers(task: Task, y: Tensor, names: list[str], where: str) -> Targets:
    y = y.double()
    if bool(y.isinf().any()):
        raise InputError(f"{where} has an infinite value; a target is finite, or empty if unknown")
    if bool((y.abs() > LARGEST).any()):
        raise InputError(f"{where} has a value beyond {LARGEST:g}; give it in a larger unit")
    if not bool(y.isfinite().any()):
        raise InputError(f"{where} has no value; give the targets to train on")
    if task == "multilabel" and not bool(((y == 0) | (y == 1) | y.isnan()).all()):
        raise InputError(f"{where}: labels are 0, 1 or unknown; for numbers use task regression")
    return Targets(task, y, names)


def level_of(graphs: Sequence[Any], sizes: Sequence[int], where: str) -> Level:
    """Whether targets belong to nodes or to graphs, by the shape of ``y``.

    Raises:
        InputError: If there is no ``y``, or it fits neither.
    """
    if len(graphs) == 1:
        return "node"
    rows = [_rows(graph.y) if getattr(graph, "y", None) is not None else 0 for graph in graphs]
    if rows == list(sizes) and set(sizes) != {1}:
        return "node"
    return "graph"


def _rows(y: Any) -> int:
    return len(y) if isinstance(y, Tensor) and y.dim() else 1


def saved_targets(
    graphs: Sequence[Any],
    sizes: Sequence[int],
    level: Level,
    task: Task | None,
    known: dict[str, Any] | None,
    where: str,
) -> Targets:
    """Targets of saved graphs, ``y`` in any of the forms that torch-geometric's data have.

    Args:
        graphs: The graphs.
        sizes: Number of nodes of each.
        level: Whether targets belong to nodes or graphs.
        task: What a target is; decided by their type when None: whole numbers are classes, several
            columns of 0 and 1 labels, all else numbers.
        known: What a run knows of its targets: ``task`` and ``names``.
        where: Place, for messages.

    Raises:
        InputError: Naming the graph whose ``y`` does not fit.
    """
    parts = []
    for k, (graph, size) in enumerate(zip(graphs, sizes, strict=True)):
        parts.append(_columns(getattr(graph, "y", None), level, size, f"{where}, graph {k}"))
    widths = {part.shape[1] for part in parts}
    if len(widths) > 1:
        raise InputError(f"{where}: y has {min(widths)} columns in one graph and {max(widths)}")
    whole = all(not part.is_floating_point() for part in parts)
    y = torch.cat([part.double() for part in parts])
    task = known["task"] if known is not None else task
    if task is None:
        binary = bool(((y == 0) | (y == 1) | y.isnan()).all())
        if y.shape[1] > 1:
            task = "multilabel" if binary else "regression"
        else:
            task = "classification" if whole or binary else "regression"
    if task != "classification":
        return _numbers(task, y, [f"y_{k}" for k in range(y.shape[1])], f"{where}: y")
    known_y = y[~(y.isnan() | (y < 0))]
    if y.shape[1] > 1 or not bool((known_y == known_y.round()).all()):
        raise InputError(f"{where}: y must hold one whole number, a class, per {level}")
    cells = ["" if not value >= 0 else str(int(value)) for value in y[:, 0].tolist()]
    return classes(cells, None if known is None else known["names"], f"{where}: y")


def _columns(y: Any, level: Level, size: int, where: str) -> Tensor:
    """Targets of one graph, ``(N, K)`` or ``(1, K)``."""
    if y is None:
        raise InputError(f"{where} has no y; give the target of each {level}")
    values: Tensor = torch.as_tensor(y)
    if level == "graph":
        return values.reshape(1, -1)
    if values.dim() == 0 or len(values) != size or values.dim() > 2:
        raise InputError(f"{where}: y has shape {tuple(values.shape)} for {size} nodes")
    return values.reshape(size, -1)
