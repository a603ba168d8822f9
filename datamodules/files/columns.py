"""A column as it was written: exact cells, and numbers, categories or dates asked of them.

Nothing but the empty cell is missing, ``01001`` keeps its zero, and a number becomes a float64 when
it is asked for. Row numbers in messages are those of an editor: the header is row 1.
"""

import re
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from datamodules.errors import InputError
from datamodules.files import dates
from datamodules.files.cells import Piece, looks_missing, number_of

Array = np.ndarray[Any, Any]
Kind = Literal["number", "category", "date"]

LARGEST = 1e150  # its square, a squared error, is a number too
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")
_INFINITE = ("inf", "infinity")
_UNIT = re.compile(r"[$€£¥]\s?-?\d[\d.,]*|-?\d[\d.,]*\s?[%$€£¥]")
# So many of the cells must be numbers for another one to be a slip.
_MOSTLY = 0.95


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
        self._formats: dict[bool, str | None] = {}

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
            not piece.has_identifiers() and piece.numbers(self.decimal) is not None
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
            values = piece.numbers(self.decimal)
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
        peak = float(np.abs(values[np.isfinite(values)]).max(initial=0))
        if 0 < peak < 1 / LARGEST:
            raise InputError(
                f"{self.where}: {self.name!r} is at most {peak:g}, whose square is no number; give "
                "it in a smaller unit"
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
        if infinite and len(odd) == len(infinite):
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
        if integers in self._formats:
            return self._formats[integers]
        present = list(filter(None, map(str.strip, self.counts)))
        try:
            self._formats[integers] = dates.find_format(present, integers)
            return self._formats[integers]
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
        if form is None:
            cells = [cell.strip() for cell in self.text()]
            first = next((row for row, cell in enumerate(cells) if not _iso(cell)), 0)
            raise InputError(f"{self.at(first)} is {cells[first]!r}, not a date")
        levels = [cell.strip() for piece in self.pieces for cell in piece.levels()]
        found = dates.parse(levels, form)
        wrong = found.isna().to_numpy() & (np.array(levels, dtype=object) != "")
        rows = self._row_levels()
        if wrong.any():
            row = int(np.flatnonzero(wrong if rows is None else wrong[rows])[0])
            raise InputError(
                f"{self.at(row)} is {self.text()[row].strip()!r}, not a date like {form}"
            )
        return found if rows is None else found.iloc[rows].reset_index(drop=True)

    def _row_levels(self) -> Array | None:
        """Place of each row's cell among the levels of all pieces; None where each row has one."""
        if all(piece.codes is None for piece in self.pieces):
            return None
        parts, start = [], 0
        for piece in self.pieces:
            number = len(piece.levels())
            places = np.arange(number) if piece.codes is None else piece.codes.astype(np.int64)
            parts.append(start + places)
            start += number
        return np.concatenate(parts)


def _iso(cell: str) -> bool:
    return bool(dates.parse([cell], "ISO8601").notna().all())
