"""A continued run of every experiment takes the rate of its command line, and moves by it."""

import warnings

import lightning as L
import pytest
import torch
from test_contract import NAMES, small

from callbacks.run.optimizer_options import OptimizerOptions
from callbacks.run.reproducible import StepSeed
from lit_models.command.cli import build


def fit(name, path, steps, *options):
    cli = build(["--config", name, *small(name), *options])
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        limit_train_batches=2,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[StepSeed(0), OptimizerOptions()],
    )
    start = [p.detach().clone() for p in cli.model.parameters()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(cli.model, cli.datamodule, ckpt_path=path if path.exists() else None)
        trainer.save_checkpoint(path)
    assert trainer.global_step == steps
    return start, [p.detach().clone() for p in cli.model.parameters()], trainer


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_rate_is_in_force(name, tmp_path, capsys):
    path = tmp_path / "run.ckpt"
    start, before, _ = fit(name, path, 1)
    # The run's own rate moves the weights by far more than the changed one may.
    assert max((a - b).abs().max() for a, b in zip(start, before, strict=True)) > 1e-6
    _, after, trainer = fit(name, path, 2, "--model.optimizer.lr=1e-12")
    assert "continued with lr 1e-12 (was " in capsys.readouterr().err
    for group in trainer.optimizers[0].param_groups:
        assert group.get("initial_lr", group["lr"]) == 1e-12
        assert group["lr"] <= 1e-12
    for scheduler in (config.scheduler for config in trainer.lr_scheduler_configs):
        assert set(scheduler.base_lrs) == {1e-12}
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new, old, rtol=0, atol=1e-8)
