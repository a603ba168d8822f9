"""Speed measured as ratios in one run; each module has ``CASES``, by name."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple


class Ratio(NamedTuple):
    """How many times faster one of two callables is.

    Attributes:
        value: Seconds of the other over seconds of ours.
        ours: Median seconds of one call of ours.
        other: Median seconds of one call of the other.
    """

    value: float
    ours: float
    other: float


def compare(ours: Callable[[], Any], other: Callable[[], Any], num_pairs: int = 9) -> Ratio:
    """Runs two callables in turn and compares their medians.

    Args:
        ours: What this project does.
        other: What it is compared with.
        num_pairs: Times each is run after a first time that does not count.
    """
    seconds: tuple[list[float], list[float]] = ([], [])
    for call in (ours, other):
        call()
    for _ in range(num_pairs):
        for call, times in zip((ours, other), seconds, strict=True):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
    medians = [statistics.median(times) for times in seconds]
    return Ratio(medians[1] / medians[0], medians[0], medians[1])


def print_cases(cases: dict[str, Callable[[], Ratio]]) -> None:
    """Runs cases and prints a row for each."""
    print(f"{'case':<32} {'ratio':>7} {'ours ms':>10} {'other ms':>10}")
    for name, case in cases.items():
        ratio = case()
        print(
            f"{name:<32} {ratio.value:>7.2f} {1e3 * ratio.ours:>10.2f} {1e3 * ratio.other:>10.2f}"
        )
