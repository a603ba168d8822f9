"""A run of commit 3ba1abf, before the rooms: its config.yaml and checkpoint are read as ever.

``lit-models fit --config binary_classification --config cpu --model.hidden_sizes [5]
--data.num_samples 120 --data.num_test 60 --data.batch_size 16 --trainer.max_epochs 5``
"""

import json
import shutil
from pathlib import Path

import pytest

from lit_models import LitMLPClassifier
from lit_models.__main__ import main

RUN = Path(__file__).parent / "old_run"


def test_an_old_run_is_tested(tmp_path):
    folder = tmp_path / "runs" / "binary_classification" / "a"
    shutil.copytree(RUN, folder)
    before = json.loads((folder / "results.json").read_text())["metrics"]
    checkpoint = str(folder / "checkpoints" / "best.ckpt")
    options = ["--trainer.callbacks", "null", "--runs_dir", str(tmp_path / "runs")]
    assert main(["test", "--ckpt_path", checkpoint, *options]) == 0
    found = json.loads((folder / "results.json").read_text())["metrics"]
    assert found == {name: pytest.approx(value, rel=1e-6) for name, value in before.items()}


def test_an_old_checkpoint_is_loaded():
    path = RUN / "checkpoints" / "best.ckpt"
    model = LitMLPClassifier.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    assert model.hparams["hidden_sizes"] == [5]
    assert model.x_scaler.is_fitted
