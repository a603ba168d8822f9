"""Files of sentence pairs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from datamodules.errors import InputError
from datamodules.files.documents import read_json_rows, text_lines
from datamodules.files.notes import say
from datamodules.files.packed import suffix_of

_WANTED = "source<TAB>target lines"


class Pairs(NamedTuple):
    """Sentences of one split with their places in the file, for messages.

    Attributes:
        path: Name of the file, or of both.
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
    path: str | Sequence[str],
    need_target: bool = True,
    empty: Literal["error", "skip"] = "error",
    fields: Sequence[str] = ("source", "target"),
) -> Pairs:
    """Reads sentence pairs.

    ``source<TAB>target`` lines, of which a third column, as Tatoeba's, is left out; two files whose
    lines k are pair k; or a ``.jsonl`` file.

    Args:
        path: UTF-8 text file, or the file of the sources and that of the targets.
        need_target: Whether each line must have a target; without it a line may be a source alone.
        empty: What becomes of lines that lack a side.
        fields: Fields of source and target in the rows of a ``.jsonl`` file.

    Raises:
        InputError: Naming the first line that is empty, or has no tab, too many, or an empty side,
            or files that do not belong together.
    """
    where, rows = _rows(path, need_target, fields)
    kept = [number for number, row in enumerate(rows, 1) if _usable(row, need_target)]
    if empty == "error" or not kept:
        kept = list(range(1, len(rows) + 1))
    elif len(kept) < len(rows):
        say(
            f"{where}: {len(rows) - len(kept):,} of {len(rows):,} lines lack a side and are skipped"
        )
    pairs = Pairs(where, kept, [], [])
    for number in kept:
        src, tgt = _pair(rows[number - 1], f"{where}, line {number}", need_target)
        pairs.src.append(src)
        pairs.tgt.append(tgt)
    return pairs


def _rows(
    path: str | Sequence[str], need_target: bool, fields: Sequence[str]
) -> tuple[str, list[list[str]]]:
    """Name of the file, and the sides of each of its lines."""
    if not isinstance(path, str):
        return _two_files(path)
    if suffix_of(Path(path)) == ".jsonl":
        if len(fields) != 2:
            raise InputError(f"fields names the source and the target, got {list(fields)}")
        wanted = fields if need_target else fields[:1]
        found = read_json_rows(Path(path), wanted)
        # A tab begins the special tokens of the vocabularies.
        return path, [[side.replace("\t", " ").strip() for side in row] for row in found]
    rows = [[part.strip() for part in line.split("\t")] for line in text_lines(path, _WANTED)]
    if all(len(row) == 3 for row in rows):
        say(f"{path}: the third column is no part of a pair and left out")
        rows = [row[:2] for row in rows]
    return path, rows


def _two_files(paths: Sequence[str]) -> tuple[str, list[list[str]]]:
    if len(paths) != 2:
        raise InputError(
            f"pairs stand in one file, or in one of sources and one of targets; got {len(paths)}"
        )
    sides = [
        [line.replace("\t", " ").strip() for line in text_lines(path, _WANTED)] for path in paths
    ]
    if len(sides[0]) != len(sides[1]):
        raise InputError(
            f"{paths[0]} has {len(sides[0]):,} lines and {paths[1]} {len(sides[1]):,}; line k of "
            "both makes a pair"
        )
    return " and ".join(paths), [list(row) for row in zip(*sides, strict=True)]


def _pair(row: list[str], where: str, need_target: bool) -> tuple[str, str]:
    src, *rest = row
    if not any(row):
        raise InputError(f"{where}: empty; remove the line, write a pair, or set empty skip")
    if len(rest) != 1 and (need_target or rest):
        raise InputError(f"{where}: {len(rest)} tabs; a pair is source<TAB>target")
    if not src or (need_target and not rest[0]):
        side = "target" if src else "source"
        raise InputError(f"{where}: the {side} is empty; write it, or set empty skip")
    return src, rest[0] if rest else ""


def _usable(row: list[str], need_target: bool) -> bool:
    """Whether no side that is needed is empty; a wrong number of sides is told elsewhere."""
    return all(row) or (bool(row[0]) and not need_target)
