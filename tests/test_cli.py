"""The command: layers of configuration, run folders, checkpoints by name, mistakes in one line."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from forked import run

from callbacks.run.predictions import OrderedPredictions, quote_formulas
from lit_models.__main__ import main
from lit_models.command.arguments import prepare
from lit_models.command.catalog import describe, experiments
from lit_models.command.cli import build

CONFIG = str(Path(__file__).parent / "tiny.yaml")


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def fitted(in_tmp):
    assert main(["fit", "--config", CONFIG, "--run_id", "first", "--model.hidden_size=5"]) == 0
    return in_tmp / "runs" / "tiny" / "first"


def test_help_and_list_import_nothing_heavy():
    program = (
        "import sys\n"
        "from lit_models.__main__ import main\n"
        "assert main(['--help']) == 0 and main(['list']) == 0 and main(['fit', '--help']) == 0\n"
        "assert not {'torch', 'lightning', 'numpy', 'pandas'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "usage: lit-models" in done.stdout
    assert "test metric" in done.stdout


def test_the_list_fits_a_terminal_and_says_what_each_experiment_is():
    lines = describe().splitlines()
    assert max(map(len, lines)) <= 80
    named = {line.split()[0]: line for line in lines[1:] if line[0] != " "}
    assert set(named) == set(experiments())
    for name, path in experiments().items():
        first = path.read_text().partition("\n")[0].lstrip("# ")
        assert first.split()[0] in named[name]


def test_run_folder_holds_everything(fitted, capsys):
    names = {path.name for path in fitted.iterdir()}
    assert {"checkpoints", "config.yaml", "metrics.csv", "figures", "results.json"} <= names
    assert (fitted / "figures" / "loss_curves.png").stat().st_size > 1000
    assert {p.name for p in (fitted / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    results = json.loads((fitted / "results.json").read_text())
    assert results["excess"]["test/mse"] == pytest.approx(results["metrics"]["test/mse"] - 0.01)
    assert results["baseline"] == {"test/mse": pytest.approx(3.01)}
    wanted = {
        *(
            "experiment",
            "model",
            "data",
            "seed",
            "metrics",
            "optimum",
            "baseline",
            "excess",
            "rivals",
            "larger_is_better",
            "series",
        ),
        *("num_parameters", "optimizer_steps", "train_seconds", "peak_memory_mb"),
        *("git_commit", "versions", "command"),
    }
    assert set(results) == wanted
    assert results["command"].startswith("lit-models fit --config")
    config = yaml.safe_load((fitted / "config.yaml").read_text())
    assert config["model"]["init_args"]["hidden_size"] == 5
    assert config["experiment"] == "tiny"
    columns = pd.read_csv(fitted / "metrics.csv").columns
    assert {"epoch", "step", "train/loss", "val/loss", "val/mse"} <= set(columns)


def test_best_and_last_take_the_options_of_their_run(fitted, capsys):
    assert main(["test", "--config", CONFIG, "--ckpt_path", "best"]) == 0
    fit_result = json.loads((fitted / "results.json").read_text())["metrics"]
    test_result = json.loads((fitted / "test.json").read_text())["metrics"]
    assert test_result == fit_result
    assert main(["validate", "--config", CONFIG, "--ckpt_path", "last"]) == 0
    assert "val/mse" in json.loads((fitted / "validate.json").read_text())["metrics"]


def test_a_validation_works_out_no_test_score(fitted, monkeypatch):
    """Optimum and rivals are scores of the test, and may take longer than the validation."""
    worked_out = property(lambda data: pytest.fail("worked out"))
    for name in ("optimum", "baseline", "rivals"):
        monkeypatch.setattr("tiny.TinyDataModule." + name, worked_out)
    assert main(["validate", "--config", CONFIG, "--ckpt_path", "last"]) == 0
    results = json.loads((fitted / "validate.json").read_text())
    assert results["optimum"] == results["baseline"] == results["rivals"] == {}


def test_a_checkpoint_alone_is_enough(in_tmp):
    options = ["--model", "LitLinearRegression", "--data", "LinearDataModule"]
    options += ["--data.num_samples", "99", "--trainer.max_epochs", "1", "--run_id", "first"]
    assert main(["fit", *options]) == 0
    fitted = in_tmp / "runs" / "LitLinearRegression" / "first"
    path = fitted / "checkpoints" / "best.ckpt"
    assert main(["predict", "--ckpt_path", str(path)]) == 0
    table = pd.read_csv(fitted / "predictions.csv")
    assert list(table.columns) == ["prediction", "target"]
    mse = ((table["prediction"] - table["target"]) ** 2).mean()
    results = json.loads((fitted / "results.json").read_text())
    assert mse == pytest.approx(results["metrics"]["test/mse"], rel=1e-5)


def test_the_configuration_of_a_continued_run_starts_a_run_of_its_own(fitted, capsys):
    again = ["--ckpt_path", "last", "--trainer.max_epochs", "5"]
    assert main(["fit", "--config", CONFIG, *again]) == 0
    before = (fitted / "results.json").read_bytes()
    saved = yaml.safe_load((fitted / "config.yaml").read_text())
    assert saved["ckpt_path"] is None
    assert saved["run_id"] is None
    # As runs of earlier versions have written it.
    saved |= {"ckpt_path": str(fitted / "checkpoints" / "last.ckpt"), "run_id": "first"}
    (fitted.parents[2] / "old.yaml").write_text(yaml.safe_dump(saved))
    for config in (fitted / "config.yaml", "old.yaml"):
        assert main(["fit", "--config", str(config), "--seed_everything", "3"]) == 0
    assert (fitted / "results.json").read_bytes() == before
    runs = [path for path in (fitted.parent).iterdir() if path != fitted]
    assert len(runs) == 2
    for folder in runs:
        results = json.loads((folder / "results.json").read_text())
        assert (results["seed"], results["optimizer_steps"]) == (3, 30)
    assert main(["test", "--config", "old.yaml", "--ckpt_path", "best"]) == 0


def test_a_schedule_that_waits_for_a_metric_has_a_short_name(in_tmp):
    options = ["--model.lr_scheduler", "ReduceLROnPlateau"]
    cli = build(["--config", CONFIG, *options, "--model.lr_scheduler.monitor", "val/loss"])
    schedule = cli.model.lr_scheduler(cli.model.optimizer(cli.model.parameters()))
    assert schedule.monitor == "val/loss"


def test_a_profiler_that_is_asked_for_prints(tmp_path):
    options = ["--trainer.profiler", "simple", "--trainer.max_epochs", "1"]
    done = run(tmp_path, "fit", "--config", CONFIG, *options)
    assert done.returncode == 0
    assert "run_training_epoch" in done.stderr + done.stdout


def test_a_log_that_is_no_terminal_gets_lines(in_tmp, capsys):
    options = ["--trainer.enable_progress_bar", "true", "--trainer.max_epochs", "2"]
    assert main(["fit", "--config", CONFIG, *options]) == 0
    lines = capsys.readouterr().err
    assert "\r" not in lines
    assert "fit: 12/12 [" in lines
    assert all(len(line) < 120 for line in lines.splitlines())


def test_windows_is_refused_in_words(monkeypatch, capsys):
    monkeypatch.setattr(sys, "platform", "win32")
    assert main(["fit", "--config", CONFIG]) == 2
    assert "on Windows use it in WSL" in capsys.readouterr().err


def test_predictions_are_safe_to_open_in_a_spreadsheet_where_asked(in_tmp):
    path = in_tmp / "predictions.csv"
    cells = ["=HYPERLINK(1)", "+1", "-0.5", "-x", "@cmd", "-1e-3", "plain", 'a "quote", -', "-inf"]
    pd.DataFrame({"=title": cells, "value": range(9)}).to_csv(path, index=False)
    quote_formulas(path)
    table = pd.read_csv(path, dtype=str)
    assert list(table.columns) == ["'=title", "value"]
    safe = [
        "'=HYPERLINK(1)",
        "+1",
        "-0.5",
        "'-x",
        "'@cmd",
        "-1e-3",
        "plain",
        'a "quote", -',
        "-inf",
    ]
    assert list(table["'=title"]) == safe
    cli = build(["--config", CONFIG, "--spreadsheet", "true"])
    (writer,) = (c for c in cli.trainer.callbacks if isinstance(c, OrderedPredictions))
    assert writer.spreadsheet


def test_newest_run_is_taken(fitted):
    assert main(["fit", "--config", CONFIG, "--run_id", "second", "--trainer.max_epochs=1"]) == 0
    line = prepare(["test", "--config", CONFIG, "--ckpt_path", "best"])
    assert line.checkpoint == Path("runs/tiny/second/checkpoints/best.ckpt")


def test_command_line_wins_over_the_checkpoint_on_resume(fitted):
    options = ["--model.optimizer.lr=0.5", "--model.lr_scheduler=null", "--trainer.max_epochs=5"]
    assert main(["fit", "--config", CONFIG, "--ckpt_path", "last", *options]) == 0
    config = yaml.safe_load((fitted / "config.yaml").read_text())
    assert config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.5
    assert config["model"]["init_args"]["hidden_size"] == 5


@pytest.mark.parametrize("overlay", ["adam", "sgd", "momentum", "adagrad", "rmsprop", "adamw"])
def test_optimizer_overlays_fit_any_experiment(in_tmp, overlay):
    cli = build(["--config", CONFIG, "--config", overlay])
    optimizer = cli.model.optimizer(cli.model.parameters())
    assert isinstance(optimizer, torch.optim.Optimizer)


@pytest.mark.parametrize("overlay", ["cpu", "ddp", "bf16", "debug", "online", "slurm"])
def test_overlays_parse(in_tmp, overlay, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    line = prepare(["fit", "--config", CONFIG, "--config", overlay])
    assert any(str(arg).endswith(f"overlays/{overlay}.yaml") for arg in line.args)


def test_data_of_another_class_keeps_the_shared_arguments(in_tmp):
    cli = build(["--config", CONFIG, "--data", "tiny.TinyDataModule", "--data.num_samples", "29"])
    assert cli.datamodule.num_samples == 29


def test_gradient_clipping_comes_from_the_config(in_tmp):
    cli = build(["--config", CONFIG, "--trainer.gradient_clip_val", "0.5"])
    assert cli.trainer.gradient_clip_val == 0.5


WRONG = {
    "no such command": (["train"], "no command 'train'"),
    "no config": (["fit"], "fit what? give --config NAME, such as `lit-models fit --config lstm`"),
    "no data": (["fit", "--model", "LitGPT"], "required"),
    "unknown config": (
        ["fit", "--config", "ltsm"],
        "no configuration file or packaged name 'ltsm'",
    ),
    "unknown model option": (
        ["fit", "--config", CONFIG, "--model.hiden_size", "3"],
        "'hiden_size' is not accepted; did you mean hidden_size",
    ),
    "unknown data option": (["fit", "--config", CONFIG, "--data.noise", "3"], "noise_std"),
    "unknown trainer option": (["fit", "--config", CONFIG, "--trainer.epochs", "3"], "epochs"),
    "wrong type": (["fit", "--config", CONFIG, "--model.hidden_size", "x"], "expected int, got x"),
    "wrong value": (["fit", "--config", CONFIG, "--model.hidden_size", "0"], "got 0"),
    "linked size": (["fit", "--config", CONFIG, "--model.in_features", "4"], "in_features=3"),
    "unknown data class": (["fit", "--config", CONFIG, "--data", "CSVSeriesModule"], "no class"),
    "unknown module": (["fit", "--config", CONFIG, "--model", "no.Model"], "no.Model"),
    "empty split": (["fit", "--config", CONFIG, "--data.num_samples", "0"], "no rows"),
    "bad batch size": (["fit", "--config", CONFIG, "--data.batch_size", "0"], "at least 1, got 0"),
    "positional": (["fit", "lstm"], "unexpected 'lstm'"),
    "test without checkpoint": (["test", "--config", CONFIG], "needs --ckpt_path"),
    "missing checkpoint": (["test", "--config", CONFIG, "--ckpt_path", "x.ckpt"], "'x.ckpt'"),
    "no run to resume": (["fit", "--config", CONFIG, "--ckpt_path", "last"], "no last checkpoint"),
    "no accelerator": (["fit", "--config", CONFIG, "--trainer.accelerator", "tpu"], "torch_xla"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_one_line_and_leaves_nothing(in_tmp, capsys, name):
    args, message = WRONG[name]
    assert main(args) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert error.startswith("lit-models: error: ")
    assert "\n" not in error
    assert not (in_tmp / "runs").exists()


def _broken_yaml(folder: Path) -> list[str]:
    (folder / "broken.yaml").write_text("model:\n\tclass_path: x\n")
    return ["fit", "--config", "broken.yaml"]


def _truncated(folder: Path) -> list[str]:
    (folder / "cut.ckpt").write_bytes(b"PK\x03\x04 and no more")
    return ["test", "--config", CONFIG, "--ckpt_path", "cut.ckpt"]


def _code(folder: Path) -> list[str]:
    torch.save({"state_dict": {}, "x": Path()}, folder / "code.ckpt")
    return ["test", "--config", CONFIG, "--ckpt_path", "code.ckpt"]


def _other_shape(folder: Path) -> list[str]:
    weights = build(["--config", CONFIG, "--model.hidden_size", "9"]).model.state_dict()
    torch.save({"state_dict": weights, "global_step": 1}, folder / "other.ckpt")
    return ["test", "--config", CONFIG, "--ckpt_path", "other.ckpt"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_broken_yaml, "broken.yaml, line 2"),
        (_truncated, "cut.ckpt is no readable checkpoint"),
        (_code, "code.ckpt is no readable checkpoint"),
        (_other_shape, "net.0.weight"),
    ],
)
def test_a_wrong_file_is_one_line_and_leaves_nothing(in_tmp, capsys, make, message):
    args = make(in_tmp)
    assert main(args) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
    assert not (in_tmp / "runs").exists()


def test_two_runs_do_not_share_a_folder(fitted, capsys):
    before = {path: path.stat().st_mtime_ns for path in fitted.rglob("*")}
    assert main(["fit", "--config", CONFIG, "--run_id", "first"]) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in fitted.rglob("*")}
