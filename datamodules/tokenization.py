"""Vocabularies for a user's text, trained on its training part by Hugging Face ``tokenizers``."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from datamodules.errors import InputError

TokenizerKind = Literal["char", "word", "bpe", "wordpiece"]


def train_tokenizer(
    kind: TokenizerKind,
    texts: Iterable[str],
    vocab_size: int,
    special_tokens: Sequence[str],
    unk_token: str | None = None,
) -> Any:
    """Trains a vocabulary.

    Args:
        kind: ``char`` one token per character, ``word`` per blank-separated word, ``bpe`` bytes
            merged by frequency (as GPT-2), ``wordpiece`` pieces of words (as BERT).
        texts: The training text.
        vocab_size: Largest size of the vocabulary, special tokens included.
        special_tokens: Tokens with the first numbers, in this order.
        unk_token: Special token for what the vocabulary lacks; needed by all kinds but ``bpe``.

    Returns:
        A ``tokenizers.Tokenizer`` without post-processing.

    Raises:
        InputError: If the vocabulary cannot hold the special tokens and one more.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    if vocab_size <= len(special_tokens):
        raise InputError(
            f"vocab_size must exceed the {len(special_tokens)} special tokens, got {vocab_size}"
        )
    if kind != "bpe" and unk_token not in special_tokens:
        raise InputError(f"a {kind} vocabulary needs unk_token among {list(special_tokens)}")
    options: dict[str, Any] = {
        "vocab_size": vocab_size,
        "special_tokens": list(special_tokens),
        "show_progress": False,
    }
    if kind == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer: Any = trainers.BpeTrainer(initial_alphabet=alphabet, **options)
    elif kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token=unk_token))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(**options)
    else:
        tokenizer = Tokenizer(models.WordLevel(unk_token=unk_token))
        if kind == "char":
            tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
            tokenizer.decoder = decoders.Fuse()
        else:
            tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        trainer = trainers.WordLevelTrainer(**options)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
