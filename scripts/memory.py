"""``python -m scripts.memory``: what a fit of each experiment takes, against what a batch needs.

For each experiment a process of its own, forked from one that has imported everything, fits a step
of few rows, which loads code and kernels, and then three whole steps. ``peak`` is what the process
holds at most during them, less what it held before, freed memory given back. ``plain`` is what
three steps of a plain loop on the same batches take in the same way, with weights and optimizer
state; ``tensors`` what the allocator has handed out of it at most; ``data`` the splits in memory.
"""

import argparse
import ctypes
import gc
import itertools
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
        plain: The same of a plain loop.
        tensors: Most that the tensors of a step take.
        data: Splits in memory.
    """

    peak: float
    plain: float
    tensors: float
    data: float


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def _size(*values: Any) -> int:
    """Bytes of the tensors in nested values, each storage once."""
    import torch
    from torch.utils._pytree import tree_leaves

    tensors = [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _step(model: Any, optimizer: Any, batch: Any) -> None:
    loss = model.step(batch).total
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _allocated(model: Any, optimizer: Any, batch: Any) -> int:
    """Most bytes that a step holds of what it allocates."""
    from torch.profiler import ProfilerActivity, profile

    optimizer.zero_grad()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        _step(model, optimizer, batch)
    assert record.profiler is not None
    events: Any = record.profiler.kineto_results.events()
    changes = [event for event in events if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(changes, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def _mark() -> float:
    """What the process holds; freed memory, which would hide what comes, goes back before."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


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
        before = _mark()
        cli = build([*options, "--trainer.max_steps", "3"])
        cli.trainer.fit(cli.model, cli.datamodule)
        peak = _status("VmHWM") - before
        model, data, optimizer = cli.model, cli.datamodule, cli.trainer.optimizers[0]
        kept = _size(list(model.parameters()), list(optimizer.state.values())) / _MIB
        optimizer.zero_grad()
        before = _mark()
        epochs = itertools.repeat(data.train_dataloader(), 3)
        for batch in itertools.islice(itertools.chain.from_iterable(epochs), 3):
            _step(model, optimizer, batch)
        plain = kept + _status("VmHWM") - before
        tensors = kept + (_size(batch) + _allocated(model, optimizer, batch)) / _MIB
        splits = [data.split(split) for split in ("train", "val")]
        return Use(peak, plain, tensors, _size(splits) / _MIB)


def _report(name: str) -> None:
    use = measure(name)
    ratio = use.peak / (use.plain + use.data)
    parts = [f"`{name}`", *(f"{part:.1f}" for part in use), f"{ratio:.2f}"]
    print(f"| {' | '.join(parts)} |", flush=True)
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
    print("| experiment | peak over import | plain loop | its tensors | data | ratio |")
    print("|---|---:|---:|---:|---:|---:|")
    fork = multiprocessing.get_context("fork")
    for name in options.only:
        process = fork.Process(target=_report, args=(name,))
        process.start()
        process.join()


if __name__ == "__main__":
    main()
