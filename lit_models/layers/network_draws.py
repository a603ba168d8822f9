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

# Values of a hidden layer that stay in a CPU core's cache; larger blocks run slower than a loop.
_BLOCK = 2**16


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
    block = num_draws
    if x.device.type == "cpu":
        widest = max(layer.bias.shape[1] for layer in layers)
        block = max(1, _BLOCK // max(x.shape[-2] * widest, 1))
    function = ACTIVATIONS[activation]
    outputs = []
    for start in range(0, num_draws, block):
        part = slice(start, start + block)
        h = columns[part]
        for depth, (weight, bias) in enumerate(layers):
            h = torch.baddbmm(bias[part].unsqueeze(-1), weight[part], h)
            if depth < len(layers) - 1:
                h = function(h)
        outputs.append(h)
    return torch.cat(outputs).mT
