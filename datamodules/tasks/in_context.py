r"""Tasks that a model can only solve from its context: a prompt or examples.

*shift*: :math:`y = (x + s) \bmod n` with a hidden shift s. A row is a prompt token, then
:math:`x_1, y_1, x_2, y_2, \dots`, and the answers are scored. Half of the rows' prompts name the
shift, as a description of the task does for GPT-2: every answer is then certain. The others do not:
the first answer is a guess, :math:`\log n` nats, and after one example the task is known, as
GPT-3 learns from examples.

*linear_regression*: :math:`y_t = w^T x_t + \sigma \epsilon_t` with w and x standard normal. The
best forecast after t examples is ridge regression, whose expected squared error is

.. math::
    \sigma^2 + E\,\mathrm{tr}\big(I + X_t^T X_t / \sigma^2\big)^{-1},

:math:`d + \sigma^2` without examples. Brown et al., "Language Models are Few-Shot Learners" (2020);
Garg et al., "What Can Transformers Learn In-Context?" (2022).
"""

import math
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from datamodules.base import LitDataModule, Reference, Split
from datamodules.batches import ExamplesBatch, TokenBatch
from datamodules.errors import InputError, at_least
from datamodules.laws.draws import blocks, passed
from datamodules.loading.masking import IGNORE

_GROUPS = ("prompt", "zero_shot", "few_shot")


class InContextDataModule(LitDataModule[TokenBatch | ExamplesBatch]):
    """Rows that are each a task of their own, with examples.

    Args:
        family: Kind of task.
        num_shifts: Number n of symbols and of shifts of the shift family.
        in_features: Size d of the inputs of linear regression.
        noise_std: Standard deviation of the noise of linear regression.
        num_examples: Answers in a row; the last one has seen one less.
        num_samples: Training rows.
        num_test: Test rows; validation has a quarter of it.
        batch_size: Rows per optimizer step.
        seed: Seed of the data.

    Raises:
        InputError: If an argument is out of range.
    """

    def __init__(
        self,
        family: Literal["shift", "linear_regression"] = "shift",
        num_shifts: int = 10,
        in_features: int = 4,
        noise_std: float = 0.25,
        num_examples: int = 9,
        num_samples: int = 50_000,
        num_test: int = 4_000,
        batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, eval_batch_size=1000)
        at_least(
            num_shifts=(num_shifts, 2),
            in_features=(in_features, 1),
            num_examples=(num_examples, 2),
            num_samples=(num_samples, 1),
            num_test=(num_test, 8),
        )
        if noise_std <= 0:
            raise InputError(f"noise_std must be positive, got {noise_std}")
        self.family, self.num_shifts, self.noise_std = family, num_shifts, noise_std
        self.in_features, self.num_examples = in_features, num_examples
        self.num_samples, self.num_test = num_samples, num_test

    @property
    def vocab_size(self) -> int:
        """Symbols, prompts that name a shift, and the prompt that names none.

        Raises:
            InputError: If the family has no tokens.
        """
        if self.family != "shift":
            raise InputError(
                "family linear_regression has numbers, not tokens; use --config "
                "gpt_in_context_regression, whose model is LitGPTRegressor"
            )
        return 2 * self.num_shifts + 1

    @property
    def context_length(self) -> int:
        """Positions of a row: prompt, inputs and answers, or one per example."""
        return 2 * self.num_examples if self.family == "shift" else self.num_examples

    @property
    def group_names(self) -> tuple[str, ...]:
        """Groups of answers: after a prompt, first without one, and later without one."""
        return _GROUPS if self.family == "shift" else ()

    @property
    def num_train(self) -> int:
        """Number of training rows."""
        return self.num_samples

    def make_split(self, split: Split) -> Any:
        """Rows of one split."""
        counts = {"train": self.num_samples, "val": self.num_test // 4, "test": self.num_test}
        generator = self.generator(split)
        if self.family == "shift":
            return self._shift(counts[split], generator)
        return self._regression(counts[split], generator)

    def _shift(self, count: int, generator: torch.Generator) -> TokenBatch:
        n, k = self.num_shifts, self.num_examples
        x = torch.randint(n, (count, k), generator=generator)
        shift = torch.randint(n, (count,), generator=generator)
        prompted = torch.arange(count) % 2 == 0
        tokens = torch.empty(count, 2 * k, dtype=torch.long)
        tokens[:, 0] = torch.where(prompted, n + shift, 2 * n)
        tokens[:, 1::2] = x
        answers = x.add_(shift.unsqueeze(1)).remainder_(n)  # in place: there are many rows
        tokens[:, 2::2] = answers[:, :-1]
        labels = torch.full_like(tokens, IGNORE)
        labels[:, 1::2] = answers
        group = torch.full_like(tokens, -1)
        group[:, 1::2] = _GROUPS.index("few_shot")
        group[:, 1] = _GROUPS.index("zero_shot")
        group[prompted, 1::2] = _GROUPS.index("prompt")
        return TokenBatch(tokens, labels, group=group)

    def _regression(self, count: int, generator: torch.Generator) -> ExamplesBatch:
        def inputs(count: int, generator: torch.Generator) -> Tensor:
            shape = (count, self.num_examples, self.in_features)
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        input_generator = passed(generator, count, inputs)
        w = torch.randn(count, self.in_features, 1, generator=generator, dtype=torch.float64)
        y = torch.empty(count, self.num_examples)
        x = torch.empty(*y.shape, self.in_features)
        for rows in blocks(count):
            noise = torch.randn(y[rows].shape, generator=generator, dtype=torch.float64)
            drawn = inputs(len(noise), input_generator)
            x[rows], y[rows] = drawn, (drawn @ w[rows]).squeeze(-1) + self.noise_std * noise
        return ExamplesBatch(x, y)

    @cached_property
    def floors(self) -> Tensor:
        """Best score after 0, 1, ... examples without a prompt, ``(num_examples,)``.

        Expected cross-entropy in nats, or expected squared error.
        """
        if self.family == "shift":
            floors = torch.zeros(self.num_examples, dtype=torch.float64)
            floors[0] = math.log(self.num_shifts)
            return floors
        return self.noise_std**2 + torch.stack(
            [variance.mean() for variance in self._posterior_variances(20_000)]
        )

    def _posterior_variances(self, count: int) -> list[Tensor]:
        """Trace of the posterior covariance of w after 0, 1, ... examples, each ``(count,)``."""
        generator = self.generator("floors")
        d = self.in_features
        shape = (count, self.num_examples, d)
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        precision = torch.eye(d, dtype=torch.float64).expand(count, d, d)
        traces = []
        for t in range(self.num_examples):
            traces.append(torch.linalg.inv(precision).diagonal(dim1=1, dim2=2).sum(1))
            precision = precision + x[:, t, :, None] * x[:, t, None] / self.noise_std**2
        return traces

    @cached_property
    def _ridge_error(self) -> float:
        """Squared error of ridge regression on the test rows."""
        test: Any = self.split("test")
        x, y = test.x.double(), test.y.double()
        d = self.in_features
        precision = torch.eye(d, dtype=torch.float64).repeat(len(x), 1, 1)
        moment = torch.zeros(len(x), d, 1, dtype=torch.float64)
        total = 0.0
        for t in range(self.num_examples):
            w = torch.linalg.solve(precision, moment)
            total += float(((x[:, t, None] @ w).squeeze() - y[:, t]).square().mean())
            precision = precision + x[:, t, :, None] * x[:, t, None] / self.noise_std**2
            moment = moment + x[:, t, :, None] * y[:, t, None, None] / self.noise_std**2
        return total / self.num_examples

    @property
    def optimum(self) -> dict[str, Reference]:
        """Scores of the best model."""
        if self.family == "linear_regression":
            how = (
                "ridge regression on the same rows, mean over the examples; its expectation is "
                f"{self.floors.mean():.4f}"
            )
            return {"test/mse": Reference(self._ridge_error, how)}
        guess = math.log(self.num_shifts)
        how = f"log {self.num_shifts} for a guess, 0 once prompt or example tells the shift"
        mean = guess / self.num_examples / 2
        values = {"cross_entropy": mean, "prompt_cross_entropy": 0.0}
        values |= {"zero_shot_cross_entropy": guess, "few_shot_cross_entropy": 0.0}
        return {f"test/{name}": Reference(value, how) for name, value in values.items()}

    @property
    def baseline(self) -> dict[str, Reference]:
        """Scores of a model that reads neither prompt nor examples."""
        if self.family == "linear_regression":
            value = self.in_features + self.noise_std**2
            return {"test/mse": Reference(value, "the mean, 0")}
        guess = math.log(self.num_shifts)
        names = ("cross_entropy", "prompt_cross_entropy", "few_shot_cross_entropy")
        return {f"test/{name}": Reference(guess, "a guess") for name in names}

    def decode(self, tokens: Tensor) -> str:
        """Symbols as numbers, prompts as ``[+s]`` and ``[?]``."""
        n = self.num_shifts
        names = [*map(str, range(n)), *(f"[+{shift}]" for shift in range(n)), "[?]"]
        return " ".join(names[token] for token in tokens.tolist())
