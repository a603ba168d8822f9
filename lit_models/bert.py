r"""BERT: a Transformer encoder that reads in both directions, pre-trained on hidden tokens.

.. math::
    E = \mathrm{LN}(E_{token} + E_{position} + E_{segment}), \qquad
    L = -\frac{1}{|M|} \sum_{t \in M} \log P(u_t \mid \text{shown tokens})
        - \frac1B \sum_b \log P(\text{is next}_b \mid h_{[CLS]})

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding"
(2019). Block:

.. math::
    \text{paper:}\quad & x' = \mathrm{LN}(x + \mathrm{Attn}(x)), \quad
        x'' = \mathrm{LN}(x' + \mathrm{FF}(x')) \\
    \text{norm_first:}\quad & x' = x + \mathrm{Attn}(\mathrm{LN}(x)), \quad
        x'' = x' + \mathrm{FF}(\mathrm{LN}(x'))

with :math:`\mathrm{FF}(x) = W_2\, \mathrm{GELU}(W_1 x)`, four times as wide as the model. The
second form needs a norm after the last block. A hidden token's logits are
:math:`W_e\,\mathrm{LN}(\mathrm{GELU}(W h)) + b`, tied to the token embedding; the pooler
:math:`\tanh(W_p h_{[CLS]} + b_p)` feeds the next-sentence head. Deviations:

* Without a next-sentence task there is neither pooler nor head.
* The paper's weights start at N(0, 0.02^2) at width 768; ``init_std`` lets a narrow model start
  with the same spread of its sums, :math:`0.02 \sqrt{768 / D}`, without which it learns late.

Shape letters: B batch, T length, D model width, V vocabulary, L blocks, M hidden tokens.
"""

from dataclasses import dataclass

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from datamodules.batches import TokenBatch
from datamodules.errors import InputError
from lit_models.base import LitModule, StepOutput
from lit_models.layers.attention import MultiHeadAttention
from lit_models.layers.flops import transformer_flops
from lit_models.metrics.scores import CrossEntropy, NextSentenceScores, TokenAccuracy
from lit_models.weights.pretrained import load_pretrained

_EPS = 1e-12


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """What an encoder is built from; the fields are arguments of :class:`LitBERT`.

    Raises:
        ValueError: If a size is not positive.
    """

    vocab_size: int
    context_length: int
    d_model: int = 64
    num_layers: int = 2
    num_heads: int = 4
    dropout: float = 0.0
    norm_first: bool = False
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if min(self.vocab_size, self.context_length, self.d_model, self.num_layers) < 1:
            raise ValueError(
                "vocab_size, context_length, d_model and num_layers must be positive, got "
                f"{self.vocab_size}, {self.context_length}, {self.d_model} and {self.num_layers}"
            )


class Block(nn.Module):
    """Self-attention and a feed-forward network, each with a residual connection.

    Shape:
        Input and output ``(B, T, D)``; mask broadcastable to ``(B, H, T, T)``.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.d_model
        self.norm_first = config.norm_first
        self.attention = MultiHeadAttention(width, config.num_heads, config.dropout)
        self.norm1 = nn.LayerNorm(width, eps=_EPS)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.norm2 = nn.LayerNorm(width, eps=_EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Next hidden states; positions attend where ``mask`` is True."""
        if self.norm_first:
            x = x + self.dropout(self.attention(self.norm1(x), mask=mask))
            x = x + self.dropout(self.feed_forward(self.norm2(x)))
        else:
            x = self.norm1(x + self.dropout(self.attention(x, mask=mask)))
            x = self.norm2(x + self.dropout(self.feed_forward(x)))
        return x


class BERT(nn.Module):
    """The encoder: embeddings and blocks.

    Shape:
        Tokens, segments and mask ``(B, T)`` to hidden states ``(B, T, D)``.

    Example:
        >>> config = EncoderConfig(vocab_size=9, context_length=8, d_model=16)
        >>> BERT(config)(torch.zeros(2, 5, dtype=torch.long)).shape
        torch.Size([2, 5, 16])
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.d_model
        self.context_length = config.context_length
        self.gradient_checkpointing = config.gradient_checkpointing
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        self.position_embedding = nn.Embedding(config.context_length, width)
        self.segment_embedding = nn.Embedding(2, width)
        self.embedding_norm = nn.LayerNorm(width, eps=_EPS)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(width, eps=_EPS) if config.norm_first else nn.Identity()

    def forward(
        self, tokens: Tensor, segments: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Hidden states; all tokens are of segment 0 and real where nothing else is given."""
        length = tokens.shape[1]
        if length > self.context_length:
            raise ValueError(
                f"{length} tokens exceed context_length={self.context_length}; shorten the input"
            )
        embedded = self.token_embedding(tokens) + self.position_embedding.weight[:length]
        if segments is None:
            embedded = embedded + self.segment_embedding.weight[0]
        else:
            embedded = embedded + self.segment_embedding(segments)
        x = self.dropout(self.embedding_norm(embedded))
        allowed = None if mask is None else mask[:, None, None]
        for block in self.blocks:
            if self.gradient_checkpointing and self.training:
                x = checkpoint(block, x, allowed, use_reentrant=False)
            else:
                x = block(x, allowed)
        out: Tensor = self.norm(x)
        return out


class Pooler(nn.Module):
    """Summary of a sequence: dense layer and tanh on the state of its first token, [CLS].

    Shape:
        Hidden states ``(B, T, D)`` to ``(B, D)``.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.dense = nn.Linear(d_model, d_model)

    def forward(self, hidden: Tensor) -> Tensor:
        """Summary of each row."""
        return torch.tanh(self.dense(hidden[:, 0]))


class MaskedHead(nn.Module):
    """Logits of hidden tokens; the caller hands it the token embedding it is tied to.

    Shape:
        Hidden states ``(..., D)`` to logits ``(..., V)``.
    """

    def __init__(self, d_model: int, vocab_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(d_model, d_model)
        self.norm = nn.LayerNorm(d_model, eps=_EPS)
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """Logits of each state."""
        return F.linear(self.norm(F.gelu(self.dense(hidden))), embedding, self.bias)


class BERTForPreTraining(nn.Module):
    """Encoder with the heads of the two pre-training tasks; arguments as for :class:`LitBERT`.

    Example:
        >>> encoder = BERT(EncoderConfig(vocab_size=9, context_length=8, d_model=16))
        >>> words, is_next = BERTForPreTraining(encoder)(torch.zeros(2, 5, dtype=torch.long))
        >>> words.shape, is_next.shape
        (torch.Size([2, 5, 9]), torch.Size([2, 2]))
    """

    def __init__(self, encoder: BERT, next_sentence: bool = True, init_std: float = 0.02) -> None:
        super().__init__()
        vocab_size, d_model = encoder.token_embedding.weight.shape
        self.bert = encoder
        self.masked_head = MaskedHead(d_model, vocab_size)
        self.pooler = Pooler(d_model) if next_sentence else None
        self.next_head = nn.Linear(d_model, 2) if next_sentence else None
        reset_parameters(self, init_std)

    def forward(
        self,
        tokens: Tensor,
        segments: Tensor | None = None,
        mask: Tensor | None = None,
        chosen: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Logits of tokens and of (is next, is not next).

        Args:
            tokens: ``(B, T)``.
            segments: ``(B, T)``.
            mask: True at real tokens, ``(B, T)``.
            chosen: True where logits are wanted, ``(B, T)``; everywhere if not given.

        Returns:
            ``(B, T, V)``, or ``(M, V)`` for M chosen tokens, and ``(B, 2)``.
        """
        hidden = self.bert(tokens, segments, mask)
        wanted = hidden if chosen is None else hidden[chosen]
        logits = self.masked_head(wanted, self.bert.token_embedding.weight)
        if self.pooler is None or self.next_head is None:
            return logits, None
        return logits, self.next_head(self.pooler(hidden))


def reset_parameters(network: nn.Module, std: float) -> None:
    """Weights from N(0, std^2), biases zero."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


class LitBERT(LitModule):
    """Pre-training on hidden tokens and, where the data have pairs, next sentences.

    Args:
        vocab_size: Number V of tokens.
        context_length: Largest number T of tokens the model sees.
        next_sentence: Whether the data have sentence pairs, and so a next-sentence task.
        d_model: Width D.
        num_layers: Number L of blocks.
        num_heads: Attention heads per block; divides D.
        dropout: Probability of dropping a unit or an attention weight in training.
        norm_first: Whether norms stand before attention and network, or after (the paper).
        init_std: Standard deviation of the initial weights.
        pretrained: Weights to start from: a checkpoint of this class, a folder or the hub's name
            of a Hugging Face BERT.
        compile: Whether to compile the network; pays on accelerators.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer.
        gradient_checkpointing: Whether the backward pass computes each block's activations anew:
            less memory, a third more time.

    Raises:
        ValueError: If arguments contradict each other or the pre-trained weights.

    Shape:
        Tokens ``(B, T)`` to logits ``(B, T, V)``. Losses are in nats.
    """

    def __init__(
        self,
        vocab_size: int,
        context_length: int,
        next_sentence: bool,
        d_model: int = 64,
        num_layers: int = 2,
        num_heads: int = 4,
        dropout: float = 0.0,
        norm_first: bool = False,
        init_std: float = 0.02,
        pretrained: str | None = None,
        compile: bool = False,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        metrics = {
            "mlm_cross_entropy": CrossEntropy(),
            "mlm_accuracy": TokenAccuracy(),
            **({"nsp": NextSentenceScores()} if next_sentence else {}),
        }
        super().__init__(metrics, optimizer, lr_scheduler)
        self.next_sentence = next_sentence
        config = EncoderConfig(
            vocab_size=vocab_size,
            context_length=context_length,
            d_model=d_model,
            num_layers=num_layers,
            num_heads=num_heads,
            dropout=dropout,
            norm_first=norm_first,
            gradient_checkpointing=gradient_checkpointing,
        )
        self.net = BERTForPreTraining(BERT(config), next_sentence, init_std)
        if pretrained is not None:
            load_pretrained(self.net, pretrained)
        if compile:
            self.net.compile()

    def forward(
        self, tokens: Tensor, segments: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Logits at every position, ``(B, T, V)``."""
        logits: Tensor = self.net(tokens, segments, mask)[0]
        return logits

    def training_flops(self, batch: TokenBatch) -> float:
        """Floating-point operations that a training step on a batch needs."""
        return transformer_flops(self.net.bert, *batch.tokens.shape)

    def step(self, batch: TokenBatch) -> StepOutput:
        """Cross-entropy of the hidden tokens and of the next-sentence label."""
        chosen = batch.labels >= 0
        logits, next_logits = self.net(batch.tokens, batch.segments, batch.mask, chosen)
        labels = batch.labels[chosen]
        count = torch.tensor(len(labels))
        loss = F.cross_entropy(logits, labels, reduction="sum") / count.clamp(min=1)
        if next_logits is None:
            return StepOutput(loss, count, logits, labels)
        if batch.is_next is None:
            raise InputError("the batch has no sentence pairs; build with next_sentence=False")
        # Class 0 is "B follows A", as in the published weights.
        target = 1 - batch.is_next
        nsp = F.cross_entropy(next_logits, target)
        return StepOutput(
            loss,
            count,
            logits,
            labels,
            terms={"nsp_loss": (nsp, len(target))},
            metric_inputs={"next_logits": next_logits, "next_target": target},
        )

    def predict_step(self, batch: TokenBatch, batch_idx: int = 0) -> dict[str, Tensor]:
        """Every token with the hidden ones filled in, ``(B, T)``."""
        filled = self(batch.tokens, batch.segments, batch.mask).argmax(-1)
        return {"prediction": torch.where(batch.labels >= 0, filled, batch.tokens)}
