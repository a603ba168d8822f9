"""What a configuration may call: classes alone, and a found one only those of known packages.

A run folder that somebody hands on holds a ``config.yaml`` that ``--ckpt_path`` reads. It is data,
as the checkpoint is, and must not run a program.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from datamodules.errors import InputError
from lit_models.command.classes import named_class

# Packages whose classes a config.yaml found beside a checkpoint may name.
KNOWN = ("lit_models", "datamodules", "callbacks", "torch", "lightning")
# Options that take a class, also as a plain word.
_CLASSES = (
    *("class_path", "model", "data", "optimizer", "lr_scheduler"),
    *("callbacks", "logger", "profiler", "strategy", "plugins"),
)


def check_found(path: Path, found: Any, named: Sequence[Any]) -> None:
    """Checks the classes of a configuration that the user has not named.

    Args:
        path: The ``config.yaml`` beside a checkpoint.
        found: Its content.
        named: What the user has named: contents of files, values of options.

    Raises:
        InputError: If it names a class of another package that the user does not name.
    """
    trusted = set(_classes(list(named)))
    for text in foreign_classes(found):
        if text not in trusted:
            raise InputError(
                f"{path} names {text}, which is neither of this project nor of torch or lightning; "
                f"if you trust the file, name it with --config {path}"
            )


def foreign_classes(config: Any) -> Iterator[str]:
    """Class paths of a configuration that lead outside the known packages."""
    for text in _classes(config):
        if "." in text and text.split(".")[0] not in KNOWN:
            yield text


def _classes(config: Any, key: str = "") -> Iterator[str]:
    if isinstance(config, str) and key.rsplit(".", 1)[-1].lstrip("-").rstrip("+") in _CLASSES:
        yield config
    elif isinstance(config, Mapping):
        for name, value in config.items():
            yield from _classes(value, str(name))
    elif isinstance(config, list):
        for value in config:
            yield from _classes(value, key)


def check_calls(config: Any, found: bool, key: str = "") -> None:
    """Checks that a parsed configuration makes classes and calls nothing else.

    A parser's type for "what makes an optimizer" lets every function pass that is written like a
    class, and calls it.

    Args:
        config: The parsed configuration, or a part of it.
        found: Whether a file that the user has not named is among its layers.
        key: The part's name.

    Raises:
        InputError: Naming the option and what it would call.
    """
    where = key.removeprefix(".").replace("init_args.", "")
    if isinstance(config, (Mapping, Namespace)):
        class_path = config.get("class_path")
        if isinstance(class_path, str) and not inspect.isclass(named_class(class_path)):
            raise InputError(f"{where}: {class_path} is no class; name one")
        for name, value in (
            vars(config).items() if isinstance(config, Namespace) else config.items()
        ):
            check_calls(value, found, f"{key}.{name}")
    elif isinstance(config, (list, tuple)):
        for value in config:
            check_calls(value, found, key)
    elif found and inspect.isroutine(config) and str(config.__module__).split(".")[0] not in KNOWN:
        raise InputError(
            f"{where}: the checkpoint's config.yaml names the function {config.__qualname__}; "
            "name the file with --config if you trust it"
        )
