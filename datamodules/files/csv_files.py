"""Checked reading of CSV files: every complaint names the file, the row or column, and the fix.

Row numbers in messages count the header as row 1, as spreadsheets and editors do.
"""

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from datamodules.errors import InputError

Array = np.ndarray[Any, Any]
_MAX_COLUMNS = 20_000
_FIRST_ROW = 2


def read_csv(path: str | Path) -> pd.DataFrame:
    """Reads a comma-separated file with a header.

    Cells stay text where a column is not numeric throughout; an empty cell is missing.

    Args:
        path: The file.

    Returns:
        The table.

    Raises:
        InputError: If the file is missing, empty, not text, or has no, repeated or too many column
            names, or rows of different lengths.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no file {str(path)!r}; give the path of a CSV file")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file)
            header = next(lines, [])
            _check_header(path, header)
            first = next(lines, [])
        if len(first) > len(header):  # pandas would leave the surplus out
            raise InputError(
                f"{path}, row {_FIRST_ROW} has {len(first)} cells and the header {len(header)}; "
                "name every column"
            )
        return pd.read_csv(
            path,
            encoding="utf-8-sig",
            keep_default_na=False,
            na_values=["", "NA", "NaN", "nan", "null"],
            low_memory=False,
            index_col=False,
        )
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8 CSV"
        ) from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, csv.Error) as error:
        raise InputError(f"{path} is not a CSV table: {str(error).strip()}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; ask for access") from error


def _check_header(path: Path, header: list[str]) -> None:
    if not header:
        raise InputError(f"{path} is empty; its first row must name the columns")
    if len(header) > _MAX_COLUMNS:
        raise InputError(f"{path} has {len(header):,} columns; at most {_MAX_COLUMNS:,} are read")
    if any(not name.strip() for name in header):
        number = next(i for i, name in enumerate(header, 1) if not name.strip())
        raise InputError(f"{path}: column {number} has no name; name it in the first row")
    name, count = Counter(header).most_common(1)[0]
    if count > 1:
        raise InputError(f"{path} has {count} columns named {name!r}; rename all but one")


def require_columns(frame: pd.DataFrame, path: str | Path, names: list[str]) -> None:
    """Checks that a table has the columns a user named.

    Raises:
        InputError: Naming the first that is missing, and those there are.
    """
    for name in names:
        if name not in frame.columns:
            have = ", ".join(map(str, frame.columns[:12])) + (
                ", ..." if len(frame.columns) > 12 else ""
            )
            raise InputError(f"{path} has no column {name!r}; it has {have}")


def check_complete(frame: pd.DataFrame, path: str | Path, column: str) -> None:
    """Checks that no cell of a column is missing.

    Raises:
        InputError: Naming the first row that lacks a value; nothing is guessed.
    """
    missing = np.flatnonzero(frame[column].isna())
    if len(missing):
        raise InputError(
            f"{path}, row {missing[0] + _FIRST_ROW}: no value in column {column!r} "
            f"({len(missing)} missing in all); fill them in or drop the rows"
        )


def numeric_column(frame: pd.DataFrame, path: str | Path, column: str) -> Array:
    """A column as finite numbers.

    Returns:
        Values, ``(rows,)`` float64, within the range of float32, in which models compute.

    Raises:
        InputError: Naming the first cell that is missing, no number or not finite.
    """
    check_complete(frame, path, column)
    values = pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=np.float64)
    wrong = np.flatnonzero(~(np.abs(values) <= np.finfo(np.float32).max))
    if len(wrong):
        cell = frame[column].tolist()[wrong[0]]  # Python's own number, which prints as such
        raise InputError(
            f"{path}, row {wrong[0] + _FIRST_ROW}: {column!r} is {cell!r}, not a finite number "
            "of single precision"
        )
    return values


def is_numeric(frame: pd.DataFrame, column: str) -> bool:
    """Whether a column holds numbers throughout, missing cells aside."""
    return bool(pd.api.types.is_numeric_dtype(frame[column]))
