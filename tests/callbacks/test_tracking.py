"""Weights & Biases offline: one run with the whole configuration, its figures, and its id kept."""

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from forked import TWO, command, run
from wandb_files import config_of, entries, of_type, parse, records

from lit_models import __version__
from lit_models.__main__ import main

ROOT = Path(__file__).parent.parent
CONFIG = str(ROOT / "tiny.yaml")


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check_that_half_a_file_is_read(run_dir: Path, found: list) -> None:
    """A file cut anywhere, as its writer may leave it for a moment, gives its first records."""
    (path,) = run_dir.glob("wandb/offline-run-*/*.wandb")
    cut = run_dir / "cut"
    size = path.stat().st_size
    for kept in {*range(0, size, 97), *range(size - 300, size)}:
        cut.write_bytes(path.read_bytes()[:kept])
        part = parse(cut)
        assert part == found[: len(part)]
        assert len(part) < len(found)
    cut.unlink()


def test_a_run_holds_everything_and_keeps_its_id(offline):
    fit = ["fit", "--config", CONFIG, "--runs_dir", "runs"]
    schedule = ["--model.lr_scheduler.total_steps", "24"]
    assert main([*fit, *schedule, "--run_id", "a1", "--trainer.max_epochs", "2"]) == 0
    run_dir = offline / "runs" / "tiny" / "a1"
    found = records(run_dir)
    (run,) = of_type(found, "run")
    assert run.run_id == "a1"
    assert run.project == "lit-models"
    config = config_of(found)
    assert config["model"]["class_path"] == "tiny.LitTiny"
    assert config["data"]["init_args"]["num_samples"] == 53
    assert config["trainer"]["max_epochs"] == 2
    assert config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.01
    assert config["seed_everything"] == 0
    assert set(config) >= {"git_commit", "versions", "command"}
    assert config["versions"]["lit-models"] == __version__
    names = {name for history in of_type(found, "history") for name in entries(history.item)}
    assert {"train/loss", "val/loss", "val/mse", "test/mse"} <= names
    assert any(name.startswith("figures/loss_curves") for name in names)
    assert list(run_dir.glob("wandb/offline-run-*/files/media/images/figures/*.png"))
    check_that_half_a_file_is_read(run_dir, found)

    assert main([*fit, "--ckpt_path", "last", "--trainer.max_epochs", "4"]) == 0
    runs = of_type(records(run_dir), "run")
    assert [run.run_id for run in runs] == ["a1", "a1"]
    assert sorted(path.name for path in (offline / "runs" / "tiny").iterdir()) == ["a1"]


def test_runs_of_one_process_stay_in_their_folders(offline, monkeypatch):
    """W&B's own process keeps the working folder of the first run it was started for."""
    for name in ("first", "second"):
        (offline / name).mkdir()
        monkeypatch.chdir(offline / name)
        fit = ["fit", "--config", CONFIG, "--runs_dir", "runs", "--trainer.max_epochs", "1"]
        assert main([*fit, "--run_id", name]) == 0
        (run,) = of_type(records(offline / name / "runs" / "tiny" / name), "run")
        assert run.run_id == name


def test_project_and_name_follow_the_environment(offline, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "my-thesis")
    monkeypatch.setenv("WANDB_NAME", "trial-7")
    fit = ["fit", "--config", CONFIG, "--trainer.max_epochs", "1"]
    assert main([*fit, "--run_id", "a"]) == 0
    assert main([*fit, "--run_id", "b", "--wandb.project", "p", "--wandb.name", "n"]) == 0
    runs = offline / "runs" / "tiny"
    (a,), (b,) = (of_type(records(runs / name), "run") for name in "ab")
    assert (a.project, a.display_name) == ("my-thesis", "trial-7")
    assert (b.project, b.display_name) == ("p", "n")
    monkeypatch.delenv("WANDB_PROJECT")
    last = str(runs / "a" / "checkpoints" / "last.ckpt")
    assert main(["fit", "--config", CONFIG, "--ckpt_path", last]) == 0
    assert {run.project for run in of_type(records(runs / "a"), "run")} == {"my-thesis"}


@pytest.fixture
def server(monkeypatch):
    """A server that answers nothing but errors, in the place of W&B's."""
    handler = type("Refusing", (BaseHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


def online(folder: Path, url: str, *options: str, **variables: str):
    """An online fit in a process of its own, which has no service of an earlier test."""
    where = {"WANDB_BASE_URL": url, "WANDB_MODE": "online", "HOME": str(folder)}
    return run(folder, "fit", "--config", CONFIG, *options, **where, **variables)


def test_an_online_run_without_network_ends_in_one_line(tmp_path):
    done = online(tmp_path, "http://127.0.0.1:9", WANDB_API_KEY="a" * 40)
    assert done.returncode == 2
    # wandb 0.19 names its own service first.
    said = [line for line in done.stderr.splitlines() if not line.startswith("wandb: Using")]
    assert len(said) == 1
    assert said[0].startswith("lit-models: error: W&B cannot record online: its server does")
    assert not (tmp_path / "runs").exists()


def test_an_online_run_without_network_records_offline_where_asked(tmp_path):
    options = ["--wandb.unreachable", "offline", "--wandb.log_model", "true"]
    done = online(tmp_path, "http://127.0.0.1:9", *options, WANDB_API_KEY="a" * 40)
    assert done.returncode == 0, done.stderr
    assert "lit-models: W&B records offline: its server does not answer" in done.stderr
    assert len(list(tmp_path.glob("runs/tiny/*/wandb/offline-run-*/*.wandb"))) == 1


def test_an_online_run_without_key_ends_in_one_line(tmp_path, server):
    done = online(tmp_path, server)
    assert done.returncode == 2
    assert "lit-models: error: W&B cannot record online: " in done.stderr
    assert "wandb login" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_an_online_run_without_key_records_offline_where_asked(tmp_path, server):
    done = online(tmp_path, server, "--wandb.unreachable", "offline")
    assert done.returncode == 0, done.stderr
    assert "lit-models: W&B records offline: " in done.stderr
    assert len(list(tmp_path.glob("runs/tiny/*/wandb/offline-run-*/*.wandb"))) == 1


@pytest.mark.parametrize("home", [None, "/proc/nowhere"])
def test_a_run_without_a_home_says_nothing_of_it(tmp_path, home):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "XDG_"))}
    environment |= {"PYTHONPATH": os.pathsep.join([str(ROOT.parent), str(ROOT)])}
    environment.pop("HOME", None)
    if home is not None:
        environment["HOME"] = home
    command = [sys.executable, "-m", "lit_models", "fit", "--config", CONFIG]
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0
    assert done.stderr == ""


def test_two_processes_make_one_run(offline):
    command(offline, "fit", "--config", CONFIG, *TWO, "--run_id", "two", ranks=2)
    parts = list(offline.glob("**/offline-run-*"))
    assert len(parts) == 1
    (run,) = of_type(records(offline / "tiny" / "two"), "run")
    assert run.run_id == "two"


def test_a_run_without_tracker_writes_its_metrics(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", CONFIG, "--run_id", "x", "--wandb.mode", "disabled"]) == 0
    assert not list(tmp_path.glob("**/wandb"))
    assert (tmp_path / "runs" / "tiny" / "x" / "metrics.csv").is_file()
