"""A user's parallel text: sentence pairs, with vocabularies of their own."""

import hashlib
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from datamodules.base import LitDataModule, Split
from datamodules.batches import BOS, EOS, PAD, SequencePairBatch
from datamodules.errors import InputError
from datamodules.files.notes import say
from datamodules.files.text_pairs import Pairs, read_pairs
from datamodules.files.tokenization import (
    TOKENIZER_KEY,
    TokenizerKind,
    adopted_tokenizer,
    train_tokenizer,
)
from datamodules.loading.bucket_loader import BucketLoader
from datamodules.loading.splits import hold_out

Side = Literal["src", "tgt"]
# A sentence holds no tab, so that no text of a user's reads as one of these.
_SPECIAL = ("\t[PAD]", "\t[BOS]", "\t[EOS]", "\t[UNK]")
_UNK = 3
_EXTRA: dict[Side, int] = {"src": 1, "tgt": 2}  # special tokens of a sentence


class TextPairsDataModule(LitDataModule[SequencePairBatch]):
    """Sentence pairs of a text file, for translation and every other rewriting of text.

    Vocabularies are trained on the training pairs alone. Batches hold sentences of similar length.
    The metrics of a translation come from :class:`callbacks.TranslationScore`.

    Args:
        path: Text file with one ``source<TAB>target`` pair a line; or two files, of sources and of
            targets, whose lines k are pair k; or a ``.jsonl`` file.
        val_path: Validation pairs, likewise; by default a share of ``path``.
        test_path: Test pairs, likewise; by default a share of ``path``.
        predict_path: File of sources to translate, one a line, targets optional; by default the
            test pairs.
        tokenizer: ``word`` for blank-separated words, ``bpe`` for byte pairs, or ``char``;
            ``wordpiece`` does not give back what it was given and is refused.
        vocab_size: Largest size of a vocabulary, special tokens included.
        joint_vocab: Whether both sides share one vocabulary.
        unknown: What becomes of a token that the vocabulary lacks: ``replace`` by [UNK] with a
            warning that names the first line, or ``error``.
        max_length: Most tokens of a sentence, special ones included.
        val_fraction: Share of the pairs, after the test pairs are taken, without ``val_path``.
        test_fraction: Share of the pairs without ``test_path``.
        batch_tokens: Tokens of the longer side of one optimizer step, padding included, over all
            devices.
        seed: Seed of the splits and of the order.
        too_long: What becomes of a pair with more than ``max_length`` tokens on a side.
        empty: What becomes of a line that lacks a side.
        fields: Fields of source and target in the rows of a ``.jsonl`` file.

    Raises:
        InputError: If a file or line is missing or wrong; the message names it.
    """

    def __init__(
        self,
        path: str | list[str],
        val_path: str | list[str] | None = None,
        test_path: str | list[str] | None = None,
        predict_path: str | None = None,
        tokenizer: TokenizerKind = "bpe",
        vocab_size: int = 8000,
        joint_vocab: bool = True,
        unknown: Literal["replace", "error"] = "replace",
        max_length: int = 128,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        batch_tokens: int = 2000,
        seed: int = 0,
        too_long: Literal["error", "skip", "cut"] = "error",
        empty: Literal["error", "skip"] = "error",
        fields: list[str] = ["source", "target"],  # noqa: B006  jsonargparse's way; never changed
    ) -> None:
        super().__init__(batch_tokens, seed, eval_batch_size=4 * batch_tokens)
        if tokenizer == "wordpiece":
            raise InputError(
                "wordpiece cannot be turned back into the text it was made from, so that no target "
                "could be written right; use --data.tokenizer bpe"
            )
        if max_length < 3:
            raise InputError(f"max_length must be at least 3, got {max_length}")
        if batch_tokens < max_length:
            raise InputError(
                f"batch_tokens={batch_tokens} cannot hold a sentence of max_length={max_length}"
            )
        self.path, self.val_path, self.test_path = path, val_path, test_path
        self.predict_path = predict_path
        self.tokenizer, self.max_vocab_size, self.joint_vocab = tokenizer, vocab_size, joint_vocab
        self.unknown = unknown
        self.max_length = max_length
        self.too_long, self.empty, self.fields = too_long, empty, fields
        self._fitted: dict[Split, Pairs] = {}
        self._known_tokenizers: dict[Side, Any] | None = None
        self.val_fraction, self.test_fraction = val_fraction, test_fraction

    def _pairs_of(self, path: str | list[str], need_target: bool = True) -> Pairs:
        return read_pairs(path, need_target, self.empty, self.fields)

    @cached_property
    def _pairs(self) -> dict[Split, Pairs]:
        whole = self._pairs_of(self.path)
        given = {"val": self.val_path, "test": self.test_path}
        pairs: dict[Split, Pairs] = {}
        fractions = {"test": self.test_fraction, "val": self.val_fraction}
        for split in ("test", "val"):
            file = given[split]
            if file is not None:
                pairs[split] = self._pairs_of(file)
                continue
            rows = torch.arange(len(whole.src)).numpy()
            kept, held_out = hold_out(rows, fractions[split], self.seed)
            pairs[split], whole = whole.take(held_out.tolist()), whole.take(kept.tolist())
        pairs["train"] = whole
        known = set(zip(whole.src, whole.tgt, strict=True))
        for name, part in (("val", pairs["val"]), ("test", pairs["test"])):
            places = zip(part.lines, part.src, part.tgt, strict=True)
            seen = [line for line, src, tgt in places if (src, tgt) in known]
            if seen:
                say(
                    f"{len(seen):,} of the {len(part.lines):,} {name} pairs are training pairs "
                    f"too, the first in line {seen[0]} of {part.path}; their score says little"
                )
        return pairs

    @cached_property
    def _read(self) -> dict[Split, Pairs]:
        """The lines to predict, for which no training file is needed."""
        assert self.predict_path is not None
        return {"predict": self._pairs_of(self.predict_path, need_target=False)}

    @cached_property
    def _tokenizers(self) -> dict[Side, Any]:
        if self._known_tokenizers is not None:
            return self._known_tokenizers
        train = self._pairs["train"]
        special = _SPECIAL[:_UNK] if self.tokenizer == "bpe" else _SPECIAL

        def trained(texts: list[str]) -> Any:
            size, unknown = self.max_vocab_size, _SPECIAL[_UNK]
            return train_tokenizer(self.tokenizer, texts, size, special, unknown)

        if self.joint_vocab:
            both = trained(train.src + train.tgt)
            return {"src": both, "tgt": both}
        return {"src": trained(train.src), "tgt": trained(train.tgt)}

    @property
    def src_vocab_size(self) -> int:
        """Number of source tokens, special ones included."""
        return int(self._tokenizers["src"].get_vocab_size())

    @property
    def tgt_vocab_size(self) -> int:
        """Number of target tokens, special ones included."""
        return int(self._tokenizers["tgt"].get_vocab_size())

    @property
    def num_train(self) -> int:
        """Number of training pairs."""
        return len(self._pairs["train"].src)

    @property
    def predict_split(self) -> Split:
        """The lines of ``predict_path``, where it is given."""
        return "test" if self.predict_path is None else "predict"

    def make_split(self, split: Split) -> SequencePairBatch:
        """Pairs of one split as tokens; sources end in EOS."""
        pairs = self._fitting(split)
        src, src_mask = _padded([[*ids, EOS] for ids in self._encode(pairs, "src")])
        tgt, tgt_mask = _padded([[BOS, *ids, EOS] for ids in self._encode(pairs, "tgt")])
        return SequencePairBatch(src, tgt, src_mask, tgt_mask)

    def _fitting(self, split: Split) -> Pairs:
        """The pairs of a split that fit ``max_length``, or are cut to it.

        Raises:
            InputError: Naming the first sentence that is too long, where these are errors.
        """
        if split in self._fitted:
            return self._fitted[split]
        pairs = self._read[split] if split == "predict" else self._pairs[split]
        lengths = {side: [len(ids) for ids in self._ids(pairs, side)] for side in _EXTRA}
        long = [
            row
            for row in range(len(pairs.lines))
            if any(lengths[side][row] + _EXTRA[side] > self.max_length for side in _EXTRA)
        ]
        if long and self.too_long == "error":
            side = next(s for s in _EXTRA if lengths[s][long[0]] + _EXTRA[s] > self.max_length)
            count = lengths[side][long[0]] + _EXTRA[side]
            raise InputError(
                f"{pairs.path}, line {pairs.lines[long[0]]}: {count} {side} tokens, special ones "
                f"included, exceed max_length={self.max_length}; "
                "raise --data.max_length, or set --data.too_long skip or cut"
            )
        if long:
            done = "skipped" if self.too_long == "skip" else "cut"
            say(
                f"{pairs.path}: {len(long):,} of {len(pairs.lines):,} {split} pairs exceed "
                f"max_length={self.max_length} and are {done}"
            )
        if self.too_long == "skip":
            drop = set(long)
            pairs = pairs.take([row for row in range(len(pairs.lines)) if row not in drop])
        self._fitted[split] = pairs
        return pairs

    def _ids(self, pairs: Pairs, side: Side) -> list[list[int]]:
        texts = pairs.src if side == "src" else pairs.tgt
        encodings = self._tokenizers[side].encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def _encode(self, pairs: Pairs, side: Side) -> list[list[int]]:
        ids = [row[: self.max_length - _EXTRA[side]] for row in self._ids(pairs, side)]
        self._check_known(pairs, side, ids)
        return ids

    def _check_known(self, pairs: Pairs, side: Side, ids: list[list[int]]) -> None:
        """Reports tokens that the vocabulary lacks; byte pairs lack none."""
        if self.tokenizer == "bpe":
            return
        rows = [row for row, tokens in enumerate(ids) if _UNK in tokens]
        if not rows:
            return
        text = (pairs.src if side == "src" else pairs.tgt)[rows[0]]
        encoding = self._tokenizers[side].encode(text, add_special_tokens=False)
        start, end = encoding.offsets[encoding.ids.index(_UNK)]
        where = (
            f"{pairs.path}, line {pairs.lines[rows[0]]}: the vocabulary lacks {text[start:end]!r}"
        )
        if self.unknown == "error":
            raise InputError(f"{where}; raise vocab_size, use tokenizer bpe, or unknown replace")
        count = sum(tokens.count(_UNK) for tokens in ids)
        say(f"{where} ({count} such {side} tokens); read as [UNK]")

    def _make_loader(self, data: Any, batch_size: int, **options: Any) -> BucketLoader:
        del options["drop_last"]  # the remainder joins another batch
        return BucketLoader(data, batch_size, **options)

    def row_hashes(self, split: Split) -> "np.ndarray[Any, Any] | None":
        """One hash a pair."""
        if split == "predict":
            return None
        pairs = self._pairs[split]
        texts = [f"{src}\t{tgt}" for src, tgt in zip(pairs.src, pairs.tgt, strict=True)]
        return np.asarray(pd.util.hash_array(np.array(texts, dtype=object), categorize=False))

    def knowledge(self) -> dict[str, Any]:
        """The vocabularies of both sides."""
        return {side: tokenizer.to_str() for side, tokenizer in self._tokenizers.items()}

    def adopt(self, knowledge: Mapping[str, Any]) -> None:
        """Takes the vocabularies of a run; every text is then read with them."""
        if "src" in knowledge:
            sides: tuple[Side, Side] = ("src", "tgt")
            self._known_tokenizers = {
                side: adopted_tokenizer({TOKENIZER_KEY: knowledge[side]}) for side in sides
            }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes what a checkpoint holds of its pairs; older ones hold a fingerprint alone.

        Raises:
            InputError: If that is not the fingerprint of these vocabularies.
        """
        super().load_state_dict(state_dict)
        if state_dict.get("vocabulary", self._fingerprint) != self._fingerprint:
            raise InputError(
                f"the vocabulary of {self.path} is not the checkpoint's; give the training file "
                "and the tokenizer options of its run"
            )

    @cached_property
    def _fingerprint(self) -> str:
        texts = [self._tokenizers[side].to_str() for side in ("src", "tgt")]
        return hashlib.sha256("\n".join(texts).encode()).hexdigest()

    def decode(self, tokens: Tensor) -> list[str]:
        """Target sentences of token rows ``(rows, T)``, each read up to its EOS, or to its PADs."""
        ends = ((tokens == EOS) | (tokens == PAD)).long()
        lengths = torch.where(ends.any(1), ends.argmax(1), tokens.shape[1]).tolist()
        rows = [row[:length] for row, length in zip(tokens.tolist(), lengths, strict=True)]
        texts: list[str] = self._tokenizers["tgt"].decode_batch(rows, skip_special_tokens=False)
        return texts

    def references(self, split: Split) -> list[str]:
        """Target sentences of a split as they stand in the file."""
        return self._fitting(split).tgt

    def token_names(self, tokens: Tensor, side: Side) -> list[str]:
        """Names of the tokens of one row, for figures."""
        tokenizer = self._tokenizers[side]
        if self.tokenizer != "bpe":
            return [str(tokenizer.id_to_token(token)).strip() for token in tokens.tolist()]
        # Byte pairs have no readable names of their own: bytes stand for parts of characters.
        names = [tokenizer.decode([token], skip_special_tokens=False) for token in tokens.tolist()]
        return [str(name).removeprefix("\t") for name in names]

    def prediction_frame(self, outputs: Mapping[str, Tensor]) -> pd.DataFrame:
        """Line, source, translations, their scores and, where the file has it, reference."""
        pairs = self._fitting(self.predict_split)
        columns: dict[str, Any] = {"line": pairs.lines, "source": pairs.src}
        for name, values in outputs.items():
            if name.startswith("prediction"):
                columns[name.replace("prediction", "translation")] = self.decode(values)
            elif name.startswith("score"):
                columns[name] = values.tolist()
        if any(pairs.tgt):
            columns["reference"] = pairs.tgt
        return pd.DataFrame(columns)


def _padded(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Tokens ``(rows, longest)`` and their mask."""
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    tokens = torch.full(mask.shape, PAD)
    tokens[mask] = torch.tensor([token for row in rows for token in row])
    return tokens, mask
