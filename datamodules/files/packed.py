"""Files that may be packed, read as what they hold; their own bytes tell, not their names."""

import bz2
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from datamodules.errors import InputError

_OPENERS: dict[bytes, tuple[str, Any]] = {
    b"\x1f\x8b": ("gzip", gzip.open),
    b"BZh": ("bz2", bz2.open),
    b"\xfd7zXZ\x00": ("xz", lzma.open),
}
_SUFFIXES = (".gz", ".bz2", ".xz", ".zip")
BROKEN = (EOFError, zlib.error, zipfile.BadZipFile, lzma.LZMAError, gzip.BadGzipFile)


@contextmanager
def unpacked(path: Path) -> Iterator[tuple[str | None, IO[bytes]]]:
    """The file's own bytes, unpacked, and what they were packed with.

    Args:
        path: The file.

    Raises:
        InputError: If it is an archive of several files.
    """
    with path.open("rb") as raw:
        head = raw.read(6)
        raw.seek(0)
        for magic, (name, opener) in _OPENERS.items():
            if head.startswith(magic):
                with opener(raw) as file:
                    yield name, file
                return
        if not head.startswith(b"PK\x03\x04"):
            yield None, raw
            return
        with zipfile.ZipFile(raw) as archive:
            members = [name for name in archive.namelist() if not name.endswith("/")]
            if len(members) != 1:
                raise InputError(f"{path} holds {len(members)} files; unpack the one to read")
            with archive.open(members[0]) as file:
                yield "zip", file


def suffix_of(path: Path) -> str:
    """Suffix of what a file holds: ``.jsonl`` of ``a.jsonl.gz``."""
    return Path(path.stem).suffix if path.suffix in _SUFFIXES else path.suffix
