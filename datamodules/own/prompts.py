r"""Prompts: templates to fill, and a file of them for any language model to complete.

The five kinds of prompt, each for a question q:

=================  =========================================================================
instruction        ``{instruction}: q``
zero_shot          ``{instruction}``, ``Q: q``, ``A:``
few_shot           the same, after examples ``Q: .. A: ..``
chain_of_thought   the same, where examples may reason, then ``A: Let's think step by step.``
role               ``You are {role}.``, then as zero_shot
=================  =========================================================================

Brown et al., "Language Models are Few-Shot Learners" (2020); Wei et al., "Chain-of-Thought
Prompting" (2022); Kojima et al., "Large Language Models are Zero-Shot Reasoners" (2022).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from datamodules.base import LitDataModule, Split
from datamodules.batches import TokenBatch
from datamodules.errors import InputError
from datamodules.files.documents import read_json_rows, text_lines
from datamodules.files.packed import suffix_of
from datamodules.files.tokenization import (
    TOKENIZER_KEY,
    adopted_tokenizer,
    document_end,
    load_tokenizer,
    say_unknown,
)
from datamodules.loading.masking import IGNORE

if TYPE_CHECKING:
    import pandas as pd

PromptKind = Literal["plain", "instruction", "zero_shot", "few_shot", "chain_of_thought", "role"]
_NEEDS = {
    "instruction": ("instruction",),
    "few_shot": ("examples",),
    "role": ("role",),
}


@dataclass
class PromptTemplate:
    """Turns a question into a prompt.

    Attributes:
        kind: Kind of prompt; ``plain`` is the question itself.
        instruction: What to do, such as "Translate to English".
        examples: Lines ``question TAB answer``, or a file of them.
        role: Whom the model shall speak as, such as "a patient teacher".
    """

    kind: PromptKind = "plain"
    instruction: str = ""
    examples: str | list[str] = field(default_factory=list)
    role: str = ""

    def fill(self, question: str) -> str:
        """The prompt for a question.

        Raises:
            InputError: If the kind needs a part that is not given.
        """
        for part in _NEEDS.get(self.kind, ()):
            if not getattr(self, part):
                raise InputError(
                    f"a {self.kind} prompt needs its {part}; give --data.prompt.{part}"
                )
        if self.kind == "plain":
            return question
        if self.kind == "instruction":
            return f"{self.instruction}: {question}"
        lines = [f"You are {self.role}."] if self.kind == "role" else []
        if self.instruction:
            lines.append(self.instruction)
        if self.kind in ("few_shot", "chain_of_thought"):
            lines += [f"Q: {asked}\nA: {answer}" for asked, answer in self.pairs]
        thought = " Let's think step by step." if self.kind == "chain_of_thought" else ""
        lines.append(f"Q: {question}\nA:{thought}")
        return "\n".join(lines)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Questions and answers of the examples.

        Raises:
            InputError: Naming the line that is no pair.
        """
        lines = self.examples
        if isinstance(lines, str):
            lines = read_lines(lines)
        pairs = []
        for number, line in enumerate(lines, 1):
            question, tab, answer = line.partition("\t")
            if not tab:
                raise InputError(f"example {number} is {line!r}; write `question TAB answer`")
            pairs.append((question, answer))
        return pairs


def read_lines(path: str) -> list[str]:
    """Lines of a text file, empty ones left out.

    Raises:
        InputError: If it is missing, empty or not UTF-8.
    """
    lines = text_lines(path, "lines, one entry each")
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise InputError(f"{path} has no line with text")
    return lines


def read_prompts(path: str, column: str = "prompt") -> list[str]:
    """Prompts of a file: its lines, or a column of a CSV or ``.jsonl`` file.

    Args:
        path: The file.
        column: Column or field of the prompts.

    Raises:
        InputError: If it is missing or empty, or a prompt is.
    """
    suffix = suffix_of(Path(path))
    if suffix == ".jsonl":
        return [row[0] for row in read_json_rows(Path(path), [column])]
    if suffix not in (".csv", ".tsv"):
        return read_lines(path)
    from datamodules.files.tables import read_table  # which loads pandas

    return [str(text) for text in read_table(path).texts([column])[column]]


def prompt_batch(prompts: Sequence[str], tokenizer: Any) -> TokenBatch:
    """Prompts as tokens, padded on the left.

    Raises:
        InputError: Naming a prompt without tokens.
    """
    rows = [encoding.ids for encoding in tokenizer.encode_batch(list(prompts))]
    unknown = tokenizer.token_to_id("[UNK]")
    for prompt, row in zip(prompts, rows, strict=True):
        if not row:
            raise InputError(f"the prompt {prompt!r} has no tokens; write some text")
        if set(row) == {unknown}:
            raise InputError(f"the vocabulary knows no token of the prompt {prompt!r}")
    say_unknown(tokenizer, rows, "the prompts")
    length = max(len(row) for row in rows)
    tokens = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for index, row in enumerate(rows):
        tokens[index, length - len(row) :] = torch.tensor(row)
        mask[index, length - len(row) :] = True
    return TokenBatch(tokens, torch.full_like(tokens, IGNORE), mask=mask)


class TextEnds:
    """Where a text that a model writes ends, for data with a ``tokenizer`` and ``stop``."""

    tokenizer: Any
    stop: list[str]

    @property
    def end_token(self) -> int | None:
        """Token that ends a document; None where the vocabulary has none."""
        return document_end(self.tokenizer)

    def stopped(self, tokens: list[int]) -> bool:
        """Whether new tokens hold a stop string."""
        text = self.tokenizer.decode(tokens, skip_special_tokens=False)
        return any(sign in text for sign in self.stop)

    def completions(self, prompts: Sequence[str], outputs: Mapping[str, Tensor]) -> "pd.DataFrame":
        """One row per prompt, with its completion up to where it ended, and why it ended."""
        import pandas as pd  # a third of a second that a fit need not wait for

        lengths, reasons = outputs["num_tokens"].tolist(), outputs["ended"].tolist()
        rows = [
            row[: length - (reason == 1)]
            for row, length, reason in zip(
                outputs["completion"].tolist(), lengths, reasons, strict=True
            )
        ]
        texts = self.tokenizer.decode_batch(rows, skip_special_tokens=False)
        for index, reason in enumerate(reasons):
            if reason == 2:
                places = (texts[index].find(sign) for sign in self.stop)
                texts[index] = texts[index][: min(place for place in places if place >= 0)]
        ended = [_ENDED[reason] for reason in reasons]
        return pd.DataFrame({"prompt": list(prompts), "completion": texts, "ended": ended})


# By the number that a model gives.
_ENDED = ("length", "end token", "stop string")


class PromptsDataModule(TextEnds, LitDataModule[TokenBatch]):
    """Prompts for `lit-models predict`, one per line of a file.

    Args:
        path: Text file with one question or prompt per line, or CSV or ``.jsonl`` file with a
            column or field ``prompt``.
        tokenizer: Vocabulary of the model: a ``tokenizer.json``, a folder that holds one, or the
            checkpoint of a model trained on a text file; by default the run's own.
        context_length: Largest number T of tokens the model sees.
        prompt: What to make of each line.
        batch_size: Prompts completed side by side.
        stop: Strings at which a completion ends; they are left out.

    Raises:
        InputError: If a file is missing or a line cannot be used.
    """

    def __init__(
        self,
        path: str,
        tokenizer: str | None = None,
        context_length: int = 1024,
        prompt: PromptTemplate = PromptTemplate(),  # noqa: B008  jsonargparse's way
        batch_size: int = 64,
        stop: list[str] = [],  # noqa: B006  jsonargparse's way; never changed
    ) -> None:
        super().__init__(batch_size, eval_batch_size=batch_size)
        self.path, self.source, self.prompt = path, tokenizer, prompt
        self.context_length, self.stop = context_length, stop
        self._known_tokenizer: Any = None

    @cached_property
    def tokenizer(self) -> Any:
        """The run's vocabulary, or the one that is given.

        Raises:
            InputError: If there is neither.
        """
        if self._known_tokenizer is not None:
            return self._known_tokenizer
        if self.source is None:
            raise InputError("which vocabulary? give --data.tokenizer, or --ckpt_path of a run")
        return load_tokenizer(self.source)

    def knowledge(self) -> dict[str, Any]:
        """The vocabulary."""
        return {TOKENIZER_KEY: self.tokenizer.to_str()}

    def adopt(self, knowledge: Mapping[str, Any]) -> None:
        """Takes the vocabulary of a run."""
        self._known_tokenizer = adopted_tokenizer(knowledge) or self._known_tokenizer

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes what a checkpoint holds of its text; older ones hold the vocabulary openly."""
        super().load_state_dict(state_dict)
        self.adopt(state_dict)

    @property
    def vocab_size(self) -> int:
        """Size of the vocabulary."""
        return int(self.tokenizer.get_vocab_size())

    @cached_property
    def prompts(self) -> list[str]:
        """The filled prompts."""
        return [self.prompt.fill(line) for line in read_prompts(self.path)]

    @property
    def predict_split(self) -> Split:
        """The prompts."""
        return "predict"

    def make_split(self, split: Split) -> TokenBatch:
        """The prompts; there is nothing to train or test on."""
        if split != "predict":
            raise InputError("a file of prompts is for predict; fit and test need a text")
        return prompt_batch(self.prompts, self.tokenizer)

    def prediction_frame(self, outputs: Mapping[str, Tensor]) -> "pd.DataFrame":
        """Prompt and completion."""
        return self.completions(self.prompts, outputs)
