"""Past runs listed and compared, from folders alone."""

import itertools
import json
import re
from html.parser import HTMLParser

import pytest
import yaml
from browser import find_browser, measure, run_browser

from lit_models.__main__ import main


def make(folder, name, lr=0.1, mse=0.5, **results):
    """A run's folder as a fit leaves it."""
    run = folder / "runs" / name
    (run / "figures").mkdir(parents=True)
    config = {"model": {"class_path": "a.B", "init_args": {"lr": lr}}, "experiment": "x"}
    config["trainer"] = {"default_root_dir": str(run), "max_epochs": 3}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "metrics.csv").write_text(
        f"step,train/loss,val/loss\n1,{mse + 1},\n2,,{mse}\n3,,{mse}\n"
    )
    (run / "figures" / "loss_curves.png").write_bytes(b"\x89PNG")
    known = {"metrics": {"test/loss": mse, "test/mse": mse}, "optimum": {"test/mse": 0.2}}
    command = f"lit-models fit --config tiny --config adamw --model.lr={lr} --run_id x"
    found = {**known, "train_seconds": 1.25, "command": command, **results}
    (run / "results.json").write_text(json.dumps(found))
    return run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path, "tiny/good", lr=0.1, mse=0.25)
    make(tmp_path, "tiny/bad", lr=9.0, metrics={"test/mse": None})
    make(tmp_path, "other/cut", mse=0.4, optimum={}, rivals={"test/mse": {"ridge": 0.3}})
    make(tmp_path, "other/short")
    (tmp_path / "runs" / "other" / "short" / "results.json").unlink()
    return tmp_path


def shown(capsys, *line):
    assert main(line) == 0
    return capsys.readouterr().out.splitlines()


def test_runs_show_state_score_and_options(folder, capsys):
    rows = {line.split()[0]: line for line in shown(capsys, "runs")}
    assert len(rows) == 5
    assert "finished" in rows["tiny/good"]
    assert "0.25 +0.05 optimum 1.2 config=adamw" in " ".join(rows["tiny/good"].split())
    assert rows["tiny/good"].endswith("config=adamw model.lr=0.1")
    assert "diverged" in rows["tiny/bad"]
    assert "+0.1 rival" in rows["other/cut"]
    assert "interrupted" in rows["other/short"]


def test_runs_are_filtered_and_sorted(folder, capsys):
    names = [line.split()[0] for line in shown(capsys, "runs", "tiny", "--sort", "score")[1:]]
    assert names == ["tiny/good", "tiny/bad"]
    assert len(shown(capsys, "runs", "--state", "interrupted")) == 2
    assert len(shown(capsys, "runs", "--last", "2")) == 3


def test_compare_shows_what_differs_and_writes_a_page(folder, capsys):
    lines = shown(capsys, "compare", "tiny/good", "runs/tiny/bad")
    rows = {line.rsplit(None, 2)[0]: line.split()[-2:] for line in lines[1:-1]}
    assert rows["model.lr"] == ["0.1", "9.0"]
    assert "trainer.max_epochs" not in rows
    assert "trainer.default_root_dir" not in rows
    assert rows["optimum test/mse"] == ["0.2", "0.2"]
    page = (folder / "compare.html").read_text()
    assert page.count("<polyline") == 4
    assert page.count("data:image/png;base64") == 2
    assert "http" not in page
    assert "<td>9.0</td>" in page


def test_many_runs_share_a_page_with_the_figures_of_some(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for k in range(30):
        make(tmp_path, f"many/r{k:02}", lr=k)
    shown(capsys, "compare", "many")
    page = (tmp_path / "compare.html").read_text()
    assert "Figures of the first 24 of 30 runs." in page
    assert page.count("<img ") == 24
    assert page.count("<polyline") == 60


def test_compare_takes_the_runs_of_an_experiment(folder, capsys, tmp_path):
    lines = shown(capsys, "compare", "tiny", "runs/other/cut")
    assert lines[0].split() == ["tiny/good", "tiny/bad", "other/cut"]
    assert (
        shown(capsys, "compare", str(tmp_path / "runs" / "tiny"))[0].split() == lines[0].split()[:2]
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["runs", "nothing"], "no runs of nothing under runs"),
        (["runs", "--sort", "luck"], "invalid choice: 'luck'"),
        (["compare", "tiny/good"], "two runs or more"),
        (["compare", "tiny/good", "tiny/gone"], "runs/tiny/gone holds no run"),
    ],
)
def test_a_mistake_is_one_line(folder, capsys, line, message):
    assert main(line) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


class Checked(HTMLParser):
    """What a reader of the page's markup finds wrong with it."""

    def __init__(self):
        super().__init__()
        self.open, self.faults, self.levels = [], [], []

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        if tag == "img" and not named.get("alt"):
            self.faults.append("a picture without a text")
        if tag == "th" and named.get("scope") not in ("row", "col"):
            self.faults.append("a title of no row and no column")
        if tag in ("h1", "h2", "h3"):
            self.levels.append(int(tag[1]))

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes nothing")


def test_the_page_is_sound_markup(folder, capsys):
    shown(capsys, "compare", "tiny", "other")
    text = (folder / "compare.html").read_text()
    page = Checked()
    page.feed(text)
    assert page.faults == []
    assert page.open == []
    assert page.levels[0] == 1
    assert all(later - level <= 1 for level, later in itertools.pairwise(page.levels))
    assert text.startswith('<!doctype html>\n<html lang="en">')
    assert text.count("<main>") == 1


@pytest.mark.skipif(
    find_browser() is None, reason="no chromium on the path or at /usr/bin/chromium"
)
@pytest.mark.parametrize("width", [320, 1200])
def test_the_page_fits_the_window_and_paper(folder, capsys, width, tmp_path):
    shown(capsys, "compare", "tiny", "other")
    text = (folder / "compare.html").read_text()
    assert measure(text, width, tmp_path)["scroll_width"] <= width
    if width == 1200:
        target = tmp_path / "page.pdf"
        page = (folder / "compare.html").as_uri()
        run_browser(f"--print-to-pdf={target}", page, tmp_path=tmp_path)
        assert target.read_bytes().startswith(b"%PDF-")


def test_names_are_text_in_the_page(folder, capsys):
    make(folder, "tiny/<b>")
    shown(capsys, "compare", "tiny/good", "tiny/<b>")
    page = (folder / "compare.html").read_text()
    assert "<b>" not in page
    assert "tiny/&lt;b&gt;" in page


def test_the_best_rival_is_the_one_to_beat(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rivals = {"test/mse": {"ridge": 0.3, "last value": 0.45}}
    make(tmp_path, "own/cost", mse=0.4, optimum={}, rivals=rivals)
    share = {"metrics": {"test/accuracy": 0.8}, "larger_is_better": ["test/accuracy"]}
    rivals = {"test/accuracy": {"forest": 0.9, "majority": 0.75}}
    make(tmp_path, "own/share", optimum={}, rivals=rivals, **share)
    better = {**share, "metrics": {"test/accuracy": 0.95}}
    make(tmp_path, "own/better", optimum={}, rivals=rivals, **better)
    make(
        tmp_path,
        "own/even",
        optimum={},
        rivals=rivals,
        **share | {"metrics": {"test/accuracy": 0.9000000001}},
    )
    lines = shown(capsys, "runs", "--sort", "score")[1:]
    assert "+0 rival" in lines.pop(1)
    assert [line.split()[0] for line in lines] == ["own/better", "own/share", "own/cost"]
    assert "+0.1 rival" in lines[2]
    assert "-0.1 rival" in lines[1]
    assert "+0.05 rival" in lines[0]


def test_a_loss_over_a_decade_has_a_logarithm_and_a_single_value_a_mark(tmp_path):
    from lit_models.command.compare import page
    from lit_models.command.runs import read_run

    def heights(losses):
        run = make(tmp_path, f"a/{len(list(tmp_path.glob('runs/a/*')))}")
        rows = "".join(f"{step},{loss}\n" for step, loss in enumerate(losses))
        (run / "metrics.csv").write_text("step,val/loss\n" + rows)
        text = page([read_run(run)], [], [])
        (points,) = re.findall(r'<polyline points="([^"]*)"', text)
        return text, [float(point.split(",")[1]) for point in points.split()]

    _, even = heights([1.0, 0.1, 0.01])
    assert even[1] == pytest.approx((even[0] + even[2]) / 2, abs=0.1)
    _, linear = heights([3.0, 2.0, 1.0])
    assert linear[1] == pytest.approx((linear[0] + linear[2]) / 2, abs=0.1)
    assert "<circle" in heights([1.0])[0]
    assert "<circle" not in heights([1.0, 2.0])[0]
