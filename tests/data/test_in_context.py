"""In-context tasks: rows, and floors against scikit-learn's ridge and the closed form."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from datamodules import InContextDataModule, InputError


def test_shift_rows():
    data = InContextDataModule(num_shifts=7, num_examples=5, num_samples=200, num_test=40)
    batch = data.split("train")
    assert batch.tokens.shape == (200, data.context_length) == (200, 10)
    answers = batch.labels[:, 1::2]
    shift = (answers - batch.tokens[:, 1::2]) % 7
    assert (shift == shift[:, :1]).all()
    assert (batch.labels[:, 0::2] == -100).all()
    assert torch.equal(batch.tokens[:, 2::2], answers[:, :-1])
    prompted = batch.tokens[:, 0] < 14
    assert torch.equal(batch.tokens[prompted, 0] - 7, shift[prompted, 0])
    assert (batch.tokens[~prompted, 0] == 14).all()
    assert data.vocab_size == 15
    assert set(batch.group[prompted, 1::2].flatten().tolist()) == {0}
    assert batch.group[~prompted, 1].unique().item() == 1
    assert batch.group[~prompted, 3::2].unique().item() == 2
    assert (batch.group[:, 0::2] == -1).all()
    assert prompted.float().mean() == 0.5


def test_shift_optimum_is_the_mean_of_its_groups():
    data = InContextDataModule(num_shifts=7, num_examples=5, num_test=40)
    test, guess = data.split("test"), math.log(7)
    scored = test.group[test.labels >= 0]
    expected = guess * (scored == 1).float().mean().item()
    assert data.optimum["test/cross_entropy"].value == pytest.approx(expected)


def test_regression_floor_is_ridge_regression():
    data = InContextDataModule(
        "linear_regression", in_features=3, noise_std=0.5, num_examples=6, num_test=200
    )
    test = data.split("test")
    errors = np.zeros((len(test.x), 6))
    for row, (x, y) in enumerate(zip(test.x.numpy(), test.y.numpy(), strict=True)):
        errors[row, 0] = y[0] ** 2
        for t in range(1, 6):
            ridge = Ridge(alpha=0.25, fit_intercept=False).fit(x[:t], y[:t])
            errors[row, t] = (ridge.predict(x[t : t + 1])[0] - y[t]) ** 2
    assert data.optimum["test/mse"].value == pytest.approx(errors.mean(), rel=1e-5)
    assert data.floors[0].item() == pytest.approx(3 + 0.25, abs=1e-9)
    deviation = errors.std(0) / math.sqrt(len(errors))
    assert (abs(errors.mean(0) - data.floors.numpy()) < 5 * deviation).all()


def test_with_many_examples_the_floor_is_that_of_least_squares():
    data = InContextDataModule(
        "linear_regression", in_features=4, noise_std=0.25, num_examples=17, num_test=8
    )
    least_squares = 0.0625 * (1 + 4 / (16 - 4 - 1))
    assert data.floors[16].item() == pytest.approx(least_squares, rel=0.005)


def test_wrong_arguments():
    with pytest.raises(InputError, match="num_examples must be at least 2, got 1"):
        InContextDataModule(num_examples=1)
    with pytest.raises(InputError, match="noise_std must be positive, got 0"):
        InContextDataModule(noise_std=0)
    with pytest.raises(InputError, match="use --config gpt_in_context_regression"):
        _ = InContextDataModule("linear_regression").vocab_size
