"""Records of a table as text, whatever holds them: delimited text, Parquet, frames or arrays.

Compression, encoding and separator are found from the file's own bytes; what is not the default is
said in one line. A cell is never interpreted here.
"""

import codecs
import csv
import io
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from datamodules.errors import InputError
from datamodules.files.packed import BROKEN, unpacked

Array = np.ndarray[Any, Any]

_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_SEPARATOR_NAMES = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";"}
# So few that the lists of a block do not set off the search for reference cycles, which walks all
# that a process holds.
BLOCK_ROWS = 512
_BLOCK = 1 << 20
_LINE_END = re.compile(r"\r\n|\r|\n")
_LOOK_AHEAD = 50


class Block(NamedTuple):
    """Some records, in order.

    Attributes:
        numbers: Row number of each in the file, as editors count, ``(records,)``.
        rows: Cells of each.
    """

    numbers: Array
    rows: Sequence[Sequence[str]]


class Records(NamedTuple):
    """What a source of a table holds, read once from front to back.

    Attributes:
        where: Name of the source, for messages.
        blocks: The records, some at a time.
        separator: What stood between the cells; None for a frame or Parquet.
        names: Names of the columns, where the source carries them apart from the records.
        notes: What is not the default, in a few words each.
    """

    where: str
    blocks: Iterator[Block]
    separator: str | None
    names: list[str] | None
    notes: list[str]


def open_records(source: Any, sep: str | None = None) -> Records:
    """Opens a path, a DataFrame, a mapping of columns, a matrix or a pair ``(x, y)`` of arrays.

    Args:
        source: Where the table is.
        sep: Character between the cells of a text file; found from the file when None.

    Raises:
        InputError: If there is nothing to read, or it is no text.
    """
    if not isinstance(source, (str, Path)):
        return _frame_records(_frame_of(source), "the frame")
    path = Path(source)
    if not path.is_file():
        raise InputError(f"no file {str(path)!r}; give the path of a CSV or Parquet file")
    if path.suffix.lower() in (".parquet", ".pq"):
        return _frame_records(_read_parquet(path), str(path))
    return _text_records(path, sep)


def _text_records(path: Path, sep: str | None) -> Records:
    if sep is not None:
        sep = _SEPARATOR_NAMES.get(sep, sep)
        if len(sep) != 1 or sep in '"\n\r\0':
            raise InputError(f"sep is one character or 'tab', got {sep!r}")
    with _plain_errors(path):
        compression, encoding = _scan(path)
        separator = sep or _find_separator(path, encoding)
    notes = [f"unpacked from {compression}"] if compression else []
    if encoding not in ("utf-8", "utf-8-sig"):
        notes.append(f"not UTF-8, so read as {encoding}")
    if separator != "," and sep is None:
        notes.append(f"{_SEPARATORS[separator]} between the cells")
    return Records(str(path), _read(path, encoding, separator), separator, None, notes)


@contextmanager
def _plain_errors(path: Path) -> Iterator[None]:
    """Turns the errors of reading a file into one line."""
    try:
        yield
    except (csv.Error, *BROKEN) as error:
        raise InputError(f"{path} is not a CSV table: {str(error).strip()}") from error
    except UnicodeError as error:
        raise InputError(f"{path} is not text: {error}; save it as UTF-8 CSV") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot read {path}: {reason}; ask for access") from error


def _scan(path: Path) -> tuple[str | None, str]:
    """Compression and encoding, from every byte of the file."""
    with unpacked(path) as (compression, file):
        head = file.read(4)
        for bom, encoding in _BOMS:
            if head.startswith(bom):
                return compression, encoding
        decoder, place, wrong = codecs.getincrementaldecoder("utf-8")(), 0, None
        block = head + file.read(_BLOCK)
        while block:
            control = _control_byte(block)
            if control is not None:
                raise InputError(
                    f"{path} is not UTF-8 text (byte {place + control}); save it as UTF-8 CSV"
                )
            if wrong is None:
                try:
                    decoder.decode(block)
                except UnicodeDecodeError as error:
                    wrong = place + error.start
            place += len(block)
            block = file.read(_BLOCK)
        if wrong is None:
            try:
                decoder.decode(b"", final=True)
            except UnicodeDecodeError:
                wrong = place
    return compression, "utf-8" if wrong is None else _single_byte(path)


_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\f\x0b"))


def _control_byte(block: bytes) -> int | None:
    """Place of the first byte that no text has."""
    if len(block.translate(None, _CONTROLS)) == len(block):
        return None
    return next(place for place, byte in enumerate(block) if byte in _CONTROLS)


def _single_byte(path: Path) -> str:
    """The encoding of a file that is not UTF-8: Windows' where it can be, else ISO's."""
    with unpacked(path) as (_, file):
        while block := file.read(_BLOCK):
            try:
                block.decode("cp1252")
            except UnicodeDecodeError:
                return "latin-1"
    return "cp1252"


def _blocks(path: Path, encoding: str, separator: str, size: int = BLOCK_ROWS) -> Iterator[Block]:
    """Records of a text file, ``size`` at a time."""
    csv.field_size_limit(sys.maxsize)
    with (
        unpacked(path) as (_, file),
        io.TextIOWrapper(file, encoding=encoding, newline="") as text,
    ):
        reader = csv.reader(text, delimiter=separator, strict=True)
        before = reader.line_num
        while rows := list(islice(reader, size)):
            yield Block(_row_numbers(rows, before + 1, reader.line_num), rows)
            before = reader.line_num


def _row_numbers(rows: Sequence[Sequence[str]], first: int, last: int) -> Array:
    """Number of each record's first line; a cell in quotes may hold more lines."""
    if last - first + 1 == len(rows):
        return np.arange(first, last + 1)
    lines = [1 + sum(len(_LINE_END.findall(cell)) for cell in cells) for cells in rows]
    return first + np.cumsum([0, *lines[:-1]])


def _read(path: Path, encoding: str, separator: str) -> Iterator[Block]:
    with _plain_errors(path):
        yield from _blocks(path, encoding, separator)


def _find_separator(path: Path, encoding: str) -> str:
    """The character that cuts the first records into most cells, equally many in each."""
    widths = {}
    for separator in _SEPARATORS:
        counts = []
        try:
            for block in islice(_blocks(path, encoding, separator, size=1), _LOOK_AHEAD):
                counts.append(len(block.rows[0]))
        except csv.Error:
            pass  # not this one, or an error that reading will name
        counts = [count for count in counts if count]
        if counts:
            widths[separator] = (len(set(counts)) == 1 and counts[0] > 1, counts[0])
    return max(widths, key=lambda separator: widths[separator], default=",")


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except ImportError as error:
        raise InputError(
            f"{path} needs pyarrow; pip install 'lit-models[parquet]', or save it as CSV"
        ) from error
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path} is not a Parquet table: {reason}") from error


def _frame_of(source: Any) -> pd.DataFrame:
    """A frame of whatever holds columns."""
    if isinstance(source, pd.DataFrame):
        return source
    if isinstance(source, tuple) and len(source) == 2:
        x, y = (np.asarray(part) for part in source)
        if x.ndim != 2 or len(x) != len(y):
            raise InputError(
                f"arrays are (x, y) of shapes (rows, columns) and (rows,), got {x.shape}, {y.shape}"
            )
        frame = _frame_of(x)
        targets = y.reshape(len(y), -1)
        for index in range(targets.shape[1]):
            name = "target" if targets.shape[1] == 1 else f"target_{index + 1}"
            frame[name] = targets[:, index]
        return frame
    if isinstance(source, np.ndarray) and source.ndim == 2:
        return pd.DataFrame(source, columns=[f"column_{i + 1}" for i in range(source.shape[1])])
    if isinstance(source, dict):
        return pd.DataFrame(source)
    if hasattr(source, "to_pandas"):
        frame = source.to_pandas()
        if isinstance(frame, pd.DataFrame):
            return frame
    raise InputError(
        f"a table is a path, a DataFrame, a matrix or (x, y), got {type(source).__name__}"
    )


def _frame_records(frame: pd.DataFrame, where: str) -> Records:
    names = [str(name) for name in frame.columns]
    return Records(where, _frame_blocks(frame), None, names, [])


def _frame_blocks(frame: pd.DataFrame) -> Iterator[Block]:
    for start in range(0, len(frame), BLOCK_ROWS):
        part = frame.iloc[start : start + BLOCK_ROWS]
        columns = [_cells(part.iloc[:, index]) for index in range(part.shape[1])]
        rows: list[Sequence[str]] = list(zip(*columns, strict=True))
        yield Block(np.arange(start, start + len(part)), rows)


def _cells(column: "pd.Series[Any]") -> list[str]:
    """Cells of a frame's column as text from which each value is read back exactly."""
    missing = column.isna().to_numpy()
    if pd.api.types.is_datetime64_any_dtype(column):
        values: Any = (value.isoformat(sep=" ") for value in column)
    elif pd.api.types.is_bool_dtype(column):
        values = column.astype(object)
    else:
        values = column.tolist()
    return ["" if gone else str(value) for value, gone in zip(values, missing, strict=True)]
