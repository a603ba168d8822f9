r"""Markov chains whose probabilities, entropies and posteriors are exact.

A chain of order k draws token t from :math:`P(x_t \mid x_{t-k}, \dots, x_{t-1})` and starts in its
stationary distribution. The forward-backward recursions give the posterior of every token of a
corrupted sequence from its *emissions*, the likelihood of what was observed at each position as a
function of the true token.

Shape letters: N sequences, T positions, V tokens, S = V^k states (the last k tokens).
"""

from functools import cached_property

import torch
from torch import Tensor

from datamodules.laws.draws import blocks


class MarkovChain:
    """A chain with random transition probabilities.

    Args:
        vocab_size: Number V of tokens.
        order: Number k of earlier tokens a token depends on.
        concentration: Parameters of the Dirichlet distribution each row is drawn from, one for
            all tokens or ``(V,)``; small values give rows with few likely tokens.
        generator: Source of the transition probabilities.
        uniform: Share of the uniform distribution in every row, so that nothing is impossible.
    """

    def __init__(
        self,
        vocab_size: int,
        order: int,
        concentration: float | Tensor,
        generator: torch.Generator,
        uniform: float = 0.01,
    ) -> None:
        self.vocab_size, self.order = vocab_size, order
        parameters = torch.as_tensor(concentration, dtype=torch.float64)
        shape = parameters.expand(vocab_size**order, vocab_size).contiguous()
        # _sample_dirichlet takes a generator; torch.distributions does not.
        rows = torch._sample_dirichlet(shape, generator=generator)
        self.transition = (1 - uniform) * rows + uniform / vocab_size  # (S, V)

    @cached_property
    def stationary(self) -> Tensor:
        """Stationary distribution of the states, ``(S,)``."""
        probabilities = torch.full((self.num_states,), 1 / self.num_states, dtype=torch.float64)
        for _ in range(10_000):
            following = self._advance(probabilities.unsqueeze(0)).squeeze(0)
            if torch.allclose(following, probabilities, rtol=0, atol=1e-15):
                break
            probabilities = following
        return probabilities / probabilities.sum()

    @property
    def num_states(self) -> int:
        """Number S of states."""
        return int(self.vocab_size**self.order)

    def _advance(self, states: Tensor) -> Tensor:
        """Distribution of the next state, ``(N, S)``; the oldest token drops out."""
        v = self.vocab_size
        oldest = states.view(-1, v, self.num_states // v)
        return torch.einsum("nar,arc->nrc", oldest, self.transition.view(v, -1, v)).flatten(1)

    def _retreat(self, messages: Tensor) -> Tensor:
        """Expected message of the next state given each state, ``(N, S)``."""
        v = self.vocab_size
        newest = messages.view(-1, self.num_states // v, v)
        return torch.einsum("nrc,arc->nar", newest, self.transition.view(v, -1, v)).flatten(1)

    @cached_property
    def entropy_rate(self) -> float:
        """Entropy of a token given all earlier ones, in nats."""
        rows = -(self.transition * self.transition.log()).sum(1)
        return float((self.stationary * rows).sum())

    def conditional_entropy(self, num_seen: int) -> float:
        """Entropy of a token given the ``num_seen`` tokens before it, at most k, in nats."""
        joint = (self.stationary.unsqueeze(1) * self.transition).view(
            self.vocab_size ** (self.order - num_seen), -1, self.vocab_size
        )
        marginal = joint.sum(0)
        return float(-(marginal * (marginal / marginal.sum(1, keepdim=True)).log()).sum())

    @cached_property
    def unigram(self) -> Tensor:
        """Frequency of each token, ``(V,)``."""
        return self.stationary.view(-1, self.vocab_size).sum(0)

    def sample(self, num_sequences: int, length: int, generator: torch.Generator) -> Tensor:
        """Independent stationary sequences, ``(N, T)``."""
        tokens = torch.empty(num_sequences, length, dtype=torch.long)
        states = self.stationary.cumsum(0)
        powers = self.vocab_size ** torch.arange(self.order - 1, -1, -1)
        for rows in blocks(num_sequences):
            shape = tokens[rows].shape
            draws = torch.rand(shape, generator=generator, dtype=torch.float64)
            first = _draw(states, draws[:, 0])
            start = first.unsqueeze(1) // powers % self.vocab_size  # (N, k), oldest first
            tokens[rows] = self.extend(start[:, :length], draws[:, self.order :])
        return tokens

    def extend(self, start: Tensor, draws: Tensor) -> Tensor:
        """Continues sequences.

        Args:
            start: At least k tokens of each sequence, ``(N, t)``.
            draws: One uniform number per further token, ``(N, T - t)``.

        Returns:
            Start and continuation, ``(N, T)``.
        """
        cumulative = self.transition.cumsum(1)
        tokens = [*start.unbind(1)]
        state = torch.zeros(len(start), dtype=torch.long)
        for token in tokens[-self.order :]:
            state = state * self.vocab_size + token
        for column in draws.unbind(1):
            tokens.append(_draw(cumulative[state], column))
            state = (state * self.vocab_size + tokens[-1]) % self.num_states
        return torch.stack(tokens, dim=1)

    def next_probabilities(self, tokens: Tensor) -> Tensor:
        """Probability of each token given all before it, ``(N, T, V)``."""
        n, length = tokens.shape
        v, out = self.vocab_size, []
        joint = self.stationary.view(*(v,) * self.order)
        for t in range(min(self.order, length)):
            ahead = joint.sum(tuple(range(t + 1, self.order))) if t + 1 < self.order else joint
            seen = ahead[tuple(tokens[:, i] for i in range(t))] if t else ahead.expand(n, v)
            out.append(seen / seen.sum(-1, keepdim=True))
        state = torch.zeros(n, dtype=torch.long)
        for token in tokens[:, : self.order].unbind(1):
            state = state * v + token
        for t in range(self.order, length):
            out.append(self.transition[state])
            state = (state * v + tokens[:, t]) % self.num_states
        return torch.stack(out, dim=1)

    def smooth(self, emissions: Tensor) -> tuple[Tensor, Tensor]:
        """Forward-backward recursion.

        Args:
            emissions: Likelihood of what was observed at each position given each token there,
                ``(N, T, V)``, positive; T is at least k.

        Returns:
            Log-likelihood of each sequence's observations, ``(N,)``, and the posterior of each
            token divided by the emission at its position, ``(N, T, V)``: what the *other*
            positions say about it, relative to the likelihood of all observations.
        """
        forward, log_likelihood = self._forward(emissions)
        backward = self._backward(emissions)
        n, length, v = emissions.shape
        leave_one_out = torch.empty_like(emissions)
        last = self.order - 1
        for t in range(length):
            state = forward[max(t - last, 0)] * backward[max(t - last, 0)]
            offset = min(t, last)  # place of token t among the state's tokens, oldest first
            parts = state.view(n, v**offset, v, -1)
            posterior = parts.sum((1, 3))
            leave_one_out[:, t] = posterior / posterior.sum(1, keepdim=True) / emissions[:, t]
        return log_likelihood, leave_one_out

    def _forward(self, emissions: Tensor) -> tuple[list[Tensor], Tensor]:
        """Normalised forward messages from position k - 1 on, and the log-likelihood."""
        n, length, v = emissions.shape
        state = self.stationary.expand(n, -1)
        for i in range(self.order):
            shape = (n, v**i, v, v ** (self.order - 1 - i))
            state = (state.view(shape) * emissions[:, i].view(n, 1, v, 1)).flatten(1)
        messages: list[Tensor] = []
        log_likelihood = torch.zeros(n, dtype=emissions.dtype)
        for t in range(self.order - 1, length):
            if t >= self.order:
                ahead = self._advance(messages[-1]).view(n, -1, v)
                state = (ahead * emissions[:, t].unsqueeze(1)).flatten(1)
            scale = state.sum(1, keepdim=True)
            log_likelihood = log_likelihood + scale.squeeze(1).log()
            messages.append(state / scale)
        return messages, log_likelihood

    def _backward(self, emissions: Tensor) -> list[Tensor]:
        """Normalised backward messages from position k - 1 on."""
        n, length, v = emissions.shape
        message = torch.ones(n, self.num_states, dtype=emissions.dtype)
        messages = [message]
        for t in range(length - 1, self.order - 1, -1):
            weighted = message.view(n, -1, v) * emissions[:, t].unsqueeze(1)
            message = self._retreat(weighted.flatten(1))
            message = message / message.sum(1, keepdim=True)
            messages.append(message)
        return messages[::-1]


def _draw(cumulative: Tensor, draws: Tensor) -> Tensor:
    """Inverts distributions ``(N, V)``, or one ``(V,)``, at uniform numbers ``(N,)``."""
    points = draws.unsqueeze(1).contiguous()
    index = torch.searchsorted(cumulative.contiguous(), points).squeeze(1)
    return index.clamp(max=cumulative.shape[-1] - 1)  # rounding may leave the last sum below 1
