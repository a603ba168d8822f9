r"""GPT: a Transformer decoder that predicts the next token.

.. math::
    h_0 = W_e[u] + W_p, \qquad h_l = \text{Block}(h_{l-1}), \qquad
    P(u_{t+1} \mid u_{\le t}) = \mathrm{softmax}(h_n W_e^T)

Radford et al., "Improving Language Understanding by Generative Pre-Training" (2018) and "Language
Models are Unsupervised Multitask Learners" (2019). Block, with causal attention:

.. math::
    \text{GPT-2 (norm_first):}\quad & x' = x + \mathrm{Attn}(\mathrm{LN}(x)), \quad
        x'' = x' + \mathrm{FF}(\mathrm{LN}(x')), \quad \text{and LN after the last block} \\
    \text{GPT-1:}\quad & x' = \mathrm{LN}(x + \mathrm{Attn}(x)), \quad
        x'' = \mathrm{LN}(x' + \mathrm{FF}(x'))

:math:`\mathrm{FF}(x) = W_2\, \mathrm{GELU}(W_1 x)` is four times as wide as the model. Training
minimises :math:`-\frac1N \sum_t \log P(u_t \mid u_{<t})`; the papers maximise the sum. Deviations:

* GELU in the tanh form of the published weights.
* Weights start at N(0, s^2), those that write to the residual stream divided by the root of their
  number :math:`\sqrt{2L}`, as GPT-2 does; GPT-1 did not divide. The papers' s is 0.02 at width
  768; a narrow model learns sooner with the same spread of its sums, :math:`0.02 \sqrt{768 / D}`.

Shape letters: B batch, T length, D model width, V vocabulary, L blocks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from datamodules.batches import TokenBatch
from lit_models.base import StepOutput
from lit_models.decoding.sampling import Sampling
from lit_models.families.text_writer import LitTextWriter
from lit_models.layers.attention import KeyValueCache, MultiHeadAttention, apart
from lit_models.layers.flops import transformer_flops
from lit_models.metrics.scores import CrossEntropy, GroupedCrossEntropy, Perplexity, TokenAccuracy
from lit_models.weights.pretrained import load_pretrained


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """What a decoder is built from; the fields are arguments of :class:`LitGPT`.

    Raises:
        ValueError: If a size is not positive.
    """

    context_length: int
    d_model: int = 128
    num_layers: int = 4
    num_heads: int = 4
    dropout: float = 0.0
    norm_first: bool = True
    bias: bool = True
    init_std: float = 0.02
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if min(self.context_length, self.d_model, self.num_layers) < 1:
            raise ValueError(
                "context_length, d_model and num_layers must be positive, got "
                f"{self.context_length}, {self.d_model} and {self.num_layers}"
            )
        if self.init_std <= 0:
            raise ValueError(f"init_std must be positive, got {self.init_std}")


class Block(nn.Module):
    """Causal self-attention and a feed-forward network, each with a residual connection.

    Shape:
        Input and output ``(B, T, D)``.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width, bias = config.d_model, config.bias
        self.norm_first = config.norm_first
        self.norm1 = nn.LayerNorm(width, bias=bias)
        self.attention = MultiHeadAttention(width, config.num_heads, config.dropout, bias)
        self.norm2 = nn.LayerNorm(width, bias=bias)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 4 * width, bias=bias),
            nn.GELU(approximate="tanh"),
            nn.Linear(4 * width, width, bias=bias),
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, cache: KeyValueCache | None = None
    ) -> Tensor:
        """Next hidden states; ``mask`` replaces the causal one where it is given."""
        if self.norm_first:
            x = x + self._attend(self.norm1(x), mask, cache)
            x = x + self.dropout(self.feed_forward(self.norm2(x)))
        else:
            x = self.norm1(x + self._attend(x, mask, cache))
            x = self.norm2(x + self.dropout(self.feed_forward(x)))
        return x

    def _attend(self, x: Tensor, mask: Tensor | None, cache: KeyValueCache | None) -> Tensor:
        causal = mask is None and (cache is None or x.shape[1] > 1)
        out: Tensor = self.dropout(self.attention(x, mask=mask, is_causal=causal, cache=cache))
        return out


class Decoder(nn.Module):
    """Positions and blocks: what a GPT is beside its tokens.

    Shape:
        Embedded inputs and hidden states ``(B, T, D)``.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.context_length, self.init_std = config.context_length, config.init_std
        self.gradient_checkpointing = config.gradient_checkpointing
        self.position_embedding = nn.Embedding(config.context_length, config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        last = nn.LayerNorm(config.d_model, bias=config.bias)
        self.norm = last if config.norm_first else nn.Identity()

    def reset_parameters(self) -> None:
        """Draws the weights afresh."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=self.init_std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        residual_std = self.init_std / math.sqrt(2 * len(self.blocks))
        for name, parameter in self.named_parameters():
            if name.endswith(("out_proj.weight", "feed_forward.2.weight")):
                nn.init.normal_(parameter, std=residual_std)

    def new_caches(self, batch_size: int) -> list[KeyValueCache]:
        """Empty key-value caches, one per block, for ``batch_size`` rows."""
        weight = self.position_embedding.weight
        heads: Any = self.blocks[0].attention
        shape = (batch_size, heads.num_heads, self.context_length, heads.head_size)
        return [KeyValueCache(*shape, weight.device, weight.dtype) for _ in self.blocks]

    def hidden_states(
        self,
        embedded: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        caches: Sequence[KeyValueCache] | None = None,
    ) -> Tensor:
        """Last hidden states of embedded inputs.

        Args:
            embedded: ``(B, T, D)``.
            positions: Position of each input, ``(B, T)``; 0, 1, ... where it is not given.
            mask: True where a position may attend, broadcastable to ``(B, 1, T, S)``; causal where
                it is not given.
            caches: Earlier positions, one cache per block; extended by this call.
        """
        length = embedded.shape[1]
        if positions is None and length > self.context_length:
            raise ValueError(
                f"{length} tokens exceed context_length={self.context_length}; shorten the input"
            )
        where = self.position_embedding.weight[:length]
        if positions is not None:
            where = self.position_embedding(positions)
        x = self.dropout(embedded + where)
        for index, block in enumerate(self.blocks):
            if self.gradient_checkpointing and self.training:
                x = checkpoint(block, x, mask, use_reentrant=False)
            else:
                x = block(x, mask, None if caches is None else caches[index])
        out: Tensor = self.norm(x)
        return out


class GPT(Decoder):
    """A decoder with a token embedding and the output tied to it.

    Shape:
        Tokens ``(B, T)`` to logits ``(B, T, V)``.

    Example:
        >>> config = DecoderConfig(context_length=8, d_model=16)
        >>> GPT(9, config)(torch.zeros(2, 5, dtype=torch.long)).shape
        torch.Size([2, 5, 9])
    """

    def __init__(self, vocab_size: int, config: DecoderConfig) -> None:
        super().__init__(config)
        self.token_embedding = nn.Embedding(vocab_size, config.d_model)
        self.reset_parameters()

    def embed(self, tokens: Tensor) -> Tensor:
        """Embedded tokens, ``(B, T, D)``."""
        embedded: Tensor = self.token_embedding(tokens)
        return embedded

    def logits(self, hidden: Tensor) -> Tensor:
        """Unnormalised log-probabilities of the next token, ``(..., V)``."""
        return F.linear(hidden, self.token_embedding.weight)

    def forward(self, tokens: Tensor, segments: Tensor | None = None) -> Tensor:
        """Logits of the token after each one; documents ``(B, T)`` in a row may stay apart."""
        where = () if segments is None else apart(segments)
        return self.logits(self.hidden_states(self.embed(tokens), *where))


class LitGPT(LitTextWriter):
    """Language model: pre-training, evaluation and generation.

    Args:
        vocab_size: Number V of tokens.
        context_length: Largest number T of tokens the model sees.
        d_model: Width D.
        num_layers: Number L of blocks.
        num_heads: Attention heads per block; divides D.
        dropout: Probability of dropping a unit or an attention weight in training.
        norm_first: Whether norms stand before attention and network (GPT-2) or after (GPT-1).
        bias: Whether linear maps and norms have biases.
        init_std: Standard deviation of the initial weights.
        group_names: Groups of labels that evaluation also scores one by one.
        pretrained: Weights to start from: a checkpoint of this class, a folder or the hub's name
            of a Hugging Face GPT-2.
        compile: Whether to compile the network; pays on accelerators.
        num_new_tokens: Most tokens that ``predict`` appends to each prompt; a text ends before them
            at the data's end token or stop strings.
        temperature: Divides the logits when sampling; 0 takes the likeliest token.
        top_k: Samples among the k likeliest tokens alone.
        top_p: Samples among the likeliest tokens that hold this probability.
        sampling_seed: Seed of the samples.
        repetition_penalty: Divides the positive logits of tokens that stand in the text already and
            multiplies the negative ones; 1 for none.
        min_new_tokens: Tokens before which no text ends.
        gradient_checkpointing: Whether the backward pass computes each block's activations anew:
            less memory, a third more time.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer.

    Raises:
        ValueError: If arguments contradict each other or the pre-trained weights.

    Shape:
        Tokens ``(B, T)`` to logits ``(B, T, V)``. Losses are in nats per token.
    """

    def __init__(
        self,
        vocab_size: int,
        context_length: int,
        d_model: int = 128,
        num_layers: int = 4,
        num_heads: int = 4,
        dropout: float = 0.0,
        norm_first: bool = True,
        bias: bool = True,
        init_std: float = 0.02,
        group_names: Sequence[str] = (),
        pretrained: str | None = None,
        compile: bool = False,
        num_new_tokens: int = 64,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        sampling_seed: int = 0,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        repetition_penalty: float = 1.0,
        min_new_tokens: int = 0,
        gradient_checkpointing: bool = False,
    ) -> None:
        metrics = {
            "cross_entropy": CrossEntropy(),
            "perplexity": Perplexity(),
            "accuracy": TokenAccuracy(),
            **({"group": GroupedCrossEntropy(group_names)} if group_names else {}),
        }
        super().__init__(metrics, num_new_tokens, min_new_tokens, optimizer, lr_scheduler)
        self.sampling = Sampling(temperature, top_k, top_p, sampling_seed, repetition_penalty)
        self.sampling.check()
        config = DecoderConfig(
            context_length=context_length,
            d_model=d_model,
            num_layers=num_layers,
            num_heads=num_heads,
            dropout=dropout,
            norm_first=norm_first,
            bias=bias,
            init_std=init_std,
            gradient_checkpointing=gradient_checkpointing,
        )
        self.net = GPT(vocab_size, config)
        if pretrained is not None:
            load_pretrained(self.net, pretrained)
        if compile:
            self.net.compile()

    def forward(self, tokens: Tensor, segments: Tensor | None = None) -> Tensor:
        """Logits of the token after each one, ``(B, T, V)``; no document sees another."""
        logits: Tensor = self.net(tokens, segments)
        return logits

    def training_flops(self, batch: TokenBatch) -> float:
        """Floating-point operations that a training step on a batch needs."""
        return transformer_flops(self.net, *batch.tokens.shape)

    def step(self, batch: TokenBatch) -> StepOutput:
        """Cross-entropy of the next tokens."""
        logits = self(batch.tokens, batch.segments).flatten(0, 1)
        labels = batch.labels.flatten()
        num_targets = (labels >= 0).sum()
        loss = F.cross_entropy(logits, labels, reduction="sum") / num_targets.clamp(min=1)
        groups = {} if batch.group is None else {"group": batch.group.flatten()}
        return StepOutput(loss, num_targets, logits, labels, metric_inputs=groups)
