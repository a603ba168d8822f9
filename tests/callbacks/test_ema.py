"""The averaged weights: their law, in the checkpoint, and in the test after a fit."""

import json
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import callbacks
from lit_models.__main__ import main

CONFIG = str(Path(__file__).parent.parent / "tiny.yaml")
EMA = ["--trainer.callbacks+=callbacks.EMA", "--trainer.callbacks.decay=0.9"]


def fit(tmp_path, *args):
    command = ["fit", "--config", CONFIG, "--runs_dir", str(tmp_path), "--model.dropout", "0.3"]
    # A resumed run takes its callbacks from its own config.
    callbacks = [] if "--ckpt_path=last" in args else EMA
    assert main([*command, *callbacks, *args]) == 0


def checkpoint(tmp_path, run_id, name="last"):
    path = tmp_path / "tiny" / run_id / "checkpoints" / f"{name}.ckpt"
    return torch.load(path, weights_only=True)


def test_average_of_the_weights_after_each_step(tmp_path):
    length = "--model.lr_scheduler.total_steps=24"
    expected = None
    for steps in range(1, 5):
        fit(tmp_path, f"--trainer.max_steps={steps}", length, f"--run_id=part{steps}")
        raw = checkpoint(tmp_path, f"part{steps}")["current_model_state"]["net.0.weight"]
        expected = raw if expected is None else 0.9 * expected + 0.1 * raw
    got = checkpoint(tmp_path, "part4")["state_dict"]["net.0.weight"]
    torch.testing.assert_close(got, expected)
    assert not torch.allclose(got, raw)


def test_the_test_after_a_fit_scores_the_averaged_weights(tmp_path):
    fit(tmp_path, "--run_id=run")
    folder = tmp_path / "tiny" / "run"
    command = ["test", "--config", CONFIG, "--runs_dir", str(tmp_path), "--ckpt_path", "best"]
    assert main(command) == 0
    after_fit, alone = (
        json.loads((folder / name).read_text())["metrics"] for name in ("results.json", "test.json")
    )
    assert after_fit == pytest.approx(alone, rel=1e-6)


@pytest.mark.parametrize("stop", [12, 9])
def test_a_resumed_average_equals_the_uninterrupted(tmp_path, stop):
    length = "--model.lr_scheduler.total_steps=24"
    fit(tmp_path, length, "--run_id=whole")
    fit(tmp_path, length, "--run_id=part", f"--trainer.max_steps={stop}")
    fit(tmp_path, length, "--ckpt_path=last", "--trainer.max_steps=-1")
    whole, part = (checkpoint(tmp_path, run_id) for run_id in ("whole", "part"))
    for key in ("state_dict", "current_model_state"):
        for name, value in whole[key].items():
            assert torch.equal(value, part[key][name]), (key, name)


class Deciding(L.LightningModule):
    """Validation decides a buffer, as it does a share or the widths of intervals."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(1, 1)
        self.register_buffer("decided", torch.zeros(()))

    def training_step(self, batch, batch_idx):
        return self.net(batch).square().mean()

    def validation_step(self, batch, batch_idx):
        self.found = self.net.weight.detach().sum()

    def on_validation_epoch_end(self):
        self.decided.copy_(self.found)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_checkpoint_holds_what_its_own_validation_decided(tmp_path):
    saved = L.pytorch.callbacks.ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_epochs=1)
    trainer = L.Trainer(
        max_steps=6, val_check_interval=2, num_sanity_val_steps=0, accelerator="cpu", logger=False,
        enable_progress_bar=False, enable_model_summary=False,
        callbacks=[callbacks.EMA(0.5), saved],
    )  # fmt: skip
    model = Deciding()
    trainer.fit(model, DataLoader(torch.ones(6, 1)), DataLoader(torch.ones(1, 1)))
    paths = list(tmp_path.glob("*.ckpt"))
    assert len(paths) == 3
    for path in paths:
        state = torch.load(path, weights_only=True)["state_dict"]
        assert state["decided"] == state["net.weight"].sum(), path.name
    assert model.decided == model.net.weight.sum()
