"""The panel of real files: what is run and what is not, ratios, and the page."""

import json
from pathlib import Path

import pandas as pd
import pytest

from scripts.panel.__main__ import main
from scripts.panel.entries import ENTRIES, Entry
from scripts.panel.fits import Place, add_up, fit
from scripts.panel.made import write_made
from scripts.panel.page import readme_rows, render
from scripts.results.readme import mark

DOCS = Path(__file__).parent.parent / "docs"

ARGS = ("--config", "table", "--data.path", "{data}/a.csv", "--data.target", "y")
NUMBERS = Entry("numbers", "a.csv", "nobody", ARGS, "test/mse")
OTHER = Entry("other", "a.csv", "nobody", ARGS, "test/mse")
CLASSES = Entry("classes", "a.csv", "nobody", ARGS, "test/accuracy", "larger")


class FakeRun:
    """Leaves the results of a fit at once."""

    def __init__(self, score: float, code: int = 0) -> None:
        self.score, self.code, self.calls = score, code, []

    def __call__(self, args, log: Path) -> int:
        self.calls.append(args)
        log.write_text("lit-models: error: no such file\n")
        options = dict(zip(args[1::2], args[2::2], strict=True))
        folder = Path(options["--runs_dir"]) / options["--experiment"] / "id"
        folder.mkdir(parents=True, exist_ok=True)
        rivals = {"ridge": 4.0, "boosting": 2.0}
        results = {"model": "Lit", "metrics": {"test/mse": self.score}, "baseline": {}}
        results |= {"rivals": {"test/mse": rivals}, "peak_memory_mb": 7.0, "git_commit": "abcdefgh"}
        (folder / "results.json").write_text(json.dumps(results))
        return self.code


def test_a_fit_that_is_there_is_not_run_again(tmp_path):
    run, place = FakeRun(3.0), Place(tmp_path / "data", tmp_path / "runs")
    records = [fit(NUMBERS, 0, place, run) for _ in range(2)]
    assert records[0] == records[1]
    assert len(run.calls) == 1
    assert str(tmp_path / "data" / "a.csv") in run.calls[0]
    assert "DATA/a.csv" in records[0]["command"]  # no folder of this machine is published


def test_a_failed_fit_is_run_again(tmp_path):
    place = Place(tmp_path / "data", tmp_path / "runs")
    assert fit(NUMBERS, 0, place, FakeRun(3.0, code=2))["error"] == "no such file"
    assert fit(NUMBERS, 0, place, FakeRun(3.0))["error"] == ""


def record(metric: str, score: float, **rivals: float) -> dict:
    kept = {"metrics": {metric: score}, "rivals": {metric: rivals}, "peak_memory_mb": 7.0}
    return {**kept, "cpu_seconds": 2.0, "error": "", "command": ["fit"], "git_commit": "abcdefgh"}


def test_a_loss_is_compared_with_the_smallest():
    rows = [record("test/mse", score, ridge=4.0, boosting=2.0) for score in (1.0, 2.0)]
    row = add_up(NUMBERS, rows)
    assert (row.score, row.best, row.ratio) == (1.5, "boosting", 0.75)
    assert row.spread == pytest.approx(0.5**0.5)


def test_an_accuracy_is_compared_by_the_share_wrong():
    row = add_up(CLASSES, [record("test/accuracy", 0.7, logistic=0.9, boosting=0.8)])
    assert row.best == "logistic"
    assert row.ratio == pytest.approx(3.0)
    assert add_up(CLASSES, [record("test/accuracy", 1.0, logistic=1.0)]).ratio == 1.0


def test_the_page_shows_losses_as_plainly_as_wins():
    won = (NUMBERS, [record("test/mse", 1.0, ridge=4.0)])
    lost = (CLASSES, [record("test/accuracy", 0.7, logistic=0.9)])
    failed = (ENTRIES[0], [{"error": "killed by SIGKILL"}])
    page = render([won, lost, failed])
    assert "1 of 2 rows have a ratio of at most 1." in page
    for part in ("| 0.250 |", "| 3.000 |", "killed by SIGKILL"):
        assert part in page


def test_files_that_are_shipped_can_be_read(tmp_path):
    write_made(tmp_path)
    made = {f"made/{path.name}" for path in (tmp_path / "made").iterdir()}
    assert made <= {entry.path for entry in ENTRIES}
    assert all("target" in pd.read_csv(tmp_path / path, nrows=2) for path in made)


def test_published_files_are_written_as_tables(tmp_path):
    source = tmp_path / "chickenpox" / "chickenpox.json"
    source.parent.mkdir()
    counties = {"edges": [[0, 1]], "node_ids": {"BACS": 1, "ZALA": 0}, "FX": [[1.5, 2.0]] * 3}
    source.write_text(json.dumps(counties))
    write_made(tmp_path)
    rows, edges = (
        pd.read_csv(tmp_path / "made" / f"chickenpox{end}.csv") for end in ("", "_edges")
    )
    assert rows.to_dict("list") == {"ZALA": [1.5] * 3, "BACS": [2.0] * 3}
    assert edges.to_dict("list") == {"source": ["ZALA"], "target": ["BACS"]}


def test_an_unknown_name_is_refused(tmp_path, capsys):
    assert main([str(tmp_path), "--only", "iris"]) == 2
    assert "no file 'iris'" in capsys.readouterr().err


def test_only_one_file_leaves_the_others_on_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr("scripts.panel.__main__.ENTRIES", (NUMBERS, OTHER))
    monkeypatch.setattr("scripts.panel.__main__.Processes", lambda num_threads: FakeRun(3.0))
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    page = tmp_path / "panel.md"
    options = [str(tmp_path), "--seeds", "1", "--runs", str(tmp_path / "runs"), "--page", str(page)]
    assert main(options) == 0
    whole = page.read_text()
    assert main([*options, "--only", "other"]) == 0
    assert page.read_text() == whole
    for name in ("`numbers`", "`other`"):
        assert name in whole


def test_the_readmes_show_rows_of_the_page():
    page = [line.split(" | ") for line in (DOCS / "panel.md").read_text().splitlines()]
    known = {cells[0].strip("| `"): cells[2:6] for cells in page if len(cells) == 8}
    for readme in DOCS.parent.glob("README*.md"):
        rows = readme.read_text(encoding="utf-8").partition(mark("panel"))[2]
        rows = rows.partition("<!-- /panel -->")[0].splitlines()[2:]
        assert len(rows) == 6
        for name, _, *cells in (row.strip("| ").split(" | ") for row in rows):
            assert cells == known[name.strip("`")]


def test_six_files_go_into_the_readme():
    entry = next(entry for entry in ENTRIES if entry.name == "m4_hourly_60")
    rows = readme_rows([(entry, [record("test/smape", 1.0, ridge=2.0)])])
    command = "`fit --config lstm --config real_series ...`"
    assert rows == [f"| `m4_hourly_60` | {command} | smape | 1 | 2 ridge | 0.500 |"]
