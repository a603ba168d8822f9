"""When a bar holds, and when a score is too good to be true."""

import pytest

from datamodules import LinearDataModule, MotifCountDataModule
from scripts.bars import MOTIF_FLOORS, OLS_MSE, Bar


def run(value, optimum=None, baseline=None, metric="test/score"):
    known = {"optimum": optimum, "baseline": baseline}
    parts = {kind: {} if v is None else {metric: v} for kind, v in known.items()}
    return {"metrics": {metric: value}, **parts}


@pytest.mark.parametrize(
    ("relation", "optimum", "baseline", "value", "leaks"),
    [
        ("<=", 2.0, 5.0, 1.97, True),
        ("<=", 2.0, 5.0, 1.99, False),
        (">=", 0.9, 0.5, 0.92, True),
        (">=", 0.9, 0.5, 0.905, False),
        # Falling behind on purpose is no leak, beating the optimum is one all the same.
        ("<=", 1.0, 0.1, 0.3, False),
        ("<=", 1.0, 0.1, 1.1, True),
        # Without a baseline the relation says which way is better.
        ("<=", 2.0, None, 1.9, True),
        (">=", 2.0, None, 1.9, False),
        ("<=", None, 5.0, -9.0, False),
    ],
)
def test_leak(relation, optimum, baseline, value, leaks):
    bar = Bar("test/score", relation, 0.9)
    assert bar.leaks([run(value, optimum, baseline)]) is leaks


def test_a_bar_is_about_the_means():
    bar = Bar("test/score", "<=", factor=1.1, reference="optimum")
    runs = [run(1.0, 1.0), run(1.3, 1.0), run(1.2, 1.4)]
    assert bar.holds(runs)  # 1.1667 against a mean limit of 1.2467
    assert not bar.holds(runs[:2])
    assert str(bar) == "<= 1.1 x optimum"


def test_written_limits_are_those_of_the_data():
    assert pytest.approx(LinearDataModule().ols_mse, rel=1e-12) == OLS_MSE
    floors = MotifCountDataModule().floors
    assert {aggr: floors[aggr] for aggr in MOTIF_FLOORS} == MOTIF_FLOORS
