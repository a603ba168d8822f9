"""A user's instructions: prompts with the answers a language model shall give."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from datamodules.base import LitDataModule, Split
from datamodules.batches import TokenBatch
from datamodules.errors import InputError
from datamodules.files.documents import read_json_rows
from datamodules.files.notes import say
from datamodules.files.packed import suffix_of
from datamodules.files.tables import read_table
from datamodules.files.tokenization import (
    END_OF_TEXT,
    TOKENIZER_KEY,
    adopted_tokenizer,
    document_end,
    load_tokenizer,
    say_unknown,
    train_tokenizer,
)
from datamodules.loading.masking import IGNORE
from datamodules.loading.padded_loader import PaddedLoader
from datamodules.loading.splits import Rows, hold_out
from datamodules.own.prompts import PromptTemplate, TextEnds, prompt_batch


class InstructionsDataModule(TextEnds, LitDataModule[TokenBatch]):
    """Prompts and answers to fine-tune a GPT on, with loss on the answers alone.

    A row is the filled prompt, the separator, the answer and the token that ends it; labels are the
    tokens of the answer and its end. The same template fills the prompts of ``predict``, whose
    tokens are then those of training.

    Args:
        path: CSV file with a header, or ``.jsonl`` file, of prompts and answers.
        question: Column or field of the prompts.
        answer: Column or field of the answers.
        tokenizer: Vocabulary of the pre-trained model: its checkpoint, a ``tokenizer.json`` or a
            folder that holds one; ``char``, ``word``, ``bpe`` or ``wordpiece`` train one.
        context_length: Largest number T of tokens of a row.
        prompt: What to make of each prompt.
        separator: Text between prompt and answer.
        max_vocab_size: Largest size of a trained vocabulary.
        val_fraction: Share of the rows, after the test rows are taken, used for validation.
        test_fraction: Share of the rows for the test.
        predict_path: File of prompts to answer; the test rows by default.
        too_long: What becomes of a row with more than ``context_length`` tokens.
        stop: Strings at which a completion ends; they are left out.
        batch_size: Rows per optimizer step.
        seed: Seed of the splits.

    Raises:
        InputError: If a file, column or value is missing or wrong; the message names it.
    """

    _loader_class = PaddedLoader

    def __init__(
        self,
        path: str,
        question: str = "prompt",
        answer: str = "answer",
        tokenizer: str = "bpe",
        context_length: int = 128,
        prompt: PromptTemplate = PromptTemplate(),  # noqa: B008  jsonargparse's way
        separator: str = "\n",
        max_vocab_size: int = 8192,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        predict_path: str | None = None,
        too_long: Literal["error", "skip"] = "error",
        stop: list[str] = [],  # noqa: B006  jsonargparse's way; never changed
        batch_size: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, eval_batch_size=64)
        if context_length < 3:
            raise InputError(f"context_length must be at least 3, got {context_length}")
        self.path, self.question, self.answer = path, question, answer
        self.tokenizer_source, self.max_vocab_size = tokenizer, max_vocab_size
        self.context_length, self.prompt, self.separator = context_length, prompt, separator
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.predict_path, self.too_long, self.stop = predict_path, too_long, stop
        self._known_tokenizer: Any = None

    @cached_property
    def _table(self) -> pd.DataFrame:
        return self._read(self.path, [self.question, self.answer])

    def _read(self, path: str, columns: Sequence[str]) -> pd.DataFrame:
        """Prompts, and answers where they are asked for, as text."""
        if suffix_of(Path(path)) == ".jsonl":
            frame = pd.DataFrame(read_json_rows(Path(path), columns), columns=list(columns))
        else:
            frame = read_table(path).texts(columns)
        if len(frame) == 0:
            raise InputError(f"{path} has no rows; give one prompt and answer per row")
        return frame[list(columns)].astype(str).reset_index(drop=True)

    @cached_property
    def _rows(self) -> dict[str, Rows]:
        rest, test = hold_out(np.arange(len(self._table)), self.test_fraction, self.seed)
        train, val = hold_out(rest, self.val_fraction, self.seed)
        return {"train": train, "val": val, "test": test}

    def _fill(self, questions: "pd.Series[str]") -> list[str]:
        return [self.prompt.fill(question) + self.separator for question in questions]

    @cached_property
    def tokenizer(self) -> Any:
        """The vocabulary: the run's, or the one that is given or trained."""
        if self._known_tokenizer is not None:
            return self._known_tokenizer
        source: Any = self.tokenizer_source
        if source not in ("char", "word", "bpe", "wordpiece"):
            return load_tokenizer(source)
        train = self._table.iloc[self._rows["train"]]
        texts = [*self._fill(train[self.question]), *train[self.answer]]
        special = (END_OF_TEXT,) if source == "bpe" else ("[UNK]", END_OF_TEXT)
        return train_tokenizer(source, texts, self.max_vocab_size, special, "[UNK]")

    @property
    def vocab_size(self) -> int:
        """Size of the vocabulary."""
        return int(self.tokenizer.get_vocab_size())

    @property
    def num_train(self) -> int:
        """Number of training rows."""
        return len(self._rows["train"])

    @property
    def end_token(self) -> int:
        """Token that ends an answer; a line break where the vocabulary has none for it.

        Raises:
            InputError: If it has neither.
        """
        end = document_end(self.tokenizer)
        if end is not None:
            return end
        line_break = self.tokenizer.encode("\n", add_special_tokens=False).ids
        unknown = self.tokenizer.token_to_id("[UNK]")
        if len(line_break) != 1 or line_break[0] == unknown:
            raise InputError(f"the vocabulary has no {END_OF_TEXT}, with which an answer ends")
        return int(line_break[0])

    def make_split(self, split: Split) -> TokenBatch:
        """Rows of one split, padded on the right; prompts alone to predict, padded on the left."""
        if split == "predict":
            return prompt_batch(self.prompts, self.tokenizer)
        table = self._table.iloc[self._rows[split]]
        prompts = self._encode(self._fill(table[self.question]))
        answers = [[*ids, self.end_token] for ids in self._encode(table[self.answer].tolist())]
        say_unknown(self.tokenizer, [*prompts, *answers], f"the {split} rows")
        rows = [
            (prompt, answer)
            for prompt, answer, index in zip(prompts, answers, table.index, strict=True)
            if self._fits(len(prompt) + len(answer), int(index))
        ]
        if len(rows) < len(prompts):
            say(
                f"{len(prompts) - len(rows):,} of the {len(prompts):,} {split} rows exceed "
                f"context_length={self.context_length} and are skipped"
            )
        return _labelled(rows)

    def _fits(self, length: int, index: int) -> bool:
        # The last token is a label alone.
        if length - 1 <= self.context_length:
            return True
        if self.too_long == "skip":
            return False
        raise InputError(
            f"{self.path}: prompt and answer {index + 1} have {length - 1} tokens, more than "
            f"context_length={self.context_length}; raise it, or set --data.too_long skip"
        )

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        self.tokenizer.encode_special_tokens = True  # what is typed in a text is text
        return [e.ids for e in self.tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    @property
    def predict_split(self) -> Split:
        """The prompts of ``predict_path``, or of the test rows."""
        return "predict"

    @cached_property
    def _asked(self) -> pd.DataFrame:
        if self.predict_path is not None:
            return self._read(self.predict_path, [self.question])
        return self._table.iloc[self._rows["test"]]

    @cached_property
    def prompts(self) -> list[str]:
        """The filled prompts to answer."""
        return self._fill(self._asked[self.question])

    def decode(self, tokens: Tensor) -> str:
        """Text of tokens."""
        return str(self.tokenizer.decode(tokens.tolist(), skip_special_tokens=False))

    def row_hashes(self, split: Split) -> "np.ndarray[Any, Any] | None":
        """One hash a row, of prompt and answer."""
        if split == "predict":
            return None
        rows = self._table.iloc[self._rows[split]]
        texts = (rows[self.question] + "\t" + rows[self.answer]).to_numpy(dtype=object)
        return np.asarray(pd.util.hash_array(texts, categorize=False))

    def knowledge(self) -> dict[str, Any]:
        """The vocabulary."""
        return {TOKENIZER_KEY: self.tokenizer.to_str()}

    def adopt(self, knowledge: Mapping[str, Any]) -> None:
        """Takes the vocabulary of a run; every text is then read with it."""
        self._known_tokenizer = adopted_tokenizer(knowledge) or self._known_tokenizer

    def prediction_frame(self, outputs: Mapping[str, Tensor]) -> pd.DataFrame:
        """Prompt, completion, why it ended, and the answer of the file where it is known."""
        frame = self.completions(self.prompts, outputs)
        if self.answer in self._asked:
            frame["target"] = self._asked[self.answer].to_numpy()
        return frame


def _labelled(rows: Sequence[tuple[list[int], list[int]]]) -> TokenBatch:
    """Rows padded on the right, with the next token as label where it is of the answer."""
    length = max((len(prompt) + len(answer) for prompt, answer in rows), default=1) - 1
    tokens = torch.zeros(len(rows), length, dtype=torch.long)
    labels = torch.full((len(rows), length), IGNORE)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for index, (prompt, answer) in enumerate(rows):
        end = len(prompt) + len(answer) - 1
        tokens[index, :end] = torch.tensor([*prompt, *answer[:-1]])
        labels[index, len(prompt) - 1 : end] = torch.tensor(answer)
        mask[index, :end] = True
    return TokenBatch(tokens, labels, mask=mask)
