"""Commands that are answered from files alone, help and version; none needs the Trainer."""

import sys
from collections.abc import Sequence

from datamodules.errors import InputError


def answer(command: str, argv: list[str], commands: Sequence[str] = ()) -> int:
    """Prints what a light command, or ``help`` of another, has to say; returns the exit code."""
    try:
        if command == "list":
            from lit_models.command.catalog import describe

            text = describe()
        elif command == "runs":
            from lit_models.command.runs import list_runs

            text = list_runs(argv)
        elif command == "completion":
            from lit_models.command.completion import completion

            text = completion(argv, commands)
        elif command == "--version":
            from lit_models import __version__

            text = f"lit-models {__version__}"
        elif command == "help":
            from lit_models.command.help import short_help

            text = short_help(argv)
        else:
            from lit_models.command.compare import compare_runs

            text = compare_runs(argv)
    except InputError as error:
        sys.stderr.write(f"lit-models: error: {error}\n")
        return 2
    sys.stdout.write(text + "\n")
    return 0
