"""The n-gram against a dictionary of counts, as a probability, and on a chain it must learn."""

from collections import Counter, defaultdict

import numpy as np
import pytest

from datamodules import MarkovTextDataModule
from datamodules.own.ngram import ngram_cross_entropy, ngram_probabilities


def by_dictionary(train, history, token, order, num_tokens):
    if order == 0:
        return 1 / num_tokens
    history = tuple(history[len(history) - order + 1 :]) if order > 1 else ()
    shorter = by_dictionary(train, history, token, order - 1, num_tokens)
    counts = defaultdict(Counter)
    for i in range(order - 1, len(train)):
        counts[tuple(train[i - order + 1 : i])][train[i]] += 1
    found = counts[history]
    total = sum(found.values())
    if total == 0:
        return shorter
    return (found[token] + len(found) * shorter) / (total + len(found))


def test_probabilities_are_those_of_counts():
    rng = np.random.default_rng(0)
    train, test = rng.integers(5, size=60), rng.integers(5, size=12)
    for order, ((found,),) in enumerate(ngram_probabilities(train, [test], 5, 4), 1):
        for place in range(1, len(test)):
            some = min(order, place + 1)
            history = test[:place].tolist()
            expected = by_dictionary(train.tolist(), history, int(test[place]), some, 5)
            assert found[place - 1] == pytest.approx(expected, abs=1e-12)


def test_probabilities_sum_to_one():
    train = np.random.default_rng(1).integers(6, size=300)
    rows = [np.array([1, 2, 3, token]) for token in range(6)]
    for found in ngram_probabilities(train, rows, 6, 4, (1.0, 4.0)):
        total = sum(probabilities[:, -1] for probabilities in found)
        assert total == pytest.approx([1, 1], abs=1e-12)


def test_it_learns_a_chain_of_order_two():
    data = MarkovTextDataModule(num_samples=1500, num_test=120)
    train, test = (data.split(name).tokens.flatten().numpy() for name in ("train", "test"))
    order, found = ngram_cross_entropy(train, test[:2000], test, 12)
    assert order == 3
    assert 0 < found - data.optimum["test/cross_entropy"].value < 0.1


def test_a_text_shorter_than_the_order_is_counted():
    train, test = np.array([1, 0]), np.array([1, 0, 1])
    order, found = ngram_cross_entropy(train, test, test, 2)
    assert 1 <= order <= 6
    assert 0 < found < 1
