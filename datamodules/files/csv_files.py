"""Checked reading of delimited files as frames of exact text.

Every complaint names the file, the row or column, and the fix. Row numbers in messages count the
header as row 1, as spreadsheets and editors do. :mod:`datamodules.files.tables` reads; these are
its columns as a frame, for readers that join, filter and index.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from datamodules.files.tables import Column, Piece, Table, as_piece, read_table

Array = np.ndarray[Any, Any]


def read_csv(path: str | Path) -> pd.DataFrame:
    """Reads a delimited file with a header.

    Args:
        path: The file.

    Returns:
        The exact cells as text; None where a cell is empty, and nowhere else.

    Raises:
        InputError: If the file is missing, empty, not text, or has no, repeated or too many column
            names, or rows of different lengths.
    """
    return read_table(path).frame()


def column_of(frame: pd.DataFrame, path: str | Path, name: str) -> Column:
    """A column of a frame that :func:`read_csv` gave, with its exact text and its numbers."""
    cells = ["" if cell is None or cell != cell else str(cell) for cell in frame[name].tolist()]
    pieces: list[Piece] = [as_piece(cells)] if cells else []
    rows = frame.attrs.get("rows", lambda index: index + 2)
    decimal = frame.attrs.get("decimals", {}).get(name, ".")
    return Column(name, pieces, str(path), rows, decimal)


def require_columns(frame: pd.DataFrame, path: str | Path, names: list[str]) -> None:
    """Checks that a table has the columns a user named.

    Raises:
        InputError: Naming the first that is missing, and those there are.
    """
    Table(str(path), list(map(str, frame.columns)), [[] for _ in frame.columns], int).require(names)


def check_complete(frame: pd.DataFrame, path: str | Path, column: str) -> None:
    """Checks that no cell of a column is missing.

    Raises:
        InputError: Naming the first row that lacks a value; nothing is guessed.
    """
    column_of(frame, path, column).check_complete()


def numeric_column(frame: pd.DataFrame, path: str | Path, column: str) -> Array:
    """A column as finite numbers.

    Returns:
        Values, ``(rows,)`` float64.

    Raises:
        InputError: Naming the first cell that is missing, no number or not finite.
    """
    return column_of(frame, path, column).numbers(complete=True)


def text_column(frame: pd.DataFrame, path: str | Path, column: str) -> Array:
    """A column as the exact text of its cells, such as identifiers and classes.

    Returns:
        Cells, ``(rows,)`` of str.

    Raises:
        InputError: Naming the first row that lacks a value.
    """
    found = column_of(frame, path, column)
    found.check_complete()
    return found.text()


def is_numeric(frame: pd.DataFrame, column: str) -> bool:
    """Whether a column holds numbers throughout, missing cells aside, and no names like 007.

    Raises:
        InputError: Where what looks like a missing value, a unit or a slip stands among numbers.
    """
    return column_of(frame, frame.attrs.get("where", "the table"), column).kind() == "number"
