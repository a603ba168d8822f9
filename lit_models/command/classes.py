"""Classes by their paths, and the arguments they take."""

import importlib
import inspect
from typing import Any, get_args, get_type_hints

_GATHERED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def named_class(class_path: str) -> Any:
    """The class of a path such as ``lit_models.LitGPT``."""
    module, _, name = class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def arguments_of(named: type) -> dict[str, inspect.Parameter]:
    """Arguments of a class by name, those that ``**kwargs`` hands to its bases included."""
    found: dict[str, inspect.Parameter] = {}
    for owner in named.__mro__:
        if "__init__" not in vars(owner):
            continue
        _, *own = inspect.signature(vars(owner)["__init__"]).parameters.values()
        named_ones = (argument for argument in own if argument.kind not in _GATHERED)
        found = {argument.name: argument for argument in named_ones} | found
        if all(argument.kind is not inspect.Parameter.VAR_KEYWORD for argument in own):
            break
    return found


def class_arguments(class_path: str) -> list[str]:
    """Names of a class's arguments; none for a class that cannot be imported."""
    try:
        return list(arguments_of(named_class(class_path)))
    except (ImportError, AttributeError, ValueError):
        return []  # the parser names the class it cannot import


def may_be_none(named: type, name: str) -> bool:
    """Whether an argument of a class may be None; also where nobody says."""
    for owner in named.__mro__:
        hints = get_type_hints(vars(owner).get("__init__", object))
        if name in hints:
            return hints[name] is Any or type(None) in get_args(hints[name])
    return True
