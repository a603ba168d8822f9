"""Cells of a table as they are written: kept in few bytes, and what number each one is."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

_BETWEEN = "\0"  # in no cell: a file that holds it is no text
_NO_NUMBER = re.compile(r"[^0-9eE+\-.\0 \t]")
_LEADING_ZERO = re.compile(r"(?:^|\0)[+-]?0[0-9]+(?=\0|$)")
_LOOKS_MISSING = {
    *("", "?", "-", "--", "---", ".", "..", "*", "na", "n/a", "n.a.", "#n/a", "#na", "nan", "null"),
    *("none", "nil", "missing", "unknown", "<na>", "-nan", "nat", "\\n", "(null)", "undefined"),
}


class Piece(NamedTuple):
    """Some rows of a column: each cell, or each distinct cell once and a code per row."""

    cells: str
    codes: Array | None
    num_rows: int

    def levels(self) -> list[str]:
        """The cells that ``codes`` counts, or all of them."""
        return self.cells.split(_BETWEEN)

    def spread(self, values: Array) -> Array:
        """A value of each level, as one of each row."""
        return values if self.codes is None else values[self.codes]

    def numbers(self, decimal: str) -> Array | None:
        """Numbers of the levels, NaN for an empty one; None where one is no number."""
        cells = self.cells.replace(",", ".") if decimal == "," else self.cells
        if _NO_NUMBER.search(cells):
            return None
        levels = cells.split(_BETWEEN)
        try:
            if "" in levels:
                return np.array([float(cell) if cell else np.nan for cell in levels])
            return np.fromiter(map(float, levels), dtype=np.float64, count=len(levels))
        except ValueError:
            return None

    def has_identifiers(self) -> bool:
        """Whether a cell is an identifier like 007."""
        return _LEADING_ZERO.search(self.cells) is not None


def as_piece(cells: Sequence[str]) -> Piece:
    """Keeps cells in few bytes.

    Raises:
        ValueError: If a cell holds the NUL character, which no text does.
    """
    levels = list(dict.fromkeys(cells))
    codes = None
    if len(levels) * 4 < len(cells):
        number = {level: code for code, level in enumerate(levels)}
        kind = np.min_scalar_type(len(levels))
        codes = np.fromiter(map(number.__getitem__, cells), dtype=kind, count=len(cells))
    kept = cells if codes is None else levels
    joined = _BETWEEN.join(kept)
    if joined.count(_BETWEEN) != len(kept) - 1:
        raise ValueError("a cell holds a NUL character")
    return Piece(joined, codes, len(cells))


def looks_missing(cell: str) -> bool:
    """Whether people write a cell like this for a value that they do not have."""
    return cell.strip().lower() in _LOOKS_MISSING


def number_of(cell: str, decimal: str = ".") -> float | None:
    """The number that a cell is, NaN for an empty one; None where it is no number."""
    values = Piece(cell, None, 1).numbers(decimal)
    return None if values is None or "\0" in cell else float(values[0])
