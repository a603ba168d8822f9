r"""An exact Gaussian process on the rows of a run: the cheap standard that a density has to beat.

.. math:: y = f(x) + \varepsilon, \quad
          f \sim GP\Big(0,\, s^2 \exp\big(-\tfrac12 \sum_d (x_d - x'_d)^2 / l_d^2\big)\Big)

Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), chapter 2. Amplitude,
length scales and noise maximise the evidence of at most :data:`MAX_FIT_ROWS` rows; all rows are
conditioned on.

Shape letters: N rows, D inputs.
"""

import math
import warnings
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

MAX_ROWS = 2000
MAX_FIT_ROWS = 500
# A length scale for each input; one for all of them where there are more.
_MAX_SCALES = 20
_MAX_PRODUCT = 10**10
NAME = "Gaussian process (GaussianProcessRegressor)"


def affordable(num_rows: int, num_test: int) -> bool:
    """Whether the rows are few enough: fewer than :data:`MAX_ROWS`, and a bounded product."""
    return 2 <= num_rows < MAX_ROWS and num_rows**2 * num_test <= _MAX_PRODUCT


def gaussian_process(x: Array, y: Array, x_test: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of new targets.

    Args:
        x: Inputs, ``(N, D)``.
        y: Targets, ``(N,)``.
        x_test: Inputs of the rows to predict, ``(M, D)``.

    Returns:
        Mean and standard deviation, noise included, in units of y, each ``(M,)``.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    def scale(values: Array) -> tuple[Array, Array]:
        std = values.std(0)
        return values.mean(0), np.where(std > 0, std, 1.0)

    (mean, std), (y_mean, y_std) = scale(x), scale(y)
    x, x_test, y = (x - mean) / std, (x_test - mean) / std, (y - y_mean) / y_std
    width = x.shape[1] if x.shape[1] <= _MAX_SCALES else 1
    lengths = np.full(width, math.sqrt(x.shape[1] / width))
    kernel = ConstantKernel() * RBF(lengths, (1e-2, 1e3)) + WhiteKernel(0.1, (1e-6, 10.0))
    rows = np.random.default_rng(0).permutation(len(x))[:MAX_FIT_ROWS]
    with warnings.catch_warnings():
        # An input without influence has a length scale at its bound.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = GaussianProcessRegressor(kernel).fit(x[rows], y[rows])
    if len(rows) < len(x):
        fitted = GaussianProcessRegressor(fitted.kernel_, optimizer=None).fit(x, y)
    found = [fitted.predict(part, return_std=True) for part in _parts(x_test)]
    means, stds = (np.concatenate(values) for values in zip(*found, strict=True))
    return means * y_std + y_mean, stds * y_std


def _parts(x: Array) -> list[Array]:
    """Rows in blocks whose kernel matrices are small."""
    return np.array_split(x, max(1, math.ceil(len(x) / 2000)))
