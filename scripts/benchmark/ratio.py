"""Speed measured as ratios in one run; each module has ``CASES``, by name."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple


class Ratio(NamedTuple):
    """How many times faster one of two ways is.

    Attributes:
        value: Seconds of the other over seconds of ours, of the medians.
        ours: Median seconds of ours.
        other: Median seconds of the other.
        low: Smallest ratio of a pair of runs.
        high: Largest ratio of a pair of runs.
    """

    value: float
    ours: float
    other: float
    low: float
    high: float


def compare_seconds(
    ours: Callable[[], float], other: Callable[[], float], num_pairs: int = 9
) -> Ratio:
    """Compares two callables that return what they took, run in turn.

    Args:
        ours: What this project does; returns seconds per unit of work.
        other: What it is compared with; likewise.
        num_pairs: Times each is run after a first time that does not count.
    """
    pairs = [(ours(), other()) for _ in range(num_pairs + 1)][1:]
    mine, theirs = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
    ratios = [b / a for a, b in pairs]
    return Ratio(theirs / mine, mine, theirs, min(ratios), max(ratios))


def compare(ours: Callable[[], Any], other: Callable[[], Any], num_pairs: int = 9) -> Ratio:
    """Runs two callables in turn and compares their medians.

    Args:
        ours: What this project does.
        other: What it is compared with.
        num_pairs: Times each is run after a first time that does not count.
    """
    return compare_seconds(lambda: timed(ours), lambda: timed(other), num_pairs)


def timed(call: Callable[[], Any]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def print_cases(cases: dict[str, Callable[[], Ratio]]) -> None:
    """Runs cases and prints a row for each."""
    print(f"{'case':<44} {'other/ours':>10} {'range':>13} {'ours/other':>10} {'ours ms':>9}")
    for name, case in cases.items():
        ratio = case()
        spread = f"{ratio.low:.2f}-{ratio.high:.2f}"
        print(
            f"{name:<44} {ratio.value:>10.2f} {spread:>13} {1 / ratio.value:>10.2f} "
            f"{1e3 * ratio.ours:>9.3g}",
            flush=True,
        )
