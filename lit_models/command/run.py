"""One command, from its line to its exit code."""

import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException

from callbacks.run.interrupt import GracefulInterrupt
from datamodules.errors import DivergedError, InputError
from lit_models.command.arguments import prepare
from lit_models.command.cli import LitCLI
from lit_models.command.folds import folds_to_run, run_folds
from lit_models.command.messages import one_line, quiet
from lit_models.command.run_folder import RunFolder, explain, is_child_rank

# Exit code of a fit whose loss was no longer finite.
DIVERGED = 1
# Exit code of a job that has lost one of its processes.
LOST = 1


def run(argv: Sequence[str], make_cli: Callable[..., LitCLI] = LitCLI) -> int:
    """Runs a command: one run, or a run for each fold of a cross-validation.

    A run that ends before its first checkpoint leaves no folder.

    Args:
        argv: Command line without the program's name.
        make_cli: Makes, and so runs, the CLI from the command line, the interrupt callback and the
            run's folder.

    Returns:
        Exit code: 0, 1 for a fit that diverged or lost a process, 2 after a mistake in the input.

    Raises:
        KeyboardInterrupt: After a signal, with its number and how to continue.
    """
    quiet()
    num_folds = folds_to_run(argv)
    if num_folds:
        return run_folds(argv, num_folds, run, make_cli)
    interrupt, folder, code = GracefulInterrupt(), RunFolder(), 1
    try:
        code = _run(argv, interrupt, folder, make_cli)
    except KeyboardInterrupt as stop:
        code = 128 + (stop.args or (signal.SIGINT,))[0]
        raise
    finally:
        _finish_tracker(code)
        folder.close(keep=code == 0)
    return code


def _run(
    argv: Sequence[str],
    interrupt: GracefulInterrupt,
    folder: RunFolder,
    make_cli: Callable[..., LitCLI],
) -> int:
    try:
        # A user's own model or datamodule, named as module.Class, may stand in the current folder.
        sys.path.append(_current_folder())
        if argv[0] == "export":
            from lit_models.command.export import export

            export(argv[1:])
        else:
            make_cli(prepare(argv), interrupt, folder)
    except (InputError, MisconfigurationException) as error:
        if isinstance(error, DivergedError) and is_child_rank():
            return DIVERGED  # all ranks see it, and the first one says so
        reason = str(error) if isinstance(error, InputError) else one_line(str(error))
        sys.stderr.write(f"lit-models: error: {reason}\n")
        return DIVERGED if isinstance(error, DivergedError) else 2
    except RuntimeError as error:
        if interrupt.loss is not None:
            sys.stderr.write(f"lit-models: error: {interrupt.loss}\n")
            return LOST
        if "which is not available" not in str(error):  # a callback's monitor
            raise
        sys.stderr.write(f"lit-models: error: {one_line(str(error))}\n")
        return 2
    except OSError as error:
        refusal = explain(error)
        if refusal is None:
            raise
        sys.stderr.write(f"lit-models: error: {refusal}\n")
        return 2
    except SystemExit as stop:
        if interrupt.signum is not None:
            advice = [] if interrupt.advice is None else [interrupt.advice]
            raise KeyboardInterrupt(interrupt.signum, *advice) from None
        if stop.code not in (None, 0):
            raise
    return 0


def _current_folder() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError as error:
        raise InputError("the current folder no longer exists; change to another") from error


def _finish_tracker(code: int) -> None:
    """Ends the W&B run with the command's exit code, so that a second command starts its own."""
    wandb: Any = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish(exit_code=code)
