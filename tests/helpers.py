"""What several test files use."""

import json
from pathlib import Path

from lit_models.__main__ import main


def fit(experiment: str, *args: str, tmp_path: Path) -> dict:
    """Fits and tests an experiment through the command; returns its results.json.

    The run's folder is ``results["run_dir"]``.
    """
    runs = tmp_path / "runs"
    before = set(runs.glob("*/*/results.json"))
    code = main(["fit", "--config", experiment, "--runs_dir", str(runs), *args])
    assert code == 0, f"fit exited with {code}"
    (path,) = set(runs.glob("*/*/results.json")) - before
    results = json.loads(path.read_text())
    return {**results, "run_dir": str(path.parent)}
