"""Weights & Biases offline: one run with the whole configuration, its figures, and its id kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from wandb_files import config_of, entries, of_type, parse, records

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


def test_two_processes_make_one_run(offline):
    # Without WANDB_SERVICE, which would hand the run to the process of an earlier test.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    environment |= {"PYTHONPATH": os.pathsep.join([str(ROOT.parent), str(ROOT)])}
    command = [sys.executable, "-m", "lit_models", "fit", "--config", CONFIG, "--config", "ddp"]
    command += ["--trainer.devices", "2", "--run_id", "two", "--runs_dir", "runs"]
    done = subprocess.run(
        command, env=environment, cwd=offline, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    parts = list(offline.glob("**/offline-run-*"))
    assert len(parts) == 1
    (run,) = of_type(records(offline / "runs" / "tiny" / "two"), "run")
    assert run.run_id == "two"


def test_a_run_without_tracker_writes_its_metrics(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", CONFIG, "--run_id", "x", "--wandb.mode", "disabled"]) == 0
    assert not list(tmp_path.glob("**/wandb"))
    assert (tmp_path / "runs" / "tiny" / "x" / "metrics.csv").is_file()
