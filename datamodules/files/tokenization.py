"""Vocabularies for a user's text, trained on its training part by Hugging Face ``tokenizers``."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from datamodules.errors import InputError
from datamodules.files.torch_file import load_plain

TOKENIZER_KEY = "tokenizer"
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


def load_tokenizer(source: str) -> Any:
    """Reads a trained vocabulary.

    Args:
        source: A ``tokenizer.json``, a folder that holds one, or one of our checkpoints, which
            hold the vocabulary of their text.

    Returns:
        A ``tokenizers.Tokenizer``.

    Raises:
        InputError: If there is none.
    """
    from tokenizers import Tokenizer

    path = Path(source)
    if path.is_dir():
        path = path / "tokenizer.json"
    if not path.is_file():
        raise InputError(
            f"no tokenizer {str(path)!r}; give char, bpe, wordpiece, a tokenizer.json, a folder "
            "with one or a checkpoint"
        )
    if path.suffix != ".ckpt":
        try:
            return Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises bare Exception
            raise InputError(f"{path} is no tokenizer file: {error}") from error
    checkpoint = load_plain(path, "checkpoint", "give an earlier one")
    states = checkpoint.values() if isinstance(checkpoint, dict) else ()
    for state in states:
        if isinstance(state, dict) and isinstance(state.get(TOKENIZER_KEY), str):
            try:
                return Tokenizer.from_str(state[TOKENIZER_KEY])
            except Exception as error:  # tokenizers raises bare Exception
                raise InputError(f"{path} holds no readable vocabulary: {error}") from error
    raise InputError(f"{path} holds no vocabulary; its model was not trained on a text file")


def special_token(tokenizer: Any, name: str, purpose: str) -> int:
    """Number of a special token.

    Raises:
        InputError: If the vocabulary lacks it.
    """
    number = tokenizer.token_to_id(name)
    if number is None:
        raise InputError(f"the tokenizer has no token {name!r}, which {purpose} needs")
    return int(number)
