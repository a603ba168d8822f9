"""What a configuration may call: classes alone, and a found one only those of known packages.

A run folder that somebody hands on holds a ``config.yaml`` that ``--ckpt_path`` reads. It is data,
as the checkpoint is, and must not run a program. Three doors hold it: its text names known packages
alone (:func:`check_found`, before anything is imported), the parser imports nothing else, whatever
the text looks like (:func:`restricted_imports`), and what it has parsed are classes of the kind
that their place asks for (:func:`check_calls`).
"""

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonargparse import Namespace, set_parsing_settings
from jsonargparse._common import parsing_settings  # has no public way back (jsonargparse 4.53)

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
        InputError: If it names a class of another package that the user does not name, or a folder
            whose files a library unpickles.
    """
    trusted = set(named_classes(named))
    for text in foreign_classes(found):
        if text not in trusted:
            raise InputError(
                f"{path} names {text}, which is neither of this project nor of torch or lightning; "
                f"if you trust the file, name it with --config {path}"
            )
    check_root(path, found, named, "--data.root ")


def check_root(path: Path, found: Any, named: Sequence[Any], option: str) -> None:
    """Checks that the user has named the folder of a dataset, whose files torch_geometric runs.

    Args:
        path: The ``config.yaml``.
        found: Its content.
        named: What the user has named.
        option: How its folder is given.

    Raises:
        InputError: If the folder stands in the configuration alone.
    """
    root = _pickles(found)
    if root is not None and root not in set(_roots(list(named))):
        raise InputError(
            f"{path} names the folder {root}, whose files torch_geometric unpickles; if you trust "
            f"them, give {option}{root}"
        )


def _pickles(config: Any) -> str | None:
    """Folder of a dataset of torch_geometric, which runs what stands in its files."""
    data = config.get("data") if isinstance(config, Mapping) else None
    arguments = data.get("init_args") if isinstance(data, Mapping) else None
    if not isinstance(arguments, Mapping) or arguments.get("dataset") is None:
        return None
    return None if arguments.get("root") is None else str(arguments["root"])


def _roots(named: Any) -> Iterator[str]:
    if isinstance(named, Mapping):
        for name, value in named.items():
            if str(name).rsplit(".", 1)[-1].lstrip("-") == "root":
                yield str(value)
            yield from _roots(value)
    elif isinstance(named, list):
        for value in named:
            yield from _roots(value)


def named_classes(named: Sequence[Any]) -> list[str]:
    """Class paths in what the user has named: contents of files, values of options."""
    return list(_classes(list(named)))


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


@contextmanager
def restricted_imports(found: bool, trusted: Iterable[str] = ()) -> Iterator[None]:
    """Lets the parser import only what a configuration may name, wherever it names it.

    A value for an argument of any type stays the mapping that it is, although it may look like a
    class; and what runs programs, unpickles or changes files (``os``, ``subprocess``, ``pickle``
    and the like) is not imported at all.

    Args:
        found: Whether a file that the user has not named is among the layers: then known packages
            alone may be named.
        trusted: Class paths that the user has named.
    """
    before = dict(parsing_settings)
    packages = {text.split(".")[0] for text in trusted if "." in text} if found else set()
    try:
        set_parsing_settings(
            instantiate_subclass_spec_in_any=False,
            import_path_denylist=["*"] if found else [],
            import_path_allowlist=[*KNOWN, *filter(str.isidentifier, packages)] if found else [],
        )
        yield
    finally:
        parsing_settings.clear()
        parsing_settings.update(before)


def denied(message: str, found: bool) -> str | None:
    """What the parser says of a name that it may not import, in words of a user; None of others.

    Args:
        message: The parser's message.
        found: Whether a file that the user has not named is among the layers.
    """
    name = re.search(r"Importing '([^']+)' is not allowed", message)
    if name is None:
        return None
    if found:
        return (
            f"the checkpoint's config.yaml leads to {name[1]}, neither of this project nor torch "
            "nor lightning; name the file with --config if you trust it"
        )
    return f"a configuration names classes of models, data and training, and never {name[1]}"


def check_calls(config: Any, key: str = "") -> None:
    """Checks that a parsed configuration makes classes of the kinds that their places ask for.

    A parser's type for "what makes an optimizer" lets every function pass that is written like a
    class, and calls it.

    Args:
        config: The parsed configuration, or a part of it.
        key: The part's name.

    Raises:
        InputError: Naming the option and what it would call.
    """
    where = key.removeprefix(".").replace("init_args.", "")
    place = key.rsplit(".", 1)[-1]
    if isinstance(config, (Mapping, Namespace)):
        class_path = config.get("class_path")
        if isinstance(class_path, str):
            _check_class(where, place, class_path)
        for name, value in (
            vars(config).items() if isinstance(config, Namespace) else config.items()
        ):
            check_calls(value, f"{key}.{name}")
    elif isinstance(config, (list, tuple)):
        for value in config:
            check_calls(value, key)
    elif place in ("optimizer", "lr_scheduler") and _is_foreign_function(config):
        raise InputError(f"{where}: {config.__qualname__} is no class; name one")


def _is_foreign_function(value: Any) -> bool:
    """Whether a value is a function, and none that one of our own models has as its default."""
    return inspect.isroutine(value) and value.__module__.split(".")[0] not in KNOWN


def _check_class(where: str, place: str, class_path: str) -> None:
    named = named_class(class_path)
    if not inspect.isclass(named):
        raise InputError(f"{where}: {class_path} is no class; name one")
    bases = _bases().get(place, (object,))
    if not issubclass(named, bases):
        kinds = " or ".join(base.__name__ for base in bases)
        raise InputError(f"{where}: {class_path} is no {kinds}; name one")


def _bases() -> dict[str, tuple[type, ...]]:
    """Kinds of the classes that a place takes."""
    from lightning.pytorch import Callback, LightningDataModule, LightningModule
    from lightning.pytorch.loggers import Logger
    from lightning.pytorch.profilers import Profiler
    from lightning.pytorch.strategies import Strategy
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

    return {
        "model": (LightningModule,),
        "data": (LightningDataModule,),
        "optimizer": (Optimizer,),
        "lr_scheduler": (LRScheduler, ReduceLROnPlateau),
        "callbacks": (Callback,),
        "logger": (Logger,),
        "profiler": (Profiler,),
        "strategy": (Strategy,),
    }
