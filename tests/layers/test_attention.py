"""Attention against the formula written out in float64, torch's module, and itself with a cache."""

import math

import pytest
import torch

from lit_models.layers.attention import KeyValueCache, MultiHeadAttention

B, T, S, D, H = 3, 5, 7, 12, 3


def formula(layer, query, memory, mask):
    """One head and one query at a time."""
    w, b = layer.in_proj.weight, layer.in_proj.bias
    size = D // H
    out = torch.zeros(B, T, D, dtype=torch.float64)
    for n in range(B):
        for t in range(T):
            heads = []
            for h in range(H):
                rows = [slice(i * D + h * size, i * D + (h + 1) * size) for i in range(3)]
                q = w[rows[0]] @ query[n, t] + b[rows[0]]
                keys = [j for j in range(S) if mask[n, 0, t, j]]
                scores = torch.stack(
                    [q @ (w[rows[1]] @ memory[n, j] + b[rows[1]]) / math.sqrt(size) for j in keys]
                )
                alpha = scores.exp() / scores.exp().sum()
                values = torch.stack([w[rows[2]] @ memory[n, j] + b[rows[2]] for j in keys])
                heads.append(alpha @ values)
            out[n, t] = layer.out_proj.weight @ torch.cat(heads) + layer.out_proj.bias
    return out


def test_formula():
    layer = MultiHeadAttention(D, H).double()
    query, memory = torch.randn(B, T, D).double(), torch.randn(B, S, D).double()
    mask = torch.rand(B, 1, T, S) < 0.6
    mask[..., 2] = True
    torch.testing.assert_close(layer(query, memory, mask), formula(layer, query, memory, mask))


@pytest.mark.parametrize("bias", [True, False])
def test_torch(bias):
    ours = MultiHeadAttention(D, H, bias=bias)
    theirs = torch.nn.MultiheadAttention(D, H, bias=bias, batch_first=True)
    theirs.in_proj_weight.data = ours.in_proj.weight.data
    if bias:
        theirs.in_proj_bias.data = ours.in_proj.bias.data
    theirs.out_proj = ours.out_proj
    x, memory = torch.randn(B, T, D), torch.randn(B, S, D)
    real = torch.arange(S) < torch.tensor([[7], [4], [1]])
    expected, weights = theirs(
        x, memory, memory, key_padding_mask=~real, average_attn_weights=False
    )
    mask = real[:, None, None]
    torch.testing.assert_close(ours(x, memory, mask), expected)
    q, (k, _) = ours.project_query(x), ours.project_memory(memory)
    torch.testing.assert_close(ours.weights(q, k, mask), weights)
    causal = torch.ones(T, T, dtype=torch.bool).tril()
    expected = theirs(x, x, x, attn_mask=~causal)[0]
    torch.testing.assert_close(ours(x, is_causal=True), expected)
    torch.testing.assert_close(ours(x, mask=causal), expected)


def test_cache_equals_the_whole_sequence():
    layer = MultiHeadAttention(D, H).eval()
    x = torch.randn(B, T, D)
    cache = KeyValueCache(B, H, T, D // H)
    first = layer(x[:, :2], is_causal=True, cache=cache)
    steps = [layer(x[:, t : t + 1], cache=cache) for t in range(2, T)]
    torch.testing.assert_close(torch.cat([first, *steps], dim=1), layer(x, is_causal=True))
    rows = torch.tensor([2, 0, 0])
    key = cache.key.clone()
    cache.reorder(rows)
    assert torch.equal(cache.key, key[rows])


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="num_heads must divide d_model=12, got 5"):
        MultiHeadAttention(12, 5)
