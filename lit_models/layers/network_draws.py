"""Many perceptrons of one shape, evaluated on the same rows in one batched pass.

Posterior samples of a Bayesian network, dropout masks folded into the weights and the states of a
Markov chain are all the same thing: S draws of the weights of one perceptron,
:math:`h_l^{(s)} = f(W_l^{(s)} h_{l-1}^{(s)} + b_l^{(s)})`.

Shape letters: S draws, B batch, D inputs and K outputs of a layer.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Activation = Literal["relu", "gelu", "silu", "tanh"]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
}

# Fresh results may be overwritten.
_IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu_, "tanh": torch.tanh_}

# Values of a hidden layer, and rows, that stay in a CPU core's cache; larger blocks can be slower
# than a loop over the networks.
_BLOCK, _ROWS = 2**17, 1024


class AffineDraws(NamedTuple):
    """S draws of an affine layer.

    Attributes:
        weight: ``(S, K, D)``.
        bias: ``(S, K)``.
    """

    weight: Tensor
    bias: Tensor


def draw_generator(like: Tensor) -> torch.Generator:
    """The generator of a prediction's draws: the same networks for every batch, rank and call."""
    return torch.Generator(like.device).manual_seed(0)


def stratified_uniform(
    num_draws: int, size: int, device: torch.device, generator: torch.Generator | None = None
) -> Tensor:
    """Uniform numbers of S draws: in each column one from every S-th part of the unit interval.

    The share of draws below any bound is then the bound itself, up to one draw, where that of
    independent numbers may be 0. Columns are independent of each other.

    Args:
        num_draws: Number S of draws.
        size: Number D of columns.
        device: Where the numbers are to lie.
        generator: Source of randomness, on that device.

    Returns:
        Numbers in [0, 1], ``(S, D)``.

    Example:
        >>> (stratified_uniform(100, 3, torch.device("cpu")) < 0.02).sum(0)
        tensor([2, 2, 2])
    """
    order, place = torch.rand(2, num_draws, size, generator=generator, device=device)
    uniform: Tensor = (order.argsort(0) + place) / num_draws
    return uniform


def evaluate_draws(
    x: Tensor, layers: Sequence[AffineDraws], activation: Activation = "relu"
) -> Tensor:
    """Outputs of every drawn perceptron on every row.

    Args:
        x: Rows, ``(B, D)``, or rows of each draw's own, ``(S, B, D)``.
        layers: Draws of each affine layer; the activation stands between them.
        activation: Non-linearity.

    Returns:
        Outputs, ``(S, B, K)``.
    """
    num_draws = len(layers[0].weight)
    # Features before rows: the products are then wide in their fast dimension also for one output.
    columns = x.mT.expand(num_draws, *x.mT.shape[-2:])
    if x.device.type != "cpu":
        return _outputs(columns, layers, activation).mT
    widest = max(layer.bias.shape[1] for layer in layers)
    blocks = []
    for rows in torch.split(columns, _ROWS, dim=-1):
        block = max(1, _BLOCK // max(rows.shape[-1] * widest, 1))
        parts = []
        for start in range(0, num_draws, block):
            some = slice(start, start + block)
            drawn = [AffineDraws(weight[some], bias[some]) for weight, bias in layers]
            parts.append(_outputs(rows[some], drawn, activation))
        blocks.append(torch.cat(parts))
    return torch.cat(blocks, dim=-1).mT


def _outputs(h: Tensor, layers: Sequence[AffineDraws], activation: Activation) -> Tensor:
    """Outputs ``(S, K, B)`` from inputs ``(S, D, B)``."""
    function = _IN_PLACE.get(activation, ACTIVATIONS[activation])
    for depth, (weight, bias) in enumerate(layers):
        h = torch.baddbmm(bias.unsqueeze(-1), weight, h)
        if depth < len(layers) - 1:
            h = function(h)
    return h
