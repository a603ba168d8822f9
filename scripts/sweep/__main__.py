"""Searches a sweep's options on this machine: the W&B sweep file, without a server.

``python -m scripts.sweep configs/sweeps/series.yaml --trials 20 --jobs 2`` runs 20 trials, two at a
time, and prints the command of the best one. The study is a file: the same command continues it,
and a larger ``--trials`` extends it. Every trial is a run of its own in ``runs/``, and in W&B one
of a group. What follows ``--`` goes to every trial.
"""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from datamodules.errors import InputError


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Own arguments, and what follows ``--``."""
    own = list(argv)
    extra: list[str] = []
    if "--" in own:
        index = own.index("--")
        own, extra = own[:index], own[index + 1 :]
    parser = argparse.ArgumentParser(
        prog="python -m scripts.sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sweep", help="sweep file, or the name of a packaged one")
    parser.add_argument("--trials", type=int, default=20, help="trials of the study in all")
    parser.add_argument("--jobs", type=int, default=1, help="trials at a time")
    parser.add_argument("--study", type=Path, help="file; runs/sweeps/NAME.db by default")
    parser.add_argument("--seed", type=int, help="seed of the search; drawn if unset")
    return parser.parse_args(own), extra


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the search.

    Args:
        argv: Command line without the program's name.

    Returns:
        Exit code: 0, 2 after a mistake in the input, 130 after Ctrl-C.
    """
    options, extra = _parse(sys.argv[1:] if argv is None else argv)
    try:
        return _search(options, extra)
    except InputError as error:
        sys.stderr.write(f"sweep: error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("sweep: stopped; the same command continues the study\n")
        return 130


def _search(options: argparse.Namespace, extra: Sequence[str]) -> int:
    for name in ("trials", "jobs"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name} must be at least 1, got {getattr(options, name)}")
    if importlib.util.find_spec("optuna") is None:
        raise InputError("optuna is not installed; pip install 'lit-models[sweep]'")
    from scripts.sweep.study import Study, TrialError, search, summary

    file = options.study or Path("runs/sweeps") / f"{Path(options.sweep).stem}.db"
    study = Study(file, options.sweep, tuple(extra), options.seed)
    try:
        search(study, options.trials, options.jobs)
    except TrialError as error:
        return error.code
    sys.stdout.write(summary(study) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
