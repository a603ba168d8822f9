"""``docs/panel.md``: every file with our score, its rivals', and what it cost."""

import itertools
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.panel.entries import Entry
from scripts.panel.fits import Row, add_up

_SHOWN = ("friedman1", "diamonds", "m4_hourly_60", "chickenpox", "cora", "tinyshakespeare")
_HEAD = """# Real files beside their rivals

Every row is the documented command of its family on a file that somebody else made, with no option
chosen for the file but path, target, header, window, horizon and season. Rivals are fitted by the
run itself on the same rows, and may use the validation rows. The ratio compares losses, for
accuracies the shares wrong, with the best rival's: below 1 the model wins.

Made by `python -m scripts.panel DATA`; `DATA` is a folder with the files as their authors published
them, in the places that the commands below name (`made/` is written by the script). None of them is
part of this repository.

"""


def render(
    records: Sequence[tuple[Entry, Sequence[Mapping[str, Any]]]], data: Path | None = None
) -> str:
    """The page.

    Args:
        records: Each entry with the records of its fits that came to an end.
        data: Folder of the files, to count their rows; None leaves the count out.
    """
    table = ["| file | rows | metric | score | best rival | ratio | CPU s | MB |"]
    table.append("|---|---:|---|---:|---|---:|---:|---:|")
    details, ratios, missing = [], [], []
    for entry, found in records:
        done = [record for record in found if not record["error"]]
        if not done:
            why = found[0]["error"] if found else "not run"
            missing.append(f"* `{entry.name}`: {why}")
            continue
        row = add_up(entry, done)
        ratios.append(round(row.ratio, 3))  # an accuracy in float32 may miss its equal
        name, *cells = _cells(entry, row, len(done))
        costs = [f"{row.cpu_seconds:.0f}", f"{row.memory_mb:.0f}"]
        table.append(f"| {' | '.join([name, _rows(entry, data), *cells, *costs])} |")
        details += _detail(entry, row.rivals, len(done), done[0])
    wins = sum(ratio <= 1 for ratio in ratios)
    count = f"{wins} of {len(ratios)} rows have a ratio of at most 1.\n\n" if ratios else ""
    missed = "\n".join(["", "Without a score:", "", *missing, ""]) if missing else ""
    lines = "\n".join(table)
    return f"{_HEAD}{count}{lines}\n{missed}\n## Commands and rivals\n\n" + "\n".join(details)


def readme_rows(records: Sequence[tuple[Entry, Sequence[Mapping[str, Any]]]]) -> list[str]:
    """Rows for the READMEs: six files, one of each family, with the configs that fit them."""
    found = {entry.name: (entry, done) for entry, done in records}
    rows = []
    for entry, done in (found[name] for name in _SHOWN if name in found):
        ended = [record for record in done if not record["error"]]
        name, *cells = _cells(entry, add_up(entry, ended), len(ended))
        pairs = itertools.pairwise(entry.args)
        configs = " ".join(f"{flag} {value}" for flag, value in pairs if flag == "--config")
        rows.append(f"| {' | '.join([name, f'`fit {configs} ...`', *cells])} |")
    return rows


def _cells(entry: Entry, row: Row, num_seeds: int) -> list[str]:
    """Name, metric, score, best rival and ratio, as both tables show them."""
    score = f"{row.score:.5g}" + (f" ± {row.spread:.2g}" if num_seeds > 1 else "")
    rival = f"{row.rivals[row.best]:.5g} {row.best}"
    metric = entry.metric.removeprefix("test/")
    return [f"`{entry.name}`", metric, score, rival, f"{row.ratio:.3f}"]


def _detail(
    entry: Entry, rivals: Mapping[str, float], num_seeds: int, record: Mapping[str, Any]
) -> list[str]:
    command = shlex.join(["lit-models", *record["command"]])
    listed = ", ".join(f"{name} {value:.5g}" for name, value in rivals.items())
    reason = f" {entry.reason}" if entry.reason else ""
    seeds = f"{num_seeds} seeds" if num_seeds > 1 else "one seed"
    return [
        f"**{entry.name}**: {entry.origin}; {seeds}, commit {record['git_commit'][:7]}.",
        f"Rivals: {listed}.{reason}",
        "",
        f"    {command}",
        "",
    ]


def _rows(entry: Entry, data: Path | None) -> str:
    if data is None:
        return ""
    with (data / entry.path).open("rb") as file:
        lines = sum(1 for _ in file)
    return f"{lines - (0 if 'none' in entry.args else 1):,}"
