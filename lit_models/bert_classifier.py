r"""A BERT fine-tuned to classify texts.

.. math::
    P(y \mid x) = \mathrm{softmax}(W p + b), \qquad p = \tanh(W_p h_{[CLS]} + b_p)

Devlin et al. (2019), section 3.2; encoder, pooler and head all learn. The pooler is the
pre-trained one where the checkpoint has it (it learns from next sentences), else a fresh one.

Shape letters: B batch, T length, D model width, L blocks, K classes, V vocabulary.
"""

from collections.abc import Sequence

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from datamodules.batches import TokenBatch
from lit_models.base import LitModule, StepOutput
from lit_models.bert import BERT, EncoderConfig, Pooler, reset_parameters
from lit_models.layers.class_loss import class_loss, weights_of
from lit_models.metrics.scores import classification_metrics
from lit_models.weights.pretrained import load_pretrained


class BERTClassifier(nn.Module):
    """Encoder, pooler, dropout and a linear head; arguments as for :class:`LitBERTClassifier`.

    Shape:
        Tokens, segments and mask ``(B, T)`` to logits ``(B, K)``.
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


class LitBERTClassifier(LitModule):
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

    class_weights: Tensor | None

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
        super().__init__(classification_metrics(num_classes), optimizer, lr_scheduler)
        self.register_buffer("class_weights", weights_of(class_weights, num_classes), False)
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

    def step(self, batch: TokenBatch) -> StepOutput:
        """Cross-entropy of the classes, weighted in training."""
        assert batch.y is not None
        logits = self(batch.tokens, batch.segments, batch.mask)
        weights = self.class_weights if self.training else None
        return StepOutput(*class_loss(logits, batch.y, weights), logits, batch.y)

    def predict_step(self, batch: TokenBatch, batch_idx: int = 0) -> dict[str, Tensor]:
        """Likeliest class, the probability of each one, and the true class."""
        assert batch.y is not None
        probability = self(batch.tokens, batch.segments, batch.mask).softmax(-1)
        return {"class": probability.argmax(-1), "probability": probability, "target": batch.y}
