"""The results page: in a browser, in size, and that the committed one is what the script writes."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from browser import find_browser, measure, run_browser
from PIL import Image

from scripts.bars import TRIALS
from scripts.results.page import fit_figures, published_figures, render_page, shrink, site_page
from scripts.results.readme import experiment_rows, fill
from scripts.results.summary import Outcome, Summary, summarize
from scripts.results.text import render_markdown

DOCS = Path(__file__).parent.parent / "docs"
needs_browser = pytest.mark.skipif(
    find_browser() is None, reason="no chromium on the path or at /usr/bin/chromium"
)


def results_of(trial, seed):
    """Results with long names and numbers; the score of a seed is a little off the optimum."""
    metrics = {bar.metric: -12.3456789 + 0.00123 * seed for bar in trial.bars}
    metrics |= {"test/a_metric_with_a_very_long_name_of_its_own": 1234567.891 + seed}
    return {
        "seed": seed,
        "command": "lit-models",
        "model": "LitModelWithALongNameThatHasNoPlaceToBreak",
        "data": "StochasticBlockModelLinksDataModule",
        "metrics": metrics,
        "optimum": dict.fromkeys(metrics, -12.34),
        "baseline": dict.fromkeys(metrics, 98765.4321),
        "num_parameters": 123456789,
        "optimizer_steps": 1000000,
        "train_seconds": 12345.6 + seed,
        "peak_memory_mb": 123456.7,
        "git_commit": f"{seed}" * 40,
        "versions": {"torch": "2.13.0+cpu"},
        "num_jobs": 2,
    }


def png_bytes(tmp_path, size, noise=False):
    pixels = np.full((size[1], size[0], 3), 200, dtype=np.uint8)
    if noise:
        pixels = np.random.default_rng(0).integers(0, 255, pixels.shape, dtype=np.uint8)
    path = tmp_path / "figure.png"
    Image.fromarray(pixels).save(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page of all trials: one has failed, one was not run."""
    figure = png_bytes(tmp_path_factory.mktemp("figure"), (1300, 500))
    summaries = []
    for index, trial in enumerate(TRIALS):
        outcomes = [Outcome(s, results_of(trial, s)) for s in range(trial.num_seeds)]
        if index == 0:
            outcomes[1:] = [Outcome(1, error="RuntimeError: " + "a/very/long/path" * 20)]
        summaries.append(summarize(trial, outcomes if index != 1 else [], trial.num_seeds))
    figures = {trial.name: {"a_figure": figure, "loss_curves": figure} for trial in TRIALS[2:8]}
    return render_page(summaries, figures)


@needs_browser
@pytest.mark.parametrize("width", [320, 700, 1200])
def test_nothing_is_wider_than_the_window(page, width, tmp_path):
    measured = measure(page, width, tmp_path)
    assert measured["inner_width"] == width
    assert measured["wide"] == []
    assert measured["scroll_width"] <= width
    assert measured["images"] == [900] * 12
    heights = {json.loads(key).popitem(): h for key, h in measured["heights"].items()}
    for trial in TRIALS:
        assert heights["scoreOf", trial.name] > 10
        assert heights["costOf", trial.name] > 10
    assert len(heights) == 2 * len(TRIALS)


@needs_browser
def test_the_measure_sees_what_is_too_wide(tmp_path):
    wide = '<!doctype html><meta name="viewport" content="width=device-width"><body>'
    measured = measure(f'{wide}<p style="width:400px">x</p></body>', 320, tmp_path)
    assert measured["scroll_width"] > 320
    assert len(measured["wide"]) == 1


@needs_browser
def test_the_page_prints(page, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(page)
    target = tmp_path / "page.pdf"
    run_browser(f"--print-to-pdf={target}", path.as_uri(), tmp_path=tmp_path)
    assert target.read_bytes().startswith(b"%PDF-")


def test_the_page_needs_nothing_else(page):
    for outside in ("http:", "https:", "<script", "<link", "@import", "url("):
        assert outside not in page


def test_a_figure_is_shrunk_once(tmp_path):
    small = shrink(png_bytes(tmp_path, (1300, 500), noise=True), 900)
    path = tmp_path / "small.png"
    path.write_bytes(small)
    with Image.open(path) as image:
        assert image.size == (900, 346)
    assert shrink(small, 900) == small


def test_figures_shrink_until_they_fit(tmp_path):
    figures = {"trial": {"figure": png_bytes(tmp_path, (1000, 100), noise=True)}}
    sizes = []
    for limit in (10**6, 60_000, 25_000):
        (png,) = fit_figures(figures, limit)["trial"].values()
        assert len(png) * 4 / 3 <= limit
        sizes.append(len(png))
    assert sizes == sorted(set(sizes), reverse=True)
    with pytest.raises(ValueError, match="drop some"):
        fit_figures(figures, 1000)


def test_figures_come_back_from_a_page(page, tmp_path):
    path = tmp_path / "results.html"
    path.write_text(page)
    figures = published_figures(path)
    assert all(set(named) == {"a_figure", "loss_curves"} for named in figures.values())
    assert set(figures) == {trial.name for trial in TRIALS[2:8]}
    assert published_figures(tmp_path / "none.html") == {}


def test_the_site_shows_committed_figures_where_no_fit_has_left_any(page, tmp_path):
    trial = next(trial.name for trial in TRIALS if (DOCS / "images" / trial.name).is_dir())
    summaries = json.loads((DOCS / "results.json").read_text(encoding="utf-8"))["trials"]
    (tmp_path / "results.json").write_text(json.dumps({"trials": summaries}))
    (tmp_path / "images").symlink_to(DOCS / "images")
    assert f'data-trial="{trial}"' in site_page(tmp_path)
    assert 'data-figure="a_figure"' not in site_page(tmp_path)
    (tmp_path / "results.html").write_text(page)
    assert 'data-figure="a_figure"' in site_page(tmp_path)


def test_the_committed_pages_are_what_the_script_writes():
    if not (DOCS / "results.json").is_file():
        pytest.skip("docs/results.json is not there: no results have been published yet")
    summaries = json.loads((DOCS / "results.json").read_text(encoding="utf-8"))["trials"]
    assert [summary["name"] for summary in summaries] == [trial.name for trial in TRIALS]
    assert (DOCS / "results.md").read_text(encoding="utf-8") == render_markdown(summaries)
    assert len(site_page(DOCS)) <= 6_000_000
    for readme in DOCS.parent.glob("README*.md"):
        text = readme.read_text(encoding="utf-8")
        assert fill(text, "results", experiment_rows(summaries)) == text
        assert "| `fit --config lstm` | mse |" in text
        assert _demo(text) == _first_fit(summaries, "lstm")


def _demo(readme: str) -> list[str]:
    """Score, optimum, excess and baseline of the fit that a README shows."""
    found = re.search(r"^test/mse +(.*)$", readme, re.M)
    assert found is not None
    return found[1].split()


def _first_fit(summaries: list[Summary], name: str) -> list[str]:
    run = next(s for s in summaries if s["name"] == name)["runs"][0]
    score, optimum, baseline = (
        run[kind]["test/mse"] for kind in ("metrics", "optimum", "baseline")
    )
    return [f"{score:.5g}", f"{optimum:.5g}", f"{score - optimum:+.4g}", f"{baseline:.5g}"]


def test_a_readme_without_its_table():
    with pytest.raises(ValueError, match="no table between <!-- results -->"):
        fill("# Title\n", "results", [])
