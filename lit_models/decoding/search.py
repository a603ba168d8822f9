r"""Free-running decoding: the likeliest next token, or a beam search with a length penalty.

A beam keeps the K best prefixes y of each source by

.. math:: \frac{\log p(y \mid x)}{((5 + |y|) / 6)^\alpha}

(Wu et al., "Google's Neural Machine Translation System", 2016, equation 14, without its coverage
term), where |y| counts the end sign. All beams of all sources advance in one batch, one token a
step; a finished sequence keeps its place until K better ones push it out. The search ends once no
prefix can enter the best ones that are asked for. A width of at least :math:`V^T` is an exhaustive
search, for any :math:`\alpha`.

Shape letters: B sources, K beams, V vocabulary, T decoded length.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from datamodules.batches import BOS, EOS, PAD


class DecoderState(Protocol):
    """What a decoder remembers of the prefixes it has read, one row each."""

    @property
    def device(self) -> torch.device:
        """Where the prefixes are."""

    def reorder(self, rows: Tensor) -> None:
        """Replaces row i by row ``rows[i]``; both belong to the same source."""


S = TypeVar("S", bound=DecoderState)

# Last tokens, (N,), and state to logits of the next ones, (N, V), and the new state.
Step = Callable[[Tensor, S], tuple[Tensor, S]]


class Hypotheses(NamedTuple):
    """Decoded sequences, the best first.

    Attributes:
        tokens: From the first token to EOS, then PAD, ``(B, K, T)``.
        scores: Log-probability over the length penalty, ``(B, K)``.
    """

    tokens: Tensor
    scores: Tensor


def greedy_search(step: Step[S], state: S, num_sources: int, max_length: int) -> Tensor:
    """Takes the likeliest token at each step.

    Args:
        step: The decoder.
        state: Its state before the first token.
        num_sources: Number B of sources.
        max_length: Most tokens to decode, EOS included.

    Returns:
        Tokens from the first one to EOS, then PAD, ``(B, T)`` with T at most ``max_length``.
    """
    token = torch.full((num_sources,), BOS, device=state.device)
    finished = torch.zeros_like(token, dtype=torch.bool)
    tokens: list[Tensor] = []
    while len(tokens) < max_length and not bool(finished.all()):
        logits, state = step(token, state)
        token = logits.argmax(-1).masked_fill(finished, PAD)
        tokens.append(token)
        finished = finished | (token == EOS)
    return torch.stack(tokens, dim=1)


def length_penalty(length: Tensor, alpha: float) -> Tensor:
    """Divisor of the log-probability of sequences of some lengths."""
    return ((5 + length) / 6) ** alpha


def beam_search(
    step: Step[S],
    state: S,
    num_sources: int,
    num_beams: int,
    max_length: int,
    alpha: float = 0.0,
    num_best: int | None = None,
) -> Hypotheses:
    r"""Keeps the ``num_beams`` best prefixes of each source.

    Args:
        step: The decoder.
        state: Its state before the first token, K equal rows in a row for each source.
        num_sources: Number B of sources.
        num_beams: Number K of beams.
        max_length: Most tokens to decode, EOS included.
        alpha: Exponent :math:`\alpha` of the length penalty; 0 compares log-probabilities.
        num_best: Number of sequences to return; K where not given.

    Returns:
        The best sequences of each source, each of them finished or as long as allowed.

    Raises:
        ValueError: If more sequences are asked for than there are beams.
    """
    num_best = num_beams if num_best is None else num_best
    if not 1 <= num_best <= num_beams:
        raise ValueError(f"num_best must lie in [1, num_beams={num_beams}], got {num_best}")
    beams = _Beams(num_sources, num_beams, state.device)
    token = torch.full((num_sources * num_beams,), BOS, device=state.device)
    for _ in range(max_length):
        logits, state = step(token, state)
        dtype = torch.promote_types(logits.dtype, torch.float32)
        rows, token = beams.advance(logits.log_softmax(-1, dtype=dtype), alpha)
        state.reorder(rows)
        if beams.settled(max_length, alpha, num_best):
            break
    return Hypotheses(beams.tokens[:, :num_best], beams.scores(alpha)[:, :num_best])


class _Beams:
    """Prefixes of a beam search, ranked."""

    def __init__(self, num_sources: int, num_beams: int, device: torch.device) -> None:
        shape = (num_sources, num_beams)
        self.tokens = torch.empty(*shape, 0, dtype=torch.long, device=device)
        self.finished = torch.zeros(shape, dtype=torch.bool, device=device)
        self.lengths = torch.zeros(shape, dtype=torch.long, device=device)
        # All beams of a source start equal: the first step must draw from one of them.
        self.log_prob = torch.full(shape, -torch.inf, device=device)
        self.log_prob[:, 0] = 0.0

    def scores(self, alpha: float) -> Tensor:
        return self.log_prob / length_penalty(self.lengths.to(self.log_prob.dtype), alpha)

    def advance(self, log_prob: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
        """Takes one step; returns each beam's parent row and last token, ``(B * K,)`` each."""
        num_sources, num_beams = self.finished.shape
        vocab_size = log_prob.shape[-1]
        log_prob = log_prob.view(num_sources, num_beams, vocab_size)
        # A finished sequence continues with PAD alone, at no cost.
        stay = torch.full_like(log_prob[0, 0], -torch.inf)
        stay[PAD] = 0.0
        log_prob = torch.where(self.finished.unsqueeze(-1), stay, log_prob)
        total = self.log_prob.unsqueeze(-1) + log_prob
        lengths = self.lengths + (~self.finished).long()
        penalty = length_penalty(lengths.to(total.dtype), alpha)
        best = (total / penalty.unsqueeze(-1)).flatten(1).topk(num_beams).indices
        parent, token = best // vocab_size, best % vocab_size
        self.log_prob = total.flatten(1).gather(1, best)
        self.lengths = lengths.gather(1, parent)
        self.finished = self.finished.gather(1, parent) | (token == EOS)
        history = self.tokens.gather(1, parent.unsqueeze(-1).expand_as(self.tokens))
        self.tokens = torch.cat([history, token.unsqueeze(-1)], dim=-1)
        offset = torch.arange(num_sources, device=best.device).unsqueeze(1) * num_beams
        return (parent + offset).flatten(), token.flatten()

    def settled(self, max_length: int, alpha: float, num_best: int) -> bool:
        """Whether no unfinished prefix of any source can still enter its best finished ones."""
        # A log-probability only falls, and the penalty is mildest at one end of what may follow.
        ends = torch.full_like(self.log_prob, max_length), (self.lengths + 1).to(self.log_prob)
        limit = torch.maximum(*(length_penalty(end, alpha) for end in ends))
        open_best = (self.log_prob / limit).masked_fill(self.finished, -torch.inf).amax(1)
        done = self.scores(alpha).masked_fill(~self.finished, -torch.inf)
        return bool((done.topk(num_best, dim=1).values[:, -1] >= open_best).all())


def decode(
    step: Step[S], state: S, num_sources: int, num_beams: int, max_length: int, alpha: float = 0.0
) -> Tensor:
    r"""The best sequence of each source: greedy for one beam, else by beam search.

    Args:
        step: The decoder.
        state: Its state before the first token, ``num_beams`` rows in a row for each source.
        num_sources: Number B of sources.
        num_beams: Number K of beams.
        max_length: Most tokens to decode, EOS included.
        alpha: Exponent :math:`\alpha` of the length penalty.

    Returns:
        Tokens up to EOS, then PAD, ``(B, T)``.
    """
    if num_beams == 1:
        return greedy_search(step, state, num_sources, max_length)
    found = beam_search(step, state, num_sources, num_beams, max_length, alpha, num_best=1)
    return found.tokens[:, 0]
