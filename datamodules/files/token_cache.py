"""A text as tokens, encoded piece by piece into a file and memory-mapped ever after."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datamodules.errors import InputError
from datamodules.files.documents import Documents
from datamodules.files.notes import say
from datamodules.files.tokenization import (
    character_table,
    document_end,
    load_tokenizer,
    train_characters,
    train_tokenizer,
)
from datamodules.files.whole_file import whole_file

Tokens = np.ndarray[Any, Any]
_VERSION = "2"  # of the files below; raised when their content changes
_PIECE = 1 << 17  # characters that a tokenizer encodes at a time
_BATCH = 1 << 20  # characters encoded side by side
_LONG = 1 << 24  # characters from which on progress is shown


class Corpus(NamedTuple):
    """An encoded text.

    Attributes:
        tokenizer: Its vocabulary.
        tokens: Memory-mapped tokens, ``(N,)``.
        ends: Token at which the training and the validation part end.
        counts: How often each token occurs in the three parts, ``(3, V)``.
        fingerprint: Of the training part.
    """

    tokenizer: Any
    tokens: Tokens
    ends: tuple[int, int]
    counts: Tokens
    fingerprint: str


class Vocabulary(NamedTuple):
    """How a vocabulary is trained.

    Attributes:
        kind: Kind of vocabulary.
        size: Largest size.
        special_tokens: Its first tokens.
        unk_token: Token for what it lacks.
    """

    kind: Any
    size: int
    special_tokens: tuple[str, ...]
    unk_token: str | None


def read_corpus(
    documents: Documents,
    vocabulary: Any,
    shares: tuple[float, float],
    cache_dir: str | None,
    plain: bool,
) -> Corpus:
    """Encodes a text, or finds it encoded.

    The parts are contiguous; a vocabulary is trained on the training part alone. Several documents
    have an end token behind each. Files in the cache are named after the texts' paths, sizes and
    times of change and after the settings, so that a text found there is not read again; they
    appear by renaming, so that processes share them and an interrupted start leaves none.

    Args:
        documents: The texts.
        vocabulary: A :class:`Vocabulary` to train, or a ``tokenizers.Tokenizer``.
        shares: Shares of the characters where training and validation end.
        cache_dir: Folder of the cache; ``~/.cache/lit-models`` by default.
        plain: Whether special tokens that stand in the text are read as any other text.

    Raises:
        InputError: If a file cannot be read.
    """
    trained = isinstance(vocabulary, Vocabulary)
    source = repr(vocabulary) if trained else vocabulary.to_str()
    settings = (_VERSION, documents.key, source, shares, plain)
    digest = hashlib.sha256(repr(settings).encode()).hexdigest()[:24]
    folder = Path(cache_dir) if cache_dir else Path.home() / ".cache" / "lit-models"
    names = [folder / f"{digest}{suffix}" for suffix in (".json", ".tokens", ".parts.json")]
    if not all(name.is_file() for name in names):
        length = sum(len(text) for text, _ in documents.pieces())
        bounds = tuple(round(share * length) for share in shares)
        if not any(text.strip() for text, _ in documents.pieces()):
            raise InputError(f"{documents} is empty; give a text to learn from")
        tokenizer = _train(documents, vocabulary, bounds[0]) if trained else vocabulary
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(names[0], "wb") as file:
            file.write(tokenizer.to_str().encode())
        with whole_file(names[1], "wb") as file:
            parts = _encode(documents, bounds, length, tokenizer, plain, file)
        with whole_file(names[2]) as file:
            json.dump(parts, file)
    parts = json.loads(names[2].read_text(encoding="utf-8"))
    tokens = np.memmap(names[1], dtype=parts["dtype"], mode="r")
    ends = np.cumsum(parts["lengths"]).tolist()[:2]
    counts = np.array(parts["counts"])
    tokenizer = load_tokenizer(str(names[0]))
    _say_unknown(parts["unknown"], counts, documents)
    return Corpus(tokenizer, tokens, (ends[0], ends[1]), counts, parts["fingerprint"])


def _say_unknown(unknown: list[int], counts: Tokens, documents: Documents) -> None:
    """Says of each part how much of it the vocabulary lacks."""
    for name, count, part in zip(("train", "val", "test"), unknown, counts, strict=True):
        if count:
            say(
                f"the vocabulary lacks {count:,} of the {part.sum():,} {name} tokens of "
                f"{documents} ({count / part.sum():.2%}); they are read, and scored, as [UNK]"
            )


def _train(documents: Documents, vocabulary: Vocabulary, end: int) -> Any:
    """A vocabulary of the characters before ``end``."""
    pieces = (text for part, text, _ in _cut(documents, (end,)) if part == 0)
    if vocabulary.kind == "char":
        return train_characters(pieces, *vocabulary[1:])
    lines = (line for text in pieces for line in text.splitlines(keepends=True))
    return train_tokenizer(vocabulary.kind, lines, *vocabulary[1:])


def _cut(documents: Documents, bounds: Sequence[int]) -> Iterator[tuple[int, str, bool]]:
    """Pieces with their part, none of them across a bound, and whether a document ends there."""
    place, part = 0, 0
    for text, ends in documents.pieces():
        while part < len(bounds) and place + len(text) >= bounds[part]:
            inside = bounds[part] - place
            if text[:inside]:
                yield part, text[:inside], ends and inside == len(text)
            ends = ends and inside < len(text)
            text, place, part = text[inside:], bounds[part], part + 1
        if text:
            yield part, text, ends
        place += len(text)


def _encode(
    documents: Documents, bounds: Sequence[int], length: int, tokenizer: Any, plain: bool, file: Any
) -> dict[str, Any]:
    """Writes the tokens; returns what is known of the parts."""
    from tqdm import tqdm

    num_tokens = tokenizer.get_vocab_size()
    dtype = np.uint16 if num_tokens <= 1 << 16 else np.int32
    end_token = document_end(tokenizer) if documents.several else None
    unknown = tokenizer.token_to_id("[UNK]")
    counts = np.zeros((3, num_tokens), dtype=np.int64)
    train, encode = hashlib.sha256(), encoder(tokenizer, plain)
    hidden = True if length < _LONG else None  # None: shown on a terminal alone
    with tqdm(total=length, unit="char", unit_scale=True, desc="encoding", disable=hidden) as bar:
        for batch in _batches(_cut(documents, bounds)):
            encoded = encode([text for _, text, _ in batch])
            for (part, text, ends), ids in zip(batch, encoded, strict=True):
                closed = np.array([end_token] if ends and end_token is not None else [], dtype)
                content = np.concatenate([ids.astype(dtype), closed])
                counts[part] += np.bincount(content, minlength=num_tokens)
                if part == 0:
                    train.update(content.tobytes())
                file.write(content.tobytes())
                bar.update(len(text))
    return {
        "dtype": np.dtype(dtype).name,
        "lengths": counts.sum(1).tolist(),
        "counts": counts.tolist(),
        "unknown": counts[:, unknown].tolist() if unknown is not None else [0, 0, 0],
        "fingerprint": train.hexdigest(),
    }


def _batches(
    pieces: Iterator[tuple[int, str, bool]],
) -> Iterator[list[tuple[int, str, bool]]]:
    """Short pieces, some at a time."""
    batch: list[tuple[int, str, bool]] = []
    size = 0
    for part, text, ends in pieces:
        shorter = list(_shorter(text))
        for index, piece in enumerate(shorter):
            batch.append((part, piece, ends and index + 1 == len(shorter)))
            size += len(piece)
            if size >= _BATCH:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _shorter(text: str) -> Iterator[str]:
    """Pieces that end with a line or a word, so that few tokens lie across a boundary."""
    start = 0
    while start < len(text):
        limit = start + _PIECE
        end = len(text)
        if limit < end:
            end = (text.rfind("\n", start, limit) + 1) or (text.rfind(" ", start, limit)) or limit
            end = end if end > start else limit
        yield text[start:end]
        start = end


def encoder(tokenizer: Any, plain: bool) -> Callable[[list[str]], list[Tokens]]:
    """Encodes texts; a vocabulary of characters by a table over code points."""
    table = character_table(tokenizer)
    if table is not None:
        return lambda texts: [
            table[np.frombuffer(text.encode("utf-32-le"), dtype="<u4")] for text in texts
        ]

    def encode(texts: list[str]) -> list[Tokens]:
        tokenizer.encode_special_tokens = plain
        encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]

    return encode
