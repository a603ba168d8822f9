r"""A GPT fine-tuned to classify texts, with language modelling as an auxiliary loss.

.. math::
    P(y \mid x) = \mathrm{softmax}(W h_m), \qquad
    L = -\frac1B \sum \log P(y \mid x) - \lambda \frac1N \sum_t \log P(u_t \mid u_{<t})

with the state :math:`h_m` of the last token. Radford et al. (2018), section 3.2, where both sums
are maximised: :math:`L_3 = L_2 + \lambda L_1`. Deviation: each part is a mean, over texts and over
tokens, so that :math:`\lambda` does not depend on the texts' lengths.

Shape letters: B batch, T length, D model width, L blocks, K classes, V vocabulary, N tokens.
"""

from collections.abc import Sequence

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.batches import TokenBatch
from lit_models.base import LitModule, StepOutput
from lit_models.gpt import GPT, DecoderConfig
from lit_models.layers.class_loss import class_loss, weights_of
from lit_models.metrics.scores import classification_metrics
from lit_models.weights.pretrained import load_pretrained


class GPTClassifier(nn.Module):
    """A GPT with dropout and a linear head on the state of each text's last token.

    Shape:
        Tokens and mask ``(B, T)`` to class logits ``(B, K)`` and hidden states ``(B, T, D)``.
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


class LitGPTClassifier(LitModule):
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

    class_weights: Tensor | None

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
        super().__init__(classification_metrics(num_classes), optimizer, lr_scheduler)
        self.register_buffer("class_weights", weights_of(class_weights, num_classes), False)
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

    def step(self, batch: TokenBatch) -> StepOutput:
        """Cross-entropy of the classes and, weighted, of the next tokens."""
        assert batch.y is not None
        logits, hidden = self.net(batch.tokens, batch.mask)
        loss, count = class_loss(logits, batch.y, self.class_weights if self.training else None)
        if self.lm_weight == 0:
            return StepOutput(loss, count, logits, batch.y)
        real = batch.labels >= 0
        tokens = self.net.gpt.logits(hidden[real])
        num_tokens = real.sum()
        lm_loss = F.cross_entropy(tokens, batch.labels[real], reduction="sum")
        weighted = self.lm_weight * lm_loss / num_tokens.clamp(min=1)
        terms = {"lm_loss": (weighted, num_tokens)}
        return StepOutput(loss, count, logits, batch.y, terms=terms)

    def eval_step(self, batch: TokenBatch) -> StepOutput:
        """Cross-entropy of the classes alone."""
        assert batch.y is not None
        logits = self(batch.tokens, batch.mask)
        return StepOutput(F.cross_entropy(logits, batch.y), len(batch.y), logits, batch.y)

    def predict_step(self, batch: TokenBatch, batch_idx: int = 0) -> dict[str, Tensor]:
        """Likeliest class, the probability of each one, and the true class."""
        probability = self(batch.tokens, batch.mask).softmax(-1)
        assert batch.y is not None
        return {"class": probability.argmax(-1), "probability": probability, "target": batch.y}
