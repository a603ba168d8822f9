"""Digits drawn by the shipped experiment: of the class asked for, and no copies."""

import numpy as np
import pytest
from helpers import fit
from sklearn.svm import SVC

from datamodules import DigitsDataModule
from lit_models.__main__ import main


def nearest(images, others):
    """Distance of each image to the nearest of the others."""
    squares = (images**2).sum(1)[:, None] + (others**2).sum(1) - 2 * images @ others.T
    return np.sqrt(squares.clip(min=0)).min(1)


@pytest.mark.slow
def test_digits_are_right_and_new(tmp_path):
    run = fit("ddpm_digits", tmp_path=tmp_path)
    runs_dir = str(tmp_path / "runs")
    predict = ["predict", "--config", "ddpm_digits", "--ckpt_path", "best", "--runs_dir", runs_dir]
    assert main([*predict, "--data.num_generated", "1000"]) == 0
    samples = np.load(f"{run['run_dir']}/samples.npy").reshape(1000, 64).astype(float)
    classes = np.load(f"{run['run_dir']}/classes.npy")
    data = DigitsDataModule()
    train, test = data.split("train"), data.split("test")
    seen, held_out = (b.x0.flatten(1).double().numpy() for b in (train, test))
    judge = SVC(gamma=0.001, C=10).fit(seen, train.y)
    assert judge.score(held_out, test.y) >= 0.98
    assert judge.score(samples, classes) >= 0.90
    # A copy would lie nearer to its original than any held-out digit to its nearest neighbour.
    distances, natural = nearest(samples, seen), nearest(held_out, seen)
    assert np.median(distances) >= 0.8 * np.median(natural)
    assert np.quantile(distances, 0.01) >= 0.7 * np.quantile(natural, 0.01)
    # Nor are they copies of each other.
    apart = [nearest(samples[i : i + 1], np.delete(samples, i, 0))[0] for i in range(0, 1000, 20)]
    assert np.median(apart) >= 0.5 * np.median(natural)
