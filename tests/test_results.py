"""The results script: what is run and what is not, what the fits add up to, what is published."""

import json
import math
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from scripts.bars import Bar, Trial
from scripts.results import __main__ as results
from scripts.results.fits import Fit, Session, stages
from scripts.results.processes import StoppedError
from scripts.results.summary import Outcome, flaw, portable_command, summarize
from scripts.results.text import bar_text, decimals, number, render_markdown, score_cells

LSTM = Trial("lstm", (Bar("test/mse", "<=", factor=1.05, reference="optimum"),), num_seeds=3)
RNN = Trial("rnn", (Bar("test/mse", "<=", 1.0),), num_seeds=2)
TUNED = Trial(
    "bert_finetune",
    (Bar("test/accuracy", ">=", 0.9, note="pre-trained"),),
    variant="pretrained",
    num_seeds=2,
    pretraining=("--config", "bert_topics"),
)
TRIALS = (LSTM, RNN, TUNED)


def write_results(folder: Path, command: str, value: float = 1.0, **changes):
    folder.mkdir(parents=True)
    metrics = {"test/loss": value, "test/mse": value, "test/accuracy": value}
    content = {
        "experiment": folder.parent.name,
        "model": "LitModel",
        "data": "DataModule",
        "seed": 0,
        "metrics": metrics,
        "optimum": {"test/mse": 1.0},
        "baseline": {"test/mse": 9.0},
        "excess": {},
        "num_parameters": 1234,
        "optimizer_steps": 500,
        "train_seconds": 2.0 * value,
        "peak_memory_mb": 100 * value,
        "git_commit": "0123456789abcdef",
        "versions": {"torch": "2.6.0"},
        "command": command,
        **changes,
    }
    (folder / "results.json").write_text(json.dumps(content))


class FakeRunner:
    """Answers a command at once; ``ends`` says how, by trial and run id."""

    def __init__(self, ends=None):
        self.ends, self.calls, self.stopped = ends or {}, [], False

    def __call__(self, args, log):
        if self.stopped:
            raise StoppedError
        runs_dir, run_id = args[args.index("--runs_dir") + 1], args[args.index("--run_id") + 1]
        self.calls.append((Path(runs_dir).name, run_id))
        end = self.ends.get(self.calls[-1], 1.0)
        if isinstance(end, BaseException):
            self.stopped = True
            raise end
        log.write_text("epoch 1\n" if isinstance(end, float) else f"Traceback\n{end}\n")
        if isinstance(end, str):
            return 1
        folder = Path(runs_dir) / args[args.index("--config") + 1] / run_id
        seed = int(run_id) if run_id.isdigit() else None
        write_results(folder, shlex.join(["lit-models", *args]), end, seed=seed)
        (folder / "checkpoints").mkdir()
        figure = folder / "figures" / "curve.png"
        figure.parent.mkdir()
        Image.new("RGB", (1000, 500), "red").save(figure)
        return 0

    def stop(self):
        self.stopped = True


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Calls the script on three small trials; returns exit code and the fits that ran."""
    monkeypatch.setattr(results, "TRIALS", TRIALS)

    def run(*args, ends=None):
        runner = FakeRunner(ends)
        folders = ["--runs_dir", str(tmp_path / "work"), "--docs_dir", str(tmp_path / "docs")]
        return results.main([*folders, *args], runner), runner.calls

    return run


def published(tmp_path, kind="json"):
    text = (tmp_path / "docs" / f"results.{kind}").read_text()
    return {e["name"]: e for e in json.loads(text)["trials"]} if kind == "json" else text


def test_every_fit_runs_once_pre_trainings_first(call):
    code, calls = call()
    assert code == 0
    seeds = [("lstm", 3), ("rnn", 2), ("bert_finetune-pretrained", 2)]
    expected = [(name, str(seed)) for name, count in seeds for seed in range(count)]
    assert calls == [("bert_finetune-pretrained", "pretraining"), *expected]
    assert call() == (0, [])


def test_jobs_run_side_by_side(call, tmp_path):
    code, calls = call("--jobs", "3")
    assert (code, len(calls)) == (0, 8)
    assert calls[0] == ("bert_finetune-pretrained", "pretraining")
    assert "Up to 3 fits ran side by side" in published(tmp_path, "md")


def test_only_and_seeds(call):
    assert call("--only", "rnn", "--seeds", "4")[1] == [("rnn", str(seed)) for seed in range(4)]
    assert call("--only", "rnn", "lstm", "--seeds", "1")[1] == [("lstm", "0")]


def test_fits_start_from_their_own_pre_training(tmp_path):
    fit = Fit(TUNED, 1, tmp_path)
    start = fit.args[fit.args.index("--model.pretrained") + 1]
    assert start == str(Fit(TUNED, None, tmp_path).folder / "checkpoints" / "best.ckpt")


def test_another_command_is_run_again(call, tmp_path, monkeypatch):
    call()
    changed = Trial("rnn", RNN.bars, args=("--trainer.max_epochs", "9"), num_seeds=2)
    monkeypatch.setattr(results, "TRIALS", (LSTM, changed, TUNED))
    assert call()[1] == [("rnn", "0"), ("rnn", "1")]


@pytest.mark.parametrize("content", ["", '{"metrics": {"test/m', "[]", "{}"])
def test_a_half_written_result_is_run_again(call, tmp_path, content):
    call()
    Fit(RNN, 1, tmp_path / "work").folder.joinpath("results.json").write_text(content)
    assert call()[1] == [("rnn", "1")]


def test_a_renewed_pre_training_renews_its_fits(call, tmp_path):
    call()
    (Fit(TUNED, None, tmp_path / "work").folder / "results.json").unlink()
    names = ["pretraining", "0", "1"]
    assert call()[1] == [("bert_finetune-pretrained", name) for name in names]


def test_a_failure_is_shown_and_run_again(call, tmp_path, capsys):
    ends = {("lstm", "1"): "lit-models: error: no such file"}
    code, calls = call(ends=ends)
    assert (code, len(calls)) == (1, 8)
    assert "FAILED: no such file" in capsys.readouterr().out
    entry = published(tmp_path)["lstm"]
    assert (entry["status"], entry["num_runs"]) == ("failed", 2)
    assert entry["errors"] == ["seed 1: no such file"]
    for kind in ("md", "html"):
        assert "no such file" in published(tmp_path, kind)
    assert call("--render_only") == (1, [])
    assert call("--only", "rnn") == (0, [])
    assert call() == (0, [("lstm", "1")])
    assert published(tmp_path)["lstm"]["status"] == "holds"


def test_a_failed_pre_training_fails_its_fits_without_running_them(call, tmp_path):
    ends = {("bert_finetune-pretrained", "pretraining"): "RuntimeError: out of memory"}
    code, calls = call("--only", "bert_finetune-pretrained", ends=ends)
    assert (code, len(calls)) == (1, 1)
    errors = published(tmp_path)["bert_finetune-pretrained"]["errors"]
    assert errors[0] == "pre-training: RuntimeError: out of memory"
    assert len(errors) == 3


def test_a_command_that_leaves_nothing_has_failed(tmp_path):
    class Silent(FakeRunner):
        def __call__(self, args, log):
            return 0

    Session(Silent(), 1).run(stages([RNN], 1, tmp_path))
    assert Fit(RNN, 0, tmp_path).outcome() == Outcome(
        0, error="left no results.json of its command"
    )


def test_ctrl_c_keeps_what_has_finished(call, tmp_path):
    (tmp_path / "docs").mkdir()
    code, calls = call(ends={("lstm", "2"): KeyboardInterrupt()})
    assert code == 130
    assert calls[-1] == ("lstm", "2")
    assert not list((tmp_path / "docs").iterdir())  # the pages stay what they were
    rest = [("rnn", "0"), ("rnn", "1")] + [("bert_finetune-pretrained", s) for s in ("0", "1")]
    assert call()[1] == [("lstm", "2"), *rest]


def test_trials_without_fits_keep_what_the_page_says(call, tmp_path):
    call()
    before = {kind: published(tmp_path, kind) for kind in ("json", "md", "html")}
    (tmp_path / "work").rename(tmp_path / "elsewhere")
    assert call("--render_only") == (0, [])
    assert {kind: published(tmp_path, kind) for kind in before} == before
    call("--only", "rnn", "--seeds", "1", ends={("rnn", "0"): 0.5})
    after = published(tmp_path)
    assert after["lstm"] == before["json"]["lstm"]
    assert after["rnn"]["num_runs"] == 1
    assert after["rnn"]["scores"][0]["mean"] == 0.5


def test_a_trial_with_another_command_loses_what_the_page_says(call, tmp_path, monkeypatch):
    call()
    (tmp_path / "work").rename(tmp_path / "elsewhere")
    changed = Trial("rnn", RNN.bars, args=("--trainer.max_epochs", "9"), num_seeds=2)
    monkeypatch.setattr(results, "TRIALS", (LSTM, changed, TUNED))
    call("--render_only")
    assert published(tmp_path)["rnn"]["status"] == "not run"
    assert published(tmp_path)["lstm"]["status"] == "holds"


@pytest.mark.parametrize("args", [["--only", "lstn"], ["--jobs", "0"], ["--seeds", "x"]])
def test_wrong_arguments_get_one_line_and_exit_code_2(call, capsys, args):
    with pytest.raises(SystemExit) as stop:
        call(*args)
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert args[1] in error
    assert args != ["--only", "lstn"] or "choose from lstm" in error


def test_nothing_of_the_machine_is_published(call, tmp_path):
    call()
    for kind in ("json", "md", "html"):
        text = (tmp_path / "docs" / f"results.{kind}").read_text()
        assert str(tmp_path) not in text
    run = published(tmp_path)["bert_finetune-pretrained"]["runs"][1]
    start = "--model.pretrained runs/bert_topics/pretraining/checkpoints/best.ckpt"
    options = "fit --config bert_finetune --seed_everything 1"
    assert run["command"] == f"lit-models {options} {start}"


def test_portable_commands():
    options = "--a 'b c' --runs_dir /x/y --run_id 3 --path /x/y/z.ckpt --other /x/yz"
    same = portable_command(shlex.split(f"lit-models fit {options}"))
    assert same == "lit-models fit --a 'b c' --path runs/z.ckpt --other /x/yz"
    assert portable_command(shlex.split(same)) == same


def outcomes(tmp_path, values, **changes):
    for seed, value in enumerate(values):
        fit = Fit(LSTM, seed, tmp_path)
        write_results(fit.folder, shlex.join(["lit-models", *fit.args]), value, **changes)
    return [Fit(LSTM, seed, tmp_path).outcome() for seed in range(len(values))]


def test_mean_and_spread(tmp_path):
    summary = summarize(LSTM, outcomes(tmp_path, [1.02, 1.04, 1.06]), 3)
    (score,) = [score for score in summary["scores"] if score["metric"] == "test/mse"]
    assert score["mean"] == pytest.approx(1.04)
    assert score["sd"] == pytest.approx(0.02)  # over n - 1
    assert score["excess"] == pytest.approx(0.04)
    assert (score["optimum"], score["baseline"]) == (1.0, 9.0)
    (bar,) = score["bars"]
    assert (bar["limit"], bar["holds"], bar["leaks"]) == (1.05, True, False)
    assert bar_text(bar) == "≤ 1.05 \N{MULTIPLICATION SIGN} optimum = 1.05"
    cells = score_cells(score)
    assert (cells["score"], cells["excess"]) == ("1.040 ± 0.020", "+0.040")
    costs = summary["costs"]
    assert costs["steps_per_second"]["mean"] == pytest.approx(
        sum(500 / (2 * v) for v in (1.02, 1.04, 1.06)) / 3
    )
    assert costs["peak_memory_mb"] == pytest.approx(106)
    assert costs["git_commits"] == ["0123456789abcdef"]


@pytest.mark.parametrize(
    ("values", "status"), [([1.04], "holds"), ([1.2], "missed"), ([0.9], "leak"), ([], "not run")]
)
def test_status(tmp_path, values, status):
    summary = summarize(LSTM, outcomes(tmp_path, values), 1)
    assert summary["status"] == status
    assert status in render_markdown([summary])


def test_results_that_cannot_be_judged(tmp_path):
    (nan,) = outcomes(tmp_path / "nan", [math.nan])
    assert nan.error == "test/loss is nan; the fit diverged"
    (other,) = outcomes(tmp_path / "other", [1.0], optimum={})
    assert other.error == "results.json has no optimum of test/mse, which the bar is about"
    assert "num_parameters" in flaw(LSTM, {"metrics": {}})


def test_numbers():
    assert [decimals(sd, 1.0) for sd in (0.0234, 0.9, 12.0, 1e-9, 0.0, None)] == [
        3, 2, 0, None, None, None,
    ]  # fmt: skip
    assert number(-0.25, 3, signed=True) == "\N{MINUS SIGN}0.250"
    assert number(12345.678) == "12346"


def test_the_script_starts_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "scripts.results", "--only", "nothing"],
        cwd=Path(results.__file__).parent.parent.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "no trial 'nothing'" in done.stderr.splitlines()[-1]
