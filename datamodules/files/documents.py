"""A user's texts, read in pieces: a file, several, a folder or a glob; plain or JSON lines."""

import codecs
import io
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from datamodules.errors import InputError
from datamodules.files.notes import say
from datamodules.files.packed import BROKEN, suffix_of, unpacked

_PIECE = 1 << 20  # bytes read at a time
_SUFFIXES = (".txt", ".md", ".jsonl")


class Documents(NamedTuple):
    """Where the documents of a text are.

    Attributes:
        files: Files in their order; each is a document, but of a ``.jsonl`` file each row.
        field: Field of the text in the rows of a ``.jsonl`` file.
    """

    files: list[Path]
    field: str = "text"

    @property
    def several(self) -> bool:
        """Whether there may be more than one document."""
        return len(self.files) > 1 or suffix_of(self.files[0]) == ".jsonl"

    def __str__(self) -> str:
        first = str(self.files[0])
        return first if len(self.files) == 1 else f"{first} and {len(self.files) - 1} more files"

    @property
    def key(self) -> tuple[object, ...]:
        """What changes when the texts do: path, size and time of change of each file."""
        stats = [(file, file.stat()) for file in self.files]
        return (
            self.field if self.several else "",
            *((str(file.resolve()), stat.st_size, stat.st_mtime_ns) for file, stat in stats),
        )

    def pieces(self) -> Iterator[tuple[str, bool]]:
        """The text in pieces that end with a line, each with whether a document ends there.

        Raises:
            InputError: Naming the file, and the byte or row, that cannot be read.
        """
        for file in self.files:
            if suffix_of(file) == ".jsonl":
                yield from ((text, True) for text in _rows(file, self.field))
            else:
                yield from _whole_lines(file)


def find_documents(path: str | Sequence[str], field: str = "text") -> Documents:
    """Finds the files of a text.

    Args:
        path: A file, a folder (its ``.txt``, ``.md`` and ``.jsonl`` files, folders inside it
            included), a pattern such as ``books/*.txt``, or several of these.
        field: Field of the text in the rows of a ``.jsonl`` file.

    Raises:
        InputError: Naming the path that is none, or holds none.
    """
    files: list[Path] = []
    for one in [path] if isinstance(path, str) else path:
        found = [Path(one)]
        if Path(one).is_dir():
            found = _texts_in(Path(one))
        elif not Path(one).exists() and any(sign in one for sign in "*?["):
            root = Path(Path(one).anchor)
            found = sorted(p for p in root.glob(str(Path(one).relative_to(root))) if p.is_file())
        if not found or not found[0].is_file():
            raise InputError(f"no file {one!r}; give the path of a text file")
        files += found
    if not files:
        raise InputError("path names no file; give the path of a text file")
    return Documents(list(dict.fromkeys(files)), field)


def _texts_in(folder: Path) -> list[Path]:
    """Texts of a folder and those inside it; what is left out is said."""
    inside = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    seen = sorted(path for path in inside if not any(part[0] == "." for part in path.parts))
    found = [folder / path for path in seen if suffix_of(path) in _SUFFIXES]
    if not found:
        raise InputError(
            f"no {', '.join(_SUFFIXES)} file in the folder '{folder}'; give one with texts"
        )
    others = [path for path in seen if suffix_of(path) not in _SUFFIXES]
    if others:
        say(
            f"{folder}: {len(others)} of {len(seen)} files are no {', '.join(_SUFFIXES)} and are "
            f"left out, such as {others[0]}; a pattern such as '{folder}/*' reads all"
        )
    return found


def text_lines(path: str, wanted: str) -> list[str]:
    """Lines of a small text file.

    Args:
        path: The file.
        wanted: What it should hold, for messages.

    Raises:
        InputError: If it is missing, empty or not UTF-8.
    """
    if not Path(path).is_file():
        raise InputError(f"no file {path!r}; give a text file of {wanted}")
    lines = "".join(_decoded(Path(path))).split("\n")
    if lines[-1] == "":
        lines.pop()
    if not lines:
        raise InputError(f"{path} is empty; it needs {wanted}")
    return lines


def _decoded(path: Path) -> Iterator[str]:
    utf8 = codecs.getincrementaldecoder("utf-8-sig")()
    decoder = io.IncrementalNewlineDecoder(utf8, translate=True)
    offset, chunk = 0, b""
    try:
        with unpacked(path) as (packing, file):
            if packing:
                say(f"{path}: unpacked from {packing}")
            while chunk := file.read(_PIECE):
                if b"\0" in chunk:
                    place = offset + chunk.index(b"\0")
                    raise InputError(
                        f"{path} is not UTF-8 text (byte {place} is NUL); save it as UTF-8"
                    )
                yield decoder.decode(chunk)
                offset += len(chunk)
            yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        place = offset + len(chunk) - len(error.object) + error.start
        raise InputError(f"{path} is not UTF-8 text (byte {place}); save it as UTF-8") from error
    except BROKEN as error:
        raise InputError(f"{path} cannot be unpacked: {error}; copy it again") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot read {path}: {reason}; ask for access") from error


def _whole_lines(path: Path) -> Iterator[tuple[str, bool]]:
    """Pieces of a plain file; the last one ends the document."""
    held = ""
    for text in _decoded(path):
        held += text
        end = held.rfind("\n") + 1 or (len(held) if len(held) >= _PIECE else 0)
        # The last piece is held back, so that it can be told to be the last.
        if end and end < len(held):
            yield held[:end], False
            held = held[end:]
    if held:
        yield held, True


def _rows(path: Path, field: str) -> Iterator[str]:
    """Texts of the rows of a JSON-lines file."""
    return (row[0] for row in read_json_rows(path, [field]))


def read_json_rows(path: Path, fields: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Texts of some fields of the rows of a JSON-lines file, read as they are asked for.

    Raises:
        InputError: Naming the line that is no JSON, or lacks a field with a text.
    """
    if not path.is_file():
        raise InputError(f"no file {str(path)!r}; give a .jsonl file")
    number, held = 0, ""
    for text in itertools.chain(_decoded(path), ["\n"]):
        *lines, held = (held + text).split("\n")
        for line in lines:
            number += 1
            if line.strip():
                row = _object(line, f"{path}, line {number}")
                yield tuple(_text(row, field, f"{path}, line {number}") for field in fields)


def _object(line: str, where: str) -> dict[str, object]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: no JSON ({error.msg}); write one object a line") from error
    except RecursionError as error:
        raise InputError(f"{where}: lists within lists without end; give a text") from error
    return row if isinstance(row, dict) else {}


def _text(row: dict[str, object], field: str, where: str) -> str:
    text = row.get(field)
    if field in row and not isinstance(text, str):
        found = json.dumps(text)
        raise InputError(f"{where}: the field {field!r} is {found:.40}, not a text; mend it")
    if not isinstance(text, str):
        known = ", ".join(map(repr, row)) or "no fields"
        raise InputError(f"{where}: no text in the field {field!r}; it has {known}: set field")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InputError(f"{where}: the field {field!r} holds half a character; mend its \\u pair")
    return text
