"""Vocabularies for a user's text, trained on its training part by Hugging Face ``tokenizers``."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from datamodules.errors import InputError
from datamodules.files.notes import say
from datamodules.files.torch_file import load_plain

TOKENIZER_KEY = "tokenizer"
END_OF_TEXT = "<|endoftext|>"
TokenizerKind = Literal["char", "word", "bpe", "wordpiece"]
_ANY = r"[\s\S]"  # any character
_CODE_POINTS = 0x110000


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
            tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_ANY), "isolated")
            tokenizer.decoder = decoders.Fuse()
        else:
            tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        trainer = trainers.WordLevelTrainer(**options)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def train_characters(
    texts: Iterable[str],
    vocab_size: int,
    special_tokens: Sequence[str],
    unk_token: str | None = None,
) -> Any:
    """As :func:`train_tokenizer` for ``char``, from counts of code points: a hundred times faster.

    The most frequent character comes first, ties in the order of their code points.
    """
    tokenizer = train_tokenizer("char", (), vocab_size, special_tokens, unk_token)
    counts = np.zeros(_CODE_POINTS, dtype=np.int64)
    for text in texts:
        counts += np.bincount(_code_points(text), minlength=_CODE_POINTS)
    order = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]
    state = json.loads(tokenizer.to_str())
    vocabulary = {token: number for number, token in enumerate(special_tokens)}
    for point in order[: vocab_size - len(special_tokens)].tolist():
        vocabulary[chr(point)] = len(vocabulary)
    state["model"]["vocab"] = vocabulary
    return _read(json.dumps(state))


def _code_points(text: str) -> Any:
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


def character_table(tokenizer: Any) -> Any:
    """Number of the token of each code point, ``(1114112,)``; None where tokens are longer."""
    state = json.loads(tokenizer.to_str())
    splits = state["pre_tokenizer"] or {}
    if state["model"].get("type") != "WordLevel" or splits.get("type") != "Split":
        return None
    if splits["pattern"] != {"Regex": _ANY} or state["normalizer"] is not None:
        return None
    vocabulary = state["model"]["vocab"]
    table = np.full(_CODE_POINTS, vocabulary[state["model"]["unk_token"]], dtype=np.int32)
    for token, number in vocabulary.items():
        if len(token) == 1:
            table[ord(token)] = number
    return table


def _read(text: str) -> Any:
    """A tokenizer from its JSON; what it would cut or pad is left to who encodes."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def has_tokenizer(path: Path) -> bool:
    """Whether a folder, or one of our checkpoints, holds a vocabulary."""
    if path.is_dir():
        return any(all((path / name).is_file() for name in names) for names in _LAYOUTS)
    checkpoint = load_plain(path, "checkpoint", "give an earlier one")
    return isinstance(checkpoint, dict) and bool(kept_vocabulary(checkpoint))


# Files of a folder that holds a vocabulary, the whole one first.
_LAYOUTS = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("vocab.txt",))


def _from_parts(folder: Path) -> Any:
    """A tokenizer from GPT-2's ``vocab.json`` and ``merges.txt``, or BERT's ``vocab.txt``."""
    from tokenizers import BertWordPieceTokenizer, ByteLevelBPETokenizer

    if (folder / "vocab.json").is_file():
        parts = str(folder / "vocab.json"), str(folder / "merges.txt")
        tokenizer: Any = ByteLevelBPETokenizer.from_file(*parts)
        tokenizer.add_special_tokens([END_OF_TEXT])
    else:
        config = folder / "tokenizer_config.json"
        said = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
        lower = bool(said.get("do_lower_case", True))
        tokenizer = BertWordPieceTokenizer.from_file(str(folder / "vocab.txt"), lowercase=lower)
    return _read(tokenizer.to_str())


def load_tokenizer(source: str) -> Any:
    """Reads a trained vocabulary; truncation and padding saved in it are switched off.

    Args:
        source: A ``tokenizer.json``, a folder that holds one, or ``vocab.json`` and ``merges.txt``,
            or ``vocab.txt``; or one of our checkpoints, which hold the vocabulary of their text.

    Returns:
        A ``tokenizers.Tokenizer``.

    Raises:
        InputError: If there is none.
    """
    path = Path(source)
    if path.is_dir():
        if not (path / "tokenizer.json").is_file() and has_tokenizer(path):
            return _from_parts(path)
        path = path / "tokenizer.json"
    if not path.is_file():
        raise InputError(
            f"no tokenizer {str(path)!r}; give char, bpe, wordpiece, a tokenizer.json, a folder "
            "with one or a checkpoint"
        )
    if path.suffix != ".ckpt":
        try:
            return _read(path.read_text(encoding="utf-8"))
        except Exception as error:  # tokenizers raises bare Exception
            raise InputError(f"{path} is no tokenizer file: {error}") from error
    checkpoint = load_plain(path, "checkpoint", "give an earlier one")
    kept = kept_vocabulary(checkpoint) if isinstance(checkpoint, dict) else {}
    if not kept:
        raise InputError(f"{path} holds no vocabulary; its model was not trained on a text file")
    try:
        return _read(kept[TOKENIZER_KEY])
    except Exception as error:  # tokenizers raises bare Exception
        raise InputError(f"{path} holds no readable vocabulary: {error}") from error


def kept_vocabulary(checkpoint: Mapping[str, Any]) -> dict[str, str]:
    """The vocabulary that a checkpoint holds, to be adopted by data of any class; {} for none."""
    found = next(filter(None, map(_kept, checkpoint.values())), None)
    return {} if found is None else {TOKENIZER_KEY: found}


def _kept(state: Any) -> str | None:
    """The vocabulary in what a checkpoint holds of its data; older ones hold it openly."""
    if not isinstance(state, dict):
        return None
    knowledge = state.get("knowledge")
    found = (knowledge if isinstance(knowledge, dict) else state).get(TOKENIZER_KEY)
    return found if isinstance(found, str) else None


def adopted_tokenizer(knowledge: Mapping[str, Any]) -> Any:
    """The vocabulary among what a run knows of its data; None where there is none."""
    text = knowledge.get(TOKENIZER_KEY)
    return None if text is None else _read(text)


def document_end(tokenizer: Any) -> int | None:
    """Number of the token that ends a document; None where the vocabulary has none."""
    numbers = (tokenizer.token_to_id(name) for name in (END_OF_TEXT, "[SEP]"))
    return next((int(number) for number in numbers if number is not None), None)


def say_unknown(tokenizer: Any, rows: Iterable[Sequence[int]], what: str) -> None:
    """Says in one line how many tokens a vocabulary lacks; byte pairs lack none.

    Args:
        tokenizer: The vocabulary.
        rows: Tokens.
        what: Whose they are.
    """
    number = tokenizer.token_to_id("[UNK]")
    if number is None:
        return
    counts = [(list(row).count(number), len(row)) for row in rows]
    lacking, total = (sum(column) for column in zip(*counts, strict=True))
    if lacking:
        say(f"the vocabulary lacks {lacking:,} of the {total:,} tokens of {what}; read as [UNK]")


def special_token(tokenizer: Any, name: str, purpose: str) -> int:
    """Number of a special token.

    Raises:
        InputError: If the vocabulary lacks it.
    """
    number = tokenizer.token_to_id(name)
    if number is None:
        raise InputError(f"the tokenizer has no token {name!r}, which {purpose} needs")
    return int(number)
