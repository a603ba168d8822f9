"""Summaries as text: the cells of both pages, and the Markdown page."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scripts.results.summary import Summary


def decimals(sd: float | None, mean: float) -> int | None:
    """Decimals that show two figures of the standard deviation; None without a spread."""
    if sd is None or sd <= 1e-9 * abs(mean):
        return None
    return min(max(1 - math.floor(math.log10(sd)), 0), 6)


def number(value: float | None, places: int | None = None, signed: bool = False) -> str:
    """A number with so many decimals, or with five significant figures; empty for None."""
    if value is None:
        return ""
    kind = ".5g" if places is None else f".{places}f"
    return f"{value:{'+' if signed else ''}{kind}}".replace("-", "\N{MINUS SIGN}")


def score_cells(score: Mapping[str, Any]) -> dict[str, str]:
    """The numbers of a score as text, aligned to its spread."""
    if score["mean"] is None:
        return dict.fromkeys(("score", "optimum", "excess", "baseline"), "")
    places = decimals(score["sd"], score["mean"])
    mean, sd = number(score["mean"], places), score["sd"]
    spread = "0" if places is None else number(sd, places)
    return {
        "score": mean if sd is None else f"{mean} ± {spread}",
        "optimum": number(score["optimum"], places),
        "excess": number(score["excess"], places, signed=True),
        "baseline": number(score["baseline"], places),
    }


def bar_text(bar: Mapping[str, Any]) -> str:
    """A bar as text, with the number that a bar relative to a reference amounts to."""
    text = (
        str(bar["bar"])
        .replace("<=", "≤")
        .replace(">=", "≥")
        .replace(" x ", " \N{MULTIPLICATION SIGN} ")
    )
    text = re.sub(r"-(?=[ \d])", "\N{MINUS SIGN}", text)
    shown = bar["relative"] and bar["limit"] is not None
    return f"{text} = {number(bar['limit'])}" if shown else text


def bar_line(bar: Mapping[str, Any]) -> str:
    """A bar with its note."""
    return bar_text(bar) + (f" ({bar['note']})" if bar["note"] else "")


def verdict(bar: Mapping[str, Any]) -> str:
    """Whether a bar is held, in a word."""
    if bar["holds"] is None:
        return ""
    return "leak" if bar["leaks"] else "holds" if bar["holds"] else "missed"


def cost_cells(costs: Mapping[str, Any]) -> dict[str, str]:
    """What a fit costs, as text; empty for a trial that was not run."""
    if not costs:
        return dict.fromkeys(COSTS, "")
    seconds, rate = costs["train_seconds"], costs["steps_per_second"]
    values = (
        f"{costs['num_parameters']:,}",
        f"{costs['optimizer_steps']['mean']:,.0f}",
        f"{seconds['mean']:,.1f}" + ("" if seconds["sd"] is None else f" ± {seconds['sd']:.1f}"),
        f"{rate['mean']:,.0f}" if rate["mean"] >= 20 else f"{rate['mean']:.1f}",
        f"{costs['peak_memory_mb']:,.0f}",
        ", ".join(commit[:9] for commit in costs["git_commits"]),
    )
    return dict(zip(COSTS, values, strict=True))


COSTS = ("parameters", "steps", "seconds", "steps per second", "peak memory, MB", "commit")

INTRODUCTION = (
    "Every experiment is fitted as packaged, once per seed, and tested against the best score "
    "that is possible on its data.",
    "Score: mean ± standard deviation over n seeds of the test set. Optimum: the best possible "
    "score, exact where no derivation says otherwise. Excess: score minus optimum. Baseline: a "
    "trivial predictor. A bar is held by the mean; a score that beats its optimum by more than "
    "chance allows is a leak.",
)


_WHERE = (
    "[results.json](results.json) has all numbers. `python -m scripts.results` writes both, and "
    '`make docs` publishes them with commands and figures as <a href="trials.html">trials.html</a>.'
)


def tally(summaries: Sequence[Summary]) -> str:
    """How many trials hold, in one line."""
    counts = dict.fromkeys(("missed", "leak", "failed", "not run"), 0)
    for summary in summaries:
        if summary["status"] in counts:
            counts[summary["status"]] += 1
    held = len(summaries) - sum(counts.values())
    fits = sum(summary["num_runs"] for summary in summaries)
    rest = "".join(f", {count} {status}" for status, count in counts.items() if count)
    return f"{held} of {len(summaries)} trials hold their bars over {fits} fits{rest}."


def seeds_text(summary: Summary) -> str:
    """Number of seeds behind a score, and of those there should be."""
    if summary["num_runs"] == summary["num_seeds"]:
        return str(summary["num_runs"])
    return f"{summary['num_runs']} of {summary['num_seeds']}"


def render_markdown(summaries: Sequence[Summary]) -> str:
    """``docs/results.md``."""
    paragraphs = (*INTRODUCTION, f"**{tally(summaries)}**", _WHERE)
    lines = ["# Results", "", *(line for text in paragraphs for line in (text, ""))]
    lines += ["## Scores", ""]
    head = ("trial", "metric", "score", "n", "optimum", "excess", "baseline", "bar", "")
    lines += [row(head), "|---|---|---:|---:|---:|---:|---:|---|---|"]
    for summary in summaries:
        for index, score in enumerate(s for s in summary["scores"] if s["head"]):
            name = f"`{summary['name']}`" if index == 0 else ""
            cells = score_cells(score)
            bars = "<br>".join(map(bar_line, score["bars"]))
            said = "<br>".join(filter(None, map(verdict, score["bars"])))
            if not summary["num_runs"]:
                said = summary["status"]
            numbers = (cells["optimum"], cells["excess"], cells["baseline"])
            metric = score["metric"].removeprefix("test/")
            n = seeds_text(summary)
            lines.append(row((name, metric, cells["score"], n, *numbers, bars, said)))
    errors = [(s["name"], error) for s in summaries for error in s["errors"]]
    if errors:
        lines += ["", "## Failed", "", *(f"- `{name}`, {error}" for name, error in errors)]
    lines += ["", "## Costs", "", cost_note(summaries), ""]
    lines += [row(("trial", *COSTS)), "|---|---:|---:|---:|---:|---:|---|"]
    lines += [row((f"`{s['name']}`", *cost_cells(s["costs"]).values())) for s in summaries]
    return "\n".join(lines) + "\n"


def row(cells: Iterable[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def cost_note(summaries: Sequence[Summary]) -> str:
    """What the seconds are."""
    known = [run["num_jobs"] for s in summaries for run in s["runs"] if run.get("num_jobs")]
    note = (
        "Seconds of training alone, without start-up and test, on a machine that other work may "
        "have shared; means over the seeds."
    )
    if known and max(known) > 1:
        note += f" Up to {max(known)} fits ran side by side, each on one thread."
    return note
