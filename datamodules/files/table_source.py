"""Records of a table as text, whatever holds them: delimited text, Parquet, frames or arrays.

Compression, encoding and separator are found from the file's own bytes; what is not the default is
said in one line. A cell is never interpreted here.
"""

import bz2
import codecs
import csv
import gzip
import io
import lzma
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pandas as pd

from datamodules.errors import InputError

_OPENERS: dict[bytes, tuple[str, Any]] = {
    b"\x1f\x8b": ("gzip", gzip.open),
    b"BZh": ("bz2", bz2.open),
    b"\xfd7zXZ\x00": ("xz", lzma.open),
}
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_SEPARATOR_NAMES = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";"}
_BROKEN = (
    *(csv.Error, EOFError, zlib.error),
    *(zipfile.BadZipFile, lzma.LZMAError, gzip.BadGzipFile),
)
_BLOCK = 1 << 20
_LOOK_AHEAD = 50


class Records(NamedTuple):
    """What a source of a table holds, read once from front to back.

    Attributes:
        where: Name of the source, for messages.
        rows: Cells of each record with its row number in the file, as editors count.
        separator: What stood between the cells; None for a frame or Parquet.
        names: Names of the columns, where the source carries them apart from the records.
        notes: What is not the default, in a few words each.
    """

    where: str
    rows: Iterator[tuple[int, Sequence[str]]]
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
    except _BROKEN as error:
        raise InputError(f"{path} is not a CSV table: {str(error).strip()}") from error
    except UnicodeError as error:
        raise InputError(f"{path} is not text: {error}; save it as UTF-8 CSV") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot read {path}: {reason}; ask for access") from error


@contextmanager
def _opened(path: Path) -> Iterator[tuple[str | None, IO[bytes]]]:
    """The file's own bytes, unpacked, and what they were packed with."""
    with path.open("rb") as raw:
        head = raw.read(6)
        raw.seek(0)
        for magic, (name, opener) in _OPENERS.items():
            if head.startswith(magic):
                with opener(raw) as unpacked:
                    yield name, unpacked
                return
        if not head.startswith(b"PK\x03\x04"):
            yield None, raw
            return
        with zipfile.ZipFile(raw) as archive:
            members = [name for name in archive.namelist() if not name.endswith("/")]
            if len(members) != 1:
                raise InputError(f"{path} holds {len(members)} files; unpack the one to read")
            with archive.open(members[0]) as unpacked:
                yield "zip", unpacked


def _scan(path: Path) -> tuple[str | None, str]:
    """Compression and encoding, from every byte of the file."""
    with _opened(path) as (compression, file):
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
    with _opened(path) as (_, file):
        while block := file.read(_BLOCK):
            try:
                block.decode("cp1252")
            except UnicodeDecodeError:
                return "latin-1"
    return "cp1252"


def _lines(path: Path, encoding: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Records of a text file with the number of each one's first line."""
    csv.field_size_limit(sys.maxsize)
    with (
        _opened(path) as (_, file),
        io.TextIOWrapper(file, encoding=encoding, newline="") as text,
    ):
        reader = csv.reader(text, delimiter=separator, strict=True)
        number = 1
        for cells in reader:
            yield number, cells
            number = reader.line_num + 1


def _read(path: Path, encoding: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    with _plain_errors(path):
        yield from _lines(path, encoding, separator)


def _find_separator(path: Path, encoding: str) -> str:
    """The character that cuts the first records into most cells, equally many in each."""
    widths = {}
    for separator in _SEPARATORS:
        counts = []
        try:
            for _, cells in islice(_lines(path, encoding, separator), _LOOK_AHEAD):
                counts.append(len(cells))
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
    columns = [_cells(frame.iloc[:, index]) for index in range(frame.shape[1])]
    rows = enumerate(zip(*columns, strict=True))
    return Records(where, rows, None, names, [])


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
