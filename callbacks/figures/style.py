"""What all figures have in common: size of text, a title that names model and data, whole ticks."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIZES = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "figure.titlesize": 10,
    "figure.labelsize": 9,
}
# Labels of axes that count: a tick at half a step says nothing.
_COUNTS = re.compile(r"(optimizer )?(steps?|epochs?|examples|rows|lag|node|position|tokens?)\b")


@contextmanager
def one_size() -> Iterator[None]:
    """Draws text of the same sizes in every figure."""
    import matplotlib

    with matplotlib.rc_context(_SIZES):  # type: ignore[arg-type]
        yield


def data_name(datamodule: Any) -> str:
    """The name of a file of the user's, else of the task."""
    path = getattr(datamodule, "path", None)
    named = isinstance(path, (str, Path)) and str(path)
    return Path(str(path)).name if named else type(datamodule).__name__


def subject(model: Any, datamodule: Any) -> str:
    """Model and data in a few words."""
    return f"{type(model).__name__} on {data_name(datamodule)}"


def part_of(shown: int, everything: int, what: str) -> str:
    """How many are shown of how many: ``1,000 of 4,000 test rows``."""
    of_all = f" of {everything:,}" if everything > shown else ""
    return f"{shown:,}{of_all} {what}"


def finish(figure: "Figure", title: str) -> None:
    """Puts a title above a figure, before what it says itself, and ticks at whole numbers."""
    from matplotlib.ticker import AutoLocator, MaxNLocator

    own = figure.get_suptitle()
    figure.suptitle(f"{title}\n{own}" if own else title)
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            # One that its figure has placed, and one with a logarithm, stays.
            is_plain = isinstance(axis.get_major_locator(), AutoLocator)
            if is_plain and _COUNTS.match(axis.get_label_text()):
                axis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
