"""What the fits of a trial add up to.

A summary is plain data, an entry of ``docs/results.json``; the pages are made from it alone.
"""

import math
import shlex
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from lit_models.command.catalog import experiments, load_yaml
from scripts.bars import Bar, Results, Trial

Summary = dict[str, Any]
Status = Literal["holds", "missed", "leak", "failed", "not run"]

# What the published file keeps of a results.json.
_KEPT = (
    "seed",
    "command",
    "model",
    "data",
    "metrics",
    "optimum",
    "baseline",
    "num_parameters",
    "optimizer_steps",
    "train_seconds",
    "peak_memory_mb",
    "git_commit",
    "versions",
)


class Outcome(NamedTuple):
    """How the fit of one seed ended.

    Attributes:
        seed: Seed of the fit; None for the pre-training of all seeds.
        results: Its ``results.json``, with the command in portable form; None if it failed.
        error: One line that says why it failed.
    """

    seed: int | None
    results: Results | None = None
    error: str = ""


def portable_command(command: Sequence[str]) -> str:
    """A command line as if its run were in ``runs``, under a name of its own choice.

    Two fits with the same portable command are the same fit, wherever their folders lie.
    """
    words, kept = list(command), []
    folder = words[words.index("--runs_dir") + 1] if "--runs_dir" in words[:-1] else None
    skip = False
    for word in words:
        if skip or word in ("--runs_dir", "--run_id"):
            skip = not skip
        elif folder is not None and word.startswith(f"{folder}/"):
            kept.append("runs" + word.removeprefix(folder))
        else:
            kept.append(word)
    return shlex.join(kept)


def publishable(results: Results) -> Results:
    """The part of a ``results.json`` that is published, without paths of the machine."""
    kept = {name: results[name] for name in _KEPT}
    return {**kept, "command": portable_command(shlex.split(results["command"]))}


def flaw(trial: Trial, results: Results) -> str:
    """Why results cannot be judged, in one line; empty for sound ones."""
    missing = [name for name in _KEPT if name not in results]
    if missing:
        return f"results.json has no {', '.join(missing)}; fit again"
    bad = [name for name, value in results["metrics"].items() if not math.isfinite(value)]
    if bad:
        return f"{bad[0]} is {results['metrics'][bad[0]]}; the fit diverged"
    for bar in trial.bars:
        for kind in ("metrics", *((bar.reference,) if bar.reference else ())):
            if bar.metric not in results[kind]:
                return f"results.json has no {kind} of {bar.metric}, which the bar is about"
    return ""


def summarize(trial: Trial, outcomes: Iterable[Outcome], num_seeds: int) -> Summary:
    """Means and spreads over the seeds of a trial, against its bars.

    Args:
        trial: The trial.
        outcomes: How its fits ended; seeds not run are left out.
        num_seeds: How many seeds there should be.
    """
    ended = list(outcomes)
    runs = [outcome.results for outcome in ended if outcome.results is not None]
    errors = [_error_line(outcome) for outcome in ended if outcome.results is None]
    scores = _scores(trial, runs)
    path = experiments()[trial.experiment]
    return {
        "name": trial.name,
        "experiment": trial.experiment,
        "about": path.read_text(encoding="utf-8").splitlines()[0].lstrip("# "),
        "commands": _commands(trial),
        "data_seeds": trial.data_seeds,
        "status": _status(scores, runs, errors),
        "num_seeds": num_seeds,
        "num_runs": len(runs),
        "errors": errors,
        "scores": scores,
        "costs": _costs(runs),
        "runs": runs,
    }


def _error_line(outcome: Outcome) -> str:
    who = "pre-training" if outcome.seed is None else f"seed {outcome.seed}"
    return f"{who}: {outcome.error}"


def _commands(trial: Trial) -> list[str]:
    """What to type for the first seed."""
    commands, start = [], []
    if trial.pretraining:
        run_id = ["--run_id", "pretraining"]
        commands.append(shlex.join(["lit-models", "fit", *trial.pretraining, *run_id]))
        checkpoint = f"runs/{trial.pretraining[1]}/pretraining/checkpoints/best.ckpt"
        start = ["--model.pretrained", checkpoint]
    return [*commands, shlex.join(["lit-models", *trial.command(0), *start])]


def _status(scores: Sequence[Summary], runs: Sequence[Results], errors: Sequence[str]) -> Status:
    if errors:
        return "failed"
    if not runs:
        return "not run"
    bars = [bar for score in scores for bar in score["bars"]]
    if any(bar["leaks"] for bar in bars):
        return "leak"
    return "holds" if all(bar["holds"] for bar in bars) else "missed"


def _scores(trial: Trial, runs: Sequence[Results]) -> list[Summary]:
    """One row a metric; what has a bar or heads the experiment's table comes first."""
    named = load_yaml(experiments()[trial.experiment])["test_metrics"]
    head = list(dict.fromkeys([*(bar.metric for bar in trial.bars), *(named if runs else ())]))
    shared = [name for name in (runs[0]["metrics"] if runs else ()) if name not in head]
    rows = []
    for metric in [*head, *shared]:
        values = [run["metrics"][metric] for run in runs if metric in run["metrics"]]
        if runs and len(values) < len(runs):
            continue
        bars = [bar for bar in trial.bars if bar.metric == metric]
        row = {"metric": metric, "head": metric in head, **spread(values)}
        for kind in ("optimum", "baseline"):
            known = [run[kind][metric] for run in runs if metric in run[kind]]
            row[kind] = statistics.fmean(known) if known and len(known) == len(runs) else None
        row["excess"] = None if row["optimum"] is None else row["mean"] - row["optimum"]
        row["bars"] = [_judge(bar, runs) for bar in bars]
        rows.append(row)
    return rows


def _judge(bar: Bar, runs: Sequence[Results]) -> Summary:
    limit = statistics.fmean(bar.limit(run) for run in runs) if runs else None
    holds = bar.holds(runs) if runs else None
    leaks = bar.leaks(runs) if runs else None
    relative = bar.reference is not None
    text = str(replace(bar, note=""))
    known = {"limit": limit, "holds": holds, "leaks": leaks}
    return {"bar": text, "note": bar.note, "relative": relative, **known}


def spread(values: Sequence[float]) -> Summary:
    """Mean and sample standard deviation, None where there are too few values."""
    mean = statistics.fmean(values) if values else None
    return {"mean": mean, "sd": statistics.stdev(values) if len(values) > 1 else None}


def _costs(runs: Sequence[Results]) -> Summary:
    if not runs:
        return {}
    rates = [run["optimizer_steps"] / max(run["train_seconds"], 1e-9) for run in runs]
    commits = dict.fromkeys(run["git_commit"] or "none" for run in runs)
    return {
        "num_parameters": runs[0]["num_parameters"],
        "optimizer_steps": spread([run["optimizer_steps"] for run in runs]),
        "train_seconds": spread([run["train_seconds"] for run in runs]),
        "steps_per_second": spread(rates),
        "peak_memory_mb": max(run["peak_memory_mb"] for run in runs),
        "git_commits": list(commits),
        "model": runs[0]["model"],
        "data": runs[0]["data"],
        "torch": runs[0]["versions"].get("torch"),
    }
