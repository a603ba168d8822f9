"""Weights to start from: our own checkpoints, and Hugging Face's GPT-2 and BERT.

Sizes, heads and the place of the norms are compared before a weight is copied: two models whose
weights fit each other's shapes may still compute differently.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from lit_models.weights.checkpoints import read_checkpoint
from lit_models.weights.hugging_face import Weights, family_of, find_folder, read_folder, sizes_of


def load_pretrained(net: nn.Module, source: str, fresh: Sequence[str] = ()) -> None:
    """Copies pre-trained weights into a network.

    Position embeddings beyond the network's context are left out.

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
    names = ("num_heads", "norm_first", "d_model", "num_layers")
    return weights, {name: recorded[name] for name in names if name in recorded}


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
