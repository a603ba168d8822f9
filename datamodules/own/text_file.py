"""A user's text: characters, byte pairs or word pieces; next tokens or hidden ones."""

from collections.abc import Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from datamodules.base import LitDataModule, Reference, Split
from datamodules.batches import TokenBatch
from datamodules.errors import InputError
from datamodules.files.documents import Documents, find_documents
from datamodules.files.token_cache import Corpus, Tokens, Vocabulary, read_corpus
from datamodules.files.tokenization import (
    END_OF_TEXT,
    TOKENIZER_KEY,
    adopted_tokenizer,
    load_tokenizer,
)
from datamodules.loading.loader import take
from datamodules.loading.masking import SPECIAL_TOKENS, MaskingLoader, hide
from datamodules.loading.text_windows import WindowLoader
from datamodules.own.ngram import ngram_cross_entropy
from datamodules.own.passages import Passages, cut_pairs, num_words
from datamodules.own.prompts import PromptTemplate, TextEnds, prompt_batch, read_prompts

if TYPE_CHECKING:
    import pandas as pd

_MOST_COUNTED = 5_000_000  # tokens, a few seconds' work
_EVAL_TOKENS = 2048  # of a batch


class TextFileDataModule(TextEnds, LitDataModule[TokenBatch]):
    """A UTF-8 text, cut into a training, a validation and a test part in this order.

    The text is encoded once and memory-mapped from a cache. ``causal`` windows hold the next token
    at each position; validation and test score every token but the first. ``masked`` rows are
    ``[CLS] A [SEP] B [SEP]`` with B what follows A or, for half of them, a passage from elsewhere.

    Args:
        path: The text: a file, a folder, a pattern such as ``books/*.txt``, or several of these;
            a ``.jsonl`` file has a document in each row. ``<|endoftext|>`` ends each of several
            documents, [SEP] with the masked objective.
        tokenizer: ``char``, ``bpe`` (as GPT-2) or ``wordpiece`` (as BERT) train a vocabulary on the
            training part; or a ``tokenizer.json``, a folder that holds one, or a checkpoint.
        seq_len: Tokens T the model reads.
        objective: ``causal`` predicts the next token, ``masked`` hidden ones.
        max_vocab_size: Largest size of a trained vocabulary.
        val_fraction: Share of the characters for validation.
        test_fraction: Share of the characters for the test. With 0 the test scores the validation
            part, which also chose the checkpoint.
        mask_probability: Probability of hiding a token.
        predict_path: Prompts to complete, one per line, or in the column or field ``prompt`` of a
            CSV or ``.jsonl`` file.
        prompt: What to make of each line of ``predict_path``.
        cache_dir: Folder of the encoded text; ``~/.cache/lit-models`` by default.
        batch_size: Windows per optimizer step.
        seed: Seed of order, offsets and hidden tokens.
        field: Field of the text in the rows of a ``.jsonl`` file.
        stop: Strings at which a completion ends; they are left out.
        num_val_windows: Rows of the validation part, spread evenly, that are scored during a fit;
            all where not given. `validate` and `test` score whole parts.
        documents: ``joined`` reads on across the ends of documents; ``apart`` lets no token see
            another document and counts positions from its beginning.

    Raises:
        InputError: If the file is missing, no text, or too short.
    """

    def __init__(
        self,
        path: str | list[str],
        tokenizer: str = "char",
        seq_len: int = 64,
        objective: Literal["causal", "masked"] = "causal",
        max_vocab_size: int = 8192,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        mask_probability: float = 0.15,
        predict_path: str | None = None,
        prompt: PromptTemplate = PromptTemplate(),  # noqa: B008  jsonargparse's way
        cache_dir: str | None = None,
        batch_size: int = 32,
        seed: int = 0,
        field: str = "text",
        stop: list[str] = [],  # noqa: B006  jsonargparse's way; never changed
        num_val_windows: int | None = None,
        documents: Literal["joined", "apart"] = "joined",
    ) -> None:
        # Large batches would take more memory than the training and no less time.
        super().__init__(batch_size, seed, max(_EVAL_TOKENS // max(seq_len, 1), 1))
        if num_val_windows is not None and num_val_windows < 1:
            raise InputError(f"num_val_windows must be at least 1, got {num_val_windows}")
        if documents == "apart" and objective == "masked":
            raise InputError(
                "documents apart is for the causal objective; masked rows are passages"
            )
        if seq_len < (8 if objective == "masked" else 1):
            raise InputError(f"seq_len is too short for the {objective} objective, got {seq_len}")
        if val_fraction <= 0 or test_fraction < 0 or val_fraction + test_fraction >= 1:
            raise InputError(
                "val_fraction must be positive and leave a training part beside test_fraction, got "
                f"{val_fraction} and {test_fraction}"
            )
        if not 0 < mask_probability < 1:
            raise InputError(f"mask_probability must lie in (0, 1), got {mask_probability}")
        self.path, self.field, self.stop = path, field, stop
        self.tokenizer_source, self.seq_len = tokenizer, seq_len
        self._known_tokenizer: Any = None
        self._trained_on: str | None = None
        self.objective, self.max_vocab_size = objective, max_vocab_size
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.mask_probability = mask_probability
        self.predict_path, self.prompt, self.cache_dir = predict_path, prompt, cache_dir
        self.num_val_windows, self.documents = num_val_windows, documents

    @cached_property
    def _documents(self) -> Documents:
        return find_documents(self.path, self.field)

    @cached_property
    def _corpus(self) -> Corpus:
        val_end = 1 - self.test_fraction
        shares = (val_end - self.val_fraction, val_end)
        plain = self.objective == "masked"
        return read_corpus(self._documents, self._vocabulary, shares, self.cache_dir, plain)

    @property
    def _vocabulary(self) -> Any:
        """The run's vocabulary or the one that is given, or how to train one."""
        if self._known_tokenizer is not None:
            return self._known_tokenizer
        source: Any = self.tokenizer_source
        if source not in ("char", "word", "bpe", "wordpiece"):
            return load_tokenizer(source)
        masked, bpe = self.objective == "masked", source == "bpe"
        special: tuple[str, ...] = SPECIAL_TOKENS
        if not masked:
            several = self._documents.several
            special = () if bpe else ("[UNK]",)
            special += (END_OF_TEXT,) if bpe or several else ()
        unk = None if bpe and not masked else "[UNK]"
        return Vocabulary(source, self.max_vocab_size, special, unk)

    @property
    def tokenizer(self) -> Any:
        """The vocabulary."""
        return self._known_tokenizer or self._corpus.tokenizer

    @property
    def vocab_size(self) -> int:
        """Size of the vocabulary."""
        return int(self.tokenizer.get_vocab_size())

    @property
    def context_length(self) -> int:
        """Number T of tokens the model reads."""
        return self.seq_len

    @property
    def next_sentence(self) -> bool:
        """Whether there are sentence pairs: with the masked objective.

        Raises:
            InputError: If the labels are next tokens, which a model that reads both ways would see.
        """
        if self.objective != "masked":
            raise InputError("a model that reads both ways needs --data.objective masked")
        return True

    @property
    def num_train(self) -> int:
        """Number of training windows."""
        return self._num_rows("train")

    def _part(self, split: Split) -> Tokens:
        tokens, (train_end, val_end) = self._corpus.tokens, self._corpus.ends
        if split == "train":
            return tokens[:train_end]
        if split == "val" or self.test_fraction == 0:
            return tokens[train_end:val_end]
        return tokens[val_end:]

    def _num_rows(self, split: Split) -> int:
        part = self._part(split)
        masked = self.objective == "masked"
        step, spare = (num_words(self.seq_len), 0) if masked else (self.seq_len, 1)
        if len(part) < step + spare:
            raise InputError(
                f"the {split} part of {self._documents} has {len(part)} tokens, a row needs "
                f"{step + spare}; give more text or a shorter --data.seq_len"
            )
        return (len(part) - spare) // step

    def make_split(self, split: Split) -> Any:
        """Rows of one split; the causal objective reads its windows as they are asked for."""
        if split == "predict":
            return prompt_batch(self.prompts, self.tokenizer)
        part, num_rows = self._part(split), self._num_rows(split)
        if self.objective == "causal":
            return (part,)
        pairs = cut_pairs(part, num_rows, self.seq_len)
        if split == "train":
            return pairs
        return hide(pairs, self._passages.corruption, self.generator(split), self._passages.join)

    @cached_property
    def _passages(self) -> Passages:
        return Passages(self.tokenizer, self.mask_probability)

    def train_dataloader(self) -> Any:
        """Shuffled rows, shifted or hidden afresh in every epoch."""
        data = self.split("train")
        if self.objective == "causal":
            make: Any = partial(WindowLoader, length=self.seq_len, end_token=self._parting_token)
            return self._loader(data, self.batch_size, True, self.drop_last, make)
        make = partial(
            MaskingLoader, corruption=self._passages.corruption, prepare=self._passages.join
        )
        return self._loader(data, self.batch_size, True, self.drop_last, make)

    def val_dataloader(self) -> Any:
        """Ordered rows of the validation part."""
        return self._eval_loader("val")

    def test_dataloader(self) -> Any:
        """Ordered rows of the test part."""
        return self._eval_loader("test")

    def predict_dataloader(self) -> Any:
        """The prompts, or the rows of the test part."""
        if self.predict_split == "predict":
            return super().predict_dataloader()
        return self._eval_loader("test")

    def _eval_loader(self, split: Split) -> Any:
        data = self.split(split)
        within_fit = self.trainer is not None and self.trainer.state.fn == "fit"
        most = self.num_val_windows if within_fit and split == "val" else None
        if self.objective == "causal":
            make: Any = partial(
                WindowLoader,
                length=self.seq_len,
                num_windows=most,
                end_token=self._parting_token,
            )
            return self._loader(data, self.eval_batch_size, make=make)
        if most is not None and most < len(data.tokens):
            data = take(data, torch.linspace(0, len(data.tokens) - 1, most).round().long())
        return self._loader(data, self.eval_batch_size)

    @property
    def _parting_token(self) -> int | None:
        """Token at which a document begins, where documents are apart.

        Raises:
            InputError: If there is none.
        """
        if self.documents == "joined":
            return None
        if self.end_token is None:
            raise InputError(
                f"the vocabulary has no {END_OF_TEXT} to tell documents apart; give several files "
                "or a .jsonl file, or --data.documents joined"
            )
        return self.end_token

    @property
    def predict_split(self) -> Split:
        """The prompts, where they are given."""
        return "test" if self.predict_path is None else "predict"

    @cached_property
    def prompts(self) -> list[str]:
        """The filled prompts."""
        assert self.predict_path is not None
        return [self.prompt.fill(line) for line in read_prompts(self.predict_path)]

    @property
    def baseline(self) -> dict[str, Reference]:
        """Cross-entropy of the training part's token frequencies."""
        if self.objective == "masked":
            return {}
        counts, first = self._corpus.counts[0] + 1.0, int(self._part("test")[0])
        test = self._corpus.counts[2 if self.test_fraction else 1].astype(float)
        test[first] -= 1  # the first token follows nothing
        value = float(-(test * np.log(counts / counts.sum())).sum() / test.sum())
        return {"test/cross_entropy": Reference(value, "frequencies of the training tokens")}

    @cached_property
    def rivals(self) -> dict[str, dict[str, float]]:
        """Cross-entropy of an interpolated n-gram, its order chosen on the validation part.

        It counts the last five million training tokens at most; longer test parts have no rival.
        """
        test = self._part("test")[: self._num_rows("test") * self.seq_len + 1]
        if self.objective == "masked" or len(test) > _MOST_COUNTED:
            return {}
        train, val = self._part("train")[-_MOST_COUNTED:], self._part("val")[:_MOST_COUNTED]
        order, value = ngram_cross_entropy(train, val, test, self.vocab_size)
        return {"test/cross_entropy": {f"interpolated {order}-gram": value}}

    def decode(self, tokens: Tensor) -> str:
        """Text of tokens."""
        return str(self.tokenizer.decode(tokens.tolist(), skip_special_tokens=False))

    def knowledge(self) -> dict[str, Any]:
        """The vocabulary."""
        return {TOKENIZER_KEY: self.tokenizer.to_str()}

    def adopt(self, knowledge: Mapping[str, Any]) -> None:
        """Takes the vocabulary of a run; every text is then read with it."""
        self._known_tokenizer = adopted_tokenizer(knowledge) or self._known_tokenizer

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds of the text: its vocabulary and what was trained on."""
        return {**super().state_dict(), "training_text": self._corpus.fingerprint}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes what a checkpoint holds of its text; older ones hold the vocabulary openly."""
        super().load_state_dict(state_dict)
        self.adopt(state_dict)
        self._trained_on = state_dict.get("training_text")

    def other_rows(self, split: Split) -> str | None:
        """One line where the training part is not the checkpoint's; None where it is."""
        if self._trained_on in (None, self._corpus.fingerprint):
            return None
        return (
            f"the training part of {self._documents} is not the checkpoint's: its {split} part is "
            "read with the run's vocabulary, and may hold text that was trained on"
        )

    def prediction_frame(self, outputs: Mapping[str, Tensor]) -> "pd.DataFrame":
        """Prompt and completion; without prompts, the text of each row and of its completion."""
        if "completion" not in outputs:
            return super().prediction_frame(outputs)
        if self.predict_split == "predict":
            return self.completions(self.prompts, outputs)
        length, part = self.seq_len, self._part("test")
        rows = [part[i * length : (i + 1) * length] for i in range(len(outputs["completion"]))]
        texts = self.tokenizer.decode_batch([row.tolist() for row in rows])
        return self.completions(texts, outputs)
