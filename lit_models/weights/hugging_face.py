"""Hugging Face's GPT-2 and BERT: names, sizes, reading and writing.

A folder holds ``config.json`` and ``model.safetensors``; both are read and written as plain data,
without ``transformers``.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lit_models.weights.families import BERT, GPT2, Family, check_config

Weights = dict[str, Tensor]


def read_config(folder: Path) -> dict[str, Any]:
    """What ``config.json`` of a folder says.

    Raises:
        ValueError: If there is none.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder} holds no readable config.json: {error}") from error
    return config if isinstance(config, dict) else {}


def sizes_in(config: dict[str, Any], family: Family) -> dict[str, Any]:
    """Sizes and place of the norms that a ``config.json`` gives, under our names."""
    sizes = {ours: config[theirs] for ours, theirs in family.sizes.items() if theirs in config}
    return {**sizes, "norm_first": family.norm_first}


def read_folder(folder: Path, family: Family, source: str) -> tuple[Weights, dict[str, Any]]:
    """Weights under our names, and the sizes that ``config.json`` gives."""
    config = read_config(folder)
    if config.get("model_type") != family.model_type:
        raise ValueError(
            f"pretrained {source} is of type {config.get('model_type')!r}; this model takes "
            f"{family.model_type!r}"
        )
    check_config(config, family, source)
    sizes = sizes_in(config, family)
    theirs = _read_safetensors(folder)
    if not any(name.startswith(family.prefix) for name in theirs):
        theirs = {f"{family.prefix}{name}": value for name, value in theirs.items()}
    renamed = {  # names of checkpoints converted from TensorFlow
        name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
            "LayerNorm.beta", "LayerNorm.bias"
        ): value
        for name, value in theirs.items()
    }
    _check_tied(renamed, family, source)
    return _translate(renamed, family, int(sizes["num_layers"])), sizes


def _read_safetensors(folder: Path) -> Weights:
    load_file, _, error_class = _safetensors()
    index = folder / "model.safetensors.index.json"
    files = [folder / "model.safetensors"]
    if index.is_file():
        listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        files = [folder / name for name in sorted(set(listed))]
    weights: Weights = {}
    for file in files:
        if not file.is_file():
            raise ValueError(f"{folder} has no {file.name}; save the model as safetensors")
        try:
            weights |= load_file(file)
        except (OSError, error_class) as error:
            raise ValueError(f"{file} is no readable safetensors file: {error}") from error
    return weights


def _check_tied(theirs: Weights, family: Family, source: str) -> None:
    """Checks that an output projection, where the file holds one, is the token embedding.

    Raises:
        ValueError: If it has weights of its own.
    """
    embedding = theirs.get(f"{family.outer[_token_embedding(family)]}.weight")
    for name in ("lm_head.weight", "transformer.lm_head.weight", "cls.predictions.decoder.weight"):
        head = theirs.get(name)
        if head is not None and embedding is not None and not torch.equal(head, embedding):
            raise ValueError(
                f"pretrained {source}: {name} is not the token embedding, to which the output is "
                "tied here; give a model with tied embeddings"
            )


def _token_embedding(family: Family) -> str:
    return next(name for name in family.outer if name.endswith("token_embedding"))


def _names(family: Family, num_layers: int) -> list[tuple[str, tuple[str, ...]]]:
    """Our modules with theirs."""
    pairs: list[tuple[str, tuple[str, ...]]]
    pairs = [(ours, (theirs,)) for ours, theirs in family.outer.items()]
    inner = "bert.blocks" if family is BERT else "blocks"
    for layer in range(num_layers):
        for ours, parts in family.block.items():
            theirs = tuple(f"{family.block_prefix}{layer}.{part}" for part in parts)
            pairs.append((f"{inner}.{layer}.{ours}", theirs))
    return pairs


def _modules(net: nn.Module, family: Family) -> list[tuple[str, tuple[str, ...]]]:
    return _names(family, len(body_of(net).blocks))


def _translate(theirs: Weights, family: Family, num_layers: int) -> Weights:
    out: Weights = {}
    for ours, names in _names(family, num_layers):
        for kind in ("weight", "bias"):
            parts = [theirs[f"{name}.{kind}"] for name in names if f"{name}.{kind}" in theirs]
            if len(parts) != len(names):
                continue  # reported by name where the network needs it
            value = torch.cat(parts)
            transposed = family.transposed and _is_linear(ours) and value.dim() == 2
            out[f"{ours}.{kind}"] = value.T if transposed else value
    return out


def save_pretrained(net: nn.Module, folder: str | Path) -> None:
    """Writes a GPT or a BERT with its pre-training heads as a Hugging Face folder.

    Args:
        net: The network; biases it lacks are written as zeros.
        folder: Made if it does not exist.

    Raises:
        ValueError: If Hugging Face's class computes something else.
    """
    save_file = _safetensors().save_file
    family, sizes = family_of(net), sizes_of(net)
    if sizes["norm_first"] != family.norm_first:
        raise ValueError(
            f"Hugging Face's {family.model_type} has norm_first={family.norm_first}; a model with "
            f"norm_first={sizes['norm_first']} cannot be written as one"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = json.dumps(_their_config(net, family), indent=2)
    (folder / "config.json").write_text(config + "\n", encoding="utf-8")
    weights = _their_weights(net, family)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _their_weights(net: nn.Module, family: Family) -> Weights:
    """Our weights under their names."""
    state, out = net.state_dict(), {}
    for ours, theirs in _modules(net, family):
        for kind in ("weight", "bias"):
            value = state.get(f"{ours}.{kind}")
            if value is None:
                if kind == "weight" or f"{ours}.weight" not in state or "embedding" in ours:
                    continue
                value = state[f"{ours}.weight"].new_zeros(len(state[f"{ours}.weight"]))
            if family.transposed and _is_linear(ours) and value.dim() == 2:
                value = value.T
            for name, part in zip(theirs, value.chunk(len(theirs)), strict=True):
                out[f"{name}.{kind}"] = part.contiguous().cpu().clone()
    return out


def _their_config(net: nn.Module, family: Family) -> dict[str, Any]:
    """``config.json`` of a network."""
    sizes = sizes_of(net)
    fixed = {name: value for name, value in family.fixed.items() if value is not None}
    config: dict[str, Any] = {"model_type": family.model_type, **fixed}
    config |= {theirs: sizes[ours] for ours, theirs in family.sizes.items()}
    if family is GPT2:
        # The default special tokens belong to GPT-2's own vocabulary.
        config |= {"bos_token_id": None, "eos_token_id": None}
        return {"architectures": ["GPT2LMHeadModel"], **config}
    config |= {"intermediate_size": 4 * sizes["d_model"], "type_vocab_size": 2}
    pairs = "next_head.weight" in net.state_dict()
    return {"architectures": ["BertForPreTraining" if pairs else "BertForMaskedLM"], **config}


def _is_linear(name: str) -> bool:
    return "attention" in name or "feed_forward" in name


def body_of(net: nn.Module) -> Any:
    """The encoder or decoder inside a network."""
    return getattr(net, "bert", getattr(net, "gpt", net))


def family_of(net: nn.Module) -> Family:
    """The family a network belongs to."""
    return BERT if hasattr(net, "bert") else GPT2


def sizes_of(net: nn.Module) -> dict[str, Any]:
    """What the weights' shapes and the blocks say about a network."""
    body = body_of(net)
    vocab_size, d_model = body.token_embedding.weight.shape
    return {
        "vocab_size": vocab_size,
        "context_length": body.context_length,
        "d_model": d_model,
        "num_layers": len(body.blocks),
        "num_heads": body.blocks[0].attention.num_heads,
        "norm_first": body.blocks[0].norm_first,
    }


def find_folder(source: str) -> Path:
    """A local folder, or the downloaded files of a name on the hub."""
    if Path(source).is_dir():
        return Path(source)
    if source.endswith(".ckpt") or source.startswith(("/", ".")):
        raise ValueError(f"no pretrained checkpoint {source!r}; give a .ckpt file or a folder")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ValueError(
            f"{source!r} is no file or folder, and the hub's names need `pip install "
            "'lit-models[hf]'`"
        ) from error
    try:
        return Path(snapshot_download(source, allow_patterns=["*.json", "*.safetensors"]))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"pretrained {source!r} is no file or folder and cannot be downloaded: {reason}"
        ) from error


class _Safetensors(NamedTuple):
    load_file: Any
    save_file: Any
    error: type[Exception]


def _safetensors() -> _Safetensors:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file, save_file
    except ImportError as error:
        raise ValueError(
            "Hugging Face weights need safetensors: `pip install 'lit-models[hf]'`"
        ) from error
    return _Safetensors(load_file, save_file, SafetensorError)
