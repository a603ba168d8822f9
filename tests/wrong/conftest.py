"""What every wrong input must come to."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from refusals import FIT, snapshot

from lit_models.__main__ import main


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(folder, capsys) -> Callable[[Sequence[str], str], None]:
    """Runs a command that must end in one line and exit code 2, and change nothing."""

    def check(args: Sequence[str], message: str) -> None:
        before = snapshot(folder)
        assert main(args) == 2
        error = capsys.readouterr().err.strip()
        assert error.startswith("lit-models: error: ")
        assert message in error
        assert "\n" not in error
        assert len(error) < 600
        assert snapshot(folder) == before

    return check


@pytest.fixture
def fitted(folder, capsys) -> Path:
    """Folder of a finished run."""
    assert main([*FIT, "--run_id", "first"]) == 0
    capsys.readouterr()
    return folder / "runs" / "tiny" / "first"
