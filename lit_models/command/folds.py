"""A cross-validation in one command: every fold is a run of its own, then mean and spread."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from callbacks.run.interrupt import GracefulInterrupt
from datamodules.errors import InputError
from datamodules.files.whole_file import whole_file
from lit_models.command.arguments import prepare
from lit_models.command.catalog import load_yaml
from lit_models.command.cli import LitCLI
from lit_models.command.run_folder import RUN_DIR_VARIABLE, RunFolder, is_child_rank, new_run_id

MakeCLI = Callable[..., LitCLI]
Scores = dict[str, list[float]]


def folds_to_run(argv: Sequence[str]) -> int:
    """Number of folds of a fit that names their number and none of them; else 0."""
    if argv[0] != "fit":
        return 0
    given: dict[str, Any] = {"folds": 0, "fold": None}
    try:
        args = prepare(argv).args
    except InputError:
        return 0  # the run itself says so, in its own words
    for name, value in zip(args, [*args[1:], ""], strict=True):
        if name == "--config":
            section = load_yaml(Path(value)).get("data")
            options = section.get("init_args") or {} if isinstance(section, dict) else {}
            given |= {key: options[key] for key in given if key in options}
        given |= {key: value for key in given if name == f"--data.{key}"}
    stops = {"--print_config", "--ckpt_path"} & set(args)
    number = str(given["folds"])
    return int(number) if given["fold"] is None and number.isdecimal() and not stops else 0


def run_folds(argv: Sequence[str], num_folds: int, run: Callable[..., int], make: MakeCLI) -> int:
    """Runs every fold, and gives mean and spread of the scores.

    Args:
        argv: Command line without the program's name.
        num_folds: Number of folds.
        run: Runs one command.
        make: Makes its CLI.

    Returns:
        Exit code of the first fold that failed, or 0.
    """
    words = [part for word in argv for part in word.split("=", maxsplit=1)]
    name = dict(zip(words, [*words[1:], ""], strict=True)).get("--run_id") or new_run_id()
    reports: list[Any] = []
    folder = Path()

    def keep(line: Any, interrupt: GracefulInterrupt, run_folder: RunFolder) -> LitCLI:
        nonlocal folder
        cli = make(line, interrupt, run_folder)
        folder = cli.run_dir
        reports.append(cli.report)
        return cli

    for fold in range(num_folds):
        if is_child_rank() and not os.environ[RUN_DIR_VARIABLE].endswith(f"-fold{fold}"):
            continue  # a further process of another fold's run
        more = ["--data.fold", str(fold), "--run_id", f"{name}-fold{fold}"]
        code = run([*argv, *more], keep)
        if code != 0:
            return code
    if not is_child_rank() and all(report.results for report in reports):
        summary = summarize([report.results for report in reports])
        path = folder.parent / f"{name}-folds.json"
        with whole_file(path) as file:
            file.write(json.dumps(summary, indent=2, allow_nan=False) + "\n")
        larger = reports[0].larger_is_better
        sys.stdout.write(f"{table(summary, num_folds, larger)}\nfolds: {path}\n")
    return 0


def summarize(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over folds of metrics and rivals, and every fold's value."""
    metrics = _columns([each["metrics"] for each in results])
    rivals = {
        metric: _columns([each["rivals"].get(metric, {}) for each in results])
        for metric in results[0].get("rivals", {})
    }
    return {
        "metrics": {name: _spread(values) for name, values in metrics.items()},
        "rivals": {
            metric: {name: _spread(values) for name, values in scores.items()}
            for metric, scores in rivals.items()
        },
    }


def _columns(folds: Sequence[dict[str, float]]) -> Scores:
    names = [name for name in folds[0] if all(fold.get(name) is not None for fold in folds)]
    return {name: [float(fold[name]) for fold in folds] for name in names}


def _spread(values: list[float]) -> dict[str, Any]:
    return {"mean": fmean(values), "std": stdev(values), "folds": values}


def table(summary: dict[str, Any], num_folds: int, larger: set[str]) -> str:
    """The summary as lines for a terminal; a metric that loses to a rival says by how much."""
    metrics, lines = summary["metrics"], ["", f"{num_folds} folds: mean and standard deviation"]
    width = max(map(len, metrics))
    lines += [f"{n.ljust(width)}  {s['mean']:.5g} ± {s['std']:.2g}" for n, s in metrics.items()]
    losses = []
    for name, rivals in summary["rivals"].items():
        order = sorted(rivals.items(), key=lambda r: r[1]["mean"], reverse=name in larger)
        said = ", ".join(f"{k} {s['mean']:.5g} ± {s['std']:.2g}" for k, s in order)
        lines.append(f"rivals {name}: {said}")
        if not order or name not in metrics:
            continue
        best, rival = order[0]
        sign = -1 if name in larger else 1
        pairs = zip(metrics[name]["folds"], rival["folds"], strict=True)
        gaps = [sign * (own - other) for own, other in pairs]
        if fmean(gaps) > 0:
            error = stdev(gaps) / len(gaps) ** 0.5
            losses.append(f"{name} loses to {best} by {fmean(gaps):.2g} ± {error:.1g} (paired)")
    return "\n".join(lines + losses)
