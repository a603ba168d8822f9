"""Draws in blocks against draws in one call."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from datamodules import (
    GaussianMixtureDataModule,
    InContextDataModule,
    MarkovTextDataModule,
    SineDataModule,
)
from datamodules.laws import draws
from datamodules.laws.draws import blocks, passed

WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)


def normal(columns: int, dtype: torch.dtype, count: int, generator: torch.Generator) -> Tensor:
    return torch.randn(count, columns, generator=generator, dtype=dtype)


def uniform(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, 3, generator=generator)


def categories(count: int, generator: torch.Generator) -> Tensor:
    return torch.multinomial(WEIGHTS, count, replacement=True, generator=generator)


DRAWS = {
    "one normal a row": partial(normal, 1, torch.float64),
    "single precision": partial(normal, 1, torch.float32),
    "rows of seven": partial(normal, 7, torch.float64),
    "uniform": uniform,
    "categories": categories,
}


@pytest.mark.parametrize("count", [1, 15, 16, 1023, 1025, 1039, 1040, 5000])
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_blocks_are_the_draw_of_one_call(
    draw: Callable[[int, torch.Generator], Tensor], count: int
) -> None:
    generator = torch.Generator().manual_seed(3)
    start = passed(generator, count, draw)
    whole = torch.Generator().manual_seed(3)
    expected = draw(count, whole)
    parts = [draw(rows.stop - rows.start, start) for rows in blocks(count)]
    assert torch.equal(torch.cat(parts), expected)
    after = torch.rand((), generator=whole)
    assert torch.rand((), generator=generator) == after == torch.rand((), generator=start)


@pytest.mark.parametrize("count", [0, 1, 17, 2048, 2056])
def test_blocks_cover_every_row_once(count: int) -> None:
    assert [row for rows in blocks(count) for row in range(count)[rows]] == list(range(count))


TASKS: dict[str, Callable[[], Any]] = {
    "sine": partial(SineDataModule, 333, covariate_effect=0.3, num_auxiliary=2, num_test=666),
    "markov_text": partial(MarkovTextDataModule, num_samples=333, num_test=1000),
    "regression": partial(InContextDataModule, "linear_regression", num_samples=333, num_test=333),
    "mixture": partial(GaussianMixtureDataModule, num_samples=333, num_test=333),
}


@pytest.mark.parametrize("make", TASKS.values(), ids=TASKS)
def test_a_task_is_the_same_in_blocks(
    make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = make(), make()
    for split in ("train", "val", "test"):
        expected = whole.split(split)
        with monkeypatch.context() as patch:
            patch.setattr(draws, "_ROWS", 64)
            for field, same in zip(parts.split(split), expected, strict=True):
                assert (field is None and same is None) or torch.equal(field, same)
