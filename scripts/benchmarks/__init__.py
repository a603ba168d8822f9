"""Timings as ratios: two ways to do the same work, alternating in one process."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """Seconds of ours over seconds of theirs.

    Attributes:
        ours: What is measured.
        theirs: What it is measured against.
        values: One ratio per round.
        seconds: Median seconds of ours, per unit of work.
        unit: The unit of work.
    """

    ours: str
    theirs: str
    values: tuple[float, ...]
    seconds: float
    unit: str

    @property
    def median(self) -> float:
        """Median ratio."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        low, high = min(self.values), max(self.values)
        return (
            f"{self.median:.2f} x [{low:.2f}, {high:.2f}] {self.theirs}; "
            f"{_duration(self.seconds)} per {self.unit}"
        )


def _duration(seconds: float) -> str:
    for factor, unit in ((1e6, "us"), (1e3, "ms")):
        if seconds * factor < 1000:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(
    ours: Callable[[], float],
    theirs: Callable[[], float],
    names: tuple[str, str],
    unit: str,
    rounds: int = 7,
) -> Ratio:
    """Runs both in turn; each call returns its seconds per unit of work.

    Args:
        ours: The measured way.
        theirs: The way it is compared with.
        names: What the two are, ours first.
        unit: The unit of work.
        rounds: Pairs of runs; one more goes before them and does not count.
    """
    pairs = [(ours(), theirs()) for _ in range(rounds + 1)][1:]
    values = tuple(a / b for a, b in pairs)
    return Ratio(*names, values, statistics.median(a for a, _ in pairs), unit)
