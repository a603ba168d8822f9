"""The U-Net of a diffusion model as a folder that diffusers loads, and back.

diffusers' ``UNet2DModel`` computes what :class:`~lit_models.layers.unet.UNet` does, but for the
step's embedding: its own is four times as wide, of other features. It also has a learned table of
steps, which takes what our first layer says of each step; the rest of the width stays zero.

Shape letters: T steps of the process, W width of the embedding, F time features, K classes.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Weights = dict[str, Tensor]

_BLOCK = {
    "norm1": "norm1",
    "conv1": "conv1",
    "condition": "time_emb_proj",
    "norm2": "norm2",
    "conv2": "conv2",
    "skip": "conv_shortcut",
}
_PLACES = {"inner": "conv_in", "norm": "conv_norm_out", "outer": "conv_out"}
_WIDER = 4  # diffusers' embedding in units of ours
_NOTE = "lit_ddpm.json"


def to_diffusers(model: Any) -> tuple[dict[str, Any], Weights]:
    """Configuration and weights of the ``UNet2DModel`` that computes what a model does.

    Args:
        model: A :class:`~lit_models.ddpm.LitDDPM` with a U-Net.

    Raises:
        ValueError: If diffusers has no network that computes the same.
    """
    options = model.hparams
    levels = len(options["channel_multipliers"])
    channels, *sides = model.sample_shape if len(model.sample_shape) == 3 else (0,)
    if model.embedding is None or options["denoiser"] != "unet":
        raise ValueError("diffusers takes the U-Net alone; fit with denoiser unet")
    if any(side % 2 ** (levels - 1) for side in sides):
        raise ValueError(
            f"diffusers halves whole sides: {sides[0]} x {sides[1]} do not halve {levels - 1} times"
        )
    width = options["hidden_size"]
    if width % 8:
        raise ValueError(f"diffusers' norms need a hidden_size that 8 divides, got {width}")
    widths = [width * multiplier for multiplier in options["channel_multipliers"]]
    weights: Weights = {}
    for name, value in model.denoiser.state_dict().items():
        for place, part in _renamed(name, value):
            weights[place] = _widened(part, width) if "time_emb_proj.weight" in place else part
    config = {
        "sample_size": list(sides),
        "in_channels": channels,
        "out_channels": channels,
        "block_out_channels": widths,
        "down_block_types": ["DownBlock2D"] * levels,
        "up_block_types": ["UpBlock2D"] * levels,
        "layers_per_block": options["num_blocks"],
        "attention_head_dim": widths[-1] // 4,
        "norm_num_groups": 8,
        "dropout": options["dropout"],
        "time_embedding_type": "learned",
        "num_train_timesteps": model.ddpm.diffusion.num_steps,
        "num_class_embeds": model.num_classes + 1 if model.num_classes else None,
    }
    return config, {**weights, **_embedding(model.embedding, model.ddpm.diffusion.num_steps)}


def _renamed(name: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Places of one of our U-Net's weights among diffusers'."""
    part, _, rest = name.partition(".")
    if part in _PLACES:
        yield f"{_PLACES[part]}.{rest}", value
    elif part in ("shrink", "grow"):
        place, _, leaf = rest.partition(".")
        side = "down_blocks" if part == "shrink" else "up_blocks"
        way = "downsamplers" if part == "shrink" else "upsamplers"
        yield f"{side}.{place}.{way}.0.conv.{leaf}", value
    elif part == "middle":
        yield f"mid_block.resnets.{_in_block(rest)}", value
    elif part == "attention":
        yield from _attention(rest, value)
    else:
        level, _, block = rest.partition(".")
        yield f"{part}_blocks.{level}.resnets.{_in_block(block)}", value


def _in_block(name: str) -> str:
    place, part, leaf = name.split(".")
    return f"{place}.{_BLOCK[part]}.{leaf}"


def _attention(name: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    place = "mid_block.attentions.0"
    kind = name.rpartition("_")[2] if "in_proj" in name else name.rpartition(".")[2]
    if name.startswith("norm"):
        yield f"{place}.group_norm.{kind}", value
    elif "in_proj" in name:
        for target, third in zip(("to_q", "to_k", "to_v"), value.chunk(3), strict=True):
            yield f"{place}.{target}.{kind}", third
    else:
        yield f"{place}.to_out.0.{kind}", value


def _widened(weight: Tensor, width: int) -> Tensor:
    """A layer of an embedding ``(*, W)`` as one of diffusers', ``(*, 4 W)``."""
    return torch.cat([weight, weight.new_zeros(len(weight), (_WIDER - 1) * width)], 1)


def _embedding(embedding: Any, num_steps: int) -> Weights:
    """Step and class of diffusers' kind."""
    first, _, second = embedding.time
    angles = torch.arange(num_steps, dtype=torch.float64)[:, None] * embedding.frequencies.double()
    features = torch.cat([angles.sin(), angles.cos()], 1)
    table = features @ first.weight.double().T + first.bias.double()
    width = len(first.bias)
    wide = _WIDER * width
    through, back = torch.zeros(wide, width), torch.zeros(wide, wide)
    through[:width] = torch.eye(width)
    back[:width, :width] = second.weight
    bias = torch.zeros(wide)
    bias[:width] = second.bias
    weights = {
        "time_proj.weight": table.to(first.weight.dtype),
        "time_embedding.linear_1.weight": through,
        "time_embedding.linear_1.bias": torch.zeros(wide),
        "time_embedding.linear_2.weight": back,
        "time_embedding.linear_2.bias": bias,
    }
    if embedding.classes is not None:
        weights["class_embedding.weight"] = _widened(embedding.classes.weight, width)
    return {name: value.detach().clone() for name, value in weights.items()}


def scheduler_config(model: Any) -> dict[str, Any]:
    """Configuration of diffusers' scheduler of a model's process.

    Its ``set_timesteps`` takes the sampler's own steps, which :func:`save_diffusers` notes.
    """
    options = model.hparams
    kinds = {"noise": "epsilon", "x0": "sample", "v": "v_prediction"}
    config = {
        "num_train_timesteps": model.ddpm.diffusion.num_steps,
        "trained_betas": model.ddpm.diffusion.betas.tolist(),
        "prediction_type": kinds[model.ddpm.prediction],
    }
    if options["sampler"] == "dpm_solver":
        name = "DPMSolverMultistepScheduler"
        return {"_class_name": name, **config, "final_sigmas_type": "zero"}
    if options["sampler"] == "ddim":
        spaced = {"clip_sample": False, "timestep_spacing": "linspace"}
        return {"_class_name": "DDIMScheduler", **config, **spaced}
    variance = {"beta": "fixed_large", "posterior": "fixed_small"}[options["variance"]]
    spaced = {"clip_sample": False, "timestep_spacing": "linspace", "variance_type": variance}
    return {"_class_name": "DDPMScheduler", **config, **spaced}


def save_diffusers(model: Any, folder: Path) -> None:
    """Writes ``unet/``, ``scheduler/`` and ``lit_ddpm.json``: the scale and the sampler's steps.

    Args:
        model: A :class:`~lit_models.ddpm.LitDDPM` with a U-Net.
        folder: Where to; made.

    Raises:
        ValueError: If diffusers is missing, or has no network that computes the same.
    """
    try:
        import diffusers
    except ImportError as error:
        raise ValueError(
            "--format diffusers needs it: pip install 'lit-models[diffusers]'"
        ) from error
    config, weights = to_diffusers(model)
    net = diffusers.UNet2DModel(**config)
    net.load_state_dict(weights)
    schedule = scheduler_config(model)
    scheduler = getattr(diffusers, schedule.pop("_class_name"))(**schedule)
    net.save_pretrained(folder / "unet")
    scheduler.save_pretrained(folder / "scheduler")
    note = {
        "mean": model.x_scaler.mean.tolist(),
        "std": model.x_scaler.std.tolist(),
        "timesteps": model.ddpm.sampler_steps.t.tolist(),
        "guidance_weight": model.ddpm.guidance_weight,
        "time_features": model.hparams["time_features"],
        "num_time_features": model.hparams["num_time_features"],
    }
    (folder / _NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")


def load_diffusers(model: Any, folder: str) -> None:
    """Copies the weights that :func:`save_diffusers` wrote, trained further or not, into a model.

    Raises:
        ValueError: If the folder holds something else, or a network of other sizes.
    """
    path = Path(folder) / "unet" / "diffusion_pytorch_model.safetensors"
    note = Path(folder) / _NOTE
    if not path.is_file() or not note.is_file():
        raise ValueError(f"{folder} is no folder of `lit-models export --format diffusers`")
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ValueError(
            "pretrained needs safetensors: pip install 'lit-models[diffusers]'"
        ) from error
    theirs = load_file(path)
    _, expected = to_diffusers(model)
    for name, value in expected.items():
        if name not in theirs or theirs[name].shape != value.shape:
            have = tuple(theirs[name].shape) if name in theirs else "missing"
            raise ValueError(
                f"{folder}: weight {name!r} is {have}, the model has {tuple(value.shape)}; use the "
                "options of the run it comes from"
            )
    ours = model.denoiser.state_dict()
    for name, value in ours.items():
        parts = [theirs[place] for place, _ in _renamed(name, value)]
        whole = torch.cat(parts)
        ours[name] = whole[:, : value.shape[1]] if name.endswith("condition.weight") else whole
    model.denoiser.load_state_dict(ours)
    _load_embedding(model.embedding, theirs)
    scale = json.loads(note.read_text(encoding="utf-8"))
    model.x_scaler.fit(scale["mean"], scale["std"])


@torch.no_grad()
def _load_embedding(embedding: Any, theirs: Mapping[str, Tensor]) -> None:
    """Step and class, back from diffusers' kind; the first layer by least squares over steps."""
    first, _, second = embedding.time
    width = len(first.bias)
    table = theirs["time_proj.weight"].double()
    angles = torch.arange(len(table), dtype=torch.float64)[:, None] * embedding.frequencies.double()
    ones = torch.ones(len(table), 1, dtype=torch.float64)
    features = torch.cat([angles.sin(), angles.cos(), ones], 1)
    # The smallest weights that say the same: those of nearly equal features would be huge.
    solution = torch.linalg.lstsq(features, table, rcond=1e-6, driver="gelsd").solution
    first.weight.copy_(solution[:-1].T)
    first.bias.copy_(solution[-1])
    second.weight.copy_(theirs["time_embedding.linear_2.weight"][:width, :width])
    second.bias.copy_(theirs["time_embedding.linear_2.bias"][:width])
    if embedding.classes is not None:
        embedding.classes.weight.copy_(theirs["class_embedding.weight"][:, :width])
