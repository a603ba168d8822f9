"""Vocabularies: what goes in comes out, and numbers follow the order asked for."""

from types import SimpleNamespace

import pytest

from datamodules import PromptsDataModule
from datamodules.errors import InputError
from datamodules.files.tokenization import (
    TOKENIZER_KEY,
    kept_vocabulary,
    train_characters,
    train_tokenizer,
)
from lit_models.command.cli import LitCLI

TEXT = "the cat sat\non the mat"


@pytest.mark.parametrize("kind", ["char", "word", "bpe", "wordpiece"])
def test_round_trip(kind):
    tokenizer = train_tokenizer(kind, [TEXT] * 3, 300, ["[PAD]", "[UNK]"], "[UNK]")
    assert tokenizer.token_to_id("[PAD]") == 0
    assert tokenizer.token_to_id("[UNK]") == 1
    ids = tokenizer.encode(TEXT).ids
    expected = TEXT if kind in ("char", "bpe") else TEXT.replace("\n", " ")
    assert tokenizer.decode(ids) == expected
    unknown = tokenizer.encode("\u00e9").ids
    assert (unknown == [1]) == (kind != "bpe")


def test_wrong_vocabularies():
    with pytest.raises(InputError, match="vocab_size must exceed the 2 special tokens, got 2"):
        train_tokenizer("char", [TEXT], 2, ["[PAD]", "[UNK]"], "[UNK]")
    with pytest.raises(InputError, match="needs unk_token"):
        train_tokenizer("word", [TEXT], 20, ["[PAD]"])


def test_the_vocabulary_of_a_checkpoint_is_adopted_by_data_of_another_class(tmp_path):
    tokenizer = train_characters(["abc"], 10, ("[UNK]",), "[UNK]")
    knowledge = {"knowledge": {TOKENIZER_KEY: tokenizer.to_str()}}
    for checkpoint in ({"TextFileDataModule": knowledge}, {"PromptsDataModule": knowledge}):
        prompts = PromptsDataModule(str(tmp_path / "p.txt"), tokenizer="char")
        cli = SimpleNamespace(checkpoint={"epoch": 1, **checkpoint}, _knows_checkpoint=False)
        LitCLI._restore_knowledge(cli, prompts)
        assert prompts.tokenizer.get_vocab() == tokenizer.get_vocab()
    assert kept_vocabulary({"epoch": 1, "SineDataModule": {"knowledge": {}}}) == {}
