"""The lighter parts of the Trainer leave every callback its say."""

import lightning as L
import pytest
from lightning.pytorch.callbacks import LambdaCallback
from tiny import LitTiny, TinyDataModule

from lit_models.training.lightning_repairs import hide_empty_hooks


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


@pytest.fixture
def fitted():
    ends = []
    callbacks = [Heir(), LambdaCallback(on_train_batch_end=lambda *args: ends.append(args[-1]))]
    hide_empty_hooks(callbacks)
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        callbacks=callbacks,
    )
    trainer.fit(LitTiny(in_features=3), TinyDataModule())
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
