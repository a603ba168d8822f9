"""The rows of a table as arrays, and batches of them as models see them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.batches import SupervisedBatch
from datamodules.errors import InputError
from datamodules.files.columns import Column
from datamodules.files.notes import say
from datamodules.files.table_encoding import Encoding, Missing, codes_of, numbers_of
from datamodules.files.tables import Table
from datamodules.loading.loader import TensorLoader
from datamodules.loading.splits import Rows

Array = np.ndarray[Any, Any]


class Encoded(NamedTuple):
    """Some rows of a table as a model may take them.

    Attributes:
        numbers: Numbers in the file's units, ``(rows, columns)`` float64.
        codes: Codes of the categories, ``(rows, C)``, in the smallest type.
        y: Classes ``(rows,)`` or numbers ``(rows, K)``; None where the file has no target.
        row: Number of each row among the file's rows, from 0.
        weight: Weight of each row, ``(rows,)``; None where all weigh the same.
    """

    numbers: Array
    codes: Array
    y: Array | None
    row: Rows
    weight: Array | None = None

    def batch(self, num_targets: int) -> SupervisedBatch:
        """All rows, categories as codes; unknown targets are -1 for a class and NaN for numbers.

        Args:
            num_targets: Number of numbers to predict; 0 for a class.
        """
        if self.y is not None:
            y = torch.from_numpy(self.y)
        elif num_targets:
            y = torch.full((len(self.row), num_targets), torch.nan)
        else:
            y = torch.full((len(self.row),), -1)
        codes = torch.from_numpy(self.codes) if self.codes.shape[1] else None
        weight = None if self.weight is None else torch.from_numpy(self.weight)
        return SupervisedBatch(torch.from_numpy(self.numbers), y, codes, weight)


def encode_features(
    table: Table, encodings: Sequence[Encoding], splits: Sequence[Rows], missing: Missing
) -> list[tuple[Array, Array]]:
    """Numbers and codes of some splits' rows, each column read once.

    Args:
        table: The table.
        encodings: How each column enters.
        splits: Rows of each split.
        missing: What becomes of a missing value.

    Returns:
        Numbers ``(rows, columns)`` and codes ``(rows, C)`` of each split.
    """
    table.require([encoding.name for encoding in encodings])
    width = sum(encoding.num_numbers for encoding in encodings)
    levels = [encoding.num_levels for encoding in encodings if encoding.num_levels]
    kind = np.dtype(np.uint8) if max(levels, default=0) < 256 else np.dtype(np.int32)
    made = [
        (np.empty((len(rows), width)), np.empty((len(rows), len(levels)), dtype=kind))
        for rows in splits
    ]
    number = category = filled = columns = others = strange = 0
    for encoding in encodings:
        if encoding.kind == "category":
            column_codes = codes_of(table[encoding.name], encoding)
            for (_, codes), rows in zip(made, splits, strict=True):
                codes[:, category] = column_codes[rows]
                found = int((codes[:, category] == encoding.num_levels - 1).sum())
                others += found if encoding.others else 0
            strange += encoding.others and bool((column_codes == encoding.num_levels - 1).any())
            category += 1
            continue
        values, gone = numbers_of(table[encoding.name], encoding, missing)
        for (numbers, _), rows in zip(made, splits, strict=True):
            numbers[:, number : number + values.shape[1]] = values[rows]
        number += values.shape[1]
        filled, columns = filled + gone, columns + (gone > 0)
    if filled and missing == "fill":
        say(f"{filled} missing numbers in {columns} columns filled with training medians")
    if others:
        say(f"{others} cells in {strange} columns hold rare or unseen categories, together <other>")
    return made


def encode_targets(
    table: Table, targets: Sequence[str], class_names: Sequence[str], rows: Rows, missing: Missing
) -> Array:
    """Classes ``(rows,)``, or numbers ``(rows, K)`` where there are no names of classes.

    Raises:
        InputError: Naming a target that is missing, no number or no class of training.
    """
    table.require(targets)
    if class_names:
        return encode_classes(table[targets[0]], class_names, rows)
    fill = missing != "error"
    columns = (table[name].numbers(look_missing=fill, complete=not fill) for name in targets)
    return np.stack([column[rows] for column in columns], axis=1)


def check_not_constant(where: str, targets: Sequence[str], y: Array) -> None:
    """Checks that the training targets ``(rows, K)`` vary.

    Raises:
        InputError: Naming the first that does not.
    """
    same = np.flatnonzero((y == y[:1]).all(axis=0)) if len(y) else y[:0]
    if len(same):
        name, value = targets[int(same[0])], y[0, int(same[0])]
        raise InputError(f"{where}: {name!r} is {value:g} in all training rows")


def class_balance(labels: Rows, num_classes: int) -> Array:
    """Weight of each class by which all count alike and a training row counts 1 on average."""
    share = np.bincount(labels, minlength=num_classes)
    return np.asarray(share.sum() / (num_classes * np.maximum(share, 1)))


def encode_classes(column: Column, names: Sequence[str], rows: Rows) -> Rows:
    """Class of some rows.

    Raises:
        InputError: Naming the first row of a class that training does not have.
    """
    classes = classes_of(column.text(), names)[rows]
    if (classes < 0).any():
        row = int(rows[np.flatnonzero(classes < 0)[0]])
        raise InputError(f"{column.at(row)} is {column.text()[row]!r}, no class of training")
    return classes


def classes_of(cells: Array, names: Sequence[str]) -> Rows:
    """Number of each cell's class; -1 for none."""
    number = {name: index for index, name in enumerate(names)}
    return np.array([number.get(cell, -1) for cell in cells], dtype=np.int64)


def row_weights(column: Column, rows: Rows) -> Array:
    """Weights of some rows, their mean 1.

    Raises:
        InputError: Naming a cell that is no weight.
    """
    values = column.numbers(complete=True)[rows]
    if (values < 0).any():
        row = int(rows[np.flatnonzero(values < 0)[0]])
        raise InputError(f"{column.at(row)} is {column.text()[row]!r}; a weight is not negative")
    if not values.any():
        raise InputError(f"all weights in {column.name!r} are zero; leave --data.weight out")
    return np.asarray(values / values.mean())


def one_hot(batch: SupervisedBatch, widths: Sequence[int]) -> SupervisedBatch:
    """Rows as models see them: each category as one column per level, in the file's order.

    Args:
        batch: Rows with codes.
        widths: 1 for a number, minus the number of levels for a category, in order.
    """
    if batch.categories is None:
        return batch
    x = batch.x.new_zeros(len(batch.x), sum(map(abs, widths)))
    start = number = category = 0
    for width in widths:
        if width < 0:
            codes = batch.categories[:, category : category + 1].long()
            x[:, start : start - width].scatter_(1, codes, 1.0)
            category += 1
        else:
            x[:, start] = batch.x[:, number]
            number += 1
        start += abs(width)
    return batch._replace(x=x, categories=None)


class OneHotLoader(TensorLoader[SupervisedBatch]):
    """Batches of a table, its codes turned into one column per category as each batch is fetched.

    Args:
        widths: As of :func:`one_hot`.
        args: As of :class:`TensorLoader`.
        kwargs: As of :class:`TensorLoader`.
    """

    def __init__(self, widths: Sequence[int], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._widths = widths

    def fetch(self, order: Tensor, batch_idx: int) -> SupervisedBatch:
        """This rank's share of a batch, as models see it."""
        return one_hot(super().fetch(order, batch_idx), self._widths)


def column_scale(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column; a constant one keeps its unit."""
    mean = values.double().mean(0)
    std = values.double().std(0, correction=0)
    return mean, torch.where(std > 0, std, torch.ones_like(std))


def scale_of(train: SupervisedBatch, widths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the columns that models see.

    Args:
        train: The training rows, categories as codes.
        widths: As of :func:`one_hot`.
    """
    mean, std = column_scale(train.x)
    means, stds, number, category = [], [], 0, 0
    for width in widths:
        if width > 0:
            means.append(mean[number : number + 1])
            stds.append(std[number : number + 1])
            number += 1
            continue
        assert train.categories is not None
        codes = train.categories[:, category].long()
        share = torch.bincount(codes, minlength=-width).double() / len(codes)
        spread = (share * (1 - share)).sqrt()
        means.append(share)
        stds.append(torch.where(spread > 0, spread, torch.ones_like(spread)))
        category += 1
    return torch.cat(means), torch.cat(stds)
