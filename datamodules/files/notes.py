"""What is said of a user's data: one line each, once, by one process."""

import sys

from lightning.pytorch.utilities import rank_zero_only

_SAID: set[str] = set()


def say(line: str) -> None:
    """Writes one line about what was read, inferred or changed on the user's behalf.

    Args:
        line: The line, without a line break; the same line is written once a process.
    """
    if line not in _SAID and getattr(rank_zero_only, "rank", 0) == 0:
        _SAID.add(line)
        sys.stderr.write(f"lit-models: {line}\n")
