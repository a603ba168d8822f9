r"""Short sequences to rewrite: reverse, sort, add, and a noisy translation with a known entropy.

The first three are functions of the source: a perfect model matches every target, at no
cross-entropy. Translation maps the reversed source through a fixed permutation :math:`\pi` of the V
symbols and replaces a share of the result: with probability :math:`\epsilon` a symbol is drawn
afresh from all V. A symbol is then the expected one with probability
:math:`q = 1 - \epsilon (V-1)/V`, and the best attainable cross-entropy per symbol is

.. math:: -q \ln q - (1 - q) \ln \frac{1 - q}{V - 1},

0.5937 nats at :math:`\epsilon = 0.1` and V = 20; a target of length L is matched with probability
:math:`q^L`, 0.3685 at L = 10.
"""

import math
from collections.abc import Mapping
from typing import Literal

import pandas as pd
import torch
from torch import Tensor

from datamodules.base import LitDataModule, Reference, Split
from datamodules.batches import BOS, EOS, PAD, SequencePairBatch
from datamodules.errors import InputError, at_least

Task = Literal["reverse", "sort", "add", "translate"]
_NUM_SPECIAL = 3
_PLUS = 10
_HELD_OUT: dict[str, tuple[Split, ...]] = {"test": (), "val": ("test",), "train": ("test", "val")}


class SequenceTaskDataModule(LitDataModule[SequencePairBatch]):
    r"""Random sequences with the target that a task asks for.

    No training source is a source of validation or test. Exactly the expected share of a split's
    symbols is replaced by the noise of ``translate``, which takes the noise out of the measured
    cross-entropy.

    Args:
        task: ``reverse``; ``sort`` in ascending order; ``add`` two numbers, written as ``12+34``
            and answered with the least significant digit first and one digit more; ``translate``,
            noisily.
        length: Symbols L of a source, or digits of each number to add; by default 10, or 3 digits.
        min_length: Fewest symbols of a source, drawn uniformly up to ``length``; by default all
            sources have the same length. Not for ``add``.
        vocab_size: Number V of symbols; ``add`` has the ten digits and the plus sign.
        noise: Probability :math:`\epsilon` that ``translate`` draws a symbol afresh.
        num_samples: Training pairs.
        num_test: Pairs of the test set; validation has a tenth of it.
        batch_size: Pairs per optimizer step.
        seed: Seed of the data.

    Raises:
        InputError: If an argument is out of range, or there are too few different sources.
    """

    def __init__(
        self,
        task: Task = "reverse",
        length: int | None = None,
        min_length: int | None = None,
        vocab_size: int = 20,
        noise: float = 0.1,
        num_samples: int = 100_000,
        num_test: int = 20_000,
        batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, eval_batch_size=1000)
        self.task = task
        self.length = (3 if task == "add" else 10) if length is None else length
        self.min_length = self.length if min_length is None else min_length
        at_least(
            length=(self.length, 1),
            vocab_size=(vocab_size, 2),
            num_samples=(num_samples, 1),
            num_test=(num_test, 10),
        )
        if not 1 <= self.min_length <= self.length:
            raise InputError(f"min_length must lie in [1, {self.length}], got {self.min_length}")
        if task == "add" and self.min_length != self.length:
            raise InputError(f"both numbers to add have {self.length} digits; leave min_length out")
        if task == "add" and self.length > 18:
            raise InputError(f"numbers to add have at most 18 digits, got length={self.length}")
        if not 0 <= noise < 1:
            raise InputError(f"noise must lie in [0, 1), got {noise}")
        self.vocab_size = 11 if task == "add" else vocab_size
        self.noise = noise
        self.num_samples, self.num_test = num_samples, num_test
        held_out = num_test + num_test // 10
        if self._num_sources < 4 * held_out:
            raise InputError(
                f"there are {self._num_sources:,} different sources and num_test={num_test} takes "
                "too many of them from training; raise length or vocab_size, or lower num_test"
            )

    @property
    def _num_sources(self) -> int:
        if self.task == "add":
            return int(100**self.length)
        lengths = range(self.min_length, self.length + 1)
        return sum(int(self.vocab_size**length) for length in lengths)

    @property
    def src_vocab_size(self) -> int:
        """Number of tokens, special ones included."""
        return self.vocab_size + _NUM_SPECIAL

    @property
    def tgt_vocab_size(self) -> int:
        """Number of tokens, special ones included."""
        return self.src_vocab_size

    @property
    def max_length(self) -> int:
        """Most tokens of a source or a target, special ones included."""
        return 2 * self.length + 1 if self.task == "add" else self.length + 2

    @property
    def num_train(self) -> int:
        """Number of training pairs."""
        return self.num_samples

    def make_split(self, split: Split) -> SequencePairBatch:
        """Pairs of one split."""
        src, src_mask = self._sources(split)
        if self.task == "add":
            tgt = self._sums(src)
            tgt_mask = torch.ones_like(tgt, dtype=torch.bool)
        else:
            tgt, tgt_mask = self._rewrite(src, src_mask, split), src_mask
        for symbols, mask in ((src, src_mask), (tgt, tgt_mask)):
            symbols.add_(_NUM_SPECIAL).masked_fill_(~mask, PAD)
        tgt = torch.nn.functional.pad(tgt, (1, 1), value=PAD)
        tgt[:, 0] = BOS
        ends = tgt_mask.sum(1, keepdim=True) + 1
        tgt.scatter_(1, ends, EOS)
        return SequencePairBatch(src, tgt, src_mask, torch.arange(tgt.shape[1]) <= ends)

    def _sources(self, split: Split) -> tuple[Tensor, Tensor]:
        """Symbols ``(rows, S)`` of a split's sources, and their mask."""
        generator = self.generator(split)
        counts = {"train": self.num_samples, "val": self.num_test // 10, "test": self.num_test}
        src, mask = self._draw(counts[split], generator)
        taken = [_fingerprint(*self._sources(other)) for other in _HELD_OUT[split]]
        while taken:
            again = torch.isin(_fingerprint(src, mask), torch.cat(taken)).nonzero().squeeze(1)
            if len(again) == 0:
                break
            src[again], mask[again] = self._draw(len(again), generator)
        return src, mask

    def _draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        size = (count, self.length)
        if self.task == "add":
            first, second = torch.randint(10, (2, *size), generator=generator)
            src = torch.cat([first, torch.full((count, 1), _PLUS), second], dim=1)
            return src, torch.ones_like(src, dtype=torch.bool)
        lengths = torch.randint(self.min_length, self.length + 1, (count, 1), generator=generator)
        mask = torch.arange(self.length) < lengths
        src = torch.randint(self.vocab_size, size, generator=generator)
        return src.masked_fill_(~mask, 0), mask

    def _sums(self, src: Tensor) -> Tensor:
        """Digits of the sums, the least significant first, ``(rows, length + 1)``."""
        first, second = src[:, : self.length], src[:, self.length + 1 :]
        digits = [first.flip(1)[:, i] + second.flip(1)[:, i] for i in range(self.length)]
        carry, answer = torch.zeros_like(digits[0]), []
        for digit in digits:
            answer.append((digit + carry) % 10)
            carry = (digit + carry) // 10
        return torch.stack([*answer, carry], dim=1)

    def _rewrite(self, src: Tensor, mask: Tensor, split: Split) -> Tensor:
        """Symbols of the targets, ``(rows, S)``."""
        if self.task == "sort":
            return src.masked_fill(~mask, self.vocab_size).sort(1).values
        last = mask.sum(1, keepdim=True) - 1
        tgt = src.gather(1, (last - torch.arange(self.length)).clamp_(min=0))
        if self.task == "reverse":
            return tgt
        permutation = torch.randperm(self.vocab_size, generator=self.generator("permutation"))
        return self._replace(permutation[tgt], mask, self.generator(f"{split} noise"))

    def _replace(self, tgt: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Turns the expected share of the symbols into other ones."""
        real = mask.flatten().nonzero().squeeze(1)
        num_wrong = round((1 - self._prob_expected) * len(real))
        wrong = real[torch.randperm(len(real), generator=generator)[:num_wrong]]
        shift = torch.randint(1, self.vocab_size, (num_wrong,), generator=generator)
        flat = tgt.flatten()
        flat[wrong] = (flat[wrong] + shift) % self.vocab_size
        return flat.view_as(tgt)

    @property
    def _prob_expected(self) -> float:
        """Probability q that a symbol of the target is the expected one."""
        if self.task != "translate":
            return 1.0
        return 1 - self.noise * (self.vocab_size - 1) / self.vocab_size

    @property
    def optimum(self) -> dict[str, Reference]:
        """Entropy of the targets, and the probability of the likeliest target."""
        q = self._prob_expected
        if q == 1:
            how = "the target is a function of the source"
            return {
                "test/exact_match": Reference(1.0, how),
                "test/cross_entropy": Reference(0.0, how),
            }
        entropy = -q * math.log(q) - (1 - q) * math.log((1 - q) / (self.vocab_size - 1))
        lengths = range(self.min_length, self.length + 1)
        match = sum(q**length for length in lengths) / len(lengths)
        return {
            "test/exact_match": Reference(match, f"a symbol is the expected one with p = {q:.4g}"),
            "test/cross_entropy": Reference(entropy, "entropy of a target symbol, in nats"),
        }

    @property
    def baseline(self) -> dict[str, Reference]:
        """Symbols guessed at random."""
        num_symbols = 10 if self.task == "add" else self.vocab_size
        extra = 1 if self.task == "add" else 0
        lengths = range(self.min_length + extra, self.length + extra + 1)
        match = sum(num_symbols**-length for length in lengths) / len(lengths)
        how = f"each of the {num_symbols} symbols equally likely, the length known"
        return {
            "test/exact_match": Reference(match, how),
            "test/cross_entropy": Reference(math.log(num_symbols), how),
        }

    def token_names(self, tokens: Tensor, side: Literal["src", "tgt"]) -> list[str]:
        """Names of the tokens of one row, for figures and predictions."""
        special = {PAD: "PAD", BOS: "BOS", EOS: "EOS", _NUM_SPECIAL + _PLUS: "+"}
        if self.task != "add":
            del special[_NUM_SPECIAL + _PLUS]
        return [special.get(token, str(token - _NUM_SPECIAL)) for token in tokens.tolist()]

    def prediction_frame(self, outputs: Mapping[str, Tensor]) -> pd.DataFrame:
        """Source, prediction and target as symbols, one pair a row."""
        columns = {"source": self.split(self.predict_split).src, **outputs}
        return pd.DataFrame(
            {
                name: values.tolist()
                if values.is_floating_point()  # scores of the predictions
                else [self._text(row, "src" if name == "source" else "tgt") for row in values]
                for name, values in columns.items()
            }
        )

    def _text(self, row: Tensor, side: Literal["src", "tgt"]) -> str:
        ends = (row == EOS).nonzero()
        content = row[: int(ends[0])] if len(ends) else row
        return " ".join(self.token_names(content[content != PAD], side))


def _fingerprint(src: Tensor, mask: Tensor) -> Tensor:
    """One number per row; that two rows share one by chance is harmless and rare."""
    key = mask.sum(1)
    for column in src.T:
        key = key * 6_364_136_223_846_793_005 + column + 1
    return key
