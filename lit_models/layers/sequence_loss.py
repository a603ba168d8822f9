"""Cross-entropy of whole target sequences."""

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.batches import SequencePairBatch

_NO_LOSS = -100


def sequence_loss(
    logits: Tensor, batch: SequencePairBatch, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    r"""Negative log-likelihood of the targets, their end signs included, per target token.

    .. math:: -\frac{1}{\sum_n T_n} \sum_n \Big(\sum_{t=1}^{T_n} \ln p(y_{nt}) + \ln p(EOS)\Big)

    The end sign is paid for but not counted, so that the best attainable value of a task is the
    entropy of its symbols, wherever its sequences end.

    Args:
        logits: ``(B, T+1, V)``, the prediction of ``batch.tgt[:, 1:]``.
        batch: The pairs.
        label_smoothing: Share of each target spread over the vocabulary.

    Returns:
        The loss, ``()``, and the number of target tokens, ``()``.
    """
    real = batch.tgt_mask[:, 1:]
    labels = batch.tgt[:, 1:].masked_fill(~real, _NO_LOSS)
    num_targets = real.sum() - len(real)
    total = F.cross_entropy(
        logits.flatten(0, 1).to(torch.promote_types(logits.dtype, torch.float32)),
        labels.flatten(),
        ignore_index=_NO_LOSS,
        reduction="sum",
        label_smoothing=label_smoothing,
    )
    return total / num_targets, num_targets
