r"""An interpolated n-gram model of tokens: what counting alone predicts.

.. math::
    P_k(x \mid h_k) =
        \frac{c(h_k x) + w\, N(h_k)\, P_{k-1}(x \mid h_{k-1})}{c(h_k) + w\, N(h_k)}

with the last k tokens :math:`h_k` and their number of different successors N; :math:`P_{-1}` is
uniform, and a history never seen leaves everything to the shorter one. Witten and Bell, "The
Zero-Frequency Problem" (1991), interpolated; their weight w is 1, and a larger one suits long
histories. Tokens are counted as sorted
64-bit numbers, a fingerprint of the history before the token, so that any vocabulary is counted in
a few numbers a token.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
_MIX = np.uint64(0x9E3779B97F4A7C15)
_WEIGHTS = (1.0, 4.0)
_PIECE = 65_536  # tokens, so that what lies between takes no memory to speak of


class _Counts(NamedTuple):
    """What one order counts: its grams, sorted, and their histories, sorted."""

    grams: Array
    counts: Array
    histories: Array
    totals: Array
    kinds: Array


def _grams(tokens: Array, order: int, bits: int) -> Array:
    """Fingerprint of a history, then the token after it, for each ``order`` tokens in a row."""
    keys = np.zeros(max(len(tokens) - order + 1, 0), dtype=np.uint64)
    for start in range(0, len(keys), _PIECE):
        piece = keys[start : start + _PIECE]
        after = tokens[start : start + len(piece) + order - 1].astype(np.uint64)
        for shift in range(order - 1):
            piece ^= after[shift : shift + len(piece)] + np.uint64(1)
            piece *= _MIX
            piece ^= piece >> np.uint64(29)
        piece <<= np.uint64(bits)
        piece |= after[order - 1 :]
    return keys


def _begins(values: Array) -> Array:
    """Where runs of equal values begin in sorted ones."""
    return np.flatnonzero(np.append(True, values[1:] != values[:-1])[: len(values)])


def _count(tokens: Array, order: int, bits: int) -> _Counts:
    keys = _grams(tokens, order, bits)
    keys.sort()
    begins = _begins(keys)
    grams, counts = keys[begins], _lengths(begins, len(keys))
    del keys
    histories = grams >> np.uint64(bits)
    begins = _begins(histories)
    totals = np.add.reduceat(counts, begins) if len(begins) else counts
    return _Counts(grams, counts, histories[begins], totals, _lengths(begins, len(histories)))


def _lengths(begins: Array, end: int) -> Array:
    """Lengths of runs."""
    return np.diff(begins, append=end).astype(np.int32)


def _look_up(keys: Array, asked: Array, *values: Array) -> list[Array]:
    """Values of the asked keys among sorted ones; 0 where there is none."""
    if len(keys) == 0:
        return [np.zeros(len(asked), dtype=kind.dtype) for kind in values]
    place = np.searchsorted(keys, asked).clip(max=len(keys) - 1)
    known = keys[place] == asked
    return [np.where(known, kind[place], 0) for kind in values]


def ngram_probabilities(
    train: Array,
    texts: Sequence[Array],
    num_tokens: int,
    max_order: int,
    weights: Sequence[float] = (1.0,),
) -> Iterator[list[Array]]:
    """Probability of each token but the first of some texts, by models of growing order.

    Args:
        train: Tokens that are counted, ``(N,)``.
        texts: Tokens that are predicted, each ``(M,)``.
        num_tokens: Size of the vocabulary.
        max_order: Longest n; the n-gram sees n - 1 tokens.
        weights: Weights w of the shorter history.

    Yields:
        For n = 1, 2, ... and each text, ``(number of weights, M - 1)``; a place with fewer tokens
        before it than n - 1 has the probability of the longest model that it has tokens for.
    """
    bits = max(num_tokens - 1, 1).bit_length()
    found = [np.full((len(weights), len(text) - 1), 1 / num_tokens) for text in texts]
    for order in range(1, max_order + 1):
        _interpolate(found, texts, _count(train, order, bits), order, bits, weights)
        yield found


def _interpolate(
    found: Sequence[Array],
    texts: Sequence[Array],
    counts: _Counts,
    order: int,
    bits: int,
    weights: Sequence[float],
) -> None:
    """Turns the probabilities of one order into those of the next."""
    for text, probability in zip(texts, found, strict=True):
        asked = _grams(text, order, bits)[1 if order == 1 else 0 :]
        (count,) = _look_up(counts.grams, asked, counts.counts)
        total, kinds = _look_up(
            counts.histories, asked >> np.uint64(bits), counts.totals, counts.kinds
        )
        # The first scored token with enough before it.
        where = slice(max(order - 2, 0), None)
        for weight, row in zip(weights, probability, strict=True):
            kind = weight * kinds
            mixed = (count + kind * row[where]) / np.maximum(total + kind, 1)
            row[where] = np.where(total > 0, mixed, row[where])


def ngram_cross_entropy(
    train: Array, val: Array, test: Array, num_tokens: int, max_order: int = 6
) -> tuple[int, float]:
    """Order that predicts the validation tokens best, and its cross-entropy on the test tokens.

    Args:
        train: Tokens that are counted, ``(N,)``.
        val: Tokens that choose the order and the weight.
        test: Tokens that are scored, but for the first.
        num_tokens: Size of the vocabulary.
        max_order: Longest n.
    """
    costs = [
        (on_val, order, on_test)
        for order, found in enumerate(
            ngram_probabilities(train, (val, test), num_tokens, max_order, _WEIGHTS), 1
        )
        for on_val, on_test in zip(*(-np.log(rows).mean(1) for rows in found), strict=True)
    ]
    _, order, value = min(costs)
    return order, float(value)
