"""Weights to start from: our own checkpoints, and Hugging Face's GPT-2 and BERT.

Sizes, heads and the place of the norms are compared before a weight is copied: two models whose
weights fit each other's shapes may still compute differently. :func:`architecture_of` says what
they are, so that nobody needs to set them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from datamodules.files.notes import say
from lit_models.weights.checkpoints import read_checkpoint
from lit_models.weights.families import BERT, GPT2
from lit_models.weights.hugging_face import (
    Weights,
    family_of,
    find_folder,
    read_config,
    read_folder,
    sizes_in,
    sizes_of,
)

_SIZES = ("d_model", "num_layers", "num_heads", "norm_first", "bias")
_OF_TOKENS = ("token_embedding.weight", "masked_head.bias")


def architecture_of(source: str) -> dict[str, Any]:
    """Arguments of a model that starts from these weights, and its largest ``context_length``.

    Args:
        source: A checkpoint of one of our models, a Hugging Face folder or the hub's name of one.

    Raises:
        ValueError: If there is none, or it is of a kind that no model here computes.
    """
    path = Path(source)
    if path.is_file():
        weights, sizes = _from_checkpoint(path)
        place = next((n for n in weights if n.endswith("position_embedding.weight")), None)
        sizes.pop("vocab_size", None)
        return sizes | ({} if place is None else {"context_length": len(weights[place])})
    config = read_config(find_folder(source))
    kinds = {family.model_type: family for family in (GPT2, BERT)}
    kind = config.get("model_type")
    if kind not in kinds:
        raise ValueError(
            f"pretrained {source} is of type {kind!r}; the models here take {' or '.join(kinds)}"
        )
    names = (*_SIZES, "context_length")
    found = {k: v for k, v in sizes_in(config, kinds[kind]).items() if k in names}
    return {**found, "bias": True}


def load_pretrained(net: nn.Module, source: str, fresh: Sequence[str] = ()) -> None:
    """Copies pre-trained weights into a network.

    Position embeddings beyond the network's context are left out, and so are the rows by which a
    vocabulary was rounded up.

    Args:
        net: A GPT, or a module whose ``bert`` or ``gpt`` is the body.
        source: A checkpoint of one of our models, a Hugging Face folder or the hub's name of one.
        fresh: First parts of the names that keep their initial weights where the source has none.

    Raises:
        ValueError: Naming the size or weight that does not fit.
    """
    path = Path(source)
    if path.is_file():
        weights, sizes = _from_checkpoint(path)
    else:
        weights, sizes = read_folder(find_folder(source), family_of(net), source)
    have = sizes_of(net)
    rows, num_tokens = sizes.get("vocab_size", 0), have["vocab_size"]
    if _is_rounded_up(num_tokens, rows):
        say(
            f"pretrained {source} has {rows:,} tokens and the data {num_tokens:,}: the rows "
            "behind round the vocabulary up and are left out"
        )
        sizes["vocab_size"] = num_tokens
        weights = {k: v[:num_tokens] if k.endswith(_OF_TOKENS) else v for k, v in weights.items()}
    for name in ("num_heads", "norm_first", "d_model", "num_layers", "vocab_size"):
        if name in sizes and sizes[name] != have[name]:
            fix = (
                "the data need the tokenizer it was trained with"
                if name == "vocab_size"
                else f"set --model.{name} {str(sizes[name]).lower()}"
            )
            raise ValueError(
                f"pretrained {source} has {name}={sizes[name]}, the model {have[name]}; {fix}"
            )
    _copy(net, weights, source, fresh)


def _from_checkpoint(path: Path) -> tuple[Weights, dict[str, Any]]:
    """Weights of one of our checkpoints, and the sizes it records."""
    checkpoint = read_checkpoint(path)
    weights = {
        name.removeprefix("net.").removeprefix("gpt."): value
        for name, value in checkpoint["state_dict"].items()
        if name.startswith("net.")
    }
    recorded = checkpoint.get("hyper_parameters", {})
    sizes = {name: recorded[name] for name in _SIZES if name in recorded}
    rows = [len(value) for name, value in weights.items() if name.endswith(_OF_TOKENS[0])]
    return weights, sizes | {"vocab_size": rows[0]} if rows else sizes


def _is_rounded_up(num_tokens: int, rows: int) -> bool:
    """Whether rows of an embedding are a vocabulary, rounded up to a multiple of a power of two."""
    multiples = (2**power for power in range(3, 11))
    nearest = {-(-num_tokens // multiple) * multiple for multiple in multiples}
    return num_tokens < rows <= 1.1 * num_tokens and rows in nearest


def _copy(net: nn.Module, weights: Weights, source: str, fresh: Sequence[str]) -> None:
    state = net.state_dict()
    prefix = "gpt." if hasattr(net, "gpt") else ""
    for name, target in state.items():
        value = weights.get(name.removeprefix(prefix))
        if value is None:
            if name.startswith(tuple(fresh)):
                continue
            raise ValueError(
                f"pretrained {source} lacks the weight {name!r} of {type(net).__name__}"
            )
        if name.endswith("position_embedding.weight"):
            value = value[: len(target)]
        if value.shape != target.shape:
            raise ValueError(
                f"pretrained {source}: weight {name!r} has shape {tuple(value.shape)}, the model "
                f"has {tuple(target.shape)}; give the model the checkpoint's sizes"
            )
        target.copy_(value)
