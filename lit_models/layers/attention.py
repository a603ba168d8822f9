r"""Multi-head scaled dot-product attention, with a cache for decoding token by token.

.. math::
    \text{head}_i = \mathrm{softmax}\Big(\frac{Q W_i^Q (K W_i^K)^T}{\sqrt{d_k}}\Big) V W_i^V,
    \qquad \text{out} = [\text{head}_1; \dots; \text{head}_H] \, W^O

Vaswani et al., "Attention Is All You Need" (2017). Masks are boolean, True = may be attended (the
opposite of ``torch.nn.MultiheadAttention``'s).

Shape letters: B batch, T queries, S keys, D model width, H heads, K = D / H head width.
"""

import contextlib

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class KeyValueCache:
    """Keys and values of the positions decoded so far, in buffers allocated once.

    Args:
        batch_size: Rows B decoded side by side.
        num_heads: Number H of heads.
        max_length: Positions the cache can hold.
        head_size: Width K of a head.
        device: Where the buffers live.
        dtype: Type of the buffers.
    """

    def __init__(
        self,
        batch_size: int,
        num_heads: int,
        max_length: int,
        head_size: int,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        shape = (batch_size, num_heads, max_length, head_size)
        self.key = torch.empty(shape, device=device, dtype=dtype)
        self.value = torch.empty(shape, device=device, dtype=dtype)
        self.length = 0

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Stores new positions ``(B, H, t, K)``; returns all so far, ``(B, H, length, K)``."""
        end = self.length + key.shape[2]
        self.key[:, :, self.length : end] = key
        self.value[:, :, self.length : end] = value
        self.length = end
        return self.key[:, :, :end], self.value[:, :, :end]

    def keep(self, rows: Tensor) -> None:
        """Drops the rows ``(B,)`` that are False."""
        self.key, self.value = self.key[rows], self.value[rows]

    def reorder(self, rows: Tensor) -> None:
        """Replaces row i by row ``rows[i]``, as beam search does when beams change parents."""
        self.key[:, :, : self.length] = self.key[rows, :, : self.length]
        self.value[:, :, : self.length] = self.value[rows, :, : self.length]


def apart(documents: Tensor) -> tuple[Tensor, Tensor]:
    """Positions and causal mask of documents that stand in one row and see nothing of each other.

    Args:
        documents: Number of the document of each token, ascending in a row, ``(B, T)``.

    Returns:
        Position of each token in its document, ``(B, T)``, and what it may attend to,
        ``(B, 1, T, T)``.
    """
    place = torch.arange(documents.shape[1], device=documents.device)
    begins = F.pad(documents[:, 1:] != documents[:, :-1], (1, 0), value=True)
    starts = torch.where(begins, place, 0).cummax(1).values
    same = documents[:, :, None] == documents[:, None]
    return place - starts, (same & (place <= place[:, None])).unsqueeze(1)


class MultiHeadAttention(nn.Module):
    """Attention of queries over keys and values, or of a sequence over itself.

    The three input projections are one matrix, as in ``torch.nn.MultiheadAttention`` and GPT-2, so
    that self-attention projects with one product.

    Args:
        d_model: Width D.
        num_heads: Number H of heads; divides D.
        dropout: Probability of dropping an attention weight in training.
        bias: Whether projections have biases.

    Raises:
        ValueError: If the heads do not divide the width.

    Shape:
        Query ``(B, T, D)``, memory ``(B, S, D)``, mask broadcastable to ``(B, H, T, S)``; output
        ``(B, T, D)``.

    Example:
        >>> attention = MultiHeadAttention(d_model=16, num_heads=4)
        >>> attention(torch.zeros(2, 5, 16), torch.zeros(2, 7, 16)).shape
        torch.Size([2, 5, 16])
    """

    def __init__(
        self, d_model: int, num_heads: int, dropout: float = 0.0, bias: bool = True
    ) -> None:
        super().__init__()
        if num_heads < 1 or d_model % num_heads:
            raise ValueError(f"num_heads must divide d_model={d_model}, got {num_heads}")
        self.num_heads, self.head_size = num_heads, d_model // num_heads
        self.dropout = dropout
        self.in_proj = nn.Linear(d_model, 3 * d_model, bias=bias)
        self.out_proj = nn.Linear(d_model, d_model, bias=bias)

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.num_heads, self.head_size).transpose(1, 2)

    def project(self, query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of self-attention, each ``(B, H, T, K)``."""
        q, k, v = self.in_proj(query).chunk(3, dim=-1)
        return self._split_heads(q), self._split_heads(k), self._split_heads(v)

    def project_query(self, query: Tensor) -> Tensor:
        """Queries of cross-attention, ``(B, H, T, K)``."""
        width = query.shape[-1]
        bias = None if self.in_proj.bias is None else self.in_proj.bias[:width]
        return self._split_heads(F.linear(query, self.in_proj.weight[:width], bias))

    def project_memory(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a memory, each ``(B, H, S, K)``; once per decoded sequence."""
        width = memory.shape[-1]
        bias = None if self.in_proj.bias is None else self.in_proj.bias[width:]
        k, v = F.linear(memory, self.in_proj.weight[width:], bias).chunk(2, dim=-1)
        return self._split_heads(k), self._split_heads(v)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Output ``(B, T, D)`` for projected heads."""
        dropout = self.dropout if self.training else 0.0
        # On CPU the bfloat16 kernel's backward takes five to ten times as long as float32's.
        dtype = q.dtype
        widen = q.device.type == "cpu" and dtype == torch.bfloat16 and torch.is_grad_enabled()
        with torch.autocast("cpu", enabled=False) if widen else contextlib.nullcontext():
            if widen:
                q, k, v = q.float(), k.float(), v.float()
            heads = F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=is_causal
            )
        out: Tensor = self.out_proj(heads.to(dtype).transpose(1, 2).flatten(2))
        return out

    def weights(self, q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attention weights ``(B, H, T, S)``, for figures."""
        scores: Tensor = q @ k.transpose(-2, -1) / self.head_size**0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(-1)

    def forward(
        self,
        query: Tensor,
        memory: Tensor | None = None,
        mask: Tensor | None = None,
        is_causal: bool = False,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Attends to ``memory``, or to the query's own sequence where there is none.

        Args:
            query: ``(B, T, D)``.
            memory: ``(B, S, D)``.
            mask: True where a query may attend, broadcastable to ``(B, H, T, S)``. Every query
                needs a key it may attend to.
            is_causal: Whether position t sees positions up to t alone; without a mask.
            cache: Earlier positions of a sequence decoded step by step; extended by this call.
        """
        if memory is not None:
            k, v = self.project_memory(memory)
            return self.attend(self.project_query(query), k, v, mask)
        q, k, v = self.project(query)
        if cache is not None:
            k, v = cache.append(k, v)
        return self.attend(q, k, v, mask, is_causal)
