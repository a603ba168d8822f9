"""One fit of the panel: run once, kept in the work folder, and never run again."""

import json
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple, Protocol

from scripts.panel.entries import Entry
from scripts.results.fits import read_json, write_file
from scripts.results.processes import failure_line

Record = dict[str, Any]


class Run(Protocol):
    """What runs a command of ``lit-models``."""

    def __call__(self, args: Sequence[str], log: Path) -> int:
        """Runs the command, its output in a file; returns the exit code."""


class Place(NamedTuple):
    """Where files and fits lie.

    Attributes:
        data: Folder of the real files.
        runs: Work folder.
    """

    data: Path
    runs: Path


def fit(entry: Entry, seed: int, place: Place, run: Run) -> Record:
    """The record of a fit, which is run where there is none of this command yet.

    Args:
        entry: The file and its command.
        seed: Seed of the fit.
        place: Where files and fits lie.
        run: Runs a command.
    """
    record = finished(entry, seed, place)
    if record is not None:
        return record
    folder = place.runs / entry.name
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{seed}.log"
    before = _cpu_seconds()
    args = entry.command(seed, str(place.data))
    code = run([*args, "--runs_dir", str(folder), "--experiment", f"seed{seed}"], log)
    record = {
        "command": entry.command(seed, "DATA"),
        "cpu_seconds": round(_cpu_seconds() - before, 1),
    }
    if code != 0:
        record["error"] = failure_line(log, code)
    else:
        record |= {"error": "", **_kept(folder / f"seed{seed}")}
    write_file(folder / f"{seed}.json", json.dumps(record, indent=1) + "\n")
    return record


def finished(entry: Entry, seed: int, place: Place) -> Record | None:
    """The record of a fit of this command that has come to an end; None where there is none."""
    record = read_json(place.runs / entry.name / f"{seed}.json")
    if record is None or record["error"] or record["command"] != entry.command(seed, "DATA"):
        return None
    return record


def _cpu_seconds() -> float:
    """CPU seconds of all processes that this one has started and waited for."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _kept(folder: Path) -> Record:
    newest = max(folder.glob("*/results.json"), key=lambda path: path.stat().st_mtime_ns)
    results = json.loads(newest.read_text(encoding="utf-8"))
    names = ("model", "metrics", "rivals", "baseline", "peak_memory_mb", "git_commit")
    return {name: results[name] for name in names}


class Row(NamedTuple):
    """What the fits of an entry add up to.

    Attributes:
        score: Mean of the metric over the seeds.
        spread: Its standard deviation.
        rivals: Mean of each rival.
        best: Name of the best rival.
        ratio: Our loss, or share wrong, over the best rival's; 1 where both are without fault.
        cpu_seconds: Mean of a whole command.
        memory_mb: Largest peak.
    """

    score: float
    spread: float
    rivals: dict[str, float]
    best: str
    ratio: float
    cpu_seconds: float
    memory_mb: float


def add_up(entry: Entry, records: Sequence[Mapping[str, Any]]) -> Row:
    """Means over the seeds, and the ratio of the means."""
    scores = [record["metrics"][entry.metric] for record in records]
    names = records[0]["rivals"][entry.metric]
    rivals = {
        name: fmean(record["rivals"][entry.metric][name] for record in records) for name in names
    }
    pick = max if entry.better == "larger" else min
    best = pick(rivals, key=lambda name: rivals[name])
    mean = fmean(scores)
    ours, theirs = (_loss(entry, value) for value in (mean, rivals[best]))
    ratio = ours / theirs if theirs > 0 else (1.0 if ours <= 0 else float("inf"))
    spread = stdev(scores) if len(scores) > 1 else 0.0
    cpu = fmean(record["cpu_seconds"] for record in records)
    memory = max(record["peak_memory_mb"] for record in records)
    return Row(mean, spread, rivals, best, ratio, cpu, memory)


def _loss(entry: Entry, value: float) -> float:
    return 1 - value if entry.better == "larger" else value
