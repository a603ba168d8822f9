"""Sampling from a GPT: cached, batched, seeded, with prompts of unequal length.

Each row draws one uniform number per token from a generator of its own and inverts the cumulative
distribution there, so that a row's text depends neither on its batch nor on the device's
generator. Temperature; top-k: Fan et al. (2018); top-p, the nucleus: Holtzman et al. (2020).

Shape letters: B batch, T prompt length, N new tokens, V vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from datamodules.seeds import seed_of
from lit_models.layers.attention import KeyValueCache


class LanguageModel(Protocol):
    """What sampling asks of a model."""

    @property
    def context_length(self) -> int:
        """Most positions it sees."""

    def new_caches(self, batch_size: int) -> list[KeyValueCache]:
        """Empty key-value caches."""

    def embed(self, tokens: Tensor) -> Tensor:
        """Embedded tokens, ``(B, T, D)``."""

    def hidden_states(
        self,
        embedded: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        caches: Sequence[KeyValueCache] | None = None,
    ) -> Tensor:
        """States ``(B, T, D)`` behind what the caches hold."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of the next token, ``(..., V)``."""


class Sampling(NamedTuple):
    """How a token is chosen.

    Attributes:
        temperature: Divides the logits; 0 takes the likeliest token.
        top_k: Keeps the k likeliest tokens alone.
        top_p: Keeps the likeliest tokens whose probability first reaches this.
        seed: Seed of all draws.
        repetition_penalty: Divides the positive logits of tokens that stand in the text already and
            multiplies the negative ones (Keskar et al., "CTRL", 2019); 1 for none.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    repetition_penalty: float = 1.0

    def check(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: Naming the value out of range.
        """
        if self.temperature < 0:
            raise ValueError(f"temperature must not be negative, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], got {self.top_p}")
        if self.repetition_penalty <= 0:
            raise ValueError(f"repetition_penalty must be positive, got {self.repetition_penalty}")

    def penalise(self, logits: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Logits ``(B, V)`` behind tokens ``(B, T)``, the repeated ones made less likely."""
        if self.repetition_penalty == 1:
            return logits
        seen = torch.zeros_like(logits, dtype=torch.long)
        real = torch.ones_like(tokens) if mask is None else mask.long()
        seen.scatter_add_(1, tokens, real)
        weaker = torch.where(
            logits > 0, logits / self.repetition_penalty, logits * self.repetition_penalty
        )
        return torch.where(seen > 0, weaker, logits)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities that tokens are drawn with, ``(B, V)``; for a positive temperature."""
        logits = logits / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            least = logits.topk(self.top_k).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        probabilities = logits.softmax(-1)
        if self.top_p is not None and self.top_p < 1:
            ordered, index = probabilities.sort(dim=-1, descending=True, stable=True)
            before = ordered.cumsum(-1) - ordered
            dropped = (before >= self.top_p).scatter(-1, index, before >= self.top_p)
            probabilities = probabilities.masked_fill(dropped, 0.0)
            probabilities = probabilities / probabilities.sum(-1, keepdim=True)
        return probabilities

    def choose(self, logits: Tensor, draws: Tensor) -> Tensor:
        """Next tokens ``(B,)`` from logits ``(B, V)`` and uniform numbers ``(B,)``."""
        if self.temperature == 0:
            return logits.argmax(-1)
        cumulative = self.probabilities(logits.float()).cumsum(-1)
        # The last sum may be off 1 by rounding, and a point on it would fall behind every token.
        total = cumulative[:, -1:]
        point = torch.minimum(draws.unsqueeze(1) * total, total.nextafter(torch.zeros_like(total)))
        return torch.searchsorted(cumulative, point, right=True).squeeze(1)


def pad_prompts(prompts: Sequence[Sequence[int]], pad: int = 0) -> tuple[Tensor, Tensor]:
    """Prompts of unequal length as one batch, padded on the left.

    Returns:
        Tokens and a mask that is True at real ones, each ``(B, T)``.
    """
    length = max(len(prompt) for prompt in prompts)
    tokens = torch.full((len(prompts), length), pad)
    mask = torch.zeros(len(prompts), length, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        tokens[row, length - len(prompt) :] = torch.tensor(prompt)
        mask[row, length - len(prompt) :] = True
    return tokens, mask


class Ending(NamedTuple):
    """Where a text ends.

    Attributes:
        end_token: Token that ends it; None for none.
        stopped: Whether new tokens hold a stop string, as text; None for no stop strings.
        min_tokens: New tokens before which nothing ends.
    """

    end_token: int | None = None
    stopped: Callable[[list[int]], bool] | None = None
    min_tokens: int = 0

    def of(self, tokens: Tensor) -> Tensor:
        """Why rows of new tokens ``(B, n)`` end, ``(B,)``: a number of :data:`ENDINGS`, or 0."""
        reasons = torch.zeros(len(tokens), dtype=torch.long, device=tokens.device)
        if tokens.shape[1] < self.min_tokens:
            return reasons
        if self.stopped is not None:
            said = [2 * self.stopped(row) for row in tokens.tolist()]
            reasons = torch.tensor(said, device=tokens.device)
        if self.end_token is not None:
            reasons[tokens[:, -1] == self.end_token] = 1
        return reasons


ENDINGS = ("length", "end token", "stop string")


class Completion(NamedTuple):
    """What was written behind prompts.

    Attributes:
        tokens: New tokens, ``(B, N)``; 0 behind the end of a row.
        lengths: Number of new tokens of each row, the end token included, ``(B,)``.
        reasons: Why each row ended, ``(B,)``: a number of :data:`ENDINGS`.
    """

    tokens: Tensor
    lengths: Tensor
    reasons: Tensor


@torch.inference_mode()
def complete(
    net: LanguageModel,
    prompts: Tensor,
    num_tokens: int,
    mask: Tensor | None = None,
    sampling: Sampling | None = None,
    rows: Tensor | None = None,
    ending: Ending | None = None,
    use_cache: bool = True,
) -> Completion:
    """Continues prompts token by token; a row whose text ends leaves the batch.

    Once prompt and continuation fill the context, each token sees the last ``context_length`` ones,
    read afresh, since every position has changed.

    Args:
        net: The language model, in evaluation mode.
        prompts: ``(B, T)``, padded on the left where their lengths differ.
        num_tokens: Most tokens N to append.
        mask: True at real tokens of the prompts, ``(B, T)``.
        sampling: How tokens are chosen.
        rows: Number of each row among all that share the seed; 0, 1, ... where not given.
        ending: Where a text ends; after ``num_tokens`` where not given.
        use_cache: Whether to keep keys and values; without, every token reads all before it.

    Raises:
        ValueError: If a prompt is empty or an option out of range.
    """
    sampling, ending = sampling or Sampling(), ending or Ending()
    sampling.check()
    _check_prompts(prompts, num_tokens, mask)
    if mask is not None and bool(mask.all()):
        mask = None
    draws = _draws(len(prompts), num_tokens, sampling.seed, rows).to(prompts.device)
    batch, start = prompts.shape
    tokens = torch.cat([prompts, prompts.new_zeros(batch, num_tokens)], dim=1)
    if mask is not None:
        mask = torch.cat([mask, mask.new_ones(batch, num_tokens)], dim=1)
    done = Completion(
        tokens.new_zeros(batch, num_tokens),
        tokens.new_full((batch,), num_tokens),
        tokens.new_zeros(batch),
    )
    open_rows, caches = torch.arange(batch, device=prompts.device), None
    for index in range(num_tokens):
        end = start + index
        first = new = max(end - net.context_length, 0)
        if first > 0 or not use_cache:
            caches = None
        elif caches is None:
            caches = net.new_caches(len(tokens))
        else:
            new = end - 1
        logits = _read(net, tokens, mask, first, new, end, caches)
        logits = sampling.penalise(logits, tokens[:, :end], None if mask is None else mask[:, :end])
        if ending.end_token is not None and index + 1 < ending.min_tokens:
            logits[:, ending.end_token] = -torch.inf
        tokens[:, end] = sampling.choose(logits, draws[:, index])
        reasons = ending.of(tokens[:, start : end + 1])
        left = reasons == 0
        if not bool(left.all()):
            ended = open_rows[~left]
            done.tokens[ended] = tokens[~left, start:]
            done.lengths[ended], done.reasons[ended] = index + 1, reasons[~left]
            tokens, draws, open_rows = tokens[left], draws[left], open_rows[left]
            mask = None if mask is None else mask[left]
            for cache in caches or ():
                cache.keep(left)
        if len(open_rows) == 0:
            return done
    done.tokens[open_rows] = tokens[:, start:]
    return done


def _check_prompts(prompts: Tensor, num_tokens: int, mask: Tensor | None) -> None:
    if num_tokens < 1:
        raise ValueError(f"the number of new tokens must be at least 1, got {num_tokens}")
    if prompts.shape[1] == 0 or (mask is not None and not mask.any(1).all()):
        raise ValueError("every prompt needs at least one token")


def generate(
    net: LanguageModel,
    prompts: Tensor,
    num_tokens: int,
    mask: Tensor | None = None,
    sampling: Sampling | None = None,
    rows: Tensor | None = None,
    use_cache: bool = True,
) -> Tensor:
    """As :func:`complete`, every row as long as asked for; the new tokens, ``(B, N)``."""
    done = complete(net, prompts, num_tokens, mask, sampling, rows, use_cache=use_cache)
    return done.tokens


def _read(
    net: LanguageModel,
    tokens: Tensor,
    mask: Tensor | None,
    first: int,
    new: int,
    end: int,
    caches: list[KeyValueCache] | None,
) -> Tensor:
    """Logits ``(B, V)`` after columns ``first`` to ``end``, those before ``new`` being cached."""
    positions, allowed = None, None
    if mask is not None:
        real = mask[:, first:end]
        positions = (real.cumsum(1) - 1).clamp(min=0)[:, new - first :]
        allowed = _visible(real, new - first)
    elif new > first:
        positions = torch.full((1, 1), new - first, device=tokens.device)
    hidden = net.hidden_states(net.embed(tokens[:, new:end]), positions, allowed, caches)
    return net.logits(hidden[:, -1])


def _visible(real: Tensor, start: int) -> Tensor:
    """What positions from ``start`` on may attend to, ``(B, 1, T, S)``.

    A padded position sees itself: a softmax over nothing is not a number.
    """
    column = torch.arange(real.shape[1], device=real.device)
    row = column[start:, None]
    return ((column <= row) & real[:, None] | (column == row)).unsqueeze(1)


def _draws(batch: int, num_tokens: int, seed: int, rows: Tensor | None) -> Tensor:
    """Uniform numbers ``(B, N)``, each row's from a generator seeded by (seed, row)."""
    numbers = range(batch) if rows is None else rows.tolist()
    generator = torch.Generator()
    return torch.stack(
        [
            torch.rand(
                num_tokens,
                generator=generator.manual_seed(seed_of(seed, number)),
            )
            for number in numbers
        ]
    )
