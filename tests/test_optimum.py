"""Every experiment, trained as shipped over seeds, reaches its bar and respects its floor."""

import pytest
from helpers import fit

from lit_models.command.catalog import experiments
from scripts.bars import TRIALS


def test_every_experiment_has_a_bar():
    assert {trial.experiment for trial in TRIALS} == set(experiments())
    assert len({trial.name for trial in TRIALS}) == len(TRIALS)


@pytest.mark.slow
@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.name)
def test_bars(trial, tmp_path):
    runs, start = [], []
    if trial.pretraining:
        first, *rest = trial.pretraining[1:]
        pretrained = fit(first, *rest, tmp_path=tmp_path / "pretraining")
        start = ["--model.pretrained", f"{pretrained['run_dir']}/checkpoints/best.ckpt"]
    for seed in range(trial.num_seeds):
        options = [*trial.command(seed)[3:], *start]
        runs.append(fit(trial.experiment, *options, tmp_path=tmp_path / str(seed)))
    for bar in trial.bars:
        values = [run["metrics"][bar.metric] for run in runs]
        assert bar.holds(runs), f"{bar.metric} {values}, limit {bar.limit(runs[0]):.6g} ({bar})"
        mean, optimum = sum(values) / len(values), runs[0]["optimum"].get(bar.metric)
        assert not bar.leaks(runs), f"{bar.metric} {mean:.6g} beats its optimum {optimum}: a leak"
