"""Sentence pairs: what goes in comes out, and every bad line is named."""

import json
import random

import pytest
import torch

from datamodules import InputError, TextPairsDataModule
from datamodules.batches import BOS, EOS

FIELDS = ["quelle", "ziel"]
WORDS = ["ein", "hund", "läuft", "über", "gras", "[EOS]", "straße", "rot", "\u732b"]


def sentences(count, seed=0):
    draw = random.Random(seed)
    for _ in range(count):
        src = draw.choices(WORDS, k=draw.randint(1, 9))
        yield " ".join(src), " ".join(reversed(src))


def write(path, pairs):
    path.write_text("".join(f"{src}\t{tgt}\n" for src, tgt in pairs), encoding="utf-8")
    return str(path)


@pytest.fixture
def files(tmp_path):
    return {
        name: write(tmp_path / f"{name}.tsv", sentences(count, seed))
        for seed, (name, count) in enumerate([("path", 97), ("val_path", 23), ("test_path", 29)])
    }


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("kind", ["word", "bpe", "char"])
def test_round_trip(files, kind, joint):
    data = TextPairsDataModule(**files, tokenizer=kind, vocab_size=400, joint_vocab=joint)
    for split, seed, count in (("train", 0, 97), ("val", 1, 23), ("test", 2, 29)):
        batch = data.split(split)
        pairs = list(sentences(count, seed))
        assert data.decode(batch.tgt[:, 1:]) == [tgt for _, tgt in pairs]
        assert data.references(split) == [tgt for _, tgt in pairs]
        unended = torch.nn.functional.pad(
            batch.tgt[:1, 1:-1].masked_fill(batch.tgt[:1, 1:-1] == EOS, 0), (0, 2)
        )
        assert data.decode(unended)[0] == pairs[0][1]
        assert (batch.tgt[:, 0] == BOS).all()
        assert (batch.src.gather(1, batch.src_mask.sum(1, keepdim=True) - 1) == EOS).all()
        assert int((batch.tgt == EOS).sum()) == count  # a literal [EOS] in the text is text
        assert int(batch.tgt.max()) < data.tgt_vocab_size
        assert int(batch.src.max()) < data.src_vocab_size


def test_the_vocabulary_is_of_the_training_part_alone(files, tmp_path):
    data = TextPairsDataModule(**files, tokenizer="word")
    fingerprint = data.state_dict()
    write(tmp_path / "val_path.tsv", [("new words", "never seen")])
    other = TextPairsDataModule(**files, tokenizer="word")
    other.load_state_dict(fingerprint)
    assert other.src_vocab_size == data.src_vocab_size
    write(tmp_path / "path.tsv", [("other", "words")] * 97)
    grown = TextPairsDataModule(**files, tokenizer="word")
    grown.load_state_dict(fingerprint)
    assert grown.src_vocab_size == data.src_vocab_size
    assert "1 val rows it was trained on 0" in grown.other_rows("val")
    older = {"vocabulary": data._fingerprint}
    with pytest.raises(InputError, match=r"path.tsv is not the checkpoint's; give the training"):
        TextPairsDataModule(**files, tokenizer="word").load_state_dict(older)


def test_prediction_needs_no_training_file(files, tmp_path):
    knowledge = TextPairsDataModule(**files, tokenizer="word").knowledge()
    new = write(tmp_path / "new.tsv", [("hund", "hund")])
    data = TextPairsDataModule("gone.tsv", predict_path=new, tokenizer="word")
    data.adopt(knowledge)
    assert data.split("predict").src.shape == (1, 2)
    assert data.src_vocab_size > 3


def test_long_and_empty_lines_are_skipped_or_cut(files, tmp_path, capsys):
    files["val_path"] = write(tmp_path / "v.tsv", [("hund " * 9, "rot"), ("", "rot"), ("rot", "x")])
    options = {**files, "tokenizer": "word", "max_length": 7, "empty": "skip"}
    with pytest.raises(InputError, match=r"v.tsv, line 1: 10 src tokens.*too_long skip or cut"):
        TextPairsDataModule(**options).split("val")
    skipped = TextPairsDataModule(**options, too_long="skip")
    assert len(skipped.split("val").src) == 1
    assert skipped.references("val") == ["x"]
    cut = TextPairsDataModule(**options, too_long="cut")
    assert cut.split("val").src[0].tolist().index(EOS) == 6
    said = capsys.readouterr().err
    assert "1 of 3 lines lack a side and are skipped" in said
    assert "1 of 2 val pairs exceed max_length=7 and are cut" in said


def test_repeated_pairs_and_a_third_column_are_said(tmp_path, capsys):
    path = tmp_path / "deu.txt"
    path.write_text("".join(f"Go.\tGeh {i % 5}.\tCC-BY {i}\n" for i in range(40)))
    data = TextPairsDataModule(str(path), tokenizer="word")
    assert data.references("test")[0].startswith("Geh")
    said = capsys.readouterr().err
    assert "the third column is no part of a pair" in said
    assert "4 of the 4 test pairs are training pairs too" in said


def test_a_vocabulary_that_cannot_be_reversed_is_refused(files):
    with pytest.raises(InputError, match=r"use --data\.tokenizer bpe"):
        TextPairsDataModule(**files, tokenizer="wordpiece")


def test_shares_of_one_file_are_disjoint(tmp_path):
    pairs = [(f"satz {i}", f"sentence {i}") for i in range(97)]
    data = TextPairsDataModule(write(tmp_path / "a.tsv", pairs), vocab_size=300)
    found = [set(data.references(split)) for split in ("train", "val", "test")]
    assert [len(part) for part in found] == [78, 9, 10]
    assert set.union(*found) == {tgt for _, tgt in pairs}
    assert data.num_train == 78


def test_predictions_keep_every_line(files, tmp_path):
    lines = tmp_path / "new.txt"
    lines.write_text("hund läuft\nein rot gras\nkatze\n", encoding="utf-8")
    data = TextPairsDataModule(**files, predict_path=str(lines), vocab_size=400)
    assert data.predict_split == "predict"
    batch = data.split("predict")
    frame = data.prediction_frame({"prediction": batch.src, "target": batch.tgt[:, 1:]})
    assert frame["line"].tolist() == [1, 2, 3]
    assert frame["source"].tolist() == frame["translation"].tolist()
    assert frame["source"].tolist() == ["hund läuft", "ein rot gras", "katze"]
    assert "reference" not in frame


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\tb\n\nc\td\n", "line 2: empty; remove the line"),
        ("a\tb\n   \n", "line 2: empty; remove the line"),
        ("a\tb\nc d\n", "line 2: 0 tabs; a pair is source<TAB>target"),
        ("a\tb\tc\nd\te\n", "line 1: 2 tabs"),
        ("a\tb\n\tc\n", "line 2: the source is empty"),
        ("a\tb\nc\t\n", "line 2: the target is empty"),
        ("", "is empty; it needs source<TAB>target lines"),
    ],
)
def test_bad_lines_are_named(files, tmp_path, text, message):
    path = tmp_path / "bad.tsv"
    path.write_text(text)
    for option in ("path", "val_path", "test_path"):
        with pytest.raises(InputError, match=f"bad.tsv.*{message}"):
            _ = TextPairsDataModule(**{**files, option: str(path)}).src_vocab_size


def test_unseen_tokens_are_named(files, tmp_path, capsys):
    pairs = [("hund läuft", "gras rot"), ("hund bellt laut", "rot gras")]
    files["val_path"] = write(tmp_path / "val.tsv", pairs)
    data = TextPairsDataModule(**files, tokenizer="word")
    batch = data.split("val")
    message = "val.tsv, line 2: the vocabulary lacks 'bellt' (2 such src tokens); read as [UNK]"
    assert message in capsys.readouterr().err
    assert data.token_names(batch.src[1], "src") == ["hund", "[UNK]", "[UNK]", "[EOS]"]
    strict = TextPairsDataModule(**files, tokenizer="word", unknown="error")
    with pytest.raises(InputError, match="line 2: the vocabulary lacks 'bellt'; raise vocab_size"):
        strict.split("val")


def test_long_sentences_and_missing_files(files, tmp_path):
    data = TextPairsDataModule(**files, tokenizer="word", max_length=7)
    with pytest.raises(InputError, match=r"path.tsv, line \d+: \d+ src tokens, .* max_length=7"):
        data.split("train")
    with pytest.raises(InputError, match="batch_tokens=100 cannot hold a sentence of max_length"):
        TextPairsDataModule(**files, batch_tokens=100)
    with pytest.raises(InputError, match=r"no file 'none\.tsv'"):
        _ = TextPairsDataModule("none.tsv").num_train
    binary = tmp_path / "binary.tsv"
    binary.write_bytes(b"\xff\xfe\x00a\tb\n")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        _ = TextPairsDataModule(str(binary)).num_train


def test_names_of_byte_pairs_are_readable(files):
    data = TextPairsDataModule(**files, vocab_size=400)
    names = data.token_names(data.split("train").tgt[0], "tgt")
    assert names[0] == "[BOS]"
    assert "".join(names[1 : names.index("[EOS]", 1)]) == data.references("train")[0]
    assert torch.equal(data.split("train").tgt[0, :1], torch.tensor([BOS]))


def test_two_files_and_json_lines_are_the_same_pairs(files, tmp_path):
    pairs = list(sentences(97, 0))
    for name, side in (("de", 0), ("en", 1)):
        (tmp_path / f"train.{name}").write_text("\n".join(p[side] for p in pairs) + "\n")
    rows = [json.dumps({"quelle": src, "ziel": tgt, "id": 7}) + "\n" for src, tgt in pairs]
    (tmp_path / "train.jsonl").write_text("".join(rows))
    two = [str(tmp_path / "train.de"), str(tmp_path / "train.en")]
    expected = TextPairsDataModule(files["path"], tokenizer="word")
    for path, options in ((two, {}), (str(tmp_path / "train.jsonl"), {"fields": FIELDS})):
        data = TextPairsDataModule(path, tokenizer="word", **options)
        for split in ("train", "val", "test"):
            assert torch.equal(data.split(split).tgt, expected.split(split).tgt)
        assert (data.row_hashes("test") == expected.row_hashes("test")).all()
    (tmp_path / "new.jsonl").write_text(json.dumps({"quelle": pairs[0][0]}) + "\n")
    asked = TextPairsDataModule(
        two, tokenizer="word", predict_path=str(tmp_path / "new.jsonl"), fields=FIELDS
    )
    frame = asked.prediction_frame({"prediction": asked.split("predict").src})
    assert frame[["source", "translation"]].iloc[0].tolist() == [pairs[0][0]] * 2


def test_files_that_do_not_belong_together_are_named(tmp_path):
    for name, text in (("a", "ein\nzwei\n"), ("b", "one\n"), ("c", "one\n\n")):
        (tmp_path / name).write_text(text)
    a, b, c = (str(tmp_path / name) for name in "abc")
    with pytest.raises(InputError, match=r"a has 2 lines and .*b 1; line k of both makes a pair"):
        _ = TextPairsDataModule([a, b]).num_train
    with pytest.raises(InputError, match=r"a and .*c, line 2: the target is empty"):
        _ = TextPairsDataModule([a, c]).num_train
    with pytest.raises(InputError, match="one of sources and one of targets; got 3"):
        _ = TextPairsDataModule([a, b, c]).num_train
    (tmp_path / "d.jsonl").write_text('{"source": "ein"}\n')
    with pytest.raises(InputError, match=r"line 1: no text in the field 'target'"):
        _ = TextPairsDataModule(str(tmp_path / "d.jsonl")).num_train
