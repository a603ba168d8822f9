"""A fit through the command against the plain loop of the same model, data and steps."""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import lightning as L
import torch
import wandb
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

from callbacks import EMA
from lit_models.command.cli import LitCLI, build
from scripts.benchmark.ratio import Ratio, compare_seconds, print_cases


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
        wandb.finish()
        return clock.seconds / num_steps


def _loop(cli: LitCLI, batches: Iterable[Any], optimizer: Optimizer, num_steps: int) -> float:
    """Seconds of a training loop written by hand."""
    model, clip = cli.model, cli.trainer.gradient_clip_val
    scheduler = None if model.lr_scheduler is None else model.lr_scheduler(optimizer)
    averaged: Any = None
    if any(isinstance(callback, EMA) for callback in cli.trainer.callbacks):  # type: ignore[attr-defined]
        mean = get_ema_multi_avg_fn(0.999)  # type: ignore[no-untyped-call]
        averaged = AveragedModel(model.denoiser, multi_avg_fn=mean)
    model.train()
    start = time.perf_counter()
    for batch in islice(batches, num_steps):
        loss = model.step(batch).total
        optimizer.zero_grad()
        loss.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        if averaged is not None:
            averaged.update_parameters(model.denoiser)
    return time.perf_counter() - start


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
    optimizer = cli.model.optimizer(cli.model.parameters())
    batches: Iterable[Any]
    if own_loader:
        loader = cli.datamodule.train_dataloader()
        batches = chain.from_iterable(repeat(loader))
    else:
        for group in optimizer.param_groups:  # torch's default
            group["fused"] = None
        data = cli.datamodule.split("train")
        size = min(cli.datamodule.batch_size, len(data[0]))
        given = {name: field for name, field in data._asdict().items() if field is not None}
        table = DataLoader(TensorDataset(*given.values()), size, shuffle=True, drop_last=True)
        rows = chain.from_iterable(repeat(table))
        batches = (type(data)(**dict(zip(given, row, strict=True))) for row in rows)
    return _loop(cli, batches, optimizer, num_steps) / num_steps


class _Bare(L.LightningModule):
    """A model's step in a LightningModule with nothing else: what Lightning's loop costs alone.

    Args:
        model: The model.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss: torch.Tensor = self.model.step(batch).total
        return loss

    def configure_optimizers(self) -> Optimizer:
        optimizer: Optimizer = self.model.optimizer(self.model.parameters())
        return optimizer


def bare_seconds(experiment: str, num_steps: int, options: Iterable[str] = ()) -> float:
    """Seconds per optimizer step of Lightning's loop: no callback, logger or checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        cli = _built(experiment, folder, num_steps, options)
        clock = _Clock()
        trainer = L.Trainer(
            accelerator="cpu",
            max_steps=num_steps,
            gradient_clip_val=cli.trainer.gradient_clip_val,
            callbacks=[clock],
            default_root_dir=folder,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(_Bare(cli.model), cli.datamodule.train_dataloader())
        return clock.seconds / num_steps


def floor_ratio(experiment: str, num_steps: int, options: Iterable[str] = ()) -> Ratio:
    """Fit against Lightning's bare loop."""
    options = tuple(options)
    return compare_seconds(
        lambda: fit_seconds(experiment, num_steps, options),
        lambda: bare_seconds(experiment, num_steps, options),
        num_pairs=3,
    )


def fit_ratio(
    experiment: str, num_steps: int, options: Iterable[str] = (), own_loader: bool = False
) -> Ratio:
    """Fit against plain loop."""
    options = tuple(options)
    return compare_seconds(
        lambda: fit_seconds(experiment, num_steps, options),
        lambda: plain_seconds(experiment, num_steps, options, own_loader),
        num_pairs=3,
    )


# Experiment, further options, optimizer steps, and whether to compare with a DataLoader as well,
# which small tables and windows are commonly served by.
_Case = tuple[str, tuple[str, ...], int, bool]
# Steps so short that Lightning's loop, without any of ours, is most of them.
_TINY = ("linear_regression", "bayesian_mlp", "ddpm", "gcn")
_GPT_4X128 = ("--model.d_model", "128", "--model.num_layers", "4")
_FITS: dict[str, _Case] = {
    "linear_regression": ("linear_regression", (), 1500, True),
    "binary_classification": ("binary_classification", (), 1000, True),
    "lstm": ("lstm", (), 600, True),
    "lstm of 256 units": ("lstm", ("--model.hidden_size", "256"), 240, False),
    "bayesian_mlp": ("bayesian_mlp", (), 1000, True),
    "gcn": ("gcn", (), 300, False),
    "stgnn": ("stgnn", (), 200, False),
    "ddpm": ("ddpm", (), 1000, False),
    "seq2seq_luong": ("seq2seq_luong", (), 60, False),
    "transformer": ("transformer", (), 150, False),
    "gpt": ("gpt", (), 100, False),
    "gpt, 4 layers of 128": ("gpt", _GPT_4X128, 30, False),
    "bert": ("bert", (), 100, False),
}


def _cases() -> Iterator[tuple[str, Callable[[], Ratio]]]:
    for name, (experiment, options, steps, with_data_loader) in _FITS.items():
        if with_data_loader:
            yield f"fit {name} / DataLoader loop", partial(fit_ratio, experiment, steps, options)
        own = partial(fit_ratio, experiment, steps, options, own_loader=True)
        yield f"fit {name} / loop with our loader", own
        if name in _TINY:
            bare = partial(floor_ratio, experiment, steps, options)
            yield f"fit {name} / bare LightningModule", bare


CASES: dict[str, Callable[[], Ratio]] = dict(_cases())

if __name__ == "__main__":
    print_cases(CASES)
