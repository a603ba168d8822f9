"""A user's labelled texts: a CSV file with a column of text and a column of classes."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from datamodules.base import LitDataModule, Reference, Split
from datamodules.batches import TokenBatch
from datamodules.errors import InputError
from datamodules.files.csv_files import check_complete, read_csv, require_columns
from datamodules.files.notes import say
from datamodules.files.tokenization import (
    TOKENIZER_KEY,
    adopted_tokenizer,
    load_tokenizer,
    say_unknown,
    train_tokenizer,
)
from datamodules.loading.masking import IGNORE, SPECIAL_TOKENS
from datamodules.loading.splits import Rows, hold_out


class LabelledTextDataModule(LitDataModule[TokenBatch]):
    """Texts and classes, split at random into training, validation and test, by class.

    A row is ``[CLS] text [SEP]``, padded on the right; longer texts keep their beginning. A
    vocabulary with ``<|endoftext|>``, such as GPT-2's, gives ``text <|endoftext|>``, one with
    neither the text alone. The labels are
    the next tokens, for a model that also learns the language.

    Args:
        path: CSV file with a header.
        text: Column of the texts.
        label: Column of the classes.
        tokenizer: ``char``, ``word``, ``bpe`` or ``wordpiece`` train a vocabulary on the training
            texts; or a ``tokenizer.json``, a folder that holds one, or the checkpoint of the
            pre-trained model, which holds its vocabulary.
        context_length: Largest number T of tokens of a row.
        max_vocab_size: Largest size of a trained vocabulary.
        val_fraction: Share of the rows, after the test rows are taken, used for validation.
        test_fraction: Share of the rows for the test.
        predict_path: CSV file of texts to classify; the test rows by default.
        batch_size: Rows per optimizer step.
        seed: Seed of the splits.

    Raises:
        InputError: If a file, column or value is missing or wrong; the message names it.
    """

    def __init__(
        self,
        path: str,
        text: str = "text",
        label: str = "label",
        tokenizer: str = "wordpiece",
        context_length: int = 128,
        max_vocab_size: int = 8192,
        val_fraction: float = 0.15,
        test_fraction: float = 0.2,
        predict_path: str | None = None,
        batch_size: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, eval_batch_size=256)
        if context_length < 3:
            raise InputError(f"context_length must be at least 3, got {context_length}")
        self.path, self.text, self.label = path, text, label
        self.tokenizer_source, self.max_vocab_size = tokenizer, max_vocab_size
        self.context_length = context_length
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.predict_path = predict_path
        self._known_tokenizer: Any = None
        self._known_classes: list[str] | None = None

    @cached_property
    def _frame(self) -> pd.DataFrame:
        frame = read_csv(self.path)
        require_columns(frame, self.path, [self.text, self.label])
        check_complete(frame, self.path, self.text)
        check_complete(frame, self.path, self.label)
        if len(frame) == 0:
            raise InputError(f"{self.path} has no rows; give one text and class per row")
        return frame

    @cached_property
    def class_names(self) -> list[str]:
        """Classes in the order of their numbers; those of a run's training rows, where it knows."""
        if self._known_classes is not None:
            return self._known_classes
        names = [str(value) for value in sorted(self._frame[self.label].unique())]
        if len(names) < 2:
            raise InputError(f"{self.path}: {self.label!r} has the single class {names[0]!r}")
        return names

    @cached_property
    def _labels(self) -> Rows:
        classes = self._frame[self.label].astype(str)
        codes = pd.Categorical(classes, categories=self.class_names).codes
        if (codes < 0).any():
            raise InputError(
                f"{self.path}: {self.label!r} is {classes[int((codes < 0).argmax())]!r}, a class "
                "that the run was not trained on"
            )
        return np.asarray(codes, dtype=np.int64)

    @cached_property
    def _rows(self) -> dict[str, Rows]:
        rest, test = hold_out(
            np.arange(len(self._frame)), self.test_fraction, self.seed, self._labels
        )
        train, val = hold_out(rest, self.val_fraction, self.seed, self._labels[rest])
        return {"train": train, "val": val, "test": test}

    @cached_property
    def tokenizer(self) -> Any:
        """The vocabulary."""
        if self._known_tokenizer is not None:
            return self._known_tokenizer
        source: Any = self.tokenizer_source
        if source not in ("char", "word", "bpe", "wordpiece"):
            return load_tokenizer(source)
        texts = self._frame[self.text].astype(str).iloc[self._rows["train"]]
        return train_tokenizer(source, texts, self.max_vocab_size, SPECIAL_TOKENS, "[UNK]")

    @property
    def vocab_size(self) -> int:
        """Size of the vocabulary."""
        return int(self.tokenizer.get_vocab_size())

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def num_train(self) -> int:
        """Number of training rows."""
        return len(self._rows["train"])

    @property
    def predict_split(self) -> Split:
        """The rows of ``predict_path``, where it is given."""
        return "test" if self.predict_path is None else "predict"

    def _predict_texts(self) -> pd.Series:
        path = str(self.predict_path)
        frame = read_csv(path)
        require_columns(frame, path, [self.text])
        check_complete(frame, path, self.text)
        return frame[self.text].astype(str)

    def _split_texts(self, split: Split) -> pd.Series:
        if split == "predict":
            return self._predict_texts()
        return self._frame[self.text].astype(str).iloc[self._rows[split]]

    def make_split(self, split: Split) -> TokenBatch:
        """Rows of one split."""
        texts = self._split_texts(split)
        y = np.full(len(texts), IGNORE) if split == "predict" else self._labels[self._rows[split]]
        head, tail = self._delimiters()
        room = self.context_length - len(head) - len(tail)
        self.tokenizer.encode_special_tokens = True  # what is typed in a text is text
        encodings = self.tokenizer.encode_batch(texts.tolist(), add_special_tokens=False)
        self._say_changes(split, [encoding.ids for encoding in encodings], room)
        rows = [head + encoding.ids[:room] + tail for encoding in encodings]
        length = max(len(row) for row in rows)
        pad = self.tokenizer.token_to_id("[PAD]") or 0
        tokens = torch.full((len(rows), length), pad)
        labels = torch.full((len(rows), length), IGNORE)
        mask = torch.zeros(len(rows), length, dtype=torch.bool)
        for index, row in enumerate(rows):
            tokens[index, : len(row)] = torch.tensor(row)
            labels[index, : len(row) - 1] = torch.tensor(row[1:])
            mask[index, : len(row)] = True
        return TokenBatch(tokens, labels, mask=mask, y=torch.from_numpy(y))

    def _say_changes(self, split: Split, rows: list[list[int]], room: int) -> None:
        """Says what was cut and what the vocabulary lacks.

        Raises:
            InputError: Naming a text without tokens.
        """
        if not all(rows):
            text = self._split_texts(split).iloc[[len(row) == 0 for row in rows].index(True)]
            raise InputError(f"the text {text!r} has no tokens; drop its row")
        cut = sum(len(row) > room for row in rows)
        if cut:
            say(
                f"{cut:,} of the {len(rows):,} {split} texts are longer than --data.context_length "
                f"{self.context_length} and keep their beginning; the longest has "
                f"{max(map(len, rows)):,} tokens"
            )
        say_unknown(self.tokenizer, rows, f"the {split} texts")

    def _delimiters(self) -> tuple[list[int], list[int]]:
        """Tokens before and after each text."""
        end = self.tokenizer.token_to_id("<|endoftext|>")
        if end is not None:
            return [], [int(end)]
        cls, sep = (self.tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]"))
        # A vocabulary of next tokens may have neither: the last token then stands for the text.
        return ([], []) if cls is None or sep is None else ([cls], [sep])

    @property
    def baseline(self) -> dict[str, Reference]:
        """Accuracy of the most frequent class of the training rows."""
        counts = np.bincount(self._labels[self._rows["train"]], minlength=self.num_classes)
        most = int(counts.argmax())
        share = float((self._labels[self._rows["test"]] == most).mean())
        return {"test/accuracy": Reference(share, f"always {self.class_names[most]!r}")}

    @cached_property
    def rivals(self) -> dict[str, dict[str, float]]:
        """Accuracy of a logistic regression on TF-IDF of words and pairs of words."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        features = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\S+")
        model = make_pipeline(features, LogisticRegression(C=10.0, max_iter=1000))
        texts, rows = self._frame[self.text].astype(str), self._rows
        model.fit(texts.iloc[rows["train"]], self._labels[rows["train"]])
        share = model.score(texts.iloc[rows["test"]], self._labels[rows["test"]])
        return {"test/accuracy": {"TF-IDF and logistic regression": float(share)}}

    def row_hashes(self, split: Split) -> "np.ndarray[Any, Any] | None":
        """One hash a row, of text and class."""
        if split == "predict":
            return None
        rows = self._frame.iloc[self._rows[split]]
        texts = rows[self.text].astype(str) + "\t" + rows[self.label].astype(str)
        return np.asarray(pd.util.hash_array(texts.to_numpy(dtype=object), categorize=False))

    def knowledge(self) -> dict[str, Any]:
        """The vocabulary and the classes."""
        return {TOKENIZER_KEY: self.tokenizer.to_str(), "classes": list(self.class_names)}

    def adopt(self, knowledge: Mapping[str, Any]) -> None:
        """Takes vocabulary and classes of a run; every text is then read with them."""
        self._known_tokenizer = adopted_tokenizer(knowledge) or self._known_tokenizer
        self._known_classes = knowledge.get("classes", self._known_classes)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes what a checkpoint holds of its texts; older ones hold the vocabulary openly."""
        super().load_state_dict(state_dict)
        self.adopt(state_dict)

    def prediction_frame(self, outputs: Mapping[str, Tensor]) -> pd.DataFrame:
        """Text, class and the probability of each class, with the true one where it is known."""
        texts = self._split_texts(self.predict_split)
        names = self.class_names
        frame = pd.DataFrame({"text": texts.to_numpy()})
        frame["class"] = [names[code] for code in outputs["class"].tolist()]
        for index, name in enumerate(names):
            frame[f"probability_{name}"] = outputs["probability"][:, index].float().numpy()
        if self.predict_split == "test":
            frame["target"] = [names[code] for code in outputs["target"].tolist()]
        return frame
