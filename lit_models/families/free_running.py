"""What models that write a target share: they learn from true prefixes and are judged by their own.

Training reads the true prefix. Evaluation also decodes freely: greedily in validation, by beam
search in test and prediction.
"""

from typing import Any

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from datamodules.batches import PAD, SequencePairBatch
from lit_models.base import LitModule, StepOutput
from lit_models.decoding.search import decode
from lit_models.layers.sequence_loss import sequence_loss
from lit_models.metrics.scores import SequenceExactMatch


class LitSequenceWriter(LitModule):
    """Base of sequence-to-sequence models; arguments as for :class:`~lit_models.LitTransformer`.

    A subclass sets ``net``, whose ``start(src, src_mask, num_beams)`` and ``decode_step(token,
    state)`` decode, and writes :meth:`prefix_logits`.

    Raises:
        ValueError: If an argument is out of range.
    """

    net: Any

    def __init__(
        self,
        max_length: int,
        label_smoothing: float,
        num_beams: int,
        length_penalty: float,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None,
    ) -> None:
        super().__init__({"exact_match": SequenceExactMatch()}, optimizer, lr_scheduler)
        if num_beams < 1:
            raise ValueError(f"num_beams must be positive, got {num_beams}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
        if length_penalty < 0:
            raise ValueError(
                f"length_penalty must not be negative, got {length_penalty}: a search that prefers "
                "short targets would have no bound to stop at"
            )
        self.max_length, self.label_smoothing = max_length, label_smoothing
        self.num_beams, self.length_penalty = num_beams, length_penalty

    def prefix_logits(self, batch: SequencePairBatch) -> Tensor:
        """Logits ``(B, T+1, V)`` of ``batch.tgt[:, 1:]``."""
        raise NotImplementedError(f"{type(self).__name__} must define prefix_logits()")

    def generate(self, src: Tensor, src_mask: Tensor, num_beams: int = 1) -> Tensor:
        """Decoded tokens up to EOS, then PAD, ``(B, T)``."""
        state = self.net.start(src, src_mask, num_beams)
        limit = self.max_length - 1
        return decode(self.net.decode_step, state, len(src), num_beams, limit, self.length_penalty)

    def step(self, batch: SequencePairBatch) -> StepOutput:
        """Cross-entropy of a batch, the decoder reading a given prefix."""
        logits = self.prefix_logits(batch)
        smoothing = self.label_smoothing if self.training else 0.0
        loss, num_targets = sequence_loss(logits, batch, smoothing)
        return StepOutput(loss, num_targets, logits, batch.tgt[:, 1:])

    def eval_step(self, batch: SequencePairBatch) -> StepOutput:
        """Cross-entropy of the true targets, and free-running predictions."""
        output = self.step(batch)
        validating = self._trainer is not None and self.trainer.validating
        preds = self.generate(batch.src, batch.src_mask, 1 if validating else self.num_beams)
        return output._replace(preds=preds, scalars={"cross_entropy": output.loss})

    def predict_step(self, batch: SequencePairBatch, batch_idx: int = 0) -> dict[str, Tensor]:
        """Decoded and true tokens, padded to the same width in every batch."""
        preds = self.generate(batch.src, batch.src_mask, self.num_beams)
        return {
            name: F.pad(tokens, (0, self.max_length - tokens.shape[1]), value=PAD)
            for name, tokens in (("prediction", preds), ("target", batch.tgt[:, 1:]))
        }
