"""A table as it was written: exact cells in a few bytes each, in columns that know their names.

:func:`read_table` reads every source there is; :mod:`datamodules.files.columns` says what the cells
of a column are.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, Literal

import numpy as np
import pandas as pd

from datamodules.errors import InputError
from datamodules.files.cells import Piece, as_piece, looks_missing, number_of
from datamodules.files.columns import Column
from datamodules.files.notes import say
from datamodules.files.table_source import Block, Records, open_records

__all__ = [
    "Column",
    "Header",
    "Piece",
    "Table",
    "as_piece",
    "looks_missing",
    "number_of",
    "read_table",
]

Array = np.ndarray[Any, Any]
Header = Literal["auto", "first", "none"]

MAX_COLUMNS = 20_000
_PIECE_ROWS = 32_768
_COMMA = re.compile(r"[+-]?(\d+(,\d+)?|,\d+)([eE][+-]?\d+)?")


class Table:
    """Named columns of exact cells.

    Args:
        where: Path or name of the source, for messages.
        names: Names of the columns.
        pieces: Cells of each column.
        row: Gives the row number in the source of a row.
    """

    def __init__(
        self, where: str, names: Sequence[str], pieces: list[list[Piece]], row: Callable[[int], int]
    ) -> None:
        self.where = where
        self.row = row
        self.columns: dict[str, Column] = {
            name: Column(name, parts, where, row) for name, parts in zip(names, pieces, strict=True)
        }

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def __getitem__(self, name: str) -> Column:
        return self.columns[name]

    def require(self, names: Sequence[str]) -> None:
        """Checks that there are columns of these names.

        Raises:
            InputError: Naming the first that is missing, and those there are.
        """
        for name in names:
            if name not in self.columns:
                have = ", ".join(list(self.columns)[:12])
                have += ", ..." if len(self.columns) > 12 else ""
                raise InputError(f"{self.where} has no column {name!r}; it has {have}")

    def texts(self, names: Sequence[str]) -> pd.DataFrame:
        """Some columns as the exact text of their cells.

        Raises:
            InputError: Naming a column that is missing, or the first row that lacks a value.
        """
        self.require(names)
        for name in names:
            self[name].check_complete()
        return pd.DataFrame({name: self[name].text() for name in names}, dtype=object)


def read_table(source: Any, sep: str | None = None, header: Header = "auto") -> Table:
    """Reads a table whose cells stay what they are.

    Args:
        source: Path of delimited text (also packed by gzip, bz2, xz or zip) or Parquet, or a
            DataFrame, a mapping of columns, a matrix, or arrays ``(x, y)``.
        sep: Character between the cells of a text file; found from the file when None.
        header: Whether the first record names the columns; ``auto`` takes it as names and refuses
            a first record that is plainly data. Without names, columns are ``column_1`` and so on.

    Raises:
        InputError: If there is nothing to read, or no table; the message names the row and the fix.
    """
    records = open_records(source, sep)
    names, pieces, numbers = _collect(records, header)
    table = Table(records.where, names, pieces, _row_numbers(numbers))
    if records.names is None and header == "auto":
        _check_header_is_one(table)
    notes = list(records.notes)
    if records.separator not in (None, ",") and _find_decimals(table):
        notes.append("decimal commas")
    if notes:
        say(f"{records.where}: {', '.join(notes)}")
    return table


def _row_numbers(given: Array) -> Callable[[int], int]:
    """Row number of each row, kept as the places where it skips."""
    skips = np.flatnonzero(np.diff(given, prepend=given[:1] - 1) != 1)
    starts = given[skips]

    def row(index: int) -> int:
        place = int(np.searchsorted(skips, index, side="right")) - 1
        return index + 2 if place < 0 else int(starts[place] + index - skips[place])

    return row if len(given) == 0 or len(skips) else lambda index: int(given[0]) + index


def _collect(records: Records, header: Header) -> tuple[list[str], list[list[Piece]], Array]:
    """Names, pieces of each column, and row numbers."""
    blocks, names = records.blocks, records.names
    if names is None:
        names, blocks = _take_names(records.where, blocks, header)
    _check_names(records.where, names)
    pieces: list[list[Piece]] = [[] for _ in names]
    numbers = [np.zeros(0, dtype=np.int64)]
    waiting: list[list[str]] = [[] for _ in names]
    blanks: list[int] = []
    for block in blocks:
        if blanks or set(map(len, block.rows)) != {len(names)}:
            block = _filled(records.where, block, names, blanks)
        numbers.append(block.numbers)
        for held, cells in zip(waiting, zip(*block.rows, strict=True), strict=False):
            held += cells
        if len(waiting[0]) >= _PIECE_ROWS:
            _add(records.where, pieces, waiting)
    _add(records.where, pieces, waiting)
    return names, pieces, np.concatenate(numbers)


def _take_names(
    where: str, blocks: Iterator[Block], header: Header
) -> tuple[list[str], Iterator[Block]]:
    """Names from the first record, and what follows it."""
    first = next(blocks, None)
    if first is None or not first.rows[0]:
        raise InputError(f"{where} is empty; its first row must name the columns")
    names = list(first.rows[0])
    if header == "none":
        return [f"column_{index + 1}" for index in range(len(names))], chain([first], blocks)
    return names, chain([Block(first.numbers[1:], first.rows[1:])], blocks)


def _filled(where: str, block: Block, names: list[str], blanks: list[int]) -> Block:
    """A block without its blank lines; those at its end wait among ``blanks``.

    A blank line is a missing cell of a lone column, unless nothing follows.
    """
    numbers: list[int] = []
    rows: list[Sequence[str]] = []
    for number, cells in zip(block.numbers.tolist(), block.rows, strict=True):
        if not cells:
            if len(names) == 1:
                blanks.append(number)
            continue
        _check_width(where, number, cells, names)
        numbers += [*blanks, number]
        rows += [*([""] for _ in blanks), cells]
        blanks.clear()
    return Block(np.array(numbers, dtype=np.int64), rows)


def _add(where: str, pieces: list[list[Piece]], waiting: list[list[str]]) -> None:
    """Moves the cells that wait into a piece of each column."""
    for column, cells in zip(pieces, waiting, strict=True):
        if not cells:
            return
        try:
            column.append(as_piece(cells))
        except ValueError as error:
            raise InputError(
                f"{where} holds NUL characters, as no text does; save it as UTF-8 CSV"
            ) from error
        cells.clear()


def _check_width(where: str, number: int, cells: Sequence[str], names: list[str]) -> None:
    if len(cells) == len(names):
        return
    fix = "name every column" if len(cells) > len(names) else "complete the row"
    if number > 2:
        fix = "mend the row" if len(cells) > len(names) else fix
    raise InputError(
        f"{where}, row {number} has {len(cells)} cells and the header {len(names)}; {fix}"
    )


def _check_names(where: str, names: list[str]) -> None:
    if not names:
        raise InputError(f"{where} is empty; its first row must name the columns")
    if len(names) > MAX_COLUMNS:
        raise InputError(f"{where} has {len(names):,} columns; at most {MAX_COLUMNS:,} are read")
    if any(not name.strip() for name in names):
        number = next(i for i, name in enumerate(names, 1) if not name.strip())
        raise InputError(
            f"{where}: column {number} has no name; name it in the first row" + _perhaps_data(names)
        )
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise InputError(
            f"{where} has {count} columns named {name!r}; rename all but one" + _perhaps_data(names)
        )


def _perhaps_data(names: list[str]) -> str:
    numbers = any(number_of(name) is not None for name in names if name)
    return ", or use --data.header none if the first row is data" if numbers else ""


def _check_header_is_one(table: Table) -> None:
    """Refuses a first record that is like the ones below it in every column."""
    names = list(table.columns)
    if not len(table):
        return
    numbers = [number_of(name) is not None for name in names]
    counted = [int(name) for name in names if name.isdecimal()]
    if counted and counted == list(range(counted[0], counted[0] + sum(numbers))):
        return  # 0, 1, 2, ... as frames and arrays name their columns
    like_data = False
    for name, numeric in zip(names, numbers, strict=True):
        column = table[name]
        if column.is_numeric:
            if not numeric:
                return
            like_data = True
        elif name in column.counts:
            like_data = True
        elif not numeric:
            return
    if like_data:
        raise InputError(
            f"{table.where}: the first row ({', '.join(names[:6])}{', ...' * (len(names) > 6)}) is "
            "like the rows below it; use --data.header none if it is data, or first if it is not"
        )


def _find_decimals(table: Table) -> bool:
    """Marks the columns of numbers that are written with a decimal comma."""
    found = False
    for column in table.columns.values():
        if column.is_numeric:
            continue
        present = [cell for cell in column.counts if not looks_missing(cell)]
        commas = [cell for cell in present if "," in cell]
        if commas and all(_COMMA.fullmatch(cell.strip()) for cell in present):
            column.decimal, found = ",", True
            del column.is_numeric
    return found
