"""A system that refuses: full disks, files for folders, two commands at once."""

import os
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest
from refusals import CONFIG, FIT, snapshot

from datamodules.files.whole_file import whole_file
from lit_models.__main__ import main
from lit_models.command.run_folder import RunFolder

RESUME = [*FIT, "--ckpt_path", "last", "--trainer.max_epochs", "3"]


def fill(path: Path) -> None:
    """Makes the disk full for one file: what is written beside it goes to /dev/full."""
    path.with_name(f".{path.name}.{os.getpid()}").symlink_to("/dev/full")


@contextmanager
def files_up_to(size: int):
    """Limits the size of every file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def message(capsys) -> str:
    error = capsys.readouterr().err.strip()
    assert error.startswith("lit-models: error: ")
    assert "\n" not in error
    return error


def test_full_disk_on_the_first_save(fitted, capsys):
    before = snapshot(fitted.parent)
    size = (fitted / "config.yaml").stat().st_size
    assert size + 99 < (fitted / "checkpoints" / "best.ckpt").stat().st_size
    with files_up_to(size + 99):
        assert main([*FIT, "--run_id", "second"]) == 2
    line = message(capsys)
    assert "runs/tiny/second/checkpoints/" in line
    assert "File too large; raise the limit" in line
    assert snapshot(fitted.parent) == before


def test_full_disk_on_the_configuration(folder, capsys):
    with files_up_to(500):
        assert main(FIT) == 2
    assert "config.yaml: File too large; raise the limit" in message(capsys)
    assert snapshot(folder) == {}


def test_full_disk_on_a_later_save(fitted, capsys):
    last = fitted / "checkpoints" / "last.ckpt"
    content = last.read_bytes()
    fill(last)
    assert main(RESUME) == 2
    assert "last.ckpt: No space left on device; free some space on the disk" in message(capsys)
    assert last.read_bytes() == content
    assert not list(fitted.rglob(".*"))
    assert main(RESUME) == 0


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("predict", "predictions.csv"),
        ("test", "test.json"),
        ("test", "figures/loss_curves.png"),
        ("validate", "validate.json"),
    ],
)
def test_full_disk_on_a_result(fitted, capsys, command, name):
    line = [command, "--config", CONFIG, "--ckpt_path", "best"]
    assert main(line) == 0
    capsys.readouterr()
    path = fitted / name
    if not path.exists():
        pytest.skip(f"{command} writes no {name}")
    content = path.read_bytes()
    fill(path)
    code = main(line)
    error = capsys.readouterr().err
    if code == 0:
        pytest.skip(f"{command} left {name} alone")
    assert code == 2
    assert f"{name}: No space left on device" in error
    assert path.read_bytes() == content


def test_a_file_for_the_folder_of_runs(folder, capsys):
    (folder / "runs").write_text("mine")
    assert main(FIT) == 2
    assert "a file stands where a folder is needed; choose another --runs_dir" in message(capsys)
    assert (folder / "runs").read_text() == "mine"


def test_a_folder_that_cannot_be_written_to(folder, capsys):
    assert main([*FIT, "--runs_dir", "/sys/runs"]) == 2
    assert "/sys/runs: " in message(capsys)


def test_a_long_path(folder, capsys):
    assert main([*FIT, "--runs_dir", "x" * 300]) == 2
    assert "File name too long; shorten" in message(capsys)
    assert snapshot(folder) == {}


def test_a_folder_in_the_place_of_a_checkpoint(fitted, capsys):
    best = fitted / "checkpoints" / "best.ckpt"
    best.unlink()
    best.mkdir()
    assert main(["test", "--config", CONFIG, "--ckpt_path", "best"]) == 2
    assert "best.ckpt" in message(capsys)


def test_two_commands_in_one_folder(fitted, capsys):
    before = snapshot(fitted)
    other = RunFolder()
    other.open(fitted, alone=True)
    assert main(RESUME) == 2
    assert "another command writes to runs/tiny/first; wait for it" in message(capsys)
    assert snapshot(fitted) == before
    other.close(keep=True)
    assert main(RESUME) == 0


def test_two_new_runs_of_one_name(folder, capsys):
    other = RunFolder()
    other.open(folder / "runs" / "tiny" / "same", alone=True)
    assert main([*FIT, "--run_id", "same"]) == 2
    assert "another command writes to runs/tiny/same" in message(capsys)
    assert (folder / "runs" / "tiny" / "same").is_dir()
    other.close(keep=False)
    assert snapshot(folder) == {}


def test_a_lost_folder(folder, monkeypatch, capsys):
    (folder / "gone").mkdir()
    monkeypatch.chdir(folder / "gone")
    (folder / "gone").rmdir()
    assert main(FIT) == 2
    assert "the current folder no longer exists; change to another" in message(capsys)


def test_an_unknown_mode_of_the_tracker(refused, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    refused(FIT, "WANDB_MODE is 'sometimes'; set it to online, offline or disabled")


@pytest.mark.parametrize("mode", ["w", "wb"])
def test_a_file_is_whole_or_not_there(tmp_path, mode):
    path = tmp_path / "file"
    old, new = ("old", "new") if mode == "w" else (b"old", b"new")
    with whole_file(path, mode) as file:
        file.write(old)
        assert not path.exists()
    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error), whole_file(path, mode) as file:  # noqa: PT012
            file.write(new)
            raise error
        assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
