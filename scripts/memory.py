"""``python -m scripts.memory``: what a fit of each experiment takes, against what a batch needs.

For each experiment a process of its own, forked from one that has imported everything, fits a step
of few rows, which loads code and kernels, and then three whole steps. ``peak`` is what the process
holds at most during them, less what it held before. ``needs`` is weights, gradients, optimizer
state and what the backward pass keeps, by counting tensors; ``data`` the splits in memory.
"""

import argparse
import multiprocessing
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

_MIB = 2**20


class Use(NamedTuple):
    """Memory of a fit in MiB.

    Attributes:
        peak: Most that the process held beyond what it held before.
        needs: Weights, gradients, optimizer state, and what is kept for the backward pass.
        data: Splits in memory.
    """

    peak: float
    needs: float
    data: float


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def _bytes(value: Any) -> int:
    import torch

    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, tuple | list):
        return sum(map(_bytes, value))
    return 0


def kept(model: Any, batch: Any) -> int:
    """Bytes that the backward pass of a batch keeps, weights aside; each storage once."""
    import torch

    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found: dict[int, int] = {}

    def note(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
        loss = model.step(batch).total
    del loss
    return sum(found.values())


def measure(name: str) -> Use:
    """Fits three steps of an experiment in this process."""
    from lit_models.command.cli import build

    options = ["--config", name, "--config", "cpu", "--trainer.enable_progress_bar", "false"]
    options += ["--trainer.limit_val_batches", "0", "--trainer.max_epochs", "-1"]
    with tempfile.TemporaryDirectory() as folder:
        options += ["--runs_dir", folder, "--wandb.mode", "disabled"]
        first = build([*options, "--trainer.max_steps", "1", "--data.batch_size", "4"])
        first.trainer.fit(first.model, first.datamodule)
        del first
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        cli = build([*options, "--trainer.max_steps", "3"])
        cli.trainer.fit(cli.model, cli.datamodule)
        peak = _status("VmHWM") - before
        model: Any = cli.model
        state = [v for s in cli.trainer.optimizers[0].state.values() for v in s.values()]
        weights = sum(map(_bytes, model.parameters()))
        trained = sum(_bytes(p) for p in model.parameters() if p.requires_grad)
        batch = next(iter(cli.datamodule.train_dataloader()))
        splits = [cli.datamodule.split(split) for split in ("train", "val")]
        needs = weights + trained + _bytes(state) + kept(model, batch)
        return Use(peak, needs / _MIB, _bytes(splits) / _MIB)


def _report(name: str) -> None:
    use = measure(name)
    print(f"| {name} | {use.peak:.1f} | {use.needs:.1f} | {use.data:.1f} |", flush=True)
    os._exit(0)


def main(args: Sequence[str] | None = None) -> None:
    """Prints a row for each experiment."""
    from lit_models.command.catalog import experiments

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=list(experiments()))
    options = parser.parse_args(args)
    import torch

    import lit_models.command.cli  # noqa: F401

    torch.set_num_threads(1)
    print("| experiment | peak over import, MiB | a batch needs | data |\n|---|---:|---:|---:|")
    fork = multiprocessing.get_context("fork")
    for name in options.only:
        process = fork.Process(target=_report, args=(name,))
        process.start()
        process.join()


if __name__ == "__main__":
    main()
