"""A user's labelled texts, or pairs of texts: a CSV file with a column of classes."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from datamodules.base import LitDataModule, Reference, Split
from datamodules.batches import TokenBatch
from datamodules.errors import InputError
from datamodules.files.notes import say
from datamodules.files.tables import read_table
from datamodules.files.tokenization import (
    TOKENIZER_KEY,
    adopted_tokenizer,
    load_tokenizer,
    say_unknown,
    train_tokenizer,
)
from datamodules.loading.masking import IGNORE, SPECIAL_TOKENS
from datamodules.loading.padded_loader import PaddedLoader
from datamodules.loading.splits import Rows, hold_out


class LabelledTextDataModule(LitDataModule[TokenBatch]):
    """Texts and classes, split at random into training, validation and test, by class.

    A row is ``[CLS] text [SEP]``, of a pair ``[CLS] text [SEP] second [SEP]``, padded on the right;
    longer texts keep their beginning, of a pair the longer one first. A vocabulary with
    ``<|endoftext|>``, such as GPT-2's, gives ``text <|endoftext|>``, one with neither the text
    alone. The labels are the next tokens, for a model that also learns the language.

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
        second: Column of the second texts, for pairs such as premise and hypothesis.
        class_weight: ``balanced`` weighs each class in training by the inverse of its share.

    Raises:
        InputError: If a file, column or value is missing or wrong; the message names it.
    """

    _loader_class = PaddedLoader

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
        second: str | None = None,
        class_weight: Literal["none", "balanced"] = "none",
    ) -> None:
        super().__init__(batch_size, seed, eval_batch_size=256)
        least = 3 if second is None else 5
        if context_length < least:
            raise InputError(f"context_length must be at least {least}, got {context_length}")
        self.path, self.text, self.label = path, text, label
        self.second, self.class_weight = second, class_weight
        self.tokenizer_source, self.max_vocab_size = tokenizer, max_vocab_size
        self.context_length = context_length
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.predict_path = predict_path
        self._known_tokenizer: Any = None
        self._known_classes: list[str] | None = None

    @cached_property
    def _frame(self) -> pd.DataFrame:
        frame = read_table(self.path).texts([*self._columns, self.label])
        if len(frame) == 0:
            raise InputError(f"{self.path} has no rows; give one text and class per row")
        return frame

    @property
    def _columns(self) -> list[str]:
        """Columns of text."""
        return [self.text, *([] if self.second is None else [self.second])]

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
        classes = self._frame[self.label]
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
        train = self._frame.iloc[self._rows["train"]]
        texts = [text for column in self._columns for text in train[column]]
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
    def class_weights(self) -> list[float] | None:
        """Weight of each class in training; None where all weigh the same."""
        if self.class_weight == "none":
            return None
        counts = np.bincount(self._labels[self._rows["train"]], minlength=self.num_classes)
        weights = counts.sum() / (self.num_classes * np.maximum(counts, 1))
        return [float(weight) for weight in weights]

    @property
    def num_train(self) -> int:
        """Number of training rows."""
        return len(self._rows["train"])

    @property
    def predict_split(self) -> Split:
        """The rows of ``predict_path``, where it is given."""
        return "test" if self.predict_path is None else "predict"

    def _split_texts(self, split: Split) -> pd.DataFrame:
        """The texts of a split, a column each."""
        frame = self._asked if split == "predict" else self._frame.iloc[self._rows[split]]
        return frame[self._columns]

    @cached_property
    def _asked(self) -> pd.DataFrame:
        return read_table(self.predict_path).texts(self._columns)

    def make_split(self, split: Split) -> TokenBatch:
        """Rows of one split."""
        texts = self._split_texts(split)
        y = np.full(len(texts), IGNORE) if split == "predict" else self._labels[self._rows[split]]
        rows = self._encoded(texts, split)
        length = max(len(row) for row, _ in rows)
        pad = self.tokenizer.token_to_id("[PAD]") or 0
        tokens = torch.full((len(rows), length), pad)
        labels = torch.full((len(rows), length), IGNORE)
        mask = torch.zeros(len(rows), length, dtype=torch.bool)
        segments = torch.zeros_like(tokens)
        for index, (row, second) in enumerate(rows):
            tokens[index, : len(row)] = torch.tensor(row)
            labels[index, : len(row) - 1] = torch.tensor(row[1:])
            mask[index, : len(row)] = True
            segments[index, second : len(row)] = 1
        pairs = segments if self.second is not None else None
        return TokenBatch(tokens, labels, pairs, mask=mask, y=torch.from_numpy(y))

    def _encoded(self, texts: pd.DataFrame, split: Split) -> list[tuple[list[int], int]]:
        """Tokens of each row, and the place at which its second text begins."""
        head, tail = self._delimiters()
        room = self.context_length - len(head) - len(self._columns) * len(tail)
        self.tokenizer.encode_special_tokens = True  # what is typed in a text is text
        columns = [
            [row.ids for row in self.tokenizer.encode_batch(list(column), add_special_tokens=False)]
            for _, column in texts.items()
        ]
        self._say_changes(split, columns, room)
        found = []
        for parts in zip(*columns, strict=True):
            kept = _cut(parts, room)
            row = head + kept[0] + tail
            second = len(row)
            for part in kept[1:]:
                row += part + tail
            found.append((row, second))
        return found

    def _say_changes(self, split: Split, columns: list[list[list[int]]], room: int) -> None:
        """Says what was cut and what the vocabulary lacks.

        Raises:
            InputError: Naming a text without tokens.
        """
        for name, column in zip(self._columns, columns, strict=True):
            if not all(column):
                text = self._split_texts(split)[name].iloc[[not row for row in column].index(True)]
                raise InputError(f"the text {text!r} has no tokens; drop its row")
            say_unknown(self.tokenizer, column, f"the {split} texts")
        lengths = [sum(map(len, parts)) for parts in zip(*columns, strict=True)]
        cut = sum(length > room for length in lengths)
        if cut:
            say(
                f"{cut:,} of the {len(lengths):,} {split} texts are longer than "
                f"--data.context_length {self.context_length} and keep their beginning; the "
                f"longest has {max(lengths):,} tokens"
            )

    def _delimiters(self) -> tuple[list[int], list[int]]:
        """Tokens before a row and behind each of its texts.

        Raises:
            InputError: If nothing would stand between the texts of a pair.
        """
        end = self.tokenizer.token_to_id("<|endoftext|>")
        if end is not None:
            return [], [int(end)]
        cls, sep = (self.tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]"))
        if cls is not None and sep is not None:
            return [cls], [sep]
        if self.second is not None:
            raise InputError("a pair needs [SEP] or <|endoftext|> in the vocabulary, to part it")
        return [], []  # a vocabulary of next tokens: the last token stands for the text

    @property
    def baseline(self) -> dict[str, Reference]:
        """Scores of the most frequent class of the training rows."""
        counts = np.bincount(self._labels[self._rows["train"]], minlength=self.num_classes)
        most = int(counts.argmax())
        test = self._labels[self._rows["test"]]
        how = f"always {self.class_names[most]!r}"
        scores = _scores(test, np.full_like(test, most))
        return {name: Reference(value, how) for name, value in scores.items()}

    @cached_property
    def rivals(self) -> dict[str, dict[str, float]]:
        """Scores of a logistic regression on TF-IDF of words and pairs of words."""
        from scipy.sparse import hstack
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        weight = None if self.class_weight == "none" else "balanced"
        model = LogisticRegression(C=10.0, max_iter=1000, class_weight=weight)
        train, test = self._split_texts("train"), self._split_texts("test")
        parts = []
        for column in self._columns:
            words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\S+")
            parts.append((words.fit_transform(train[column]), words.transform(test[column])))
        x, x_test = (hstack(side).tocsr() for side in zip(*parts, strict=True))
        model.fit(x, self._labels[self._rows["train"]])
        scores = _scores(self._labels[self._rows["test"]], model.predict(x_test))
        return {name: {"TF-IDF and logistic regression": v} for name, v in scores.items()}

    def row_hashes(self, split: Split) -> "np.ndarray[Any, Any] | None":
        """One hash a row, of text and class."""
        if split == "predict":
            return None
        rows = self._frame.iloc[self._rows[split]]
        texts = rows[self.text]
        for name in (*self._columns[1:], self.label):
            texts = texts + "\t" + rows[name]
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
        frame = pd.DataFrame({"text": texts[self.text].to_numpy()})
        if self.second is not None:
            frame["second"] = texts[self.second].to_numpy()
        frame["class"] = [names[code] for code in outputs["class"].tolist()]
        for index, name in enumerate(names):
            frame[f"probability_{name}"] = outputs["probability"][:, index].float().numpy()
        if self.predict_split == "test":
            frame["target"] = [names[code] for code in outputs["target"].tolist()]
        return frame


def _cut(parts: Sequence[list[int]], room: int) -> list[list[int]]:
    """Beginnings that fit together; the longer one gives way first."""
    lengths = [len(part) for part in parts]
    while sum(lengths) > room:
        longest = lengths.index(max(lengths))
        others = max((n for i, n in enumerate(lengths) if i != longest), default=0)
        excess = sum(lengths) - room
        lengths[longest] -= min(excess, max(lengths[longest] - others, 1))
    return [part[:length] for part, length in zip(parts, lengths, strict=True)]


def _scores(truth: Rows, found: Rows) -> dict[str, float]:
    """Accuracy and macro F1 of predicted classes, over the classes that occur."""
    from sklearn.metrics import f1_score

    return {
        "test/accuracy": float((truth == found).mean()),
        "test/macro_f1": float(f1_score(truth, found, average="macro", zero_division=0.0)),
    }
