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
from datamodules.errors import InputError
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


# What cannot be computed in bfloat16 is refused.
REFUSED = {"laplace_mlp": "factorises curvatures, which half precision cannot"}
# Samples and texts are drawn step by step.
FEW_STEPS = {
    "ddpm": ["--model.num_steps=5", "--data.num_generated=9"],
    "ddpm_mixture": ["--model.num_steps=5", "--data.num_generated=9"],
    "ddpm_digits": [
        *("--model.num_steps=3", "--model.num_sample_steps=2", "--model.hidden_size=4"),
        "--data.num_generated=1",
    ],
    "gpt": ["--model.num_new_tokens=2"],
    "gpt_in_context": ["--model.num_new_tokens=2"],
}


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16(name):
    cli = build(["--config", name, *small(name), *FEW_STEPS.get(name, [])])
    model, datamodule = cli.model, cli.datamodule
    model.optimizer, model.lr_scheduler = lambda p: torch.optim.SGD(p, lr=0.0), None
    datamodule.setup("fit")
    model.take_scale(datamodule)
    start = {key: value.clone() for key, value in model.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        single = first_losses(model, datamodule, start, "32-true")
        for precision in ("bf16-mixed", "bf16-true"):
            if precision == "bf16-true" and name in REFUSED:
                with pytest.raises(InputError, match=REFUSED[name]):
                    first_losses(model, datamodule, start, precision)
                continue
            for loss, coarse in zip(
                single, first_losses(model, datamodule, start, precision), strict=True
            ):
                assert coarse == pytest.approx(loss, rel=0.1, abs=0.05), precision
            model.float()
