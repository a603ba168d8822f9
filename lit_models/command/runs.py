"""``lit-models runs``: what past runs were and what came of them, read from their folders.

Light, as ``lit-models list`` is: hundreds of runs within a second.
"""

import argparse
import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from datamodules.errors import InputError

STATES = ("finished", "interrupted", "diverged")
# What a command line says of a run besides its options.
_SILENT = ("--config", "-c", "--experiment", "--run_id", "--runs_dir", "--ckpt_path")
_WIDTH = 40  # of the options in the table


@dataclass
class Run:
    """A run of the past.

    Attributes:
        folder: The run's folder.
        state: ``finished``, ``interrupted`` before its test, or ``diverged`` to no finite score.
        when: Time of its last result, in seconds since the epoch.
        results: Content of ``results.json``; empty where there is none.
        metric: Name of the metric that counts, as far as the results tell.
    """

    folder: Path
    state: str
    when: float
    results: dict[str, Any] = field(default_factory=dict)
    metric: str | None = None

    @property
    def name(self) -> str:
        """Experiment and run id."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def score(self) -> float | None:
        """Value of the metric that counts."""
        value = self.results.get("metrics", {}).get(self.metric)
        return None if value is None else float(value)

    @property
    def larger(self) -> bool:
        """Whether the metric that counts is better the larger it is."""
        return self.metric in self.results.get("larger_is_better", [])

    @property
    def compared(self) -> str:
        """The score against the optimum, else the best rival, else the baseline."""
        if self.score is None or self.metric is None:
            return ""
        for kind in ("optimum", "rivals", "baseline"):
            known = self.results.get(kind, {}).get(self.metric)
            if isinstance(known, dict):
                numbers = [value for value in known.values() if value is not None]
                known = (max if self.larger else min)(numbers, default=None)
            if known is not None:
                # As the report of a run: no difference that cannot be seen.
                even = f"{self.score:.5g}" == f"{known:.5g}"
                return f"{0.0 if even else self.score - known:+.4g} {kind.removesuffix('s')}"
        return ""

    @property
    def options(self) -> str:
        """What the command line said besides the experiment's own configuration."""
        words = shlex.split(self.results.get("command", ""))[2:]
        shown: list[str] = []
        configs = 0
        while words:
            name, equals, value = words.pop(0).partition("=")
            if not equals and words and not words[0].startswith("--"):
                value = words.pop(0)
            configs += name in ("--config", "-c")
            if name not in _SILENT or (name in ("--config", "-c") and configs > 1):
                shown.append(f"{name.removeprefix('--')}={value}" if value else name)
        return " ".join(shown)


def read_run(folder: Path) -> Run:
    """Reads a run's folder.

    Raises:
        InputError: If the folder holds no run.
    """
    if not (folder / "config.yaml").is_file():
        raise InputError(f"{folder} holds no run; `lit-models runs` lists them")
    path = folder / "results.json"
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Run(folder, "interrupted", (folder / "config.yaml").stat().st_mtime)
    except ValueError as error:
        raise InputError(f"{path} is no JSON; remove it, or test the run anew") from error
    metrics = results.get("metrics", {})
    known = [*results.get("optimum", {}), *results.get("rivals", {}), *results.get("baseline", {})]
    metric = next(iter([*known, *metrics]), None)
    finite = metrics and all(_is_finite(value) for value in metrics.values())
    state = "finished" if finite else "diverged"
    return Run(folder, state, path.stat().st_mtime, results, metric)


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and abs(value) < float("inf")


def find_runs(runs_dir: Path, experiments: Sequence[str] = ()) -> list[Run]:
    """All runs, those of some experiments where any are named.

    Raises:
        InputError: If there are none.
    """
    found = [
        read_run(path.parent)
        for path in runs_dir.glob("*/*/config.yaml")
        if not experiments or path.parent.parent.name in experiments
    ]
    if not found:
        of = f" of {', '.join(experiments)}" if experiments else ""
        raise InputError(f"no runs{of} under {runs_dir}; fit one, or give --runs_dir")
    return found


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Raises the message."""
        raise InputError(f"{message}; --help lists the options")


def _cost(run: Run) -> float:
    """The smaller, the better."""
    return (-1 if run.larger else 1) * (run.score or 0.0)


_ORDERS = {
    "date": lambda run: -run.when,
    "score": lambda run: (run.metric or "", run.score is None, _cost(run)),
    "seconds": lambda run: run.results.get("train_seconds", 0.0),
    "experiment": lambda run: (run.folder.parent.name, -run.when),
}


def list_runs(argv: Sequence[str]) -> str:
    """The table of ``lit-models runs``.

    Raises:
        InputError: If there is no run, or an option is wrong.
    """
    parser = Parser(prog="lit-models runs", description="Lists past runs, the newest first.")
    parser.add_argument("experiments", nargs="*", help="experiments to list; all by default")
    parser.add_argument("--runs_dir", type=Path, default=Path("runs"), help="folder of all runs")
    parser.add_argument("--state", choices=STATES, help="only runs that ended so")
    parser.add_argument("--sort", choices=_ORDERS, default="date", help="order of the rows")
    parser.add_argument("--last", type=int, help="only the first so many rows")
    options = parser.parse_args(argv)
    runs = find_runs(options.runs_dir, options.experiments)
    runs = [run for run in runs if options.state in (None, run.state)]
    runs = sorted(runs, key=_ORDERS[options.sort])[: options.last]
    return table([_TITLES, *(_row(run) for run in runs)])


_TITLES = ("run", "date", "state", "metric", "score", "against", "seconds", "options")


def _row(run: Run) -> tuple[str, ...]:
    options = run.options
    shown = options if len(options) <= _WIDTH else options[: _WIDTH - 1] + "…"
    return (
        run.name,
        time.strftime("%Y-%m-%d %H:%M", time.localtime(run.when)),
        run.state,
        run.metric or "",
        "" if run.score is None else f"{run.score:.5g}",
        run.compared,
        f"{run.results['train_seconds']:.1f}" if "train_seconds" in run.results else "",
        shown,
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)
