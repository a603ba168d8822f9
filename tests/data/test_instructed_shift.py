"""The shift task in words: the floors against simulation, and instructions that are new."""

import itertools
import math

import pytest
import torch

from datamodules import InputError, InstructedShiftDataModule

N, EPS = 4, 0.3


def make(task="instructions", **options):
    return InstructedShiftDataModule(task, N, EPS, num_examples=3, num_test=4000, **options)


def words_of(data, row, tokens):
    return data.decode(tokens[row]).split()


def test_no_training_row_has_a_new_instruction():
    data = make(num_samples=3000)
    seen = {}
    for split in ("train", "test"):
        batch = data.split(split)
        for row in range(len(batch.tokens)):
            end = int((batch.labels[row] >= 0).nonzero()[0, 0])
            prompt = tuple(
                "X" if w.isdigit() else w for w in words_of(data, row, batch.tokens)[:end]
            )
            group = int(batch.group[row, end])
            seen.setdefault((split, group), set()).add(prompt)
    assert set(seen) == {("train", 0), ("test", 0), ("test", 1)}
    assert not seen["test", 1] & (seen["train", 0] | seen["test", 0])
    assert seen["test", 0] == seen["train", 0]
    assert len(seen["test", 1]) == N, "one wording of each shift"
    assert len(seen["train", 0]) == 5 * N


def test_an_answer_is_what_the_instruction_asks_for_as_often_as_said():
    data = make(num_samples=20_000)
    batch = data.split("train")
    right = 0
    names = {"zero": 0, "one": 1, "two": 2, "three": 3}
    for row in range(len(batch.tokens)):
        words = words_of(data, row, batch.tokens)
        answer, end = batch.labels[row][batch.labels[row] >= 0].tolist()
        assert end == data.end_token
        start = words.index("=")
        assert words[start + 1] == str(answer), "the row continues with its answer"
        x = next(int(word) for word in words if word.isdigit())
        shift = next(names[word] for word in words if word in names)
        right += (x + shift) % N == answer
    share = 1 - EPS * (N - 1) / N
    assert right / 20_000 == pytest.approx(share, abs=4 * math.sqrt(0.25 / 20_000))


def test_the_floor_is_the_entropy_of_an_answer():
    data = make()
    q = 1 - EPS * (N - 1) / N
    entropy = -q * math.log(q) - (1 - q) * math.log((1 - q) / (N - 1))
    for name in ("known", "new"):
        found = data.optimum[f"test/{name}_cross_entropy"].value
        assert found == pytest.approx(entropy, abs=0.05)
    groups = [data.optimum[f"test/{name}_cross_entropy"].value for name in ("known", "new")]
    assert data.optimum["test/cross_entropy"].value == pytest.approx(sum(groups) / 4)


def test_the_floor_of_examples_is_bayes_rule_by_enumeration():
    data = make("examples")
    batch = data.split("test")
    right, other = 1 - EPS + EPS / N, EPS / N
    total, num_told = 0.0, 0
    for row in range(300):
        first, *tokens = batch.tokens[row].tolist()
        x, y = tokens[0::4], tokens[2::4]
        told = first - N if first < 2 * N else None
        num_told += told is not None
        for t in range(3):
            joint = [0.0, 0.0]
            for shift, length in itertools.product(range(N), (t, t + 1)):
                if told in (None, shift):
                    hits = [(x[k] + shift) % N == y[k] for k in range(length)]
                    joint[length - t] += math.prod(right if hit else other for hit in hits)
            total -= math.log(joint[1] / joint[0])
    assert 100 < num_told < 200
    part = InstructedShiftDataModule("examples", N, EPS, num_examples=3, num_test=4000)
    part._splits["test"] = type(batch)(batch.tokens[:300], batch.labels[:300])
    assert part.optimum["test/cross_entropy"].value == pytest.approx(total / 900, abs=1e-10)
    exact = InstructedShiftDataModule("examples", N, 0.0, num_examples=3, told_fraction=0)
    assert exact.optimum["test/cross_entropy"].value == pytest.approx(math.log(N) / 3, abs=1e-12)


def test_prompts_are_the_test_rows_without_their_answers():
    data = make()
    asked, test = data.split("predict"), data.split("test")
    for row in range(50):
        end = int((test.labels[row] >= 0).nonzero()[0, 0]) + 1
        assert torch.equal(asked.tokens[row, asked.mask[row]], test.tokens[row, :end])
        assert asked.mask[row, -end:].all()
    outputs = {
        "completion": torch.tensor([[2, data.end_token]] * 4000),
        "num_tokens": torch.full((4000,), 2),
        "ended": torch.ones(4000, dtype=torch.long),
    }
    frame = data.prediction_frame(outputs)
    assert frame.loc[0, ["completion", "ended"]].tolist() == ["2", "end token"]
    x, shift = (data._expected(asked.tokens[i, asked.mask[i]].tolist()) for i in (0, 1))
    assert frame["expected"].tolist()[:2] == [x, shift]


def test_wrong_arguments():
    with pytest.raises(InputError, match="num_shifts must be at most 20, got 21"):
        InstructedShiftDataModule(num_shifts=21)
    with pytest.raises(InputError, match=r"noise must lie in \[0, 1\), got 1"):
        InstructedShiftDataModule(noise=1)
    with pytest.raises(InputError, match=r"told_fraction must lie in \[0, 1\], got 2"):
        InstructedShiftDataModule(told_fraction=2)
    with pytest.raises(InputError, match="examples have no prompts"):
        make("examples").split("predict")
