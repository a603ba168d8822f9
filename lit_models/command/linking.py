"""Sizes that the data know and a model needs: each goes from ``data.NAME`` to ``model.NAME``.

An argument of the model is linked if the datamodules know a size of its name and it has no default:
a model of one's own with ``window=3`` keeps its 3 on any data. Some arguments have a default for
whoever makes the model in Python and are linked all the same, for their own class and those that
inherit the argument.
"""

from collections.abc import Callable, Iterator, Sequence
from inspect import Parameter
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser

from datamodules.errors import InputError
from lit_models.command.classes import arguments_of, may_be_none

# Attributes of a datamodule, and arguments of a model, under one name.
SIZES = (
    "in_features",
    "out_features",
    "num_classes",
    "num_outputs",
    "column_widths",
    "horizon",
    "window",
    "vocab_size",
    "src_vocab_size",
    "tgt_vocab_size",
    "max_length",
    "context_length",
    "next_sentence",
    "num_nodes",
    "num_train",
    "sample_shape",
    "edge_features",
    "level",
    "task",
)
# Argument with a default: the class that leaves it to the data.
_LEFT_TO_DATA = (
    ("group_names", "LitGPT"),
    ("num_auxiliary", "LitRecurrentForecaster"),
    ("num_series", "LitRecurrentForecaster"),
    ("num_known", "LitRecurrentForecaster"),
    ("num_targets", "LitRecurrentForecaster"),
    ("target_power", "LitRecurrentForecaster"),
    ("class_weights", "LitBERTClassifier"),
    ("class_weights", "LitGPTClassifier"),
    ("task", "LitGCN"),
    ("task", "LitGAT"),
)


def link_sizes(parser: LightningArgumentParser, model: type, told: Callable[..., Any]) -> None:
    """Links the sizes that a model leaves to the data.

    Args:
        parser: Parser of a subcommand.
        model: Class of the model.
        told: Called with the datamodule and the size's name once the data are there; what it
            returns is the model's argument.
    """
    for size in linked_sizes(model):
        parser.link_arguments("data", f"model.init_args.{size}", _teller(told, size), "instantiate")


def linked_sizes(model: type) -> Iterator[str]:
    """Names of the model's arguments that are linked from the data."""
    arguments = arguments_of(model)
    for name in SIZES:
        if name in arguments and arguments[name].default is Parameter.empty:
            yield name
    for name, owner in _LEFT_TO_DATA:
        # By its name: to ask for the class would import every architecture of the list.
        own = next((base for base in model.__mro__ if base.__name__ == owner), None)
        inherited = own is not None and own.__module__.startswith("lit_models.")
        if own is None or not inherited or name not in arguments:
            continue
        if arguments[name].default == arguments_of(own)[name].default:
            yield name


def _teller(told: Callable[..., Any], name: str) -> Callable[[Any], Any]:
    def size(datamodule: Any) -> Any:
        return told(datamodule, name)

    size.__name__ = name  # what --help shows
    return size


def size_of(datamodule: Any, name: str, model: type, given: Any) -> Any:
    """A size that the data tell the model.

    Args:
        datamodule: The data.
        name: The size: an attribute of the data and an argument of the model.
        model: Class of the model.
        given: What a configuration or the command line says; None, or the argument's default,
            where they say nothing.

    Returns:
        What the data know, else what is given, else the argument's default.

    Raises:
        InputError: If the data say otherwise, or if nobody says and the model needs it.
    """
    known, default = getattr(datamodule, name, None), arguments_of(model)[name].default
    if known is None:
        if given is None and default is not Parameter.empty:
            return default
        if given is None and not may_be_none(model, name):
            raise InputError(
                f"{model.__name__} needs {name}, which {type(datamodule).__name__} does not have; "
                f"choose another --data, or give --model.{name}"
            )
        return given
    unsaid = (None, _plain(default))
    if _plain(given) not in (*unsaid, _plain(known)):
        raise InputError(
            f"--model.{name} {given}: the data say {name}={known}; leave the option out"
        )
    return known


def _plain(value: Any) -> Any:
    """A value as YAML would give it back."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
