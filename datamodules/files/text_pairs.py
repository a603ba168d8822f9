"""Files of sentence pairs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from datamodules.errors import InputError
from datamodules.files.notes import say


class Pairs(NamedTuple):
    """Sentences of one split with their places in the file, for messages.

    Attributes:
        path: The file.
        lines: Line number of each pair, from 1.
        src: Source sentences.
        tgt: Target sentences; empty strings where there are none to read.
    """

    path: str
    lines: list[int]
    src: list[str]
    tgt: list[str]

    def take(self, rows: Sequence[int]) -> "Pairs":
        """The pairs of some rows."""
        return Pairs(
            self.path,
            [self.lines[row] for row in rows],
            [self.src[row] for row in rows],
            [self.tgt[row] for row in rows],
        )


def read_pairs(
    path: str, need_target: bool = True, empty: Literal["error", "skip"] = "error"
) -> Pairs:
    """Reads ``source<TAB>target`` lines; a third column, as Tatoeba's, is left out.

    Args:
        path: UTF-8 text file.
        need_target: Whether each line must have a target; without it a line may be a source alone.
        empty: What becomes of lines that lack a side.

    Raises:
        InputError: Naming the first line that is empty, or has no tab, too many, or an empty side.
    """
    if not Path(path).is_file():
        raise InputError(f"no file {path!r}; give a text file of source<TAB>target lines")
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; ask for access") from error
    if lines[-1] == "":
        lines.pop()
    if not lines:
        raise InputError(f"{path} is empty; it needs source<TAB>target lines")
    rows = [[part.strip() for part in line.split("\t")] for line in lines]
    if all(len(row) == 3 for row in rows):
        say(f"{path}: the third column is no part of a pair and left out")
        rows = [row[:2] for row in rows]
    kept = [number for number, row in enumerate(rows, 1) if _usable(row, need_target)]
    if empty == "error" or not kept:
        kept = list(range(1, len(rows) + 1))
    elif len(kept) < len(rows):
        say(f"{path}: {len(rows) - len(kept):,} of {len(rows):,} lines lack a side and are skipped")
    pairs = Pairs(path, kept, [], [])
    for number in kept:
        src, *rest = rows[number - 1]
        where = f"{path}, line {number}"
        if not any(rows[number - 1]):
            raise InputError(f"{where}: empty; remove the line, write a pair, or set empty skip")
        if len(rest) != 1 and (need_target or rest):
            raise InputError(f"{where}: {len(rest)} tabs; a pair is source<TAB>target")
        if not src or (need_target and not rest[0]):
            side = "target" if src else "source"
            raise InputError(f"{where}: the {side} is empty; write it, or set empty skip")
        pairs.src.append(src)
        pairs.tgt.append(rest[0] if rest else "")
    return pairs


def _usable(row: list[str], need_target: bool) -> bool:
    """Whether no side that is needed is empty; a wrong number of sides is told elsewhere."""
    return all(row) or (bool(row[0]) and not need_target)
