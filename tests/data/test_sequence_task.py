"""Sequence tasks against Python's own words for them, and their floors against the data."""

import math

import pytest
import torch

from datamodules import InputError, SequenceTaskDataModule
from datamodules.batches import BOS, EOS, PAD
from datamodules.tasks.sequence_task import _fingerprint

SMALL = {"num_samples": 997, "num_test": 211}


def rows(batch):
    """Source and target symbols of each pair as lists, special tokens checked and removed."""
    pairs = []
    for src, tgt, src_mask, tgt_mask in zip(*batch, strict=True):
        assert (src[~src_mask] == PAD).all()
        assert (tgt[~tgt_mask] == PAD).all()
        real = tgt[tgt_mask].tolist()
        assert real[0] == BOS
        assert real[-1] == EOS
        pairs.append(((src[src_mask] - 3).tolist(), [token - 3 for token in real[1:-1]]))
    return pairs


@pytest.mark.parametrize("min_length", [None, 3])
@pytest.mark.parametrize("task", ["reverse", "sort"])
def test_rewriting(task, min_length):
    data = SequenceTaskDataModule(task=task, length=7, min_length=min_length, **SMALL)
    batch = data.make_split("test")
    expected = {"reverse": lambda x: x[::-1], "sort": sorted}[task]
    lengths = set()
    for src, tgt in rows(batch):
        assert tgt == expected(src)
        assert set(src) <= set(range(20))
        lengths.add(len(src))
    assert lengths == set(range(min_length or 7, 8))
    assert batch.tgt.shape[1] == 9 == data.max_length


@pytest.mark.parametrize("digits", [2, 3, 5])
def test_addition(digits):
    sizes = SMALL if digits > 2 else {"num_samples": 997, "num_test": 11}
    data = SequenceTaskDataModule(task="add", length=digits, **sizes)
    assert data.src_vocab_size == 14
    for src, tgt in rows(data.make_split("train")):
        text = "".join("+" if symbol == 10 else str(symbol) for symbol in src)
        first, second = map(int, text.split("+"))
        assert len(text) == 2 * digits + 1
        assert int("".join(map(str, reversed(tgt)))) == first + second
        assert len(tgt) == digits + 1


@pytest.mark.parametrize("min_length", [None, 2])
def test_translation_is_noisy_in_the_known_share(min_length):
    data = SequenceTaskDataModule("translate", 10, min_length, num_samples=7_001, num_test=211)
    pairs = rows(data.make_split("train"))
    table = torch.zeros(20, 20)
    for src, tgt in pairs:
        for symbol, written in zip(src[::-1], tgt, strict=True):
            table[symbol, written] += 1
    share = table / table.sum(1, keepdim=True)
    assert sorted(share.argmax(1).tolist()) == list(range(20))
    wrong = table.sum() - table.amax(1).sum()
    assert (wrong / table.sum()).item() == pytest.approx(0.095, abs=1e-5)
    expected = 0.005 * table.sum(1, keepdim=True).expand_as(table)
    deviation = (table - expected).abs() / expected.sqrt()
    assert deviation[share < 0.5].max() < 6
    # What the optimum promises is what the counted probabilities cost and match.
    q = 1 - (wrong / table.sum()).item()
    entropy = -q * math.log(q) - (1 - q) * math.log((1 - q) / 19)
    assert data.optimum["test/cross_entropy"].value == pytest.approx(entropy, abs=1e-4)
    permutation = share.argmax(1).tolist()
    matched = sum([permutation[s] for s in src[::-1]] == tgt for src, tgt in pairs)
    ceiling = data.optimum["test/exact_match"].value
    assert matched / len(pairs) == pytest.approx(ceiling, abs=4 * (ceiling / len(pairs)) ** 0.5)


def test_the_floors_of_the_issue():
    data = SequenceTaskDataModule("translate")
    assert data.optimum["test/cross_entropy"].value == pytest.approx(0.5937, abs=5e-5)
    assert data.optimum["test/exact_match"].value == pytest.approx(0.3685, abs=5e-5)
    assert data.baseline["test/cross_entropy"].value == pytest.approx(math.log(20))
    clean = SequenceTaskDataModule("add")
    assert clean.optimum["test/cross_entropy"].value == 0
    assert clean.optimum["test/exact_match"].value == 1
    assert clean.baseline["test/exact_match"].value == pytest.approx(1e-4)


def test_splits_are_disjoint_and_pure():
    # 10,000 sources: without the rejection 7 of 10 test sources would be in training.
    data = SequenceTaskDataModule(task="add", length=2, num_samples=9973, num_test=1009)
    splits = {name: data.make_split(name) for name in ("train", "val", "test")}
    sources = {n: set(map(tuple, b.src.tolist())) for n, b in splits.items()}
    assert not sources["train"] & sources["val"]
    assert not sources["train"] & sources["test"]
    assert not sources["val"] & sources["test"]
    again = SequenceTaskDataModule(task="add", length=2, num_samples=9973, num_test=1009)
    for name, batch in splits.items():
        for field, same in zip(batch, again.make_split(name), strict=True):
            assert torch.equal(field, same)
    other = SequenceTaskDataModule("add", 2, num_samples=9973, num_test=1009, seed=1)
    assert not torch.equal(splits["test"].src, other.make_split("test").src)


def test_fingerprints_tell_sources_apart():
    src = torch.cartesian_prod(*[torch.arange(7)] * 5)
    keys = _fingerprint(src, torch.ones_like(src, dtype=torch.bool))
    assert len(keys.unique()) == 7**5


def test_predictions_read_as_symbols():
    data = SequenceTaskDataModule("add", **SMALL)
    batch = data.split("test")
    frame = data.prediction_frame({"prediction": batch.tgt[:, 1:], "target": batch.tgt[:, 1:]})
    assert list(frame.columns) == ["source", "prediction", "target"]
    first, second = frame["source"][0].replace(" ", "").split("+")
    answer = frame["prediction"][0].replace(" ", "")[::-1]
    assert int(answer) == int(first) + int(second)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 0}, "length must be at least 1, got 0"),
        ({"min_length": 11}, r"min_length must lie in \[1, 10\], got 11"),
        ({"vocab_size": 1}, "vocab_size must be at least 2, got 1"),
        ({"noise": 1.0}, r"noise must lie in \[0, 1\), got 1.0"),
        ({"task": "add", "min_length": 2}, "both numbers to add have 3 digits"),
        ({"task": "add", "length": 19}, "at most 18 digits, got length=19"),
        ({"length": 3}, "there are 8,000 different sources and num_test=20000 takes too many"),
        ({"num_test": 9}, "num_test must be at least 10, got 9"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        SequenceTaskDataModule(**arguments)
