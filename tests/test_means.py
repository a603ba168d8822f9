"""Means over targets do not depend on how the targets lie in batches and on ranks."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from lit_models.__main__ import main
from lit_models.metrics.means import WeightedMeans

LOSSES = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0], dtype=torch.float64)
TERMS = torch.tensor([3.0, 5.0, 9.0], dtype=torch.float64)


def filled(rows, terms, cuts):
    means = WeightedMeans()
    for a, b in cuts:
        part, term = rows[a:b], terms[a:b]
        number = torch.tensor(len(term))
        mean = term.mean() if len(term) else torch.tensor(0.0)
        means.add(part.mean(), len(part), {"twice": 2 * part.mean()}, {"term": (mean, number)})
    return means


@pytest.mark.parametrize("cuts", [[(0, 7)], [(0, 3), (3, 4), (4, 7)], [(0, 1), (1, 7)]])
def test_means_are_over_targets(cuts):
    found = filled(LOSSES, TERMS, cuts).take(lambda value: value)
    assert found["term"].item() == pytest.approx(TERMS.mean().item(), abs=1e-12)
    assert found["loss"].item() == pytest.approx((LOSSES.mean() + TERMS.mean()).item(), abs=1e-12)
    assert found["twice"].item() == pytest.approx(2 * LOSSES.mean().item(), abs=1e-12)


def test_ranks_add_up():
    ranks = [filled(LOSSES[a:b], TERMS[a:b], [(0, b - a)]) for a, b in ((0, 2), (2, 7))]
    other = dict(ranks[1].sums)
    names = iter(ranks[0].sums)
    found = ranks[0].take(lambda value: value + other[next(names)])
    assert found["loss"].item() == pytest.approx((LOSSES.mean() + TERMS.mean()).item(), abs=1e-12)


def test_a_taking_starts_afresh():
    means = filled(LOSSES, TERMS, [(0, 7)])
    means.take(lambda value: value)
    assert means.sums == {}
    assert means.take(lambda value: value) == {}


def test_steps_that_are_epochs_are_logged_as_steps(tmp_path):
    """Every row is in one mean; a score that is watched is logged at every step."""
    tiny = ["fit", "--config", str(Path(__file__).parent / "tiny.yaml"), "--data.batch_size", "53"]
    tiny += ["--runs_dir", str(tmp_path), "--trainer.max_epochs", "10", "--test_after_fit", "false"]
    tiny += ["--trainer.check_val_every_n_epoch", "10"]
    assert main([*tiny, "--run_id", "few", "--trainer.log_every_n_steps", "4"]) == 0
    assert main([*tiny, "--run_id", "all", "--trainer.log_every_n_steps", "1"]) == 0
    watch = ["--checkpoint.monitor", "train/loss", "--trainer.log_every_n_steps", "4"]
    assert main([*tiny, "--run_id", "watched", *watch]) == 0
    tables = [pd.read_csv(tmp_path / "tiny" / run / "metrics.csv") for run in ("few", "all")]
    few, every = (table.set_index("step")["train/loss"].dropna() for table in tables)
    assert few.index.tolist() == [0, 3, 7, 9]
    assert every.index.tolist() == list(range(10))
    for first, last in ((0, 0), (1, 3), (4, 7), (8, 9)):
        assert few[last] == pytest.approx(every.loc[first:last].mean(), rel=1e-6)
    watched = pd.read_csv(tmp_path / "tiny" / "watched" / "metrics.csv")["train/loss"].dropna()
    assert len(watched) == 10
