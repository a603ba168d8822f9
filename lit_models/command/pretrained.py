"""What ``--model.pretrained`` decides: the architecture, the vocabulary and the longest context.

Nothing of it is set by hand: what a configuration says otherwise is replaced and told, a size that
was typed and does not fit is refused.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datamodules.errors import InputError
from datamodules.files.notes import say
from datamodules.files.tokenization import has_tokenizer
from lit_models.weights.hugging_face import find_folder
from lit_models.weights.pretrained import architecture_of

_TRAINED = (None, "char", "word", "bpe", "wordpiece")  # vocabularies that a text would train
_LENGTHS = ("context_length", "seq_len")


def follow_pretrained(config: Any, given: Sequence[str], restored: bool) -> None:
    """Changes a configuration in place.

    Args:
        config: Resolved configuration of a subcommand.
        given: The command line as it was typed.
        restored: Whether a checkpoint brings the weights, so that no others are needed.

    Raises:
        InputError: If the weights are of a kind that no model here computes, or a typed size is not
            theirs.
    """
    model, data = (config[part].get("init_args", {}) for part in ("model", "data"))
    source = model.get("pretrained")
    if source is None or "d_model" not in model:
        return
    if restored:
        model["pretrained"] = None
        return
    typed = {word.partition("=")[0] for word in given}
    try:
        sizes = architecture_of(source)
    except ValueError as error:
        raise InputError(str(error)) from error
    longest = sizes.pop("context_length", None)
    for name, value in sizes.items():
        if f"--model.{name}" in typed and model.get(name) != value:
            raise InputError(
                f"--model.{name} {_shown(model[name])}: pretrained {source} has {_shown(value)}; "
                "leave the option out"
            )
    changed = _set(model, "model", sizes, typed)
    if "tokenizer" in data and data["tokenizer"] in _TRAINED and has_tokenizer(_place(source)):
        changed += _set(data, "data", {"tokenizer": str(_place(source))}, typed)
    for name in _LENGTHS:
        if longest is not None and data.get(name, 0) > longest:
            changed += _set(data, "data", {name: longest}, typed)
    if changed:
        say(f"pretrained {source} decides {', '.join(changed)}")


def _place(source: str) -> Path:
    return Path(source) if Path(source).is_file() else find_folder(source)


def _set(options: Any, part: str, values: dict[str, Any], typed: set[str]) -> list[str]:
    """Sets options that were not typed; returns what has changed."""
    changed = []
    for name, value in values.items():
        if name not in options or options[name] == value or f"--{part}.{name}" in typed:
            continue
        options[name] = value
        changed.append(f"{part}.{name} {_shown(value)}")
    return changed


def _shown(value: Any) -> str:
    """A value as it is typed."""
    return str(value).lower() if isinstance(value, bool) else str(value)
