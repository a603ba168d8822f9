"""Ranges of the arguments that models share; one check for all of them."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from datamodules.errors import InputError


class Range(NamedTuple):
    """Numbers from ``low`` to ``high``, either of which may be left out.

    Attributes:
        low: Least number.
        high: Largest number.
        low_open: Whether ``low`` itself is left out.
        high_open: Whether ``high`` itself is left out.
    """

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int | float) or not math.isfinite(value):
            return False
        low = value > self.low if self.low_open else value >= self.low
        return low and (value < self.high if self.high_open else value <= self.high)

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"{'above' if self.low_open else 'at least'} {self.low:g}"
        brackets = "(["[not self.low_open], ")]"[not self.high_open]
        return f"in {brackets[0]}{self.low:g}, {self.high:g}{brackets[1]}"


SHARE = Range(0, 1)
PROPER_SHARE = Range(0, 1, high_open=True)
POSITIVE = Range(0, low_open=True)
NOT_NEGATIVE = Range(0)
COUNT = Range(1)

RANGES = {
    "dropout": PROPER_SHARE,
    "attention_dropout": PROPER_SHARE,
    "input_dropout": PROPER_SHARE,
    "label_smoothing": PROPER_SHARE,
    "class_dropout": SHARE,
    "teacher_forcing": SHARE,
    "length_penalty": NOT_NEGATIVE,
    "temperature": NOT_NEGATIVE,
    "init_std": POSITIVE,
    "guidance_weight": NOT_NEGATIVE,
    "eta": SHARE,
    "min_snr_gamma": POSITIVE,
    "lm_weight": NOT_NEGATIVE,
    "horizon": COUNT,
    "num_train": COUNT,
    "num_new_tokens": COUNT,
    "num_layers": COUNT,
    "num_blocks": COUNT,
    "num_heads": COUNT,
    "num_samples": COUNT,
    "num_members": COUNT,
    "num_bins": COUNT,
    "num_steps": COUNT,
    "beam_size": COUNT,
    "out_features": COUNT,
    "hidden_size": COUNT,
    "vocab_size": COUNT,
    "num_nodes": COUNT,
}


def check_ranges(
    arguments: Mapping[str, Any], ranges: Mapping[str, Range] = RANGES, where: str = ""
) -> None:
    """Checks numbers among the arguments that have a range; None is left to who takes it.

    Args:
        arguments: Values by name; names without a range are passed by.
        ranges: Ranges by name.
        where: What the arguments belong to, for the message.

    Raises:
        InputError: Naming the first value outside its range.
    """
    for name, value in arguments.items():
        known = ranges.get(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if known is not None and is_number and value not in known:
            prefix = f"{where}: " if where else ""
            raise InputError(f"{prefix}{name} must be {known}, got {value}")
