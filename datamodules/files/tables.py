"""A table as it was written: exact cells, and types that are decided once.

:func:`read_table` keeps every cell as the text that stands in the source, in a few bytes a cell.
Nothing but the empty cell is missing, ``01001`` keeps its zero, and a number becomes a float64 when
it is asked for. Row numbers in messages are those of an editor: the header is row 1.
"""

import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from datamodules.errors import InputError
from datamodules.files import dates
from datamodules.files.notes import say
from datamodules.files.table_source import Records, open_records

Array = np.ndarray[Any, Any]
Kind = Literal["number", "category", "date"]
Header = Literal["auto", "first", "none"]

MAX_COLUMNS = 20_000
LARGEST = 1e150  # its square, a squared error, is a number too
_PIECE = 32_768
_BETWEEN = "\0"  # in no cell: a file that holds it is no text
_NO_NUMBER = re.compile(r"[^0-9eE+\-.\0 \t]")
_LEADING_ZERO = re.compile(r"(?:^|\0)[+-]?0[0-9]+(?=\0|$)")
_COMMA = re.compile(r"[+-]?(\d+(,\d+)?|,\d+)([eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")
_INFINITE = ("inf", "infinity")
_UNIT = re.compile(r"[$€£¥]\s?-?\d[\d.,]*|-?\d[\d.,]*\s?[%$€£¥]")
_LOOKS_MISSING = {
    *("", "?", "-", "--", "---", ".", "..", "*", "na", "n/a", "n.a.", "#n/a", "#na", "nan", "null"),
    *("none", "nil", "missing", "unknown", "<na>", "-nan", "nat", "\\n", "(null)", "undefined"),
}
# So many of the cells must be numbers for another one to be a slip.
_MOSTLY = 0.95


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


def as_piece(cells: Sequence[str]) -> Piece:
    """Keeps cells in few bytes."""
    levels = list(dict.fromkeys(cells))
    few = len(levels) * 4 < len(cells)
    codes = None
    if few:
        number = {level: code for code, level in enumerate(levels)}
        kind = np.uint8 if len(levels) < 256 else np.uint32
        codes = np.fromiter((number[cell] for cell in cells), dtype=kind, count=len(cells))
    joined = _BETWEEN.join(levels if few else cells)
    return Piece(joined, codes, len(cells))


class Column:
    """One column of a table.

    Args:
        name: Its name.
        pieces: Its cells, in order.
        where: Where it stands, for messages.
        row: Gives the row number in the file of a row of the table.
        decimal: What stands before the decimals of its numbers.
    """

    def __init__(
        self,
        name: str,
        pieces: list[Piece],
        where: str,
        row: Callable[[int], int],
        decimal: str = ".",
    ) -> None:
        self.name, self.pieces, self.where, self._row = name, pieces, where, row
        self.decimal = decimal

    def __len__(self) -> int:
        return sum(piece.num_rows for piece in self.pieces)

    def at(self, row: int) -> str:
        """Place of a cell, for a message."""
        return f"{self.where}, row {self._row(row)}: {self.name!r}"

    def text(self) -> Array:
        """The cells exactly as they are written, ``(rows,)`` of str; a missing one is empty."""
        parts = [piece.spread(np.array(piece.levels(), dtype=object)) for piece in self.pieces]
        return np.concatenate(parts) if parts else np.array([], dtype=object)

    @cached_property
    def counts(self) -> Counter[str]:
        """How often each distinct cell occurs."""
        counts: Counter[str] = Counter()
        for piece in self.pieces:
            levels = piece.levels()
            if piece.codes is None:
                counts.update(levels)
            else:
                numbers = np.bincount(piece.codes, minlength=len(levels)).tolist()
                counts.update(dict(zip(levels, numbers, strict=True)))
        return counts

    def where_cell(self, test: Callable[[str], bool]) -> Array:
        """Rows whose cell passes a test, ascending."""
        parts = [
            piece.spread(np.fromiter(map(test, piece.levels()), dtype=bool))
            for piece in self.pieces
        ]
        return np.flatnonzero(np.concatenate(parts)) if parts else np.array([], dtype=np.int64)

    @property
    def missing(self) -> Array:
        """Whether each cell is empty, ``(rows,)`` bool."""
        mask = np.zeros(len(self), dtype=bool)
        mask[self.where_cell(lambda cell: cell == "")] = True
        return mask

    def check_complete(self) -> None:
        """Checks that no cell is missing.

        Raises:
            InputError: Naming the first row that lacks a value; nothing is guessed.
        """
        missing = self.where_cell(lambda cell: cell == "")
        if len(missing):
            raise InputError(
                f"{self.where}, row {self._row(int(missing[0]))}: no value in column "
                f"{self.name!r} ({len(missing)} missing in all); fill them in or drop the rows"
            )

    @cached_property
    def is_numeric(self) -> bool:
        """Whether every cell that is not empty is a number, and none an identifier like 007."""
        return all(
            _LEADING_ZERO.search(piece.cells) is None and _numbers(piece, self.decimal) is not None
            for piece in self.pieces
        )

    def numbers(self, look_missing: bool = False, complete: bool = False) -> Array:
        """The cells as numbers.

        Args:
            look_missing: Whether cells such as ``?`` and ``N/A`` count as missing.
            complete: Whether a missing cell is an error.

        Returns:
            Values, ``(rows,)`` float64; NaN where a cell is missing.

        Raises:
            InputError: Naming the first cell that is no finite number of double precision.
        """
        parts = []
        for piece in self.pieces:
            values = _numbers(piece, self.decimal)
            if values is None:
                values = np.array([self._number(cell, look_missing) for cell in piece.levels()])
            parts.append(piece.spread(values))
        values = np.concatenate(parts) if parts else np.array([])
        wrong = np.flatnonzero(np.abs(values) > LARGEST)
        if len(wrong):
            cell = self.text()[wrong[0]]
            raise InputError(
                f"{self.at(int(wrong[0]))} is {cell!r}, not a finite number that models compute "
                f"with (up to {LARGEST:g})"
            )
        if complete and bool(np.isnan(values).any()):
            self.check_complete()
            row = int(np.flatnonzero(np.isnan(values))[0])
            raise InputError(f"{self.at(row)} is {self.text()[row]!r}, not a finite number")
        self._check_resolution(values)
        return values

    def _number(self, cell: str, look_missing: bool) -> float:
        value = number_of(cell, self.decimal)
        if value is not None:
            return value
        if look_missing and looks_missing(cell):
            return float("nan")
        row = int(self.where_cell(lambda other: other == cell)[0])
        raise InputError(f"{self.at(row)} is {cell!r}, not a finite number")

    def _check_resolution(self, values: Array) -> None:
        """Refuses a column whose cells differ by less than double precision can tell."""
        finite = values[~np.isnan(values)]
        if len(finite) < 2:
            return
        low, high = float(finite.min()), float(finite.max())
        if high - low > 64 * np.spacing(max(abs(low), abs(high))):
            return
        exact = {Decimal(c.strip().replace(",", ".")) for c in self.counts if c.strip()}
        if len(exact) > 1:
            raise InputError(
                f"{self.where}: {self.name!r} lies around {low:.17g} and varies less than double "
                "precision can tell; subtract a constant in the file"
            )

    def kind(self, look_missing: bool = False) -> Kind:
        """What the column holds: numbers, categories or dates.

        Args:
            look_missing: Whether cells such as ``?`` in a column of numbers count as missing.

        Raises:
            InputError: Where a column of numbers holds cells that look like a missing value, a
                unit or a slip; such a column is never taken for categories in silence.
        """
        if self.is_numeric:
            return "date" if self._integer_date() else "number"
        present = [cell for cell in self.counts if cell != ""]
        odd = [cell for cell in present if number_of(cell, self.decimal) is None]
        if not odd:
            return "category"  # numbers with leading zeros are names
        self._check_odd(present, odd, look_missing)
        if len(odd) < len(present) and all(map(looks_missing, odd)):
            zeros = any(re.fullmatch(r"[+-]?0\d+", cell) for cell in present)
            return "category" if zeros else "number"
        return "category" if self.date_format() is None else "date"

    def _integer_date(self) -> bool:
        if not dates.named_a_date(self.name):
            return False
        present = [cell for cell in self.counts if cell != ""]
        return dates.find_format(present, integers=True) in ("%Y%m%d", "%Y%m")

    def _check_odd(self, present: list[str], odd: list[str], look_missing: bool) -> None:
        total = sum(self.counts[cell] for cell in present)
        num_odd = sum(self.counts[cell] for cell in odd)
        infinite = [cell for cell in odd if cell.strip().lower().lstrip("+-") in _INFINITE]
        first = (infinite or odd)[0]
        row = int(self.where_cell(lambda cell: cell == first)[0])
        if infinite and len(odd) == len(infinite) < len(present):
            raise InputError(f"{self.at(row)} is {first!r}, not a finite number")
        advice = f"or name {self.name!r} in --data.categorical"
        if all(_THOUSANDS.fullmatch(cell) or cell not in odd for cell in present):
            raise InputError(
                f"{self.at(row)} is {odd[0]!r}: write numbers without commas, {advice}"
            )
        if any(map(_UNIT.fullmatch, odd)) and all(
            _UNIT.fullmatch(cell) or looks_missing(cell) for cell in odd
        ):
            raise InputError(
                f"{self.at(row)} is {odd[0]!r}, a number with a unit ({num_odd} of {total} cells); "
                f"write the number alone, {advice}"
            )
        if num_odd == total:
            return
        if all(map(looks_missing, odd)):
            if not look_missing:
                raise InputError(
                    f"{self.at(row)} is {odd[0]!r} ({num_odd} of {total} cells are no number): if "
                    f"it is a missing value, empty the cell or use --data.missing fill or drop; "
                    f"{advice}"
                )
            return
        if total - num_odd >= _MOSTLY * total and len(present) > 20:
            raise InputError(
                f"{self.at(row)} is {odd[0]!r}, while {total - num_odd} of {total} cells are "
                f"numbers; mend the cell, {advice}"
            )

    def date_format(self, integers: bool = False) -> str | None:
        """The one format of the column's dates; None where it holds none.

        Args:
            integers: Whether plain numbers may be years, months, days like 20210203 or seconds.

        Raises:
            InputError: If day and month can be told apart nowhere.
        """
        present = [cell.strip() for cell in self.counts if cell.strip()]
        try:
            return dates.find_format(present, integers)
        except ValueError as error:
            reason = str(error) if isinstance(error, InputError) else "mixes time zones"
            tail = "" if isinstance(error, InputError) else "; write all dates in one of them"
            raise InputError(f"{self.where}: {self.name!r} {reason}{tail}") from error

    def dates(self, form: str | None = None) -> "pd.Series[Any]":
        """The cells as dates; NaT where a cell is missing.

        Args:
            form: The format, as :meth:`date_format` names it; found from the column when None.

        Raises:
            InputError: Naming the first cell that is no date of that format.
        """
        form = form or self.date_format(integers=True)
        cells = [cell.strip() for cell in self.text()]
        if form is None:
            first = next((row for row, cell in enumerate(cells) if not _iso(cell)), 0)
            raise InputError(f"{self.at(first)} is {cells[first]!r}, not a date")
        found = dates.parse(cells, form)
        wrong = np.flatnonzero(found.isna() & np.array([cell != "" for cell in cells]))
        if len(wrong):
            row = int(wrong[0])
            raise InputError(f"{self.at(row)} is {cells[row]!r}, not a date like {form}")
        return found


def _iso(cell: str) -> bool:
    return bool(dates.parse([cell], "ISO8601").notna().all())


def looks_missing(cell: str) -> bool:
    """Whether people write a cell like this for a value that they do not have."""
    return cell.strip().lower() in _LOOKS_MISSING


def number_of(cell: str, decimal: str = ".") -> float | None:
    """The number that a cell is, NaN for an empty one; None where it is no number."""
    if cell == "":
        return float("nan")
    if _NO_NUMBER.search(cell.replace(",", ".") if decimal == "," else cell):
        return None
    try:
        return float(cell.replace(",", ".") if decimal == "," else cell)
    except ValueError:
        return None


def _numbers(piece: Piece, decimal: str) -> Array | None:
    """Numbers of a piece's levels; None where one is no number."""
    cells = piece.cells.replace(",", ".") if decimal == "," else piece.cells
    if _NO_NUMBER.search(cells):
        return None
    try:
        return np.fromiter(
            (float(cell) if cell else np.nan for cell in cells.split(_BETWEEN)), dtype=np.float64
        )
    except ValueError:
        return None


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

    def frame(self) -> pd.DataFrame:
        """The exact cells as a frame of text; None where a cell is missing."""
        columns = {}
        for name, column in self.columns.items():
            cells = column.text()
            cells[cells == ""] = None
            columns[name] = cells
        frame = pd.DataFrame(columns, dtype=object)
        frame.attrs["where"], frame.attrs["rows"] = self.where, self.row
        frame.attrs["decimals"] = {n: c.decimal for n, c in self.columns.items()}
        return frame


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


def _row_numbers(numbers: "array[int]") -> Callable[[int], int]:
    """Row number of each row, kept as the places where it skips."""
    given = np.array(numbers, dtype=np.int64)
    skips = np.flatnonzero(np.diff(given, prepend=given[:1] - 1) != 1) if len(given) else given
    starts = given[skips]

    def row(index: int) -> int:
        place = int(np.searchsorted(skips, index, side="right")) - 1
        return index + 2 if place < 0 else int(starts[place] + index - skips[place])

    return row if len(given) == 0 or len(skips) else lambda index: int(given[0]) + index


def _collect(records: Records, header: Header) -> tuple[list[str], list[list[Piece]], "array[int]"]:
    """Names, pieces of each column, and row numbers."""
    rows: Iterator[tuple[int, Sequence[str]]] = records.rows
    names = records.names
    if names is None:
        _, first = next(rows, (1, []))
        if not first:
            raise InputError(f"{records.where} is empty; its first row must name the columns")
        names = list(first)
        if header == "none":
            names = [f"column_{index + 1}" for index in range(len(first))]
            rows = _with_first((1, first), rows)
    _check_names(records.where, names)
    pieces: list[list[Piece]] = [[] for _ in names]
    numbers = array("q")
    waiting: list[Sequence[str]] = []
    blanks: list[tuple[int, Sequence[str]]] = []
    for number, cells in rows:
        if not cells:
            # A blank line is a missing cell of a lone column, unless nothing follows.
            blanks += [(number, [""])] if len(names) == 1 else []
            continue
        for place, record in (*blanks, (number, cells)):
            _check_width(records.where, place, record, names)
            numbers.append(place)
            waiting.append(record)
        blanks = []
        if len(waiting) >= _PIECE:
            _add(records.where, pieces, waiting)
            waiting = []
    _add(records.where, pieces, waiting)
    return names, pieces, numbers


def _with_first(
    first: tuple[int, Sequence[str]], rest: Iterator[tuple[int, Sequence[str]]]
) -> Iterator[tuple[int, Sequence[str]]]:
    yield first
    yield from rest


def _add(where: str, pieces: list[list[Piece]], rows: list[Sequence[str]]) -> None:
    if not rows:
        return
    for column, cells in zip(pieces, zip(*rows, strict=True), strict=True):
        piece = as_piece(cells)
        if piece.cells.count(_BETWEEN) != len(piece.levels()) - 1 or any(
            _BETWEEN in cell for cell in cells
        ):
            raise InputError(f"{where} holds NUL characters, as no text does; save it as UTF-8 CSV")
        column.append(piece)


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
