"""The READMEs' table of results: one row for each experiment as packaged."""

from collections.abc import Sequence

from scripts.results.summary import Summary
from scripts.results.text import bar_text, row, score_cells, verdict

START, _END = "<!-- results -->\n", "<!-- /results -->"


def fill(text: str, summaries: Sequence[Summary]) -> str:
    """A README with the rows of its table written anew; its heading stays.

    Args:
        text: The README, with a table between ``<!-- results -->`` and ``<!-- /results -->``.
        summaries: What the fits add up to.

    Raises:
        ValueError: If the table or one of its marks is missing.
    """
    before, start, rest = text.partition(START)
    table, end, after = rest.partition(_END)
    heading = table.splitlines()[:2]
    if not (start and end and len(heading) == 2):
        raise ValueError(f"the README has no table between {START.strip()} and {_END}")
    rows = [_experiment_row(summary) for summary in summaries if _shown(summary)]
    return before + start + "\n".join([*heading, *rows]) + "\n" + end + after


def _shown(summary: Summary) -> bool:
    return bool(summary["num_runs"]) and summary["name"] == summary["experiment"]


def _experiment_row(summary: Summary) -> str:
    score = next(score for score in summary["scores"] if score["head"])
    cells = score_cells(score)
    bars = ", ".join(f"{verdict(bar)} {bar_text(bar)}" for bar in score["bars"])
    numbers = (cells["score"], cells["optimum"], cells["baseline"])
    metric = score["metric"].removeprefix("test/")
    return row((f"`{summary['name']}`", metric, *numbers, bars))
