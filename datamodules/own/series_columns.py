"""Which column of a file of series is what."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from datamodules.errors import InputError

Gaps = Literal["error", "fill", "mask"]


class Columns(NamedTuple):
    """Which column is what.

    Attributes:
        targets: Columns to forecast.
        series: Columns that tell the series apart.
        date: Column of dates, or several that are one together (year, month, ...); None where it
            is to be found.
        known: Columns known ahead.
        covariates: Columns observed up to the last row.
        static: Columns that are constant in each series.
        calendar: Whether to add cycles of the dates to what is known.
        joint: Whether the targets are forecast together, from a window of all; else each is a
            series of its own.
    """

    targets: Sequence[str]
    series: Sequence[str] = ()
    date: str | Sequence[str] | None = None
    known: Sequence[str] = ()
    covariates: Sequence[str] = ()
    static: Sequence[str] = ()
    calendar: bool = False
    joint: bool = False

    @property
    def named(self) -> list[str]:
        """All columns that must be in the file."""
        date = [] if self.date is None else names_of(self.date)
        return [*self.targets, *self.series, *date, *self.known, *self.covariates, *self.static]

    @property
    def num_targets(self) -> int:
        """Number M of targets that one window forecasts."""
        return len(self.targets) if self.joint else 1

    def check(self) -> None:
        """Refuses a column in two places.

        Raises:
            InputError: Naming it.
        """
        if not self.targets:
            raise InputError("target names no column; give one to forecast")
        seen: set[str] = set()
        for name in self.named:
            if name in seen and name in self.targets and name in self.covariates:
                raise InputError(
                    f"the target {name!r} is observed anyway; leave it out of covariates"
                )
            if name in seen:
                raise InputError(
                    f"{name!r} is named twice among target, series, date, known, covariates, static"
                )
            seen.add(name)


def names_of(columns: str | Sequence[str]) -> list[str]:
    """One name or several as a list."""
    return [columns] if isinstance(columns, str) else list(columns)
