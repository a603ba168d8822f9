"""The results as one HTML page that needs nothing else: styles and figures are inside."""

import base64
import io
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from scripts.results.summary import Summary
from scripts.results.text import (
    COSTS,
    INTRODUCTION,
    bar_text,
    cost_cells,
    cost_note,
    score_cells,
    seeds_text,
    tally,
    verdict,
)

# Figures by trial and name, as PNG files.
Figures = dict[str, dict[str, bytes]]

MAX_BYTES = 6_000_000
# Widths to try until the figures fit, in pixels.
_WIDTHS = (900, 700, 520, 400, 300)
_NUM_COLOURS = 64

_STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1c1e21; --soft: #5b6470; --line: #d9dde3;
  --shade: #f4f6f8; --link: #0b57b0; --good: #11703c; --bad: #b3261e; --idle: #6b6b6b; }
@media (prefers-color-scheme: dark) { :root { --page: #15181c; --ink: #e6e8eb; --soft: #a3adb9;
  --line: #333a43; --shade: #1e2329; --link: #8ab8f5; --good: #6fcf97; --bad: #ff8a80;
  --idle: #a8a8a8; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 75rem; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { margin: .5rem 0; } h2 { margin: 2.5rem 0 .5rem; }
h3 { margin: 0; font-size: 1.1rem; } h3, p, dt, dd { overflow-wrap: anywhere; min-width: 0; }
p { max-width: 45rem; margin: .5rem 0; } a { color: var(--link); }
.soft, dt { color: var(--soft); }
table { width: 100%; border-collapse: collapse; font-size: .875rem; }
th, td { padding: .3rem .5rem; text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid var(--line); color: var(--soft); font-weight: 600; }
tbody { border-bottom: 1px solid var(--line); }
tbody th { font-weight: 600; }
.note { color: var(--soft); font-size: .93em; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
thead .number { white-space: normal; }
.bar { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 .75rem; }
.verdict { font-weight: 600; white-space: nowrap; }
.holds { color: var(--good); } .missed, .leak, .failed { color: var(--bad); }
.not-run { color: var(--idle); }
.holds::before { content: "\\2713\\00a0"; }
.missed::before, span.failed::before { content: "\\2717\\00a0"; }
.leak::before { content: "\\26a0\\00a0"; } .not-run::before { content: "\\2013\\00a0"; }
article { padding: 1rem; margin: 1rem 0; border: 1px solid var(--line); border-radius: .5rem; }
.title { display: flex; flex-wrap: wrap; justify-content: space-between; gap: .25rem 1rem; }
pre { margin: .5rem 0; padding: .5rem .75rem; background: var(--shade); border-radius: .25rem;
  white-space: pre-wrap; overflow-wrap: anywhere; font-size: .8125rem; }
pre span { display: inline-block; max-width: 100%; }
code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
dl { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; margin: .5rem 0; font-size: .875rem; }
dl div { display: flex; flex-wrap: wrap; gap: 0 .4rem; max-width: 100%; } dd { margin: 0; }
.figures { display: flex; flex-wrap: wrap; gap: .75rem; align-items: flex-start; }
figure { margin: 0; max-width: 100%; flex: 0 1 23rem; }
img { max-width: 100%; height: auto; display: block; background: #fff; border-radius: .25rem; }
figcaption { font-size: .8125rem; color: var(--soft); }
@media screen and (max-width: 56rem) {
  .reflow, .reflow tbody, .reflow tr, .reflow th, .reflow td { display: block; width: 100%; }
  .reflow thead { position: absolute; width: 1px; height: 1px; overflow: hidden;
    clip-path: inset(50%); }
  .reflow tbody { padding: .5rem 0; } .reflow th, .reflow td { padding: .1rem 0; }
  .reflow tr + tr { margin-top: .5rem; }
  .reflow td { display: flex; justify-content: space-between; gap: 1rem; text-align: right;
    white-space: normal; overflow-wrap: anywhere; }
  .reflow td:empty { display: none; }
  .reflow td::before { content: attr(data-label); color: var(--soft); text-align: left;
    flex: none; max-width: 45%; }
  .bars { min-width: 0; } .bar { justify-content: flex-end; }
}
@media print {
  :root { color-scheme: light; --page: #fff; --ink: #000; --soft: #444; --line: #bbb;
    --shade: #f4f4f4; --link: #000; --good: #0b5a2e; --bad: #9b1c15; --idle: #555; }
  @page { size: A4; margin: 12mm; }
  body { padding: 0; max-width: none; font-size: 9pt; } table { font-size: 7pt; }
  th, td { padding: 1pt 3pt; } pre, dl, figcaption { font-size: 7.5pt; }
  tbody, tr, figure, pre { break-inside: avoid; }
  h2, .title, article > :not(.figures) { break-after: avoid; }
  figure { flex-basis: 48%; } a { text-decoration: none; }
}
"""


def run_figures(run_dir: Path) -> dict[str, bytes]:
    """Figures of a run, by name; the loss curves, which all runs have, come last."""
    paths = sorted((run_dir / "figures").glob("*.png"))
    paths.sort(key=lambda path: path.stem == "loss_curves")
    return {path.stem: path.read_bytes() for path in paths}


def published_figures(page: Path) -> Figures:
    """Figures inside a page that was written here; none if there is no page."""
    figures: Figures = {}
    if page.is_file():
        pattern = r'<img data-trial="([^"]*)" data-figure="([^"]*)"[^>]*base64,([^"]*)"'
        for trial, name, data in re.findall(pattern, page.read_text(encoding="utf-8")):
            figures.setdefault(trial, {})[name] = base64.b64decode(data)
    return figures


def site_page(docs_dir: Path) -> str:
    """The page of the built documentation, from ``results.json``.

    Its figures are those of ``results.html`` where the fits ran on this machine, else of
    ``images/<trial>/``.
    """
    summaries = json.loads((docs_dir / "results.json").read_text(encoding="utf-8"))["trials"]
    figures = published_figures(docs_dir / "results.html")
    for summary in summaries:
        paths = sorted((docs_dir / "images" / summary["name"]).glob("*.png"))
        figures.setdefault(summary["name"], {path.stem: path.read_bytes() for path in paths})
    return render_page(summaries, figures)


def shrink(png: bytes, max_width: int) -> bytes:
    """A figure at most so wide, in few colours; the same bytes where that is so already."""
    with Image.open(io.BytesIO(png)) as image:
        if image.mode == "P" and image.width <= max_width:
            return png
        opaque = Image.new("RGB", image.size, "white")
        layer = image.convert("RGBA")
        opaque.paste(layer, mask=layer)
    if opaque.width > max_width:
        height = max(1, round(opaque.height * max_width / opaque.width))
        opaque = opaque.resize((max_width, height), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    opaque.quantize(_NUM_COLOURS, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


def fit_figures(figures: Mapping[str, Mapping[str, bytes]], max_bytes: int) -> Figures:
    """Figures shrunk until all of them, in base64, take at most so many bytes.

    Raises:
        ValueError: If they do not fit at the smallest width.
    """
    for width in _WIDTHS:
        shrunk = {
            trial: {name: shrink(png, width) for name, png in named.items()}
            for trial, named in figures.items()
        }
        total = sum(len(png) for named in shrunk.values() for png in named.values())
        if 4 * total / 3 <= max_bytes:
            return shrunk
    raise ValueError(f"the figures take {total} bytes {width} pixels wide; drop some")


def render_page(summaries: Sequence[Summary], figures: Figures, max_bytes: int = MAX_BYTES) -> str:
    """All trials with their scores, costs, commands and figures.

    Args:
        summaries: What the fits of each trial add up to.
        figures: Figures of the trials; shrunk where they must be.
        max_bytes: Limit on the size of the page.
    """
    text = _page(summaries, {})
    shrunk = fit_figures(figures, max_bytes - len(text.encode()) - 400 * _count(figures))
    return _page(summaries, shrunk)


def _count(figures: Figures) -> int:
    return sum(map(len, figures.values()))


def _page(summaries: Sequence[Summary], figures: Figures) -> str:
    introduction = "".join(f"<p>{escape(text)}</p>" for text in INTRODUCTION)
    note = cost_note(summaries)
    articles = "".join(_article(s, figures.get(s["name"], {})) for s in summaries)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>lit-models: results</title><style>{_STYLE}</style></head>\n<body><main>"
        f"<h1>Results</h1>{introduction}<p><strong>{escape(tally(summaries))}</strong></p>"
        f"<h2>Scores</h2>\n{_score_table(summaries)}"
        f"<h2>Costs</h2><p class=soft>{escape(note)}</p>\n{_cost_table(summaries)}"
        f"<h2>Trials</h2>\n{articles}</main></body></html>\n"
    )


def _link(summary: Summary) -> str:
    name = escape(summary["name"])
    return f'<a href="#{name}">{_breakable(name)}</a>'


def _breakable(name: str) -> str:
    """A name that may be broken after a separator."""
    return re.sub("([_-])", r"\1<wbr>", escape(name))


def _tag(status: str) -> str:
    return f'<span class="verdict {status.replace(" ", "-")}">{status}</span>'


def _table(headings: Sequence[tuple[str, bool]], bodies: str) -> str:
    cells = "".join(
        f"<th scope=col{' class=number' * is_number}>{escape(heading)}</th>"
        for heading, is_number in headings
    )
    return f"<table class=reflow><thead><tr>{cells}</tr></thead>\n{bodies}</table>\n"


def _cell(label: str, text: str, is_number: bool = True) -> str:
    kind = " class=number" if is_number else ""
    return f'<td{kind} data-label="{escape(label)}">{text}</td>'


_SCORE_HEADINGS = (
    ("trial", False),
    ("metric", False),
    ("score", True),
    ("n", True),
    ("optimum", True),
    ("excess", True),
    ("baseline", True),
    ("bar", False),
)


def _score_table(summaries: Sequence[Summary]) -> str:
    bodies = []
    for summary in summaries:
        scores = [score for score in summary["scores"] if score["head"]]
        rows = []
        for index, score in enumerate(scores):
            name = f"<th scope=rowgroup rowspan={len(scores)}>{_link(summary)}</th>"
            first = name if index == 0 else ""
            rows.append(f"<tr>{first}{_score_cells(summary, score)}</tr>")
        name = escape(summary["name"])
        bodies.append(f'<tbody data-score-of="{name}">{"".join(rows)}</tbody>\n')
    return _table(_SCORE_HEADINGS, "".join(bodies))


def _score_cells(summary: Summary, score: Summary) -> str:
    cells = score_cells(score)
    metric = _breakable(score["metric"].removeprefix("test/"))
    bars = "".join(
        f"<div class=bar><span>{escape(bar_text(bar))}</span>{_verdict(summary, bar)}</div>"
        + (f"<div class=note>{escape(bar['note'])}</div>" if bar["note"] else "")
        for bar in score["bars"]
    )
    return (
        _cell("metric", f"<span>{metric}</span>", is_number=False)
        + _cell("score", cells["score"])
        + _cell("n", seeds_text(summary))
        + "".join(_cell(kind, cells[kind]) for kind in ("optimum", "excess", "baseline"))
        + _cell("bar", f"<div class=bars>{bars}</div>" if bars else "", is_number=False)
    )


def _verdict(summary: Summary, bar: Summary) -> str:
    return _tag(verdict(bar) or summary["status"])


def _cost_table(summaries: Sequence[Summary]) -> str:
    headings = [("trial", False), *((name, name != "commit") for name in COSTS)]
    bodies = []
    for summary in summaries:
        cells = "".join(
            _cell(name, escape(text), name != "commit")
            for name, text in cost_cells(summary["costs"]).items()
        )
        name = escape(summary["name"])
        row = f"<tr><th scope=row>{_link(summary)}</th>{cells}</tr>"
        bodies.append(f'<tbody data-cost-of="{name}">{row}</tbody>\n')
    return _table(headings, "".join(bodies))


def _article(summary: Summary, figures: Mapping[str, bytes]) -> str:
    name = escape(summary["name"])
    parts = [f"<div class=title><h3>{name}</h3>{_tag(summary['status'])}</div>"]
    parts.append(f"<p>{escape(summary['about'])}</p>")
    parts += [f"<p class=failed>{escape(error)}</p>" for error in summary["errors"]]
    parts.append(f"<pre><code>{'<br>'.join(map(_command, summary['commands']))}</code></pre>")
    costs = summary["costs"]
    facts = {kind: costs[kind] for kind in ("model", "data", "torch") if costs.get(kind)}
    if summary["data_seeds"]:
        facts["seeds"] = "of model and data"
    for score in summary["scores"]:
        if not score["head"] and score["mean"] is not None:
            facts[score["metric"].removeprefix("test/")] = score_cells(score)["score"]
    pairs = (f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items())
    parts.append(f"<dl>{''.join(pairs)}</dl>" if facts else "")
    pictures = "".join(_figure(name, *figure) for figure in figures.items())
    parts.append(f"<div class=figures>{pictures}</div>" if pictures else "")
    return f'<article id="{name}">{"".join(parts)}</article>\n'


def _command(text: str) -> str:
    """A command that is broken between its words alone."""
    return " ".join(f"<span>{escape(word)}</span>" for word in text.split(" "))


def _figure(trial: str, name: str, png: bytes) -> str:
    with Image.open(io.BytesIO(png)) as image:
        width, height = image.size
    caption = escape(name.replace("_", " "))
    data = base64.b64encode(png).decode()
    return (
        f'<figure><img data-trial="{trial}" data-figure="{escape(name)}" alt="{trial}: {caption}" '
        f'width={width} height={height} src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )
