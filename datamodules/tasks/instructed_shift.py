r"""The shift task in words: a model learns it from examples and is then told what to do.

The task is :math:`y = (x + s) \bmod n`; a share of the answers is drawn afresh, so that the
expected one comes with :math:`q = 1 - \epsilon (n - 1) / n` and each other with
:math:`\epsilon / n`.

*examples*, to pre-train on: a row is ``; x = y ; x = y ...`` with one hidden s, or begins with its
name, ``three x = y ; x = y ...``. The best forecast of an answer is its posterior predictive,

.. math:: P(y_t \mid x_t, \text{before}) = \sum_s P(s \mid \text{before})\, P(y_t \mid x_t, s).

Rows that tell s are the curriculum: the sum is learned from them in a few hundred steps, and the
others then have only s to find. Without them a model may stay for thousands of steps on a plateau.

*instructions*, to fine-tune on: a row names s in words, such as ``increase 4 by three =``, then the
answer and the end; the loss is on these two. Some pairs of a wording and an s are in no training
row: half of the test is on them, and the answer's entropy is the floor there too. From examples to
instructions without any is the way from GPT-1 to GPT-3: Radford et al. (2018); Ouyang et al.,
"Training Language Models to Follow Instructions with Human Feedback" (2022).

Shape letters: B rows, K examples in a row, T tokens, n symbols and shifts.
"""

import itertools
import math
from collections.abc import Mapping
from functools import cached_property
from typing import Literal

import pandas as pd
import torch
from torch import Tensor

from datamodules.base import LitDataModule, Reference, Split
from datamodules.batches import TokenBatch
from datamodules.errors import InputError, at_least
from datamodules.loading.masking import IGNORE

_NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"),
    *("eighteen", "nineteen"),
)
_WORDINGS = (
    "add S to X",
    "X plus S",
    "increase X by S",
    "move X forward by S",
    "S more than X",
    "raise X by S steps",
)
_SIGNS = ("<end>", "=", ";")
_END, _EQUALS, _STOP = range(3)
_WORDS = sorted({word for line in _WORDINGS for word in line.split()} - {"S", "X"})
_GROUPS = ("known", "new")
_ENDED = ("length", "end token", "stop string")


class InstructedShiftDataModule(LitDataModule[TokenBatch]):
    """Examples of the shift task, or instructions to carry it out.

    Args:
        task: ``examples`` to pre-train on, ``instructions`` to fine-tune on.
        num_shifts: Number n of symbols and of shifts, at most 20.
        noise: Probability with which an answer is drawn afresh.
        num_examples: Examples K in a row of examples.
        told_fraction: Share of the rows of examples that begin with the name of their shift.
        num_samples: Training rows.
        num_test: Test rows; validation has a quarter of it.
        batch_size: Rows per optimizer step.
        seed: Seed of the data.

    Raises:
        InputError: If an argument is out of range.
    """

    def __init__(
        self,
        task: Literal["examples", "instructions"] = "instructions",
        num_shifts: int = 10,
        noise: float = 0.1,
        num_examples: int = 8,
        num_samples: int = 20_000,
        num_test: int = 4_000,
        batch_size: int = 64,
        seed: int = 0,
        told_fraction: float = 0.5,
    ) -> None:
        super().__init__(batch_size, seed, eval_batch_size=1000)
        at_least(
            num_shifts=(num_shifts, 2),
            num_examples=(num_examples, 2),
            num_samples=(num_samples, 1),
            num_test=(num_test, 8),
        )
        if num_shifts > len(_NUMBERS):
            raise InputError(f"num_shifts must be at most {len(_NUMBERS)}, got {num_shifts}")
        if not 0 <= noise < 1:
            raise InputError(f"noise must lie in [0, 1), got {noise}")
        if not 0 <= told_fraction <= 1:
            raise InputError(f"told_fraction must lie in [0, 1], got {told_fraction}")
        self.task, self.num_shifts, self.noise = task, num_shifts, noise
        self.told_fraction = told_fraction
        self.num_examples, self.num_samples, self.num_test = num_examples, num_samples, num_test
        self.stop: list[str] = []
        self.words = [
            *map(str, range(num_shifts)),
            *_NUMBERS[:num_shifts],
            *_SIGNS,
            *_WORDS,
        ]

    @property
    def vocab_size(self) -> int:
        """Symbols, names of the shifts, signs and words."""
        return len(self.words)

    @property
    def context_length(self) -> int:
        """Most tokens of a row, of either task."""
        return max(4 * self.num_examples, 8)

    @property
    def group_names(self) -> tuple[str, ...]:
        """Groups of answers: to instructions of the training rows, and to others."""
        return _GROUPS if self.task == "instructions" else ()

    @property
    def num_train(self) -> int:
        """Number of training rows."""
        return self.num_samples

    @property
    def end_token(self) -> int:
        """Token that ends an answer."""
        return 2 * self.num_shifts + _END

    @property
    def predict_split(self) -> Split:
        """The test rows without their answers."""
        return "predict"

    def make_split(self, split: Split) -> TokenBatch:
        """Rows of one split."""
        if split == "predict":
            return self._asked()
        counts = {"train": self.num_samples, "val": self.num_test // 4, "test": self.num_test}
        if self.task == "examples":
            return self._examples(counts[split], self.generator(f"{split} examples"))
        return self._instructions(counts[split], split)

    def _answers(self, x: Tensor, shift: Tensor, generator: torch.Generator) -> Tensor:
        n = self.num_shifts
        afresh = torch.rand(x.shape, generator=generator, dtype=torch.float64) < self.noise
        drawn = torch.randint(n, x.shape, generator=generator)
        return torch.where(afresh, drawn, (x + shift) % n)

    def _examples(self, count: int, generator: torch.Generator) -> TokenBatch:
        n, shape = self.num_shifts, (count, self.num_examples)
        x = torch.randint(n, shape, generator=generator)
        shift = torch.randint(n, (count, 1), generator=generator)
        y = self._answers(x, shift, generator)
        told = torch.rand(count, 1, generator=generator) < self.told_fraction
        equals, stop = (torch.full(shape, 2 * n + sign) for sign in (_EQUALS, _STOP))
        stop[:, :1] = torch.where(told, n + shift, stop[:, :1])
        tokens = torch.stack([stop, x, equals, y], dim=2).flatten(1)
        labels = torch.full_like(tokens, IGNORE)
        labels[:, 2::4] = y
        return TokenBatch(tokens, labels)

    def is_new(self, wording: Tensor, shift: Tensor) -> Tensor:
        """Whether no training row has these wordings ``(B,)`` of these shifts."""
        return (wording + shift) % len(_WORDINGS) == 0

    def _instructions(self, count: int, split: Split) -> TokenBatch:
        """Rows padded on the right; every second test row has an instruction that is new."""
        generator = self.generator(f"{split} instructions")
        shift = torch.randint(self.num_shifts, (count,), generator=generator)
        wording = torch.randint(len(_WORDINGS) - 1, (count,), generator=generator)
        held_out = -shift % len(_WORDINGS)
        wording.add_(held_out + 1).remainder_(len(_WORDINGS))
        if split == "test":
            wording = torch.where(torch.arange(count) % 2 == 1, held_out, wording)
        x = torch.randint(self.num_shifts, (count,), generator=generator)
        y = self._answers(x, shift, generator)
        prompts, lengths = self._prompts()
        tokens = prompts[wording, shift, x]
        rows, end = torch.arange(count), lengths[wording]
        tokens[rows, end] = y
        labels = torch.full_like(tokens, IGNORE)
        labels[rows, end - 1], labels[rows, end] = y, self.end_token
        group = torch.full_like(tokens, -1)
        group[rows, end - 1] = self.is_new(wording, shift).long()
        mask = torch.arange(tokens.shape[1]) <= end.unsqueeze(1)
        return TokenBatch(tokens, labels, mask=mask, group=group)

    def _prompts(self) -> tuple[Tensor, Tensor]:
        """Instructions by wording, shift and symbol, padded with ends, and a wording's length."""
        numbers = range(self.num_shifts)
        every = itertools.product(range(len(_WORDINGS)), numbers, numbers)
        prompts = [torch.tensor(self._prompt(*parts)) for parts in every]
        lengths = torch.tensor([len(line.split()) + 1 for line in _WORDINGS])
        table = torch.full((len(prompts), 8), self.end_token)
        for row, prompt in zip(table, prompts, strict=True):
            row[: len(prompt)] = prompt
        return table.view(-1, self.num_shifts, self.num_shifts, 8), lengths

    def _prompt(self, wording: int, shift: int, x: int) -> list[int]:
        """Tokens of an instruction, up to the answer."""
        names = {"S": _NUMBERS[shift], "X": str(x)}
        words = [names.get(word, word) for word in _WORDINGS[wording].split()]
        return [self.words.index(word) for word in (*words, "=")]

    def _asked(self) -> TokenBatch:
        """Test prompts, padded on the left."""
        if self.task != "instructions":
            raise InputError("examples have no prompts to answer; add --data.task instructions")
        test = self.split("test")
        assert test.mask is not None
        lengths = test.mask.sum(1, keepdim=True) - 1
        place = torch.arange(test.tokens.shape[1]) - (test.tokens.shape[1] - lengths)
        tokens = test.tokens.gather(1, place.clamp(min=0))
        return TokenBatch(tokens, torch.full_like(tokens, IGNORE), mask=place >= 0)

    @property
    def _prob_expected(self) -> float:
        return 1 - self.noise * (self.num_shifts - 1) / self.num_shifts

    def _log_prob(self, residue: Tensor) -> Tensor:
        """Log-probability of answers that are ``residue`` above the expected ones."""
        other = self.noise / self.num_shifts
        unexpected = math.log(other) if other > 0 else -math.inf
        scores = torch.tensor([math.log(self._prob_expected), unexpected], dtype=torch.float64)
        return scores[(residue != 0).long()]

    @property
    def optimum(self) -> dict[str, Reference]:
        """Scores of the true law on the test rows."""
        if self.task == "examples":
            how = "posterior predictive of the hidden shift, on the same rows"
            return {"test/cross_entropy": Reference(self._examples_floor, how)}
        how = f"the expected answer has p = {self._prob_expected:.4g}, on the same rows"
        costs = self._answer_costs()
        values = {
            "cross_entropy": float(torch.cat(costs).mean()) / 2,  # the end is certain
            **{
                f"{name}_cross_entropy": float(cost.mean())
                for name, cost in zip(_GROUPS, costs, strict=True)
            },
        }
        return {f"test/{name}": Reference(value, how) for name, value in values.items()}

    def _answer_costs(self) -> list[Tensor]:
        """Cost of each answer of the test under the true law, in nats, by group."""
        test = self.split("test")
        assert test.group is not None
        costs = []
        for group in range(len(_GROUPS)):
            rows, place = (test.group == group).nonzero(as_tuple=True)
            answers = test.labels[rows, place]
            residue = torch.tensor(
                [
                    answer - self._expected(tokens[:end].tolist())
                    for answer, tokens, end in zip(
                        answers.tolist(), test.tokens[rows], (place + 1).tolist(), strict=True
                    )
                ]
            )
            costs.append(-self._log_prob(residue % self.num_shifts))
        return costs

    def _expected(self, prompt: list[int]) -> int:
        """Answer that a prompt asks for."""
        n = self.num_shifts
        x = next(token for token in prompt if token < n)
        shift = next(token - n for token in prompt if n <= token < 2 * n)
        return (x + shift) % n

    @cached_property
    def _examples_floor(self) -> float:
        test = self.split("test")
        residue = (test.labels[:, 2::4] - test.tokens[:, 1::4]).unsqueeze(-1)
        shifts = torch.arange(self.num_shifts)
        log_prob = self._log_prob((residue - shifts) % self.num_shifts)
        first = test.tokens[:, :1] - self.num_shifts
        possible = (first == shifts) | (first >= self.num_shifts)  # (B, n)
        before = torch.nn.functional.pad(log_prob.cumsum(1)[:, :-1], (0, 0, 1, 0))  # (B, K, n)
        before = before.masked_fill(~possible.unsqueeze(1), -math.inf)
        found = torch.logsumexp(before + log_prob, -1) - torch.logsumexp(before, -1)
        return float(-found.mean())

    @property
    def baseline(self) -> dict[str, Reference]:
        """Scores of a guess."""
        guess = math.log(self.num_shifts)
        if self.task == "examples":
            return {"test/cross_entropy": Reference(guess, "a guess")}
        values = {"cross_entropy": guess / 2, **{f"{g}_cross_entropy": guess for g in _GROUPS}}
        how = "a guess of the answer, and the end"
        return {f"test/{name}": Reference(value, how) for name, value in values.items()}

    def decode(self, tokens: Tensor) -> str:
        """Words of tokens, separated by blanks."""
        return " ".join(self.words[token] for token in tokens.tolist())

    def prediction_frame(self, outputs: Mapping[str, Tensor]) -> pd.DataFrame:
        """Prompt, completion, why it ended, and the expected answer."""
        asked = self.split("predict")
        assert asked.mask is not None
        prompts = [row[real] for row, real in zip(asked.tokens, asked.mask, strict=True)]
        ended = outputs["ended"].tolist()
        lengths = [
            n - (why == 1) for n, why in zip(outputs["num_tokens"].tolist(), ended, strict=True)
        ]
        rows = zip(outputs["completion"], lengths, strict=True)
        return pd.DataFrame(
            {
                "prompt": [self.decode(prompt) for prompt in prompts],
                "completion": [self.decode(row[:length]) for row, length in rows],
                "ended": [_ENDED[reason] for reason in ended],
                "expected": [self._expected(prompt.tolist()) for prompt in prompts],
            }
        )
