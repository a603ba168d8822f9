"""Names and options that stand for nothing, refused before torch and Lightning are imported."""

import difflib
from collections.abc import Iterator, Sequence

from datamodules.errors import InputError
from lit_models.command.arguments import CommandLine, prepare
from lit_models.command.signatures import source_arguments, trainer_arguments

# Names below a class that are none of its arguments.
_OWN = ("class_path", "init_args", "help", "dict_kwargs")


def refusal(argv: Sequence[str]) -> str | None:
    """What is wrong with a command line, on one line; None for all that the parser is to judge.

    Args:
        argv: Command line without the program's name.
    """
    try:
        line = prepare(argv)
    except InputError as error:
        return str(error)
    except OSError:
        return None  # met again, and explained, where the command runs
    arguments = {group: source_arguments(class_path) for group, class_path in line.classes.items()}
    known = [name for names in arguments.values() for name in names or ()]
    for group, name in _named(line):
        if group == "trainer":
            arguments.setdefault(group, trainer_arguments())
        names = arguments.get(group)
        if names is not None and name not in (*names, *_OWN):
            owner = next((own for own, taken in arguments.items() if name in (taken or ())), None)
            choices = names if group == "trainer" else known
            fix = hint(name, choices) if owner is None else f"; did you mean --{owner}.{name}?"
            return f"{group}: Option {name!r} is not accepted{fix}"
    return None


def hint(name: str, known: Sequence[str]) -> str:
    """Options that an unknown one may have been meant for."""
    close = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {', '.join(close)}?" if close else "; --help lists the options"


def _named(line: CommandLine) -> Iterator[tuple[str, str]]:
    """Group and first name of each option such as ``--model.hidden_size``.

    Those before another class is named are the parser's: it drops what the new class does not take.
    """
    found: dict[str, list[str]] = {}
    for option in line.args:
        group, *names = option.removeprefix("--").split(".")
        if not option.startswith("--"):
            continue
        if names in ([], ["class_path"]):
            found[group] = []
        else:
            name = names[1] if names[0] == "init_args" and len(names) > 1 else names[0]
            found.setdefault(group, []).append(name.rstrip("+"))
    for group, all_names in found.items():
        yield from ((group, name) for name in all_names)
