"""A user's text: windows, parts, vocabularies, the cache, prompts, and every kind of wrong file."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from datamodules import (
    InputError,
    LabelledTextDataModule,
    PromptsDataModule,
    TextFileDataModule,
)
from datamodules.files.token_cache import encoder
from datamodules.files.tokenization import train_characters, train_tokenizer
from datamodules.own.prompts import PromptTemplate, prompt_batch

WORDS = "the cat sat on the mat and the dog ran to the red hat"


@pytest.fixture
def text(tmp_path):
    lines = [" ".join(WORDS.split()[i % 7 : i % 7 + 3 + i % 5]) for i in range(400)]
    path = tmp_path / "text.txt"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def module(text, tmp_path, **options):
    return TextFileDataModule(text, cache_dir=str(tmp_path / "cache"), **options)


def test_parts_are_contiguous_and_whole(text, tmp_path):
    data = module(text, tmp_path, seq_len=13, val_fraction=0.1, test_fraction=0.2)
    parts = [data.decode(torch.tensor(data._part(s).astype(int))) for s in ("train", "val", "test")]
    whole = Path(text).read_text()
    assert "".join(parts) == whole
    assert len(parts[1]) == pytest.approx(0.1 * len(whole), abs=1)
    assert len(parts[2]) == pytest.approx(0.2 * len(whole), abs=1)


def test_evaluation_scores_every_token_once(text, tmp_path):
    data = module(text, tmp_path, seq_len=13)
    part = torch.tensor(data._part("val").astype(int))
    batches = list(data.val_dataloader())
    tokens = torch.cat([b.tokens for b in batches])
    labels = torch.cat([b.labels for b in batches])
    count = (len(part) - 1) // 13 * 13
    assert torch.equal(tokens.flatten(), part[:count])
    assert torch.equal(labels.flatten(), part[1 : count + 1])


def test_training_windows_shift_between_epochs(text, tmp_path):
    data = module(text, tmp_path, seq_len=13, batch_size=5, seed=3)
    part = torch.tensor(data._part("train").astype(int))
    text_of = part.unfold(0, 14, 1)
    starts = []
    loader = data.train_dataloader()
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        batches = list(loader)
        assert len(batches) == len(loader)
        rows = torch.cat([torch.cat([b.tokens, b.labels[:, -1:]], 1) for b in batches])
        found = [(text_of == row).all(1).any().item() for row in rows]
        assert all(found)
        starts.append(rows)
    assert not torch.equal(starts[0].sort(0).values, starts[1].sort(0).values)
    state = loader.state_dict()
    resumed = data.train_dataloader()
    loader.sampler.set_epoch(1)
    iterator = iter(loader)
    for _ in range(4):
        next(iterator)
    state = loader.state_dict()
    resumed.sampler.set_epoch(1)
    resumed.load_state_dict(state)
    torch.testing.assert_close(next(iter(resumed)).tokens, next(iterator).tokens, rtol=0, atol=0)
    parts = [data.train_dataloader() for _ in range(2)]
    for rank, part_loader in enumerate(parts):
        part_loader.rank, part_loader.world_size = rank, 2
        part_loader.sampler.set_epoch(1)
    loader.sampler.set_epoch(1)
    for whole, one, two in zip(loader, *parts, strict=True):
        assert torch.equal(whole.tokens[0::2], one.tokens)
        assert torch.equal(whole.labels[1::2], two.labels)


def test_the_cache_is_used_and_follows_the_text(text, tmp_path):
    first = module(text, tmp_path, seq_len=13)
    assert first.vocab_size == len(set(Path(text).read_text())) + 1
    files = sorted((tmp_path / "cache").iterdir())
    times = [file.stat().st_mtime_ns for file in files]
    again = module(text, tmp_path, seq_len=13)
    assert again.tokenizer.to_str() == first.tokenizer.to_str()
    assert [file.stat().st_mtime_ns for file in files] == times
    Path(text).write_text(Path(text).read_text() + "zebra\n")
    changed = module(text, tmp_path, seq_len=13)
    assert len(changed._corpus.tokens) > len(first._corpus.tokens)
    assert len(list((tmp_path / "cache").iterdir())) == 2 * len(files)


@pytest.mark.parametrize("kind", ["char", "bpe", "wordpiece"])
def test_kinds_and_a_vocabulary_that_is_given(text, tmp_path, kind):
    data = module(text, tmp_path, tokenizer=kind, seq_len=13, max_vocab_size=300)
    batch = next(iter(data.test_dataloader()))
    assert "the" in data.decode(batch.tokens[0])
    torch.save({"TextFileDataModule": data.state_dict()}, tmp_path / "x.ckpt")
    (tmp_path / "tokenizer.json").write_text(data.tokenizer.to_str())
    for source in ("x.ckpt", "tokenizer.json", "."):
        given = module(text, tmp_path, tokenizer=str(tmp_path / source), seq_len=13)
        assert given.vocab_size == data.vocab_size
        assert torch.equal(next(iter(given.test_dataloader())).tokens, batch.tokens)


def test_masked_rows_are_pairs(text, tmp_path):
    data = module(
        text, tmp_path, tokenizer="wordpiece", objective="masked", seq_len=14, batch_size=64
    )
    loader = data.train_dataloader()
    batch = next(iter(loader))
    plain = torch.where(batch.labels >= 0, batch.labels, batch.tokens)
    assert (plain[:, 0] == 2).all()
    assert (plain[:, 7] == 3).all()
    assert (plain[:, 13] == 3).all()
    assert batch.segments[0].tolist() == [0] * 8 + [1] * 6
    first, second, _ = data.split("train")
    true_pairs = set(map(tuple, torch.cat([first, second], dim=1).tolist()))
    found = [(*row[1:7], *row[8:13]) in true_pairs for row in plain.tolist()]
    is_next = batch.is_next.bool().tolist()
    assert all(pair for pair, following in zip(found, is_next, strict=True) if following)
    assert not all(found)
    assert 0 < batch.is_next.float().mean() < 1
    assert data.context_length == 14


def test_no_test_part_scores_the_validation_part(text, tmp_path):
    data = module(text, tmp_path, seq_len=13, test_fraction=0.0)
    assert torch.equal(
        next(iter(data.test_dataloader())).tokens, next(iter(data.val_dataloader())).tokens
    )


def test_wrong_files(tmp_path, text):
    with pytest.raises(InputError, match=r"no file '.*nowhere.txt'; give the path of a text file"):
        _ = module(str(tmp_path / "nowhere.txt"), tmp_path).vocab_size
    short = tmp_path / "short.txt"
    short.write_text("to be or not to be that is the question")
    with pytest.raises(
        InputError, match=r"part of .*short.txt has \d+ tokens, a row needs 65; give more text or"
    ):
        module(str(short), tmp_path).setup("fit")
    empty = tmp_path / "empty.txt"
    empty.write_text(" \n")
    with pytest.raises(InputError, match="is empty; give a text"):
        module(str(empty), tmp_path).setup("fit")
    latin = tmp_path / "latin.txt"
    latin.write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(InputError, match=r"is not UTF-8 text \(byte 3\)"):
        module(str(latin), tmp_path).setup("fit")
    with pytest.raises(InputError, match="no tokenizer 'words'; give char, bpe"):
        module(text, tmp_path, tokenizer="words").setup("fit")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="is no tokenizer file"):
        module(text, tmp_path, tokenizer=str(tmp_path)).setup("fit")
    with pytest.raises(InputError, match="leave a training part"):
        module(text, tmp_path, val_fraction=0.5, test_fraction=0.5)


def test_unknown_special_token(text, tmp_path):
    bpe = module(text, tmp_path, tokenizer="bpe", seq_len=13, max_vocab_size=300)
    (tmp_path / "tokenizer.json").write_text(bpe.tokenizer.to_str())
    data = module(text, tmp_path, tokenizer=str(tmp_path), objective="masked", seq_len=13)
    with pytest.raises(InputError, match=r"no token '\[(MASK|CLS)\]', which"):
        data.setup("fit")


def test_templates():
    ask = "I like cats"
    examples = ["the dog\tder Hund", "the cat\tdie Katze"]
    assert PromptTemplate().fill(ask) == ask
    instruction = PromptTemplate("instruction", "Translate to German")
    assert instruction.fill(ask) == "Translate to German: I like cats"
    zero = PromptTemplate("zero_shot", "Translate to German")
    assert zero.fill(ask) == "Translate to German\nQ: I like cats\nA:"
    few = PromptTemplate("few_shot", "Translate to German", examples)
    assert few.fill(ask) == (
        "Translate to German\nQ: the dog\nA: der Hund\nQ: the cat\nA: die Katze\nQ: I like cats\nA:"
    )
    thought = PromptTemplate("chain_of_thought")
    assert thought.fill("2 + 2?") == "Q: 2 + 2?\nA: Let's think step by step."
    role = PromptTemplate("role", role="a patient teacher")
    assert role.fill("Why?") == "You are a patient teacher.\nQ: Why?\nA:"
    for kind, part in (("few_shot", "examples"), ("role", "role"), ("instruction", "instruction")):
        with pytest.raises(InputError, match=rf"needs its {part}; give --data.prompt.{part}"):
            PromptTemplate(kind).fill(ask)
    with pytest.raises(InputError, match="example 1 is 'no tab'; write `question TAB answer`"):
        PromptTemplate("few_shot", examples=["no tab"]).fill(ask)


def test_prompts_of_unequal_length(text, tmp_path):
    tokenizer = module(text, tmp_path, seq_len=13).tokenizer
    batch = prompt_batch(["the cat", "a"], tokenizer)
    assert batch.mask.tolist() == [[True] * 7, [False] * 6 + [True]]
    assert tokenizer.decode(batch.tokens[1, 6:].tolist()) == "a"
    with pytest.raises(InputError, match="the prompt '' has no tokens"):
        prompt_batch(["the", ""], tokenizer)


def test_a_file_of_prompts(text, tmp_path):
    (tmp_path / "tokenizer.json").write_text(module(text, tmp_path).tokenizer.to_str())
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("the cat\n\nthe dog ran\n")
    data = PromptsDataModule(str(prompts), str(tmp_path), context_length=13)
    data.setup("predict")
    batch = next(iter(data.predict_dataloader()))
    assert batch.tokens.shape == (2, 11)
    outputs = {"completion": batch.tokens[:, -3:], "num_tokens": torch.tensor([3, 3])}
    data.stop = ["n"]
    frame = data.prediction_frame({**outputs, "ended": torch.tensor([0, 2])})
    assert frame.completion.tolist() == ["cat", "ra"]
    assert frame.ended.tolist() == ["length", "stop string"]
    assert frame.prompt.tolist() == ["the cat", "the dog ran"]
    with pytest.raises(InputError, match="a file of prompts is for predict"):
        data.setup("fit")
    prompts.write_text("\n")
    with pytest.raises(InputError, match="has no line with text"):
        PromptsDataModule(str(prompts), str(tmp_path)).setup("predict")


def test_the_vocabulary_travels_with_the_run(text, tmp_path, capsys):
    first = module(text, tmp_path, seq_len=13)
    state = first.state_dict()
    other = tmp_path / "other.txt"
    other.write_text(Path(text).read_text().replace("t", "q")[::-1])
    second = module(str(other), tmp_path, seq_len=13)
    second.load_state_dict(state)
    assert second.tokenizer.to_str() == first.tokenizer.to_str()
    assert second.tokenizer.token_to_id("[UNK]") in second.split("test")[0]
    assert "the vocabulary lacks" in capsys.readouterr().err
    assert "is not the checkpoint's" in second.other_rows("test")
    again = module(text, tmp_path, seq_len=13)
    again.load_state_dict(state)
    assert again.other_rows("test") is None
    older = module(text, tmp_path, seq_len=13, tokenizer="bpe")
    older.load_state_dict({"tokenizer": first.tokenizer.to_str()})
    assert older.vocab_size == first.vocab_size


def test_prompts_need_no_training_text(text, tmp_path):
    (tmp_path / "prompts.txt").write_text("\ufeffthe cat\n")
    data = module("gone.txt", tmp_path, predict_path=str(tmp_path / "prompts.txt"))
    data.adopt(module(text, tmp_path).knowledge())
    assert data.prompts == ["the cat"]
    assert data.split("predict").tokens.shape == (1, 7)
    with pytest.raises(InputError, match="knows no token of the prompt 'XYZ'"):
        prompt_batch(["XYZ"], data.tokenizer)


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_truncation_and_padding_of_a_tokenizer_are_off(text, tmp_path, kind):
    plain = module(text, tmp_path, tokenizer=kind, seq_len=13, max_vocab_size=300)
    tokenizer = plain.tokenizer
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=31)
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_str())
    given = module(text, tmp_path, tokenizer=str(tmp_path), seq_len=13)
    assert given.tokenizer.truncation is None
    assert given.tokenizer.padding is None
    assert len(given._corpus.tokens) == len(plain._corpus.tokens)
    rows = prompt_batch([WORDS, "the"], given.tokenizer)
    assert int(rows.mask[1].sum()) < 8 < int(rows.mask[0].sum())


@pytest.mark.parametrize("kind", ["char", "bpe", "wordpiece"])
def test_documents_are_kept_apart(tmp_path, kind):
    folder = tmp_path / "books"
    (folder / "more").mkdir(parents=True)
    (folder / "a.txt").write_text("the cat sat\r\n" * 30)
    (folder / "more" / "b.txt").write_text("a dog ran\n" * 30)
    rows = [{"text": f"row {i}\u2028 of text"} for i in range(9)]
    (folder / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for path in (str(folder), str(folder / "**" / "*.*"), [str(p) for p in folder.rglob("*.*")]):
        data = module(path, tmp_path, tokenizer=kind, seq_len=13, max_vocab_size=290)
        end = data.tokenizer.token_to_id("<|endoftext|>")
        assert (data._corpus.tokens == end).sum() == 11
    assert data._corpus.counts.sum() == len(data._corpus.tokens)
    assert data.baseline["test/cross_entropy"].value > 0
    if kind != "wordpiece":
        whole = data.decode(torch.tensor(data._corpus.tokens.astype(int)))
        assert "sat\n" in whole
        assert "\r" not in whole
        assert "row 3\u2028 of text<|endoftext|>row 4" in whole
    with pytest.raises(InputError, match="line 1: no text in the field 'body'; it has 'text'"):
        module(str(folder / "c.jsonl"), tmp_path, field="body").setup("fit")
    with pytest.raises(InputError, match=r"no file '.*nowhere/"):
        module(str(tmp_path / "nowhere" / "*.txt"), tmp_path).setup("fit")


def test_characters_by_table_are_those_of_the_tokenizer(tmp_path):
    text = "".join(chr(c) for c in (*range(32, 200), 0x4E2D, 0x1F600)) * 3 + "eee [UNK] \t\n"
    texts = [text, "e\u0301a\u0000"]
    trained = train_tokenizer("char", texts, 120, ("[UNK]",), "[UNK]")
    ours = train_characters(texts, 120, ("[UNK]",), "[UNK]")
    assert ours.get_vocab() == trained.get_vocab()
    probe = "eaz\u4e2d\u00ff\n"
    assert encoder(ours, True)([probe])[0].tolist() == trained.encode(probe).ids


def test_typed_special_tokens_are_text(tmp_path):
    frame = pd.DataFrame({"text": ["a [SEP] b [PAD]", "b a [CLS]"] * 20, "label": ["x", "y"] * 20})
    path = tmp_path / "typed.csv"
    frame.to_csv(path, index=False)
    data = LabelledTextDataModule(str(path), context_length=30)
    for row, real in zip(data.split("train").tokens, data.split("train").mask, strict=True):
        assert sum(int(token) < 5 and int(token) != 1 for token in row[real]) == 2
