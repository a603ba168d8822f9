"""Many networks in one pass against a loop over them."""

from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from lit_models.layers import network_draws
from lit_models.layers.network_draws import ACTIVATIONS, AffineDraws, evaluate_draws

SIZES = (3, 7, 5, 2)
NUM_DRAWS = 11


def draws():
    return [
        AffineDraws(
            torch.randn(NUM_DRAWS, outputs, inputs, dtype=torch.float64),
            torch.randn(NUM_DRAWS, outputs, dtype=torch.float64),
        )
        for inputs, outputs in pairwise(SIZES)
    ]


def loop(x, layers, activation):
    outputs = []
    for s in range(NUM_DRAWS):
        h = x if x.dim() == 2 else x[s]
        for depth, (weight, bias) in enumerate(layers):
            h = F.linear(h, weight[s], bias[s])
            if depth < len(layers) - 1:
                h = ACTIVATIONS[activation](h)
        outputs.append(h)
    return torch.stack(outputs)


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize(("block", "rows"), [(1, 1024), (13 * 7 * 4, 1024), (2**17, 5)])
def test_one_pass_equals_the_loop(activation, block, rows, monkeypatch):
    monkeypatch.setattr(network_draws, "_BLOCK", block)
    monkeypatch.setattr(network_draws, "_ROWS", rows)
    layers, x = draws(), torch.randn(13, 3, dtype=torch.float64)
    expected = loop(x, layers, activation)
    torch.testing.assert_close(
        evaluate_draws(x, layers, activation), expected, rtol=1e-12, atol=1e-12
    )


def test_rows_of_each_draw_s_own():
    layers, x = draws(), torch.randn(NUM_DRAWS, 13, 3, dtype=torch.float64)
    torch.testing.assert_close(
        evaluate_draws(x, layers), loop(x, layers, "relu"), rtol=1e-12, atol=1e-12
    )


def test_gradients_reach_the_weights():
    layers, x = draws(), torch.randn(13, 3, dtype=torch.float64)
    leaves = [tensor.requires_grad_() for layer in layers for tensor in layer]
    grads = torch.autograd.grad(evaluate_draws(x, layers).square().sum(), leaves)
    expected = torch.autograd.grad(loop(x, layers, "relu").square().sum(), leaves)
    for grad, other in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad, other, rtol=1e-10, atol=1e-10)
