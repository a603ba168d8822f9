"""Figures of cross-attention: source against decoded target."""

from typing import TYPE_CHECKING, Any

import lightning as L
import torch

from callbacks.figures.base import FigureCallback
from callbacks.figures.style import part_of
from datamodules.batches import BOS, EOS, SequencePairBatch

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class AttentionFigure(FigureCallback):
    """Heatmaps of the weights between decoded and source tokens, one for each layer and head.

    Draws test pairs that the model decodes by itself; nothing for a model without attention.

    Args:
        num_samples: Test pairs to draw, each in a figure of its own.
        max_tokens: Tokens of either side to draw, at most.
    """

    def __init__(self, num_samples: int = 1, max_tokens: int = 40) -> None:
        self.num_samples, self.max_tokens = num_samples, max_tokens

    def draw(self, trainer: L.Trainer, pl_module: L.LightningModule) -> "dict[str, Figure]":
        """The figures."""
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        model: Any = pl_module
        test = datamodule.split("test")
        figures = {}
        for row in range(min(self.num_samples, len(test.src))):
            src = test.src[row][test.src_mask[row]].to(model.device).unsqueeze(0)
            mask = torch.ones_like(src, dtype=torch.bool)
            written = model.generate(src, mask)
            tgt = torch.cat([torch.full_like(written[:, :1], BOS), written], dim=1)
            batch = SequencePairBatch(src, tgt, mask, torch.ones_like(tgt, dtype=torch.bool))
            weights = model.attention_weights(batch)
            if weights is None:
                return {}
            length = _length(written[0])
            tokens = written[0, : min(length, self.max_tokens)]
            src = src[0, : self.max_tokens]
            figure = _heatmaps(
                weights[:, 0, :, : len(tokens), : len(src)].float().cpu(),
                datamodule.token_names(src.cpu(), "src"),
                datamodule.token_names(tokens.cpu(), "tgt"),
            )
            pair = f"test pair {row + 1} of {len(test.src):,}"
            shown = part_of(len(src), weights.shape[-1], "source tokens")
            figure.suptitle(f"{pair}, {shown}, {part_of(len(tokens), length, 'decoded')}")
            figures[f"attention_{row}" if row else "attention"] = figure
        return figures


def _length(tokens: torch.Tensor) -> int:
    """Number of tokens up to EOS."""
    ends = (tokens == EOS).nonzero()
    return int(ends[0]) + 1 if len(ends) else len(tokens)


def _heatmaps(weights: torch.Tensor, src: list[str], tgt: list[str]) -> "Figure":
    """Grid of layers by heads from weights ``(N, H, T, S)``."""
    from matplotlib.figure import Figure

    num_layers, num_heads = weights.shape[:2]
    cell = 0.22
    size = (num_heads * (cell * len(src) + 0.4) + 1.2, num_layers * (cell * len(tgt) + 0.5) + 1.2)
    figure = Figure(figsize=(max(size[0], 4.0), max(size[1], 3.2)), layout="constrained")
    grid = figure.subplots(num_layers, num_heads, squeeze=False, sharex=True, sharey=True)
    for layer, panels in enumerate(grid):
        for head, axes in enumerate(panels):
            image = axes.imshow(weights[layer, head], vmin=0, vmax=1, cmap="Blues", aspect="auto")
            axes.set_xticks(range(len(src)), src, rotation=90)
            axes.set_yticks(range(len(tgt)), tgt)
            if num_layers * num_heads > 1:
                axes.set_title(f"layer {layer + 1}, head {head + 1}")
    figure.supxlabel("source")
    figure.supylabel("decoded")
    figure.colorbar(image, ax=grid.ravel().tolist(), label="attention weight", shrink=0.8)
    return figure
