"""What models that write a target share: they learn from true prefixes and are judged by their own.

Training reads the true prefix. Evaluation also decodes freely: greedily in validation, by beam
search in test and prediction.
"""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from datamodules.batches import PAD, SequencePairBatch
from lit_models.base import LitModule, StepOutput
from lit_models.decoding.search import beam_search, decode
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
        num_best: int = 1,
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
        if not 1 <= num_best <= num_beams:
            raise ValueError(
                f"num_best must lie in [1, num_beams={num_beams}], got {num_best}; a search "
                "returns as many targets as it has beams"
            )
        self.num_beams, self.length_penalty, self.num_best = num_beams, length_penalty, num_best

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
        """Decoded and true tokens, padded to the same width in every batch.

        With several targets each also ``prediction_2``, ... and ``score_1``, ...: its
        log-probability over the length penalty.
        """
        found, scores = self._best(batch)
        names = ["prediction", *(f"prediction_{rank}" for rank in range(2, len(found) + 1))]
        tokens = {**dict(zip(names, found, strict=True)), "target": batch.tgt[:, 1:]}
        padded = {
            name: F.pad(value, (0, self.max_length - value.shape[1]), value=PAD)
            for name, value in tokens.items()
        }
        return padded | {f"score_{rank}": score for rank, score in enumerate(scores, 1)}

    def _best(self, batch: SequencePairBatch) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """The best targets of each source, ``(B, T)`` each, and the scores of several, ``(B,)``."""
        if self.num_best == 1:
            return [self.generate(batch.src, batch.src_mask, self.num_beams)], []
        state = self.net.start(batch.src, batch.src_mask, self.num_beams)
        sizes = (len(batch.src), self.num_beams, self.max_length - 1, self.length_penalty)
        best = beam_search(self.net.decode_step, state, *sizes, self.num_best)
        return best.tokens.unbind(1), best.scores.unbind(1)
