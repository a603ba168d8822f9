"""Texts with a class each: rows, cut ones, vocabularies, rivals, and wrong files."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from datamodules import InputError, LabelledTextDataModule
from datamodules.files.tokenization import train_characters, train_tokenizer


def labelled(tmp_path, rows=60):
    path = tmp_path / "labelled.csv"
    good = [("a good cat", "good"), ("such a nice dog", "good"), ("bad", "bad")]
    frame = pd.DataFrame([good[i % 3] for i in range(rows)], columns=["text", "label"])
    frame.to_csv(path, index=False)
    return str(path)


def test_labelled_rows(tmp_path):
    data = LabelledTextDataModule(labelled(tmp_path), tokenizer="word", context_length=5)
    assert data.class_names == ["bad", "good"]
    assert data.num_classes == 2
    train = data.split("train")
    assert train.tokens.shape[1] == 5
    for row, label, real, y in zip(train.tokens, train.labels, train.mask, train.y, strict=True):
        length = int(real.sum())
        assert row[0] == 2
        assert row[length - 1] == 3
        assert (row[length:] == 0).all()
        assert torch.equal(label[: length - 1], row[1:length])
        assert (label[length - 1 :] == -100).all()
        words = data.tokenizer.decode(row[:length].tolist(), skip_special_tokens=True)
        assert (y == 0) == (words == "bad")
    zeros = torch.zeros(12).long()
    frame = data.prediction_frame(
        {"class": zeros, "probability": torch.ones(12, 2), "target": zeros}
    )
    assert list(frame) == ["text", "class", "probability_bad", "probability_good", "target"]


def test_labelled_rows_of_a_causal_vocabulary(tmp_path):
    bpe = train_tokenizer("bpe", ["such a nice dog", "a good cat"], 300, ("<|endoftext|>",), None)
    (tmp_path / "tokenizer.json").write_text(bpe.to_str())
    data = LabelledTextDataModule(labelled(tmp_path), tokenizer=str(tmp_path), context_length=7)
    train = data.split("train")
    end = data.tokenizer.token_to_id("<|endoftext|>")
    last = train.tokens[torch.arange(len(train.tokens)), train.mask.sum(1) - 1]
    assert (last == end).all()


def test_wrong_labelled_files(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("words,label\na,b\n")
    with pytest.raises(InputError, match=r"has no column 'text'; it has words, label"):
        LabelledTextDataModule(str(path)).setup("fit")
    path.write_text("text,label\n" + "a,b\n" * 9)
    with pytest.raises(InputError, match="'label' has the single class 'b'"):
        LabelledTextDataModule(str(path)).setup("fit")
    path.write_text("text,label\na,b\n,c\n")
    with pytest.raises(InputError, match="row 3: no value in column 'text'"):
        LabelledTextDataModule(str(path)).setup("fit")


def test_cut_texts_classes_and_rivals(tmp_path, capsys):
    path = labelled(tmp_path)
    data = LabelledTextDataModule(path, tokenizer="word", context_length=4)
    data.split("train")
    assert "are longer than --data.context_length 4" in capsys.readouterr().err
    assert data.rivals["test/accuracy"]["TF-IDF and logistic regression"] == 1.0
    state = data.state_dict()
    texts = pd.DataFrame({"text": ["nice cat"], "label": ["good"]})
    texts.to_csv(tmp_path / "new.csv", index=False)
    new = LabelledTextDataModule("gone.csv", predict_path=str(tmp_path / "new.csv"))
    new.load_state_dict(state)
    assert new.class_names == ["bad", "good"]
    assert new.split("predict").tokens.shape == (1, 4)
    Path(path).write_text(Path(path).read_text() + "one more cat,good\n" * 9)
    again = LabelledTextDataModule(path, tokenizer="word", context_length=4)
    again.load_state_dict(state)
    assert "test rows it was trained on" in again.other_rows("test")


def test_a_vocabulary_without_delimiters(tmp_path):
    characters = train_characters(["such a nice dog", "bad"], 100, ("[UNK]",), "[UNK]")
    (tmp_path / "tokenizer.json").write_text(characters.to_str())
    data = LabelledTextDataModule(labelled(tmp_path), tokenizer=str(tmp_path), context_length=40)
    assert data.split("train").mask.sum(1).max() == len("such a nice dog")
