"""Files that appear whole or not at all, also when the disk is full or the run is stopped."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def whole_file(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a file beside its place and moves it there once it is complete.

    A file that stood there before is replaced in one step, and kept where writing fails.

    Args:
        path: The file; its folder exists.
        mode: ``w`` for UTF-8 text or ``wb`` for bytes.

    Yields:
        The open file.

    Raises:
        OSError: With the name of the file, if it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    encoding, newline = (None, None) if "b" in mode else ("utf-8", "")
    try:
        with temporary.open(mode, encoding=encoding, newline=newline) as file:
            yield file
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.filename in (None, str(temporary)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
