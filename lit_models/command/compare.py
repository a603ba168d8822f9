"""``lit-models compare RUN...``: what differs between runs, and a page with curves and figures.

The page is one file without scripts or links to elsewhere; it is read on a phone and in print.
"""

import base64
import csv
import html
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datamodules.errors import InputError
from datamodules.files.whole_file import whole_file
from lit_models.command.catalog import load_yaml
from lit_models.command.runs import Parser, Run, read_run, table

# Told apart by eye, by colour-blind eyes too, and in print by their dashes.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_DASHES = ("", "8 4", "2 4", "8 4 2 4")
_MAX_FIGURES = 24  # runs whose figures the page holds
_OF_THE_RUN = ("trainer.default_root_dir", "checkpoint.dirpath", "last_checkpoint.dirpath")
_Rows = Sequence[Sequence[str]]
_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;margin:1rem auto;max-width:70rem;padding:0 1rem;color:#222}
.wide{overflow-x:auto}table{border-collapse:collapse}th,td{padding:.25rem .75rem;text-align:left;
border-bottom:1px solid #ccc;vertical-align:top}td{overflow-wrap:anywhere}
.chart{width:100%;height:auto;max-height:70vh}.chart text{font-size:14px}
.legend{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:0 1.5rem;overflow-wrap:anywhere}
@media(max-width:40rem){.chart text{font-size:23px}}
.side{display:grid;grid-template-columns:repeat(auto-fit,minmax(16rem,1fr));gap:1rem}
figure{margin:0;break-inside:avoid}img{max-width:100%}
"""


def compare_runs(argv: Sequence[str]) -> str:
    """Writes the page of ``lit-models compare`` and returns the table.

    Raises:
        InputError: If a run is not there, or an option is wrong.
    """
    parser = Parser(prog="lit-models compare", description="Compares runs, and writes a page.")
    help_of_run = "EXPERIMENT/RUN_ID, a folder, or an EXPERIMENT for all its runs"
    parser.add_argument("runs", nargs="+", metavar="RUN", help=help_of_run)
    parser.add_argument("--runs_dir", type=Path, default=Path("runs"), help="folder of all runs")
    parser.add_argument("--output", type=Path, default=Path("compare.html"), help="the page")
    options = parser.parse_args(argv)
    folders = [path for name in options.runs for path in _folders(name, options.runs_dir)]
    runs = [read_run(folder) for folder in dict.fromkeys(folders)]
    if len(runs) < 2:
        raise InputError("compare needs two runs or more; `lit-models runs` lists them")
    differing, scored = differences(runs), scores(runs)
    rows = [("", *(run.name for run in runs)), *differing, *scored]
    with whole_file(options.output) as file:
        file.write(page(runs, differing, scored))
    return f"{table(rows)}\npage: {options.output}"


def _folders(name: str, runs_dir: Path) -> list[Path]:
    """The folder of a run, or those of an experiment's runs, the oldest first."""
    given = Path(name)
    folder = given if given.is_dir() and not (runs_dir / name).is_dir() else runs_dir / name
    configs = sorted(folder.glob("*/config.yaml"), key=lambda path: path.stat().st_mtime_ns)
    return [path.parent for path in configs] or [folder]


def differences(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """Options whose values differ between the runs: name, then a value per run."""
    configs = [dict(_flat(load_yaml(run.folder / "config.yaml"))) for run in runs]
    names = dict.fromkeys(name for config in configs for name in config)
    rows = ((name, *(config.get(name, "-") for config in configs)) for name in names)
    return [row for row in rows if len(set(row[1:])) > 1 and row[0] not in _OF_THE_RUN]


def _flat(config: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(config, Mapping) and config:
        for key, value in config.items():
            inner = name if key in ("init_args", "class_path") else f"{name}.{key}"
            yield from _flat(value, inner.removeprefix("."))
    else:
        yield name, "-" if config is None else str(config)


def scores(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """Metrics, then what is known of them and what the fit cost: name, then a value per run."""
    found = [dict(_numbers(run.results)) for run in runs]
    names = dict.fromkeys(name for numbers in found for name in numbers)
    rows: list[tuple[str, ...]] = [("state", *(run.state for run in runs))]
    return rows + [(name, *(numbers.get(name, "-") for numbers in found)) for name in names]


def _numbers(results: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in results.get("metrics", {}).items():
        yield name, _number(value)
    for kind in ("optimum", "baseline"):
        for name, value in results.get(kind, {}).items():
            yield f"{kind} {name}", _number(value)
    for name, rivals in results.get("rivals", {}).items():
        for rival, value in rivals.items():
            yield f"{rival} {name}", _number(value)
    for name in ("num_parameters", "optimizer_steps", "train_seconds"):
        if name in results:
            yield name, _number(results[name])


def _number(value: Any) -> str:
    return (
        "not finite"
        if value is None
        else f"{value:,}"
        if isinstance(value, int)
        else f"{value:.5g}"
    )


def curves(run: Run) -> dict[str, list[tuple[float, float]]]:
    """Step and value of the losses in ``metrics.csv``."""
    path = run.folder / "metrics.csv"
    found: dict[str, list[tuple[float, float]]] = {}
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for name in ("train/loss", "val/loss"):
                    value = float(row.get(name) or "nan")
                    if abs(value) < float("inf"):
                        found.setdefault(name, []).append((float(row["step"]), value))
    return found


def page(runs: Sequence[Run], differing: _Rows, scored: _Rows) -> str:
    """The page as HTML, with what :func:`differences` and :func:`scores` found."""
    title = f"{len(runs)} runs side by side"
    lines = {run.name: curves(run) for run in runs}
    charts = [
        f"<figure><figcaption>{name} over optimizer steps</figcaption>"
        f"{_chart(name, [lines[run.name].get(name, []) for run in runs], runs)}</figure>"
        for name in ("val/loss", "train/loss")
        if any(name in line for line in lines.values())
    ]
    body = [
        f"<h1>{title}</h1>",
        "<h2>Options that differ</h2>",
        _html_table(runs, differing),
        "<h2>Scores</h2>",
        _html_table(runs, scored),
        "<h2>Losses</h2>" if charts else "",
        *charts,
        *_figures(runs),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><main>\n"
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )


def _html_table(runs: Sequence[Run], rows: _Rows) -> str:
    if not rows:
        return "<p>None.</p>"
    titles = "".join(f"<th scope=col>{html.escape(run.name)}</th>" for run in runs)
    lines = (
        f"<tr><th scope=row>{html.escape(name)}</th>"
        + "".join(f"<td>{html.escape(value)}</td>" for value in values)
        + "</tr>"
        for name, *values in rows
    )
    head = f"<tr><td></td>{titles}</tr>"
    return f"<div class=wide tabindex=0><table>{head}{''.join(lines)}</table></div>"


def _chart(name: str, lines: Sequence[Sequence[tuple[float, float]]], runs: Sequence[Run]) -> str:
    """Curves as SVG, with a few values at both axes."""
    points = [point for line in lines for point in line]
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    # As the figures of a run: linear, unless the values span a decade.
    scale = math.log if low > 0 and high > 10 * low else float
    bottom, width, height = scale(low), right - left or 1.0, scale(high) - scale(low) or 1.0

    def place(x: float, y: float) -> tuple[str, str]:
        return (
            f"{120 + 570 * (x - left) / width:.1f}",
            f"{255 - 240 * (scale(y) - bottom) / height:.1f}",
        )

    parts = ['<path d="M120 15V255H690" fill="none" stroke="#555"/>']
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        tick, value = 255 - 240 * share, bottom + height * share
        text = f"{math.exp(value) if scale is math.log else value:.3g}"
        parts.append(f'<path d="M120 {tick:g}H690" stroke="#ddd"/>')
        parts.append(f'<text x="112" y="{tick + 5:g}" text-anchor="end">{text}</text>')
    for end, anchor, text in ((120, "start", f"{left:g}"), (690, "end", f"{right:g}")):
        parts.append(f'<text x="{end}" y="282" text-anchor="{anchor}">{text}</text>')
    for index, line in enumerate(lines):
        places = [place(x, y) for x, y in line]
        coordinates = " ".join(",".join(pair) for pair in places)
        parts.append(f'<polyline points="{coordinates}" {_stroke(index)}/>')
        if len(places) == 1:  # no line to see
            (x, y), colour = places[0], _COLOURS[index % len(_COLOURS)]
            parts.append(f'<circle cx="{x}" cy="{y}" r="5" fill="{colour}"/>')
    label = f'role="img" aria-label="{html.escape(name)} of {len(runs)} runs"'
    return f'<svg class=chart viewBox="0 0 700 290" {label}>{"".join(parts)}</svg>{_legend(runs)}'


def _stroke(index: int) -> str:
    dashes = _DASHES[index // len(_COLOURS) % len(_DASHES)]
    colour = _COLOURS[index % len(_COLOURS)]
    return f'stroke="{colour}" stroke-width="3" fill="none" stroke-dasharray="{dashes}"'


def _legend(runs: Sequence[Run]) -> str:
    items = (
        f'<li><svg width="40" height="8" aria-hidden="true"><path d="M0 4h40" {_stroke(index)}/>'
        f"</svg> {html.escape(run.name)}</li>"
        for index, run in enumerate(runs)
    )
    return f"<ul class=legend>{''.join(items)}</ul>"


def _figures(runs: Sequence[Run]) -> Iterator[str]:
    """Figures of one name beside each other, of no more runs than a page can hold."""
    shown = runs[:_MAX_FIGURES]
    found = {run.name: {p.stem: p for p in (run.folder / "figures").glob("*.png")} for run in shown}
    if len(runs) > len(shown) and any(found.values()):
        yield f"<p>Figures of the first {len(shown)} of {len(runs)} runs.</p>"
    for name in sorted({stem for figures in found.values() for stem in figures}):
        yield f"<h2>{html.escape(name.replace('_', ' '))}</h2><div class=side>"
        for run in shown:
            path = found[run.name].get(name)
            if path is not None:
                data = base64.b64encode(path.read_bytes()).decode()
                alt = html.escape(f"{name} of {run.name}")
                yield (
                    f'<figure><img alt="{alt}" src="data:image/png;base64,{data}">'
                    f"<figcaption>{html.escape(run.name)}</figcaption></figure>"
                )
        yield "</div>"
