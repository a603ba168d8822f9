r"""An interpolated n-gram model of tokens: what counting alone predicts.

.. math::
    P_k(x \mid h_k) =
        \frac{c(h_k x) + w\, N(h_k)\, P_{k-1}(x \mid h_{k-1})}{c(h_k) + w\, N(h_k)}

with the last k tokens :math:`h_k` and their number of different successors N; :math:`P_{-1}` is
uniform, and a history never seen leaves everything to the shorter one. Witten and Bell, "The
Zero-Frequency Problem" (1991), interpolated; their weight w is 1, and a larger one suits long
histories. Histories are counted by sorted 64-bit
fingerprints, so that any vocabulary is counted in a few numbers a token.
"""

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_MIX = np.uint64(0x9E3779B97F4A7C15)
_WEIGHTS = (1.0, 4.0)


def _fingerprints(tokens: Array, length: int) -> Array:
    """One number for each ``length`` tokens in a row, ``(N - length + 1,)``; 0 for none."""
    keys = np.zeros(len(tokens) - length + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for shift in range(length):
            part = tokens[shift : len(tokens) - length + 1 + shift].astype(np.uint64)
            keys = (keys ^ (part + np.uint64(1))) * _MIX
            keys ^= keys >> np.uint64(29)
    return keys


def _look_up(keys: Array, values: Array, asked: Array) -> Array:
    """Values of the asked keys among sorted ones; 0 where there is none."""
    if len(keys) == 0:
        return np.zeros(len(asked), dtype=values.dtype)
    place = np.searchsorted(keys, asked).clip(max=len(keys) - 1)
    return np.where(keys[place] == asked, values[place], 0)


def ngram_probabilities(
    train: Array, test: Array, num_tokens: int, max_order: int, weight: float = 1.0
) -> list[Array]:
    """Probability of each test token but the first, by models of growing order.

    Args:
        train: Tokens that are counted, ``(N,)``.
        test: Tokens that are predicted, ``(M,)``.
        num_tokens: Size of the vocabulary.
        max_order: Longest n; the n-gram sees n - 1 tokens.
        weight: Weight w of the shorter history.

    Returns:
        For n = 1, 2, ..., each ``(M - 1,)``; a place with fewer tokens before it than n - 1 has the
        probability of the longest model that it has tokens for.
    """
    probability = np.full(len(test) - 1, 1 / num_tokens)
    found = []
    for order in range(1, max_order + 1):
        grams, first, counts = np.unique(
            _fingerprints(train, order), return_index=True, return_counts=True
        )
        # Grams by their history: its own first tokens, none for single tokens.
        histories, group = np.unique(
            _fingerprints(train[:-1], order - 1)[first]
            if order > 1
            else np.zeros(len(first), np.uint64),
            return_inverse=True,
        )
        totals, kinds = np.bincount(group, weights=counts), np.bincount(group)
        asked = _fingerprints(test, order)[1 if order == 1 else 0 :]
        history = (
            _fingerprints(test[:-1], order - 1) if order > 1 else np.zeros(len(asked), np.uint64)
        )
        count, total = _look_up(grams, counts, asked), _look_up(histories, totals, history)
        # The first scored token with enough before it.
        where = slice(max(order - 2, 0), None)
        shorter = probability[where]
        kind = weight * _look_up(histories, kinds, history)
        probability = probability.copy()
        probability[where] = np.where(
            total > 0, (count + kind * shorter) / np.maximum(total + kind, 1), shorter
        )
        found.append(probability)
    return found


def ngram_cross_entropy(
    train: Array, val: Array, test: Array, num_tokens: int, max_order: int = 6
) -> tuple[int, float]:
    """Order that predicts the validation tokens best, and its cross-entropy on the test tokens.

    Args:
        train: Tokens that are counted, ``(N,)``.
        val: Tokens that choose the order.
        test: Tokens that are scored, but for the first.
        num_tokens: Size of the vocabulary.
        max_order: Longest n.
    """
    costs = {
        (float(-np.log(found).mean()), order, weight)
        for weight in _WEIGHTS
        for order, found in enumerate(
            ngram_probabilities(train, val, num_tokens, max_order, weight), 1
        )
    }
    _, order, weight = min(costs)
    found = ngram_probabilities(train, test, num_tokens, order, weight)[-1]
    return order, float(-np.log(found).mean())
