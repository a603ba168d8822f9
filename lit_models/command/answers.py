"""Commands that are answered from files alone, without importing torch."""

import sys

from datamodules.errors import InputError


def answer(command: str, argv: list[str]) -> int:
    """Prints what ``list``, ``runs`` or ``compare`` has to say; returns the exit code."""
    try:
        if command == "list":
            from lit_models.command.catalog import describe

            text = describe()
        elif command == "runs":
            from lit_models.command.runs import list_runs

            text = list_runs(argv)
        else:
            from lit_models.command.compare import compare_runs

            text = compare_runs(argv)
    except InputError as error:
        sys.stderr.write(f"lit-models: error: {error}\n")
        return 2
    sys.stdout.write(text + "\n")
    return 0
