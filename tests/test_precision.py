"""Every experiment fits, is tested and predicts in bfloat16, near what it does in single precision.

The weights, the batch and its noise are the same; only the arithmetic is coarser.
"""

import math
import warnings

import lightning as L
import pytest
import torch
from test_contract import NAMES, small

from callbacks.run.reproducible import StepSeed
from lit_models.command.cli import build


def first_losses(model, datamodule, start, precision):
    """Losses of the first step and of the evaluation after it, whose rate is zero."""
    model.load_state_dict(start)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        precision=precision,
        limit_train_batches=1,
        limit_val_batches=1,
        limit_test_batches=1,
        limit_predict_batches=1,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[StepSeed(0)],
    )
    trainer.fit(model, datamodule=datamodule)
    losses = [float(trainer.callback_metrics[f"{stage}/loss"]) for stage in ("train", "val")]
    (scores,) = trainer.test(model, datamodule=datamodule, verbose=False)
    assert all(math.isfinite(score) for score in scores.values())
    (columns,) = trainer.predict(model, datamodule=datamodule)
    numbers = [value for value in columns.values() if value.is_floating_point()]
    assert all(value.isfinite().all() for value in numbers)
    return losses


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16(name):
    cli = build(["--config", name, *small(name), "--wandb.mode", "disabled"])
    model, datamodule = cli.model, cli.datamodule
    model.optimizer, model.lr_scheduler = lambda p: torch.optim.SGD(p, lr=0.0), None
    datamodule.setup("fit")
    model.take_scale(datamodule)
    start = {key: value.clone() for key, value in model.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        single = first_losses(model, datamodule, start, "32-true")
        for precision in ("bf16-mixed", "bf16-true"):
            for loss, coarse in zip(
                single, first_losses(model, datamodule, start, precision), strict=True
            ):
                assert coarse == pytest.approx(loss, rel=0.1, abs=0.05), precision
            model.float()
