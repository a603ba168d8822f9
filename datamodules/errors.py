"""The error a user can mend: one line that names the value and the fix."""


class InputError(ValueError):
    """A wrong file, column or argument; the command prints its message and exits with code 2."""


def at_least(**sizes: tuple[int | None, int]) -> None:
    """Checks arguments against the least value each may have.

    Args:
        sizes: Value and least value by argument; None stands for an argument not given.

    Raises:
        InputError: Naming the first one that is too small.
    """
    for name, (value, least) in sizes.items():
        if value is not None and value < least:
            raise InputError(f"{name} must be at least {least}, got {value}")


class DivergedError(InputError):
    """A fit whose loss is no longer finite; the command exits with code 1."""
