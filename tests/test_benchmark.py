"""The benchmark finds its cases; what they measure is for a quiet machine."""

import pytest

from scripts.benchmark.__main__ import MODULES, cases_of, rows
from scripts.benchmark.ratio import compare_seconds


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_cases(module):
    cases = cases_of(module)
    assert cases
    assert all(callable(case) for case in cases.values())


def test_a_row_says_how_many_times_faster_ours_is(monkeypatch):
    ratio = compare_seconds(lambda: 0.002, lambda: 0.005, num_pairs=1)
    monkeypatch.setattr("scripts.benchmark.__main__.cases_of", lambda module: {"x": lambda: ratio})
    assert list(rows(["fit"])) == ["| x | 2.50 | 2.50 - 2.50 | 0.40 | 2 ms |"]
