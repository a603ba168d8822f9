"""One command, from its line to its exit code."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException

from callbacks.interrupt import GracefulInterrupt
from datamodules.errors import InputError
from lit_models.arguments import prepare
from lit_models.cli import LitCLI
from lit_models.messages import one_line, quiet
from lit_models.runs import RunFolder, explain


def run(argv: Sequence[str]) -> int:
    """Runs a command of LightningCLI.

    A run that ends before its first checkpoint leaves no folder.

    Args:
        argv: Command line without the program's name.

    Returns:
        Exit code: 0, or 2 after a mistake in the input.

    Raises:
        KeyboardInterrupt: After a signal, with its number and how to continue.
    """
    quiet()
    interrupt, folder, code = GracefulInterrupt(), RunFolder(), 1
    try:
        # A user's own model or datamodule, named as module.Class, may stand in the current folder.
        sys.path.append(str(Path.cwd()))
        code = _run(argv, interrupt, folder)
    except KeyboardInterrupt as stop:
        code = 128 + (stop.args or (signal.SIGINT,))[0]
        raise
    finally:
        _finish_tracker(code)
        folder.close(keep=code == 0)
    return code


def _run(argv: Sequence[str], interrupt: GracefulInterrupt, folder: RunFolder) -> int:
    try:
        LitCLI(prepare(argv), interrupt, folder)
    except (InputError, MisconfigurationException) as error:
        reason = str(error) if isinstance(error, InputError) else one_line(str(error))
        sys.stderr.write(f"lit-models: error: {reason}\n")
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


def _finish_tracker(code: int) -> None:
    """Ends the W&B run with the command's exit code, so that a second command starts its own."""
    wandb: Any = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish(exit_code=code)
