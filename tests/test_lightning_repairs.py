"""Repairs of Lightning leave every callback its say, and each is still needed.

A test named ``..._still_...`` does what a repair is for with a plain LightningModule and a plain
Trainer. It fails once an upstream version needs the repair no longer: delete both then.
"""

import importlib.util
import inspect
import math
import shutil
import tempfile
from pathlib import Path
from typing import Union

import lightning as L
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch.callbacks import Callback, LambdaCallback, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.plugins.precision import HalfPrecision
from lightning.pytorch.profilers import PassThroughProfiler
from tiny import LitTiny, TinyDataModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_models.command.cli import build
from lit_models.training.lightning_repairs import (
    half_precision_inputs,
    hide_empty_hooks,
    run_length,
)
from lit_models.weights.checkpoints import WholeCheckpointIO


class Plain(L.LightningModule):
    """A LightningModule with nothing of this package in it."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 1)

    def training_step(self, batch, batch_idx):
        (x,) = batch
        return self.net(x).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", float(self.current_epoch))  # never better than at first

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), fused=True)


def test_one_batch_is_not_all_of_them(monkeypatch):
    """Whoever wrote the same union first in this process, and in which order."""
    hints = inspect.unwrap(L.Trainer.__init__).__annotations__
    monkeypatch.setitem(hints, "limit_train_batches", Union[float, int, None])  # noqa: UP007
    for text in ("1", "0.5"):
        cli = build(["--config", "lstm", "--trainer.limit_train_batches", text])
        assert repr(cli.trainer.limit_train_batches) == text


def test_a_union_still_comes_in_the_order_of_another():
    assert "limit_train_batches: Optional[Union[int, float]]" in inspect.getsource(L.Trainer)
    parser = ArgumentParser()
    parser.add_argument("--batches", type=Union[float, int, None])  # noqa: UP007
    assert repr(parser.parse_args(["--batches", "1"]).batches) == "1.0"


def loader():
    return DataLoader(TensorDataset(torch.randn(10, 3)), batch_size=4)


def trainer(**options):
    defaults = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "limit_val_batches": 0,
        "max_steps": 2,
    }
    return L.Trainer(**{**defaults, **options})


class Counting(L.Callback):
    def __init__(self):
        self.calls = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self.calls.append(batch_idx)

    def on_before_zero_grad(self, *args):
        self.calls.append("zero_grad")


class Heir(Counting):
    """Inherits its hooks."""


@pytest.fixture(scope="module")
def fitted():
    ends = []
    callbacks = [Heir(), LambdaCallback(on_train_batch_end=lambda *args: ends.append(args[-1]))]
    hide_empty_hooks(callbacks)
    trainer(callbacks=callbacks).fit(LitTiny(in_features=3), TinyDataModule())
    return callbacks, ends


def test_hooks_that_a_callback_has_are_called(fitted):
    (heir, _), ends = fitted
    assert heir.calls == ["zero_grad", 0, "zero_grad", 1]
    assert ends == [0, 1]


def test_hooks_that_no_callback_has_are_hidden(fitted):
    (heir, given), _ = fitted
    assert heir.on_train_batch_start is None
    assert given.on_after_backward is None
    assert callable(heir.on_train_epoch_end)
    assert callable(Counting().on_train_batch_start)


def test_lightning_still_calls_hooks_that_a_callback_leaves_as_they_are(monkeypatch):
    calls = []
    monkeypatch.setattr(Callback, "on_after_backward", lambda *args: calls.append(args))
    trainer(callbacks=[Callback()]).fit(Plain(), loader())
    assert len(calls) == 2


def test_lightning_still_notes_a_hook_through_the_search_of_torch(monkeypatch):
    names, set_attribute = [], nn.Module.__setattr__

    def record(module, name, value):
        names.append(name)
        set_attribute(module, name, value)

    monkeypatch.setattr(nn.Module, "__setattr__", record)
    trainer().fit(Plain(), loader())
    assert names.count("_current_fx_name") > 20
    names.clear()
    trainer().fit(LitTiny(in_features=3), TinyDataModule())
    assert "_current_fx_name" not in names


def test_an_idle_profiler_still_makes_a_generator():
    assert inspect.isgenerator(PassThroughProfiler().profile("step").gen)


def test_a_fused_optimizer_is_still_not_clipped_in_bfloat16():
    with pytest.raises(RuntimeError, match="does not allow for gradient clipping"):
        trainer(precision="bf16-mixed", gradient_clip_val=0.5).fit(Plain(), loader())


def test_half_precision_still_rounds_numbers_in_double_precision():
    plugin = HalfPrecision("bf16-true")
    year = torch.tensor([1999.0], dtype=torch.float64)
    assert plugin.convert_input(year).double() != year
    assert half_precision_inputs(plugin)(year) == year


def test_the_trainer_still_has_no_public_word_for_the_end_of_a_window():
    loop = trainer().fit_loop
    assert callable(loop._should_accumulate)
    assert not hasattr(loop, "should_accumulate")
    assert not hasattr(loop.epoch_loop, "should_accumulate")


def test_asked_for_its_length_a_fit_still_sets_its_loader_up():
    class Asking(Plain):
        def configure_optimizers(self):
            loop, self.seen = self.trainer.fit_loop, []
            for ask in (run_length, lambda trainer: trainer.estimated_stepping_batches):
                self.seen.append((ask(self.trainer), loop._combined_loader is not None))
            return super().configure_optimizers()

    model = Asking()
    trainer(max_steps=-1, max_epochs=2, accumulate_grad_batches=2).fit(model, loader())
    assert model.seen == [(4, False), (4, True)]
    assert math.isinf(run_length(trainer(max_steps=-1, max_epochs=-1)))


@pytest.fixture
def temporary_files(monkeypatch):
    """Folders in which temporary files are made."""
    folders, make = [], tempfile.mkstemp

    def record(*args, **kwargs):
        handle, name = make(*args, **kwargs)
        folders.append(Path(name).parent)
        return handle, name

    monkeypatch.setattr(tempfile, "mkstemp", record)
    return folders


def test_lightning_still_saves_a_checkpoint_by_way_of_another_folder(tmp_path, temporary_files):
    TorchCheckpointIO().save_checkpoint({"a": 1}, tmp_path / "a.ckpt")
    assert set(temporary_files) - {tmp_path}
    shutil.rmtree(tmp_path)
    temporary_files.clear()
    WholeCheckpointIO().save_checkpoint({"a": 1}, tmp_path / "a.ckpt")
    assert not set(temporary_files) - {tmp_path}
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


def test_a_last_checkpoint_is_still_kept_at_a_new_best_alone(tmp_path):
    keep = ModelCheckpoint(tmp_path, monitor="val/loss", save_last=True)
    trainer(
        **{"callbacks": [keep], "enable_checkpointing": True, "limit_val_batches": 1},
        **{"max_steps": -1, "max_epochs": 3},
    ).fit(Plain(), loader(), loader())
    assert torch.load(tmp_path / "last.ckpt")["epoch"] == 0


def test_torchmetrics_and_the_tracker_still_import_what_no_fit_needs():
    """By their text: either import costs half a second, and once made is not undone."""
    spec = importlib.util.find_spec("torchmetrics")
    assert "import scipy.signal" in Path(spec.origin).read_text(encoding="utf-8")
    wandb = Path(importlib.util.find_spec("wandb").origin).parent
    run = wandb.joinpath("sdk", "wandb_run.py").read_text(encoding="utf-8")
    assert "from wandb.sdk.launch.inputs.internal import StagedLaunchInputs" in run
