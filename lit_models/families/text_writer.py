"""What a model that writes text one token after another shares: sampling, its end, prediction."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torchmetrics import Metric

from datamodules.batches import TokenBatch
from lit_models.base import LitModule
from lit_models.decoding.sampling import Ending, Sampling, complete, generate


class LitTextWriter(LitModule):
    """Base of language models that write; arguments as for :class:`~lit_models.LitGPT`.

    A subclass sets ``net``, a `LanguageModel` as :mod:`lit_models.decoding.sampling` asks for, and
    ``sampling``.

    Raises:
        ValueError: If an argument is out of range.
    """

    net: Any
    sampling: Sampling

    def __init__(
        self,
        metrics: Mapping[str, Metric],
        num_new_tokens: int,
        min_new_tokens: int,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None,
    ) -> None:
        super().__init__(metrics, optimizer, lr_scheduler)
        if not 0 <= min_new_tokens <= num_new_tokens or num_new_tokens < 1:
            raise ValueError(
                "num_new_tokens must be at least 1 and min_new_tokens lie in [0, num_new_tokens], "
                f"got {num_new_tokens} and {min_new_tokens}"
            )
        self.num_new_tokens = num_new_tokens
        self.ending = Ending(min_tokens=min_new_tokens)

    def generate(
        self, prompts: Tensor, num_tokens: int, mask: Tensor | None = None, **options: Any
    ) -> Tensor:
        """Continues prompts; see :func:`lit_models.decoding.sampling.generate`.

        Args:
            prompts: ``(B, T)``, padded on the left where their lengths differ.
            num_tokens: Number N of tokens to append.
            mask: True at real tokens of the prompts, ``(B, T)``.
            options: Fields of :class:`~lit_models.decoding.sampling.Sampling` to change.

        Returns:
            The new tokens, ``(B, N)``.
        """
        return generate(self.net, prompts, num_tokens, mask, self.sampling._replace(**options))

    def setup(self, stage: str) -> None:
        """Learns from the data where a text ends."""
        super().setup(stage)
        datamodule: Any = getattr(self.trainer, "datamodule", None)
        if stage == "predict" and hasattr(datamodule, "end_token"):
            stopped = datamodule.stopped if datamodule.stop else None
            self.ending = Ending(datamodule.end_token, stopped, self.ending.min_tokens)

    def predict_step(self, batch: TokenBatch, batch_idx: int = 0) -> dict[str, Tensor]:
        """Continuation of each row, ``(B, num_new_tokens)``, its length and why it ended.

        A row's samples depend on its number among all rows, not on the batch or the rank.
        """
        done = complete(
            self.net,
            batch.tokens,
            self.num_new_tokens,
            batch.mask,
            self.sampling,
            self._rows(batch, batch_idx),
            self.ending,
        )
        return {"completion": done.tokens, "num_tokens": done.lengths, "ended": done.reasons}

    def _rows(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        """Numbers of a batch's rows among all."""
        loader: Any = None if self._trainer is None else self.trainer.predict_dataloaders
        if hasattr(loader, "rows"):
            rows: Tensor = loader.rows(batch_idx)
            return rows
        sampler = getattr(loader, "batch_sampler", None)  # Lightning keeps the size there
        size = getattr(sampler, "batch_size", None) or len(batch.tokens)
        return batch_idx * size + torch.arange(len(batch.tokens))
