"""A text file as tokens, encoded once and memory-mapped ever after."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datamodules.errors import InputError
from datamodules.files.tokenization import load_tokenizer, train_tokenizer
from datamodules.files.whole_file import whole_file

Tokens = np.ndarray[Any, Any]
_VERSION = "1"  # of the files below; raised when their content changes
_PIECE = 1 << 20  # characters encoded at a time


class Corpus(NamedTuple):
    """An encoded text.

    Attributes:
        tokenizer: Its vocabulary.
        tokens: Memory-mapped tokens, ``(N,)``.
        ends: Token at which the training and the validation part end.
    """

    tokenizer: Any
    tokens: Tokens
    ends: tuple[int, int]


def read_corpus(
    path: str,
    tokenizer: str,
    vocab_size: int,
    special_tokens: tuple[str, ...],
    unk_token: str | None,
    shares: tuple[float, float],
    cache_dir: str | None,
) -> Corpus:
    """Encodes a text, or finds it encoded.

    The parts are contiguous; a vocabulary is trained on the training part alone. Files in the cache
    are named after the text's path, size and time of change and after the settings, so that a text
    found there is not read again; they appear by renaming, so that processes share them.

    Args:
        path: UTF-8 text file.
        tokenizer: Kind of vocabulary to train, or where to read one.
        vocab_size: Largest size of a trained vocabulary.
        special_tokens: Its first tokens.
        unk_token: Token for what it lacks.
        shares: Shares of the characters where training and validation end.
        cache_dir: Folder of the cache; ``~/.cache/lit-models`` by default.

    Raises:
        InputError: If the file cannot be read.
    """
    if not Path(path).is_file():
        raise InputError(f"no file {path!r}; give the path of a text file")
    stat = Path(path).stat()
    trained = tokenizer in ("char", "word", "bpe", "wordpiece")
    source = tokenizer if trained else load_tokenizer(tokenizer).to_str()
    text_key = (str(Path(path).resolve()), stat.st_size, stat.st_mtime_ns)
    settings = (_VERSION, text_key, source, vocab_size, special_tokens, unk_token, shares)
    digest = hashlib.sha256(repr(settings).encode())
    folder = Path(cache_dir) if cache_dir else Path.home() / ".cache" / "lit-models"
    stem = folder / digest.hexdigest()[:24]
    names = [stem.with_suffix(suffix) for suffix in (".json", ".npy", ".ends.npy")]
    if not all(name.is_file() for name in names):
        text = _read_text(path)
        bounds = tuple(round(share * len(text)) for share in shares)
        if trained:
            train = text[: bounds[0]].splitlines(keepends=True)
            kind: Any = tokenizer
            vocabulary = train_tokenizer(kind, train, vocab_size, special_tokens, unk_token)
        else:
            vocabulary = load_tokenizer(tokenizer)
        _encode(text, bounds, vocabulary, names)
    tokens = np.load(names[1], mmap_mode="r")
    train_end, val_end = np.load(names[2]).tolist()
    return Corpus(load_tokenizer(str(names[0])), tokens, (train_end, val_end))


def _read_text(path: str) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; ask for access") from error
    if not text.strip():
        raise InputError(f"{path} is empty; give a text to learn from")
    return text


def _encode(text: str, bounds: tuple[int, ...], tokenizer: Any, names: list[Path]) -> None:
    dtype = np.uint16 if tokenizer.get_vocab_size() <= 1 << 16 else np.int32
    parts, ends, count = [], [], 0
    for start, end in zip((0, *bounds), (*bounds, len(text)), strict=True):
        pieces = list(_pieces(text[start:end]))
        for encoding in tokenizer.encode_batch(pieces, add_special_tokens=False):
            parts.append(np.array(encoding.ids, dtype=dtype))
            count += len(encoding.ids)
        ends.append(count)
    names[0].parent.mkdir(parents=True, exist_ok=True)
    for name, write in (
        (names[0], lambda file: file.write(tokenizer.to_str().encode())),
        (names[1], lambda file: np.save(file, np.concatenate(parts))),
        (names[2], lambda file: np.save(file, np.array(ends[:2]))),
    ):
        with whole_file(name, "wb") as file:
            write(file)


def _pieces(text: str) -> Iterator[str]:
    """Pieces that end with a line, so that few tokens lie across a boundary."""
    start = 0
    while start < len(text):
        end = text.rfind("\n", start, start + _PIECE) + 1 or start + _PIECE
        if end >= start + _PIECE or start + _PIECE >= len(text):
            end = min(start + _PIECE, len(text))
        yield text[start:end]
        start = end
