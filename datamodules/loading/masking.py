r"""BERT's two pre-training tasks: hidden tokens and next sentences.

Every maskable token is chosen with probability p (15 %), independently. A chosen token is the
label of its position and is shown as [MASK] (80 %), as a token drawn uniformly (10 %) or as itself
(10 %). Devlin et al., "BERT" (2019), section 3.1, who choose a fixed share of each sequence.

The corruption is a known channel, so that :func:`emissions` gives the likelihood of what is shown
for each true token, from which the best attainable scores follow.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from datamodules.batches import TokenBatch
from datamodules.loading.loader import TensorLoader, take
from datamodules.seeds import seed_of

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNK, CLS, SEP, MASK = range(5)
IGNORE = -100
MASK_SHARE, RANDOM_SHARE = 0.8, 0.1


class Corruption(NamedTuple):
    """What is hidden, and by what.

    Attributes:
        mask_token: Number of [MASK].
        first_token: Smallest number of an ordinary token; maskable and drawn at random.
        end_token: One above the largest number of an ordinary token.
        probability: Probability p of choosing a token.
    """

    mask_token: int
    first_token: int
    end_token: int
    probability: float = 0.15

    def __call__(self, tokens: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Shown tokens and labels, each ``(B, T)``; -100 where a token was not chosen."""
        draws = torch.rand(2, *tokens.shape, generator=generator)
        random = torch.randint(self.first_token, self.end_token, tokens.shape, generator=generator)
        ordinary = (tokens >= self.first_token) & (tokens < self.end_token)
        chosen = ordinary & (draws[0] < self.probability)
        shown = torch.where(chosen & (draws[1] < MASK_SHARE), self.mask_token, tokens)
        replaced = chosen & (draws[1] >= MASK_SHARE) & (draws[1] < MASK_SHARE + RANDOM_SHARE)
        shown = torch.where(replaced, random, shown)
        return shown, torch.where(chosen, tokens, IGNORE)

    def emissions(self, shown: Tensor) -> tuple[Tensor, Tensor]:
        """Likelihood of each shown token for each true ordinary token, each ``(B, T, V)``.

        Returns:
            For a token that may or may not have been chosen, and for one that was; each up to a
            factor that the true token does not change.
        """
        num_tokens = self.end_token - self.first_token
        same = torch.nn.functional.one_hot(
            (shown - self.first_token).clamp(0, num_tokens - 1), num_tokens
        ).double()
        kept_share = 1 - MASK_SHARE - RANDOM_SHARE
        chosen = RANDOM_SHARE / num_tokens + kept_share * same
        any_token = (1 - self.probability) * same + self.probability * chosen
        masked = (shown == self.mask_token).unsqueeze(-1)
        return any_token.masked_fill(masked, 1.0), chosen.masked_fill(masked, 1.0)


class Pairs(NamedTuple):
    """Sentence pairs in plain text, before anything is hidden.

    Attributes:
        first: Sentences A, ``(N, T_A)``.
        second: The sentences that follow them, ``(N, T_B)``.
        other: Sentences from elsewhere, ``(N, T_B)``.
    """

    first: Tensor
    second: Tensor
    other: Tensor


def join_pairs(pairs: Pairs, is_next: Tensor, cls_token: int, sep_token: int) -> TokenBatch:
    """``[CLS] A [SEP] B [SEP]`` with B the following sentence or another one; nothing hidden."""
    n = len(pairs.first)
    second = torch.where(is_next.bool().unsqueeze(1), pairs.second, pairs.other)
    cls, sep = (torch.full((n, 1), token) for token in (cls_token, sep_token))
    tokens = torch.cat([cls, pairs.first, sep, second, sep], dim=1)
    segments = torch.zeros_like(tokens)
    segments[:, pairs.first.shape[1] + 2 :] = 1
    return TokenBatch(tokens, torch.full_like(tokens, IGNORE), segments, is_next)


class MaskingLoader(TensorLoader[TokenBatch]):
    """A loader that hides other tokens in every epoch.

    What is hidden is a function of seed, epoch and batch, drawn for the whole batch on every rank,
    so that any number of ranks, and a resumed run, see the same.

    Args:
        data: Batches with nothing hidden, or what ``prepare`` makes them from.
        batch_size: Rows per batch, over all ranks.
        corruption: What is hidden.
        prepare: Makes a batch from rows of the data, with randomness of its own.
        options: Arguments of :class:`~datamodules.loading.loader.TensorLoader`.
    """

    def __init__(
        self,
        data: Any,
        batch_size: int,
        corruption: Corruption,
        prepare: Callable[[Any, torch.Generator], TokenBatch] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(data, batch_size, **options)
        self.seed = int(options.get("seed", 0))
        self.corruption, self.prepare = corruption, prepare

    def fetch(self, order: Tensor, batch_idx: int) -> TokenBatch:
        """This rank's share of a batch, with tokens hidden."""
        rows = order[batch_idx * self.batch_size : (batch_idx + 1) * self.batch_size]
        key = seed_of(self.seed, self.sampler.epoch, batch_idx)
        generator = torch.Generator().manual_seed(key)
        batch = hide(take(self.data, rows), self.corruption, generator, self.prepare)
        return take(batch, torch.arange(self.rank, len(rows), self.world_size))


def hide(
    data: Any,
    corruption: Corruption,
    generator: torch.Generator,
    prepare: Callable[[Any, torch.Generator], TokenBatch] | None = None,
) -> TokenBatch:
    """A batch with tokens hidden and labelled."""
    batch: TokenBatch = data if prepare is None else prepare(data, generator)
    shown, labels = corruption(batch.tokens, generator)
    return batch._replace(tokens=shown, labels=labels)
