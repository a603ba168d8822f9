"""The error a user can mend: one line that names the value and the fix."""


class InputError(ValueError):
    """A wrong file, column or argument; the command prints its message and exits with code 2."""


class DivergedError(InputError):
    """A fit whose loss is no longer finite; the command exits with code 1."""
