r"""The Transformer: an encoder and a decoder of attention and position-wise networks.

.. math::
    \mathrm{FFN}(x) &= \max(0, x W_1 + b_1) W_2 + b_2 \\
    PE_{p, 2i} &= \sin(p / 10000^{2i/D}), \qquad PE_{p, 2i+1} = \cos(p / 10000^{2i/D}) \\
    \text{post-norm:}\quad x &\leftarrow \mathrm{LN}(x + f(x)), \qquad
    \text{pre-norm:}\quad x \leftarrow x + f(\mathrm{LN}(x))

with f self-attention, in the decoder masked so that a position sees no later one; then, in the
decoder, cross-attention, whose queries come from the decoder and whose keys and values are the
encoder's output; then the FFN. Attention is :mod:`lit_models.layers.attention`. Embeddings are
scaled by :math:`\sqrt D` before the position codes are added.

Vaswani et al., "Attention Is All You Need" (2017). Deviations:

* ``norm_first`` moves the norms into the residual branches and adds one behind each stack (Xiong et
  al., "On Layer Normalization in the Transformer Architecture", 2020); the paper's post-norm has
  none there.
* Sources and targets may have vocabularies of their own; the paper's three tied matrices are
  ``tie_embeddings: all``.
* The loss counts the end sign in its sum, not in its number of tokens (see
  :func:`~lit_models.layers.sequence_loss.sequence_loss`).

Shape letters: B batch, S source length, T target length, D width, H heads, K head width,
V vocabulary, N layers.
"""

import math
from collections.abc import Callable
from typing import Literal, cast

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from datamodules.batches import SequencePairBatch
from lit_models.decoding.states import CachedState, Memory
from lit_models.families.free_running import LitSequenceWriter
from lit_models.layers.attention import KeyValueCache, MultiHeadAttention
from lit_models.layers.positions import SinusoidalPositions


class Residual(nn.Module):
    """A sublayer's residual connection, dropout and norm, in either order."""

    def __init__(self, d_model: int, dropout: float, norm_first: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        self.norm_first = norm_first

    def branch(self, x: Tensor) -> Tensor:
        """What the sublayer reads."""
        return self.norm(x) if self.norm_first else x

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """Applies a sublayer, ``(B, T, D)`` to ``(B, T, D)``."""
        out: Tensor = x + self.dropout(sublayer(self.branch(x)))
        return out if self.norm_first else self.norm(out)


class FeedForward(nn.Sequential):
    """The same two-layer network at every position."""

    def __init__(self, d_model: int, dim_feedforward: int) -> None:
        super().__init__(
            nn.Linear(d_model, dim_feedforward), nn.ReLU(), nn.Linear(dim_feedforward, d_model)
        )


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward network; arguments as for `LitTransformer`."""

    def __init__(
        self, d_model: int, num_heads: int, dim_feedforward: int, dropout: float, norm_first: bool
    ) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, num_heads)
        self.self_residual = Residual(d_model, dropout, norm_first)
        self.feed_forward = FeedForward(d_model, dim_feedforward)
        self.feed_forward_residual = Residual(d_model, dropout, norm_first)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Maps ``(B, S, D)``; the mask is True at real positions, ``(B, 1, 1, S)``."""
        x = self.self_residual(x, lambda y: self.self_attention(y, mask=mask))
        out: Tensor = self.feed_forward_residual(x, self.feed_forward)
        return out


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoder's output, and feed-forward network.

    Arguments as for `LitTransformer`.
    """

    forward_methods = ("project_memory",)

    def __init__(
        self, d_model: int, num_heads: int, dim_feedforward: int, dropout: float, norm_first: bool
    ) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, num_heads)
        self.self_residual = Residual(d_model, dropout, norm_first)
        self.cross_attention = MultiHeadAttention(d_model, num_heads)
        self.cross_residual = Residual(d_model, dropout, norm_first)
        self.feed_forward = FeedForward(d_model, dim_feedforward)
        self.feed_forward_residual = Residual(d_model, dropout, norm_first)

    def project_memory(self, memory: Tensor) -> Memory:
        """Keys and values of the encoder's output ``(B, S, D)``."""
        return self.cross_attention.project_memory(memory)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | Memory,
        mask: Tensor,
        cache: KeyValueCache | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Maps ``(B, T, D)``, and returns the cross-attention ``(B, H, T, S)`` where needed.

        Args:
            x: Target positions; with a cache the next position alone.
            memory: The encoder's output ``(B, S, D)``, or its keys and values.
            mask: True at real source positions, ``(B, 1, 1, S)``.
            cache: Earlier positions; extended by this call.
            need_weights: Whether to return the cross-attention.
        """
        if isinstance(memory, Tensor):
            memory = self.cross_attention.project_memory(memory)
        key, value = memory

        def cross(y: Tensor) -> Tensor:
            query = self.cross_attention.project_query(y)
            return self.cross_attention.attend(query, key, value, mask)

        x = self.self_residual(
            x, lambda y: self.self_attention(y, is_causal=cache is None, cache=cache)
        )
        weights = None
        if need_weights:
            query = self.cross_attention.project_query(self.cross_residual.branch(x))
            weights = self.cross_attention.weights(query, key, mask)
        x = self.cross_residual(x, cross)
        return self.feed_forward_residual(x, self.feed_forward), weights


class Transformer(nn.Module):
    """Encoder, decoder, embeddings and output projection; arguments as for `LitTransformer`.

    Example:
        >>> net = Transformer(7, 9, 10, 16, 4, 1, 1, 32)
        >>> src, tgt = (torch.zeros(2, length, dtype=torch.long) for length in (6, 5))
        >>> net(src, torch.ones_like(src).bool(), tgt)[0].shape
        torch.Size([2, 5, 9])
    """

    def __init__(
        self,
        src_vocab_size: int,
        tgt_vocab_size: int,
        max_length: int,
        d_model: int,
        num_heads: int,
        num_encoder_layers: int,
        num_decoder_layers: int,
        dim_feedforward: int,
        dropout: float = 0.1,
        norm_first: bool = False,
        tie_embeddings: Literal["none", "output", "all"] = "none",
    ) -> None:
        super().__init__()
        if min(num_encoder_layers, num_decoder_layers, d_model, dim_feedforward) < 1:
            raise ValueError(
                f"layers and widths must be positive, got {num_encoder_layers} and "
                f"{num_decoder_layers} layers, d_model={d_model}, dim_feedforward={dim_feedforward}"
            )
        if tie_embeddings == "all" and src_vocab_size != tgt_vocab_size:
            raise ValueError(
                f"tie_embeddings=all needs one vocabulary, got {src_vocab_size} source and "
                f"{tgt_vocab_size} target tokens; use output, or a joint vocabulary"
            )
        sizes = (d_model, num_heads, dim_feedforward, dropout, norm_first)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(num_encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(num_decoder_layers))
        self.encoder_norm = nn.LayerNorm(d_model) if norm_first else nn.Identity()
        self.decoder_norm = nn.LayerNorm(d_model) if norm_first else nn.Identity()
        self.tgt_embedding = nn.Embedding(tgt_vocab_size, d_model)
        tied = tie_embeddings == "all"
        self.src_embedding = self.tgt_embedding if tied else nn.Embedding(src_vocab_size, d_model)
        self.positions = SinusoidalPositions(d_model, max_length)
        self.dropout = nn.Dropout(dropout)
        self.out_proj = nn.Linear(d_model, tgt_vocab_size, bias=False)
        self.d_model, self.max_length = d_model, max_length
        self._initialise()
        if tie_embeddings != "none":
            self.out_proj.weight = self.tgt_embedding.weight

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=self.d_model**-0.5)

    def _embed(self, embedding: nn.Module, tokens: Tensor, start: int = 0) -> Tensor:
        codes = self.positions(tokens.shape[1], start)
        out: Tensor = self.dropout(embedding(tokens) * math.sqrt(self.d_model) + codes)
        return out

    def encode(self, src: Tensor, src_mask: Tensor) -> Tensor:
        """Memory ``(B, S, D)`` of a source ``(B, S)``; padding takes no part in it."""
        x = self._embed(self.src_embedding, src)
        for layer in self.encoder:
            x = layer(x, src_mask[:, None, None])
        out: Tensor = self.encoder_norm(x)
        return out

    def decode_states(
        self, tgt: Tensor, memory: Tensor, src_mask: Tensor, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """States ``(B, T, D)`` that the output projection reads, and the cross-attention."""
        x, weights = self._embed(self.tgt_embedding, tgt), []
        for layer in self.decoder:
            x, weight = layer(x, memory, src_mask[:, None, None], need_weights=need_weights)
            weights.append(weight)
        return self.decoder_norm(x), torch.stack(weights) if need_weights else None

    def forward(
        self, src: Tensor, src_mask: Tensor, tgt: Tensor, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Logits ``(B, T, V)`` of the token behind each target position.

        Args:
            src: Source tokens, ``(B, S)``.
            src_mask: True at real source tokens, ``(B, S)``.
            tgt: Target tokens from BOS, ``(B, T)``; padding at the end changes nothing before it.
            need_weights: Whether to return the cross-attention as well, ``(N, B, H, T, S)``.
        """
        memory = self.encode(src, src_mask)
        states, weights = self.decode_states(tgt, memory, src_mask, need_weights)
        return self.out_proj(states), weights

    def start(self, src: Tensor, src_mask: Tensor, num_beams: int = 1) -> CachedState:
        """State before the first token, each source ``num_beams`` times."""
        memory = self.encode(src, src_mask).repeat_interleave(num_beams, dim=0)
        mask = src_mask[:, None, None].repeat_interleave(num_beams, dim=0)
        layers = [cast(DecoderLayer, layer) for layer in self.decoder]
        memories = [layer.project_memory(memory) for layer in layers]
        # Fewer than the memory's where processes share the heads out.
        num_heads = layers[0].self_attention.num_heads
        return CachedState(memories, mask, self.max_length, num_heads)

    def decode_step(self, token: Tensor, state: CachedState) -> tuple[Tensor, CachedState]:
        """Logits ``(B, V)`` after one more token ``(B,)``, at the cost of one position."""
        x = self._embed(self.tgt_embedding, token.unsqueeze(1), start=state.length)
        for layer, memory, cache in zip(self.decoder, state.memories, state.caches, strict=True):
            x, _ = layer(x, memory, state.mask, cache)
        return self.out_proj(self.decoder_norm(x)).squeeze(1), state


class LitTransformer(LitSequenceWriter):
    """Sequence to sequence with attention alone.

    Args:
        src_vocab_size: Number of source tokens.
        tgt_vocab_size: Number V of target tokens.
        max_length: Most tokens of a source or a target; the limit of decoding.
        d_model: Width D.
        num_heads: Number H of heads.
        num_encoder_layers: Number of encoder layers.
        num_decoder_layers: Number of decoder layers.
        dim_feedforward: Width of the feed-forward networks.
        dropout: Probability of dropping an output of a sublayer or an embedding.
        norm_first: Whether norms stand in the residual branches (pre-norm).
        tie_embeddings: ``output`` uses the target embedding as output projection, ``all`` the
            source embedding as well.
        label_smoothing: Share of each training target spread over the vocabulary.
        num_beams: Beams of the search in test and prediction; validation takes the likeliest token.
        length_penalty: Exponent of the beam search's length penalty.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer.
        num_best: Number of targets that ``predict`` writes for each source, with their scores.

    Raises:
        ValueError: If an argument is out of range.

    Shape:
        Source ``(B, S)`` and target prefix ``(B, T)`` to logits ``(B, T, V)``.
    """

    def __init__(
        self,
        src_vocab_size: int,
        tgt_vocab_size: int,
        max_length: int,
        d_model: int = 64,
        num_heads: int = 4,
        num_encoder_layers: int = 2,
        num_decoder_layers: int = 2,
        dim_feedforward: int = 128,
        dropout: float = 0.1,
        norm_first: bool = False,
        tie_embeddings: Literal["none", "output", "all"] = "none",
        label_smoothing: float = 0.0,
        num_beams: int = 1,
        length_penalty: float = 0.0,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        num_best: int = 1,
    ) -> None:
        decoding = (max_length, label_smoothing, num_beams, length_penalty)
        super().__init__(*decoding, optimizer, lr_scheduler, num_best)
        self.net = Transformer(
            src_vocab_size=src_vocab_size,
            tgt_vocab_size=tgt_vocab_size,
            max_length=max_length,
            d_model=d_model,
            num_heads=num_heads,
            num_encoder_layers=num_encoder_layers,
            num_decoder_layers=num_decoder_layers,
            dim_feedforward=dim_feedforward,
            dropout=dropout,
            norm_first=norm_first,
            tie_embeddings=tie_embeddings,
        )

    def forward(self, src: Tensor, src_mask: Tensor, tgt: Tensor) -> Tensor:
        """Logits of the token behind each target position, ``(B, T, V)``."""
        logits: Tensor = self.net(src, src_mask, tgt)[0]
        return logits

    def attention_weights(self, batch: SequencePairBatch) -> Tensor:
        """Cross-attention of each layer and head, ``(N, B, H, T, S)``."""
        prefix = batch.tgt[:, :-1]
        weights: Tensor = self.net(batch.src, batch.src_mask, prefix, need_weights=True)[1]
        return weights

    def prefix_logits(self, batch: SequencePairBatch) -> Tensor:
        """Logits of the targets behind the true prefix."""
        logits: Tensor = self(batch.src, batch.src_mask, batch.tgt[:, :-1])
        return logits
