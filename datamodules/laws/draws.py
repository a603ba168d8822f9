"""Large draws some rows at a time, bit for bit those of one call.

PyTorch makes normal numbers by sixteens, and those of the last sixteen of a draw together. Blocks
begin at multiples of sixteen rows and have at least sixteen, so that both come out alike.
"""

from collections.abc import Callable, Iterator

import torch

_ROWS = 1024


def blocks(count: int) -> Iterator[slice]:
    """Slices that cover ``count`` rows in order, about a thousand each."""
    starts = range(0, max(count - 15, 1), _ROWS)
    return map(slice, starts, [*starts[1:], count])


def passed(
    generator: torch.Generator, count: int, draw: Callable[[int, torch.Generator], object]
) -> torch.Generator:
    """Moves a generator past a draw that is needed together with a later one.

    Args:
        generator: What is moved.
        count: Rows of the draw.
        draw: Draws a number of rows from a generator.

    Returns:
        A generator that stands before the draw, to make it from block by block.
    """
    start = torch.Generator().set_state(generator.get_state())
    for rows in blocks(count):
        draw(rows.stop - rows.start, generator)
    return start
