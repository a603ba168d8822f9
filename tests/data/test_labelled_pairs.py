"""Pairs of texts, classes that weigh differently, macro F1."""

import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from datamodules import InputError, LabelledTextDataModule
from datamodules.own.labelled_text import _cut
from lit_models import LitBERTClassifier, LitGPTClassifier

WORDS = ("red", "green", "blue", "black")


@pytest.fixture
def pairs(tmp_path):
    """Whether two words are the same: neither text alone tells; a fifth of the rows are."""
    rows = [
        {"a": f"it is {WORDS[i % 4]}", "b": WORDS[(i // 4) % 4], "same": ("no", "yes")[i % 5 == 0]}
        for i in range(200)
    ]
    path = tmp_path / "pairs.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return str(path)


def make(path, **options):
    return LabelledTextDataModule(path, "a", "same", "word", second="b", **options)


def test_a_pair_is_parted_and_its_segments_are_marked(pairs):
    data = make(pairs)
    batch = data.split("test")
    cls, sep = (data.tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]"))
    texts = data._split_texts("test")
    for row in range(len(batch.tokens)):
        real = batch.tokens[row, batch.mask[row]].tolist()
        first, second = texts["a"].iloc[row].split(), texts["b"].iloc[row].split()
        ids = [[data.tokenizer.token_to_id(w) for w in words] for words in (first, second)]
        assert real == [cls, *ids[0], sep, *ids[1], sep]
        ends = len(ids[0]) + 2
        assert batch.segments[row].tolist()[:ends] == [0] * ends
        assert batch.segments[row, ends : len(real)].eq(1).all()
    model = LitBERTClassifier(data.vocab_size, data.context_length, 2, dropout=0.0).eval()
    one = model(batch.tokens, batch.segments, batch.mask)
    assert not torch.allclose(one, model(batch.tokens, None, batch.mask))


def test_the_longer_text_gives_way_first():
    assert [len(part) for part in _cut([list(range(9)), list(range(3))], 8)] == [5, 3]
    assert [len(part) for part in _cut([list(range(9)), list(range(8))], 8)] == [4, 4]
    assert [len(part) for part in _cut([list(range(2)), list(range(9))], 8)] == [2, 6]
    assert [len(part) for part in _cut([list(range(12))], 8)] == [8]


def test_a_vocabulary_that_cannot_part_a_pair_is_refused(pairs, tmp_path):
    from datamodules.files.tokenization import train_tokenizer

    train_tokenizer("char", ["it is red"], 50, ("[UNK]",), "[UNK]").save(
        str(tmp_path / "tokenizer.json")
    )
    data = LabelledTextDataModule(pairs, "a", "same", str(tmp_path), second="b")
    with pytest.raises(InputError, match=r"a pair needs \[SEP\]"):
        data.split("train")


def test_new_pairs_need_both_columns(pairs, tmp_path):
    known = make(pairs)
    new = tmp_path / "new.csv"
    pd.DataFrame({"a": ["it is red"], "b": ["red"]}).to_csv(new, index=False)
    data = make("gone.csv", predict_path=str(new))
    data.load_state_dict(known.state_dict())
    assert data.split("predict").segments.sum() == 2
    outputs = {"class": torch.tensor([1]), "probability": torch.tensor([[0.2, 0.8]])}
    frame = data.prediction_frame(outputs)
    assert frame.iloc[0].to_dict()["second"] == "red"
    assert frame.iloc[0].to_dict()["class"] == "yes"
    pd.DataFrame({"a": ["it is red"]}).to_csv(new, index=False)
    again = make("gone.csv", predict_path=str(new))
    again.load_state_dict(known.state_dict())
    with pytest.raises(InputError, match="'b'"):
        again.split("predict")


@pytest.mark.parametrize("kind", [LitBERTClassifier, LitGPTClassifier])
def test_classes_weigh_by_the_inverse_of_their_share_in_training_alone(pairs, kind):
    data = make(pairs, class_weight="balanced")
    y = data.split("train").y
    weights = data.class_weights
    shares = torch.bincount(y) / len(y)
    torch.testing.assert_close(torch.tensor(weights), 1 / (2 * shares), rtol=1e-6, atol=0)
    model = kind(data.vocab_size, data.context_length, 2, dropout=0.0, class_weights=weights)
    assert not any("class_weights" in name for name in model.state_dict())
    rows = torch.arange(30)
    batch = type(data.split("train"))(
        *(None if field is None else field[rows] for field in data.split("train"))
    )
    output = model.train().step(batch)
    losses = F.cross_entropy(output.preds, batch.y, reduction="none")
    weight = torch.tensor(weights)[batch.y]
    torch.testing.assert_close(output.loss, (weight * losses).sum() / weight.sum())
    torch.testing.assert_close(torch.as_tensor(output.num_targets), weight.sum())
    model.eval()
    torch.testing.assert_close(model.eval_step(batch).loss, losses.mean())
    with pytest.raises(ValueError, match="class_weights needs a number above 0"):
        kind(9, 8, 3, class_weights=[1.0, 2.0])


def test_rivals_and_baseline_are_judged_by_macro_f1_too(pairs):
    from sklearn.metrics import f1_score

    data = make(pairs)
    truth = data.split("test").y.numpy()
    always = f1_score(truth, 0 * truth, average="macro", zero_division=0.0)
    assert data.baseline["test/macro_f1"].value == pytest.approx(always)
    assert set(data.rivals) == {"test/accuracy", "test/macro_f1"}
    model = LitBERTClassifier(data.vocab_size, data.context_length, 2)
    preds = torch.nn.functional.one_hot(torch.from_numpy(truth) * 0, 2).float()
    model.test_metrics.update(preds, torch.from_numpy(truth))
    assert float(model.test_metrics.compute()["test/macro_f1"]) == pytest.approx(always)
