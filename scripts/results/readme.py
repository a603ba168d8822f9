"""The tables of the READMEs, each between two marks: what is known, and what is real."""

from collections.abc import Iterable, Sequence

from scripts.results.summary import Summary
from scripts.results.text import row, score_cells

_SHOWN = ("lstm", "transformer", "bayesian_mlp", "gcn", "ddpm", "gpt")


def mark(name: str) -> str:
    """What stands before a table of a README."""
    return f"<!-- {name} -->\n"


def fill(text: str, name: str, rows: Iterable[str]) -> str:
    """A README with the rows of a table written anew; its heading stays.

    Args:
        text: The README, with a table between ``<!-- name -->`` and ``<!-- /name -->``.
        name: Name of the table.
        rows: Its rows.

    Raises:
        ValueError: If the table or one of its marks is missing.
    """
    before, start, rest = text.partition(mark(name))
    table, end, after = rest.partition(f"<!-- /{name} -->")
    heading = table.splitlines()[:2]
    if not (start and end and len(heading) == 2):
        raise ValueError(f"the README has no table between <!-- {name} --> and <!-- /{name} -->")
    return before + start + "\n".join([*heading, *rows]) + "\n" + end + after


def experiment_rows(summaries: Sequence[Summary]) -> list[str]:
    """Rows of six experiments, one of each family, beside their optimum."""
    found = {summary["name"]: summary for summary in summaries if summary["num_runs"]}
    return [_experiment_row(found[name]) for name in _SHOWN if name in found]


def _experiment_row(summary: Summary) -> str:
    score = next(score for score in summary["scores"] if score["head"])
    cells = score_cells(score)
    metric = score["metric"].removeprefix("test/")
    command = f"`fit --config {summary['name']}`"
    return row((command, metric, cells["score"], cells["optimum"], cells["baseline"]))
