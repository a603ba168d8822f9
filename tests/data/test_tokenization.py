"""Vocabularies: what goes in comes out, and numbers follow the order asked for."""

import pytest

from datamodules.errors import InputError
from datamodules.files.tokenization import train_tokenizer

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
