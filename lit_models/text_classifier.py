r"""A BERT or a GPT, pre-trained on texts and fine-tuned to classify them.

A BERT reads the whole text into its first position; encoder, pooler and head all learn (Devlin et
al., 2019, section 3.2):

.. math::
    P(y \mid x) = \mathrm{softmax}(W p + b), \qquad p = \tanh(W_p h_{[CLS]} + b_p)

The pooler is the pre-trained one where the checkpoint has it (it learns from next sentences), else
a fresh one. A GPT knows the text in the state :math:`h_m` of its last token, and goes on learning
to predict the next one (Radford et al., 2018, section 3.2):

.. math::
    P(y \mid x) = \mathrm{softmax}(W h_m), \qquad
    L = -\frac1B \sum \log P(y \mid x) - \lambda \frac1N \sum_t \log P(u_t \mid u_{<t})

where the paper maximises both sums: :math:`L_3 = L_2 + \lambda L_1`. Deviation: each part is a
mean, over texts and over tokens, so that :math:`\lambda` does not depend on the texts' lengths.

Shape letters: B batch, T length, D model width, L blocks, K classes, V vocabulary, N tokens.
"""

from collections.abc import Sequence

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.batches import TokenBatch
from datamodules.errors import InputError
from lit_models.base import LitModule, StepOutput
from lit_models.bert import BERT, EncoderConfig, Pooler, reset_parameters
from lit_models.gpt import GPT, DecoderConfig
from lit_models.layers.class_loss import class_loss, weights_of
from lit_models.metrics.scores import classification_metrics
from lit_models.weights.pretrained import load_pretrained


class BERTClassifier(nn.Module):
    """Encoder, pooler, dropout and a linear head; arguments as for :class:`LitBERTClassifier`.

    Shape:
        Tokens, segments and mask ``(B, T)`` to logits ``(B, K)``.

    Example:
        >>> encoder = BERT(EncoderConfig(vocab_size=9, context_length=8, d_model=16))
        >>> BERTClassifier(encoder, num_classes=3)(torch.zeros(2, 5, dtype=torch.long)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self, encoder: BERT, num_classes: int, dropout: float = 0.0, init_std: float = 0.02
    ) -> None:
        super().__init__()
        d_model = encoder.token_embedding.weight.shape[1]
        self.bert = encoder
        self.pooler = Pooler(d_model)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(d_model, num_classes)
        reset_parameters(self, init_std)

    def forward(
        self, tokens: Tensor, segments: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Class logits."""
        pooled = self.pooler(self.bert(tokens, segments, mask))
        logits: Tensor = self.head(self.dropout(pooled))
        return logits


class GPTClassifier(nn.Module):
    """A GPT with dropout and a linear head on the state of each text's last token.

    Shape:
        Tokens and mask ``(B, T)`` to class logits ``(B, K)`` and hidden states ``(B, T, D)``.

    Example:
        >>> gpt = GPT(9, DecoderConfig(context_length=8, d_model=16))
        >>> GPTClassifier(gpt, num_classes=3)(torch.zeros(2, 5, dtype=torch.long))[0].shape
        torch.Size([2, 3])
    """

    def __init__(self, gpt: GPT, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.gpt = gpt
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(gpt.token_embedding.weight.shape[1], num_classes)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Class logits and hidden states; padding follows the text and needs no mask inside."""
        hidden = self.gpt.hidden_states(self.gpt.token_embedding(tokens))
        last = torch.full_like(tokens[:, 0], tokens.shape[1] - 1)
        if mask is not None:
            last = mask.sum(1) - 1
        summary = hidden[torch.arange(tokens.shape[0], device=tokens.device), last]
        return self.head(self.dropout(summary)), hidden


class LitTextClassifier(LitModule):
    """What both share: the loss of the classes and the columns of a prediction.

    A subclass sets ``net`` and writes :meth:`logits`.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        num_classes: int,
        class_weights: Sequence[float] | None,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None,
    ) -> None:
        super().__init__(classification_metrics(num_classes), optimizer, lr_scheduler)
        self.register_buffer("class_weights", weights_of(class_weights, num_classes), False)

    def logits(self, batch: TokenBatch) -> Tensor:
        """Class logits of a batch of texts, ``(B, K)``."""
        raise NotImplementedError(f"{type(self).__name__} must define logits()")

    def step(self, batch: TokenBatch) -> StepOutput:
        """Cross-entropy of the classes, weighted in training."""
        return self._judged(self.logits(batch), batch)

    def _judged(self, logits: Tensor, batch: TokenBatch) -> StepOutput:
        y = _classes(batch)
        weights = self.class_weights if self.training else None
        return StepOutput(*class_loss(logits, y, weights), logits, y)

    def predict_step(self, batch: TokenBatch, batch_idx: int = 0) -> dict[str, Tensor]:
        """Likeliest class, the probability of each one, and the true class."""
        probability = self.logits(batch).softmax(-1)
        return {
            "class": probability.argmax(-1),
            "probability": probability,
            "target": _classes(batch),
        }


def _classes(batch: TokenBatch) -> Tensor:
    if batch.y is None:
        raise InputError(
            "a classifier of texts needs the class of each text: give TokenBatch(tokens, labels, "
            "y=classes)"
        )
    return batch.y


class LitBERTClassifier(LitTextClassifier):
    """Classifies texts with a pre-trained BERT.

    Args:
        vocab_size: Number V of tokens.
        context_length: Largest number T of tokens the model sees.
        num_classes: Number K of classes.
        d_model: Width D.
        num_layers: Number L of blocks.
        num_heads: Attention heads per block; divides D.
        dropout: Probability of dropping a unit or an attention weight in training.
        norm_first: Whether norms stand before attention and network, or after (the paper).
        init_std: Standard deviation of the initial weights.
        pretrained: Weights of the encoder to start from: a checkpoint of
            :class:`~lit_models.LitBERT`, a folder or the hub's name of a Hugging Face BERT.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer.
        class_weights: Weight of each class in the training loss; all the same where not given.

    Raises:
        ValueError: If arguments contradict each other or the pre-trained weights.

    Shape:
        Tokens ``(B, T)`` to class logits ``(B, K)``.
    """

    def __init__(
        self,
        vocab_size: int,
        context_length: int,
        num_classes: int,
        d_model: int = 64,
        num_layers: int = 2,
        num_heads: int = 4,
        dropout: float = 0.1,
        norm_first: bool = False,
        init_std: float = 0.02,
        pretrained: str | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(num_classes, class_weights, optimizer, lr_scheduler)
        config = EncoderConfig(
            vocab_size=vocab_size,
            context_length=context_length,
            d_model=d_model,
            num_layers=num_layers,
            num_heads=num_heads,
            dropout=dropout,
            norm_first=norm_first,
        )
        self.net = BERTClassifier(BERT(config), num_classes, dropout, init_std)
        if pretrained is not None:
            load_pretrained(self.net, pretrained, fresh=("head.", "pooler."))

    def forward(
        self, tokens: Tensor, segments: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Class logits, ``(B, K)``."""
        logits: Tensor = self.net(tokens, segments, mask)
        return logits

    def logits(self, batch: TokenBatch) -> Tensor:
        """Class logits of a batch of texts, ``(B, K)``."""
        return self(batch.tokens, batch.segments, batch.mask)  # type: ignore[no-any-return]


class LitGPTClassifier(LitTextClassifier):
    """Classifies texts with a pre-trained GPT.

    Args:
        vocab_size: Number V of tokens.
        context_length: Largest number T of tokens the model sees.
        num_classes: Number K of classes.
        d_model: Width D.
        num_layers: Number L of blocks.
        num_heads: Attention heads per block; divides D.
        dropout: Probability of dropping a unit or an attention weight in training.
        norm_first: Whether norms stand before attention and network (GPT-2) or after (GPT-1).
        bias: Whether linear maps and norms have biases.
        init_std: Standard deviation of the initial weights.
        lm_weight: Weight lambda of the language-modelling loss in training.
        pretrained: Weights of the language model to start from: a checkpoint of
            :class:`~lit_models.LitGPT`, a folder or the hub's name of a Hugging Face GPT-2.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer.
        class_weights: Weight of each class in the training loss; all the same where not given.

    Raises:
        ValueError: If arguments contradict each other or the pre-trained weights.

    Shape:
        Tokens ``(B, T)`` to class logits ``(B, K)``.
    """

    def __init__(
        self,
        vocab_size: int,
        context_length: int,
        num_classes: int,
        d_model: int = 128,
        num_layers: int = 4,
        num_heads: int = 4,
        dropout: float = 0.1,
        norm_first: bool = True,
        bias: bool = True,
        init_std: float = 0.02,
        lm_weight: float = 0.5,
        pretrained: str | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(num_classes, class_weights, optimizer, lr_scheduler)
        if lm_weight < 0:
            raise ValueError(f"lm_weight must not be negative, got {lm_weight}")
        self.lm_weight = lm_weight
        config = DecoderConfig(
            context_length=context_length,
            d_model=d_model,
            num_layers=num_layers,
            num_heads=num_heads,
            dropout=dropout,
            norm_first=norm_first,
            bias=bias,
            init_std=init_std,
        )
        self.net = GPTClassifier(GPT(vocab_size, config), num_classes, dropout)
        if pretrained is not None:
            load_pretrained(self.net, pretrained, fresh=("head.",))

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Class logits, ``(B, K)``."""
        logits: Tensor = self.net(tokens, mask)[0]
        return logits

    def logits(self, batch: TokenBatch) -> Tensor:
        """Class logits of a batch of texts, ``(B, K)``."""
        return self(batch.tokens, batch.mask)  # type: ignore[no-any-return]

    def step(self, batch: TokenBatch) -> StepOutput:
        """Cross-entropy of the classes and, weighted, of the next tokens."""
        logits, hidden = self.net(batch.tokens, batch.mask)
        output = self._judged(logits, batch)
        if self.lm_weight == 0:
            return output
        real = batch.labels >= 0
        tokens = self.net.gpt.logits(hidden[real])
        num_tokens = real.sum()
        lm_loss = F.cross_entropy(tokens, batch.labels[real], reduction="sum")
        weighted = self.lm_weight * lm_loss / num_tokens.clamp(min=1)
        return output._replace(terms={"lm_loss": (weighted, num_tokens)})

    def eval_step(self, batch: TokenBatch) -> StepOutput:
        """Cross-entropy of the classes alone."""
        return super().step(batch)
