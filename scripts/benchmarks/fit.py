"""A fit through the command against the plain loop of the same model, data and steps."""

import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset

from datamodules.loader import TensorLoader
from lit_models.cli import LitCLI, build
from scripts.benchmarks import Ratio, compare_seconds, print_cases


class _Clock(L.Callback):
    """Seconds from the first to the last training step, checkpoints and logs in, validation out."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._started = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started = time.perf_counter()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seconds += time.perf_counter() - self._started

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seconds += time.perf_counter() - self._started

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started = time.perf_counter()


def _built(experiment: str, folder: str, num_steps: int, options: Iterable[str]) -> LitCLI:
    length = ["--trainer.max_epochs", "-1", "--trainer.max_steps", str(num_steps)]
    cli = build(
        ["--config", experiment, *options, "--config", "cpu", "--runs_dir", folder, *length]
    )
    cli.datamodule.setup("fit")
    return cli


def fit_seconds(experiment: str, num_steps: int, options: Iterable[str] = ()) -> float:
    """Seconds per optimizer step of a fit with progress bar, W&B, CSV log and checkpoints."""
    with tempfile.TemporaryDirectory() as folder:
        cli = _built(experiment, folder, num_steps, options)
        Path(cli.run_dir).mkdir(parents=True, exist_ok=True)
        clock = _Clock()
        cli.trainer.callbacks.insert(0, clock)  # type: ignore[attr-defined]
        cli.trainer.fit(cli.model, cli.datamodule)
        for logger in cli.trainer.loggers:
            logger.finalize("success")
        return clock.seconds / num_steps


def plain_seconds(
    experiment: str, num_steps: int, options: Iterable[str] = (), own_loader: bool = False
) -> float:
    """Seconds per optimizer step of the loop a user would write.

    Args:
        experiment: Packaged config.
        num_steps: Optimizer steps.
        options: Further options of the command.
        own_loader: Whether the loop has our loader and fused optimizer, too.
    """
    with tempfile.TemporaryDirectory() as folder:
        cli = _built(experiment, folder, num_steps, options)
    model, data = cli.model, cli.datamodule.split("train")
    optimizer = model.optimizer(model.parameters())
    clip = cli.trainer.gradient_clip_val
    size = cli.datamodule.batch_size
    loader: Any
    if own_loader:
        loader = TensorLoader(data, size, shuffle=True, drop_last=True)
    else:
        for group in optimizer.param_groups:  # torch's default
            group["fused"] = None
        loader = DataLoader(TensorDataset(*data), batch_size=size, shuffle=True, drop_last=True)
    make_batch = type(data)._make
    scheduler = None if model.lr_scheduler is None else model.lr_scheduler(optimizer)
    model.train()
    start, step = time.perf_counter(), 0
    while step < num_steps:
        for batch in loader:
            loss = model.step(make_batch(batch)).loss
            optimizer.zero_grad()
            loss.backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            step += 1
            if step == num_steps:
                break
    return (time.perf_counter() - start) / num_steps


def fit_ratio(
    experiment: str, num_steps: int, options: Iterable[str] = (), own_loader: bool = False
) -> Ratio:
    """Fit against plain loop."""
    options = tuple(options)
    return compare_seconds(
        lambda: fit_seconds(experiment, num_steps, options),
        lambda: plain_seconds(experiment, num_steps, options, own_loader),
        num_pairs=5,
    )


_STEPS = {"linear_regression": 1500, "binary_classification": 1000, "lstm": 600}

CASES: dict[str, Callable[[], Ratio]] = {
    f"fit {name} / loop with {loader}": partial(fit_ratio, name, steps, own_loader=own)
    for name, steps in _STEPS.items()
    for loader, own in (("DataLoader", False), ("our loader", True))
}

if __name__ == "__main__":
    print_cases(CASES)
