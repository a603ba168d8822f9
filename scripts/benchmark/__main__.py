"""Measures every speed claim as ratios in one run, and writes docs/benchmark.md.

``python -m scripts.benchmark`` runs all cases; ``--only fit startup`` some of the modules in
``scripts/benchmark``; ``--threads 2`` sets torch's threads; ``--write`` writes the page.
"""

import argparse
import importlib
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from scripts.benchmark.ratio import Ratio

MODULES = ("startup", "fit", "sequences", "uncertainty", "language", "diffusion", "graphs")
_PAGE = Path(__file__).parent.parent.parent / "docs" / "benchmark.md"
_HEAD = """\
# Benchmark

Made by `python -m scripts.benchmark --write` on {machine}, {threads} torch thread(s), commit
{commit}, load average {load} at the start. Both ways of a row alternate in one process; the ratio
is that of the medians, the range that of single pairs. A ratio above 1 means that this project is
faster.

The rows beside `import torch` say where the time of a command goes: Lightning and torchmetrics, the
classes of this project with what of those they need (less than Lightning alone, see
`lit_models/training/startup.py`), reading the options, and then the whole command with data,
checkpoint and the known optimum. The rows of a bare LightningModule say how much of a first step,
and of a tiny one, is Lightning's own.

| case | other / ours | range | ours / other | ours |
|---|---:|---:|---:|---:|
"""


def cases_of(module: str) -> dict[str, Callable[[], Ratio]]:
    """Cases of one of the modules, by name."""
    cases: dict[str, Callable[[], Ratio]]
    cases = importlib.import_module(f"scripts.benchmark.{module}").CASES
    return cases


def rows(modules: Sequence[str]) -> Iterator[str]:
    """One row of the page for each case, as it is measured."""
    for name in modules:
        for case, measure in cases_of(name).items():
            ratio = measure()
            spread = f"{ratio.low:.2f} - {ratio.high:.2f}"
            inverse = f"{1 / ratio.value:.2f}"
            yield f"| {case} | {ratio.value:.2f} | {spread} | {inverse} | {_time(ratio.ours)} |"


def _time(seconds: float) -> str:
    for factor, unit in ((1e6, "us"), (1e3, "ms")):
        if seconds * factor < 1000:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def main(args: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=MODULES, default=MODULES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", action="store_true", help=f"write {_PAGE.name}")
    options = parser.parse_args(args)
    os.environ.setdefault("WANDB_MODE", "offline")
    os.environ["OMP_NUM_THREADS"] = str(options.threads)

    import torch

    from lit_models.command.run_folder import git_commit

    torch.set_num_threads(options.threads)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}"
    commit = (git_commit() or "unknown")[:10]
    load = f"{os.getloadavg()[0]:.1f}"
    head = _HEAD.format(machine=machine, threads=options.threads, commit=commit, load=load)
    print(head, end="", flush=True)
    measured = []
    for row in rows(options.only):
        print(row, flush=True)
        measured.append(row)
    if options.write:
        _PAGE.write_text(head + "\n".join(measured) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
