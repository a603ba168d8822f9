r"""A small U-Net that predicts the noise in images.

Ronneberger et al. (2015), with the residual blocks, group norm and time conditioning of Ho et al.
(2020): :math:`h + W_2 \ast \mathrm{silu}(\mathrm{GN}(W_1 \ast \mathrm{silu}(\mathrm{GN}(h)) +
P \,\mathrm{silu}(e)))` at each resolution, self-attention at the lowest. Deviations:

* Each level down halves the resolution with a strided convolution; the way up repeats pixels, so
  that sides need not be powers of two: it crops to the side the skip has.
* One residual block per level and direction by default; the paper has two.

Shape letters: B batch, C channels, H and W sides, E width of the step embedding.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _norm(num_channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(8 if num_channels % 8 == 0 else 1, num_channels)


class ConvBlock(nn.Module):
    """Residual block of two convolutions that a step embedding shifts.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        embedding_size: Width E of the step embedding.
        dropout: Probability of dropping a unit before the second convolution.

    Shape:
        Input ``(B, C, H, W)`` and embedding ``(B, E)`` or ``(1, E)``; as many rows, out.
    """

    def __init__(
        self, in_channels: int, out_channels: int, embedding_size: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(in_channels), _norm(out_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.condition = nn.Linear(embedding_size, out_channels)
        self.dropout = nn.Dropout(dropout)
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Output of the block."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.condition(F.silu(embedding))[..., None, None]
        out: Tensor = self.skip(x) + self.conv2(self.dropout(F.silu(self.norm2(h))))
        return out


class PixelAttention(nn.Module):
    """Residual self-attention over the pixels of an image.

    Args:
        num_channels: Channels of input and output.
        num_heads: Number of heads.

    Shape:
        Input and output ``(B, C, H, W)``.
    """

    def __init__(self, num_channels: int, num_heads: int = 4) -> None:
        super().__init__()
        self.norm = _norm(num_channels)
        self.attention = nn.MultiheadAttention(num_channels, num_heads, batch_first=True)
        nn.init.zeros_(self.attention.out_proj.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Output of the layer."""
        pixels = self.norm(x).flatten(2).transpose(1, 2)
        mixed = self.attention(pixels, pixels, pixels, need_weights=False)[0]
        out: Tensor = x + mixed.transpose(1, 2).reshape(x.shape)
        return out


class UNet(nn.Module):
    """Noise in an image, from coarse to fine and back.

    Args:
        in_channels: Channels C of the image.
        hidden_size: Channels at full resolution, and width E of the step embedding.
        num_blocks: Residual blocks per level and direction.
        channel_multipliers: Channels of each level in units of ``hidden_size``.
        dropout: Probability of dropping a unit inside a residual block.

    Raises:
        ValueError: If ``hidden_size`` does not divide into attention heads, or a multiplier is not
            positive.

    Shape:
        Input ``(B, C, H, W)`` and embedding ``(B, E)`` or ``(1, E)``, output ``(B, C, H, W)``.

    Example:
        >>> net = UNet(in_channels=3, hidden_size=16)
        >>> net(torch.zeros(2, 3, 32, 32), torch.zeros(2, 16)).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self,
        in_channels: int,
        hidden_size: int,
        num_blocks: int = 1,
        channel_multipliers: Sequence[int] = (1, 2),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if hidden_size % 4:
            raise ValueError(f"hidden_size of a U-Net must be a multiple of 4, got {hidden_size}")
        if len(channel_multipliers) == 0 or min(channel_multipliers) < 1:
            raise ValueError(f"channel_multipliers must be positive, got {[*channel_multipliers]}")
        widths = [hidden_size * multiplier for multiplier in channel_multipliers]

        def block(width: int, out: int) -> ConvBlock:
            return ConvBlock(width, out, hidden_size, dropout)

        self.inner = nn.Conv2d(in_channels, hidden_size, 3, padding=1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        skips, width = [hidden_size], hidden_size
        for level, out in enumerate(widths):
            if level:
                self.shrink.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
                skips.append(width)
            blocks = nn.ModuleList(block(width if i == 0 else out, out) for i in range(num_blocks))
            self.down.append(blocks)
            width = out
            skips += [out] * num_blocks
        self.middle = nn.ModuleList([block(width, width), block(width, width)])
        self.attention = PixelAttention(width)
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for level, out in reversed(list(enumerate(widths))):
            blocks = nn.ModuleList()
            for _ in range(num_blocks + 1):
                blocks.append(block(width + skips.pop(), out))
                width = out
            self.up.append(blocks)
            if level:
                self.grow.append(nn.Conv2d(width, width, 3, padding=1))
        self.norm = _norm(width)
        self.outer = nn.Conv2d(width, in_channels, 3, padding=1)
        nn.init.zeros_(self.outer.weight)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Output of the network."""
        h = self.inner(x)
        skips = [h]
        for level, blocks in enumerate(self.down):
            if level:
                h = self.shrink[level - 1](h)
                skips.append(h)
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, embedding)
                skips.append(h)
        h = self.middle[0](h, embedding)
        h = self.middle[1](self.attention(h), embedding)
        for level, blocks in enumerate(self.up):
            if level:
                height, side = skips[-1].shape[-2:]
                h = F.interpolate(h, scale_factor=2.0, mode="nearest")[..., :height, :side]
                h = self.grow[level - 1](h)
            for block in blocks:  # type: ignore[attr-defined]
                h = block(torch.cat([h, skips.pop()], dim=1), embedding)
        out: Tensor = self.outer(F.silu(self.norm(h)))
        return out
