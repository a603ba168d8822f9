r"""scikit-learn's ``make_classification`` with its exact Bayes classifier.

The generator draws two Gaussian clusters per class in a space of informative features,
:math:`z = \epsilon A_k + c_k`, appends linear combinations of them, redraws a share f of the labels
uniformly, and shuffles rows and columns. Recording its random stream gives every :math:`A_k` and
:math:`c_k`, hence

.. math:: p(y \mid x) = (1 - f) \frac{\sum_{k: y_k = y} w_k N(z; c_k, A_k^T A_k)}
                                     {\sum_k w_k N(z; c_k, A_k^T A_k)} + \frac{f}{K}

and with it the best possible accuracy, :math:`E \max_y p(y \mid x)`, and cross-entropy,
:math:`E \, H[p(\cdot \mid x)]`. Test rows are fresh draws of the same population.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from sklearn.datasets import make_classification
from torch import Tensor

from datamodules.base import LitDataModule, Reference, Split
from datamodules.batches import SupervisedBatch
from datamodules.errors import InputError
from datamodules.loading.splits import hold_out
from datamodules.seeds import split_seed

Array = np.ndarray[Any, Any]
_BAYES_ROWS = 200_000


class _RecordingState(np.random.RandomState):
    """A random state that keeps the draws ``make_classification`` makes with it."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.uniforms: list[Array] = []
        self.normals: list[Array] = []
        self.order: Array = np.empty(0)

    def uniform(self, *args: Any, **kwargs: Any) -> Any:
        """Uniform draws, kept."""
        self.uniforms.append(super().uniform(*args, **kwargs))
        return self.uniforms[-1]

    def standard_normal(self, *args: Any, **kwargs: Any) -> Any:
        """Normal draws, kept before the generator overwrites them."""
        draws = super().standard_normal(*args, **kwargs)
        self.normals.append(np.array(draws))
        return draws

    def shuffle(self, x: Any) -> None:
        """Shuffles in place; the last call orders the columns."""
        super().shuffle(x)
        self.order = np.array(x)


@dataclass
class Population:
    """The law ``make_classification`` draws from.

    Attributes:
        centers: Cluster centers, ``(C, M)`` with M informative features.
        factors: Matrix A of each cluster, ``(C, M, M)``.
        weights: Share of each cluster, ``(C,)``.
        mixing: Redundant features as combinations of the informative ones, ``(M, R)``.
        order: Column of the unshuffled table behind each column, ``(D,)``.
        num_classes: Number K of classes; cluster k is of class k mod K.
        flip_y: Share of labels redrawn uniformly.
    """

    centers: Array
    factors: Array
    weights: Array
    mixing: Array
    order: Array
    num_classes: int
    flip_y: float

    def sample(self, num_rows: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Fresh rows, ``(num_rows, D)``, and labels, ``(num_rows,)``."""
        cluster = rng.choice(len(self.weights), size=num_rows, p=self.weights)
        z = np.empty((num_rows, self.centers.shape[1]))
        for k, (center, factor) in enumerate(zip(self.centers, self.factors, strict=True)):
            rows = cluster == k
            z[rows] = rng.standard_normal((rows.sum(), len(center))) @ factor + center
        label = cluster % self.num_classes
        flipped = rng.uniform(size=num_rows) < self.flip_y
        label[flipped] = rng.integers(self.num_classes, size=flipped.sum())
        return np.concatenate([z, z @ self.mixing], axis=1)[:, self.order], label

    def posterior(self, x: Array) -> Array:
        """Exact class probabilities of rows ``(N, D)``, as ``(N, K)``."""
        unshuffled = np.empty_like(x)
        unshuffled[:, self.order] = x
        z = unshuffled[:, : self.centers.shape[1]]
        log_joint = np.empty((len(x), len(self.weights)))
        for k, (center, factor) in enumerate(zip(self.centers, self.factors, strict=True)):
            standard = np.linalg.solve(factor.T, (z - center).T)
            log_det = np.linalg.slogdet(factor)[1]
            log_joint[:, k] = np.log(self.weights[k]) - log_det - 0.5 * (standard**2).sum(0)
        joint = np.exp(log_joint - log_joint.max(1, keepdims=True))
        classes = joint.reshape(len(x), -1, self.num_classes).sum(1)
        clean = classes / classes.sum(1, keepdims=True)
        mixed: Array = (1 - self.flip_y) * clean + self.flip_y / self.num_classes
        return mixed

    def bayes(self, num_rows: int, seed: int) -> tuple[float, float]:
        """Accuracy and cross-entropy in nats of the exact posterior, averaged over fresh rows."""
        x, _ = self.sample(num_rows, np.random.default_rng(seed))
        p = self.posterior(x)
        return float(p.max(1).mean()), float(-(p * np.log(p)).sum(1).mean())


class ClassificationDataModule(LitDataModule[SupervisedBatch]):
    """Rows of ``make_classification``: two clusters per class and uniformly redrawn labels.

    Training and validation rows are what scikit-learn returns for ``random_state=seed``, split at
    random by class; test rows are fresh.

    Args:
        num_samples: Rows that scikit-learn draws, for training and validation.
        num_classes: Number K of classes.
        in_features: Number of columns, ``num_informative + num_redundant``.
        num_informative: Dimension of the space the clusters lie in.
        flip_y: Share of the labels redrawn uniformly; 1 - 1/K of these are wrong.
        class_sep: Half the side of the hypercube whose corners the clusters sit on.
        val_fraction: Share of the rows for validation.
        num_test: Fresh rows for the test.
        batch_size: Rows per optimizer step.
        seed: ``random_state`` of the generator, and seed of the split.

    Raises:
        InputError: If an argument is out of range.
    """

    def __init__(
        self,
        num_samples: int = 2000,
        num_classes: int = 2,
        in_features: int = 10,
        num_informative: int = 8,
        flip_y: float = 0.15,
        class_sep: float = 0.8,
        val_fraction: float = 0.2,
        num_test: int = 100_000,
        batch_size: int = 64,
        seed: int = 321,
    ) -> None:
        super().__init__(batch_size, seed, eval_batch_size=10_000)
        if num_classes < 2:
            raise InputError(f"num_classes must be at least 2, got {num_classes}")
        if not 0 <= flip_y < 1:
            raise InputError(f"flip_y must lie in [0, 1), got {flip_y}")
        if not 0 < class_sep < math.inf:
            raise InputError(f"class_sep must be positive and finite, got {class_sep}")
        if not 1 <= num_informative <= in_features:
            raise InputError(
                f"num_informative must lie in [1, in_features={in_features}], got {num_informative}"
            )
        if 2**num_informative < 2 * num_classes:
            raise InputError(f"{num_classes} classes need more than {num_informative} informative")
        if num_samples < 20 * num_classes:
            raise InputError(f"num_samples must be at least {20 * num_classes}, got {num_samples}")
        self.num_samples = num_samples
        self.num_classes = num_classes
        self.in_features = in_features
        self.num_informative = num_informative
        self.flip_y = flip_y
        self.class_sep = class_sep
        self.val_fraction = val_fraction
        self.num_test = num_test

    @property
    def num_train(self) -> int:
        """Number of training rows."""
        return self.num_samples - round(self.val_fraction * self.num_samples)

    def _draw(self, shuffle: bool) -> tuple[Array, Array, _RecordingState]:
        state = _RecordingState(self.seed)
        x, y = make_classification(
            n_samples=self.num_samples,
            n_features=self.in_features,
            n_informative=self.num_informative,
            n_redundant=self.in_features - self.num_informative,
            n_classes=self.num_classes,
            flip_y=self.flip_y,
            class_sep=self.class_sep,
            shuffle=shuffle,
            random_state=state,
        )
        return x, y, state

    @cached_property
    def _drawn(self) -> tuple[Array, Array, _RecordingState]:
        return self._draw(shuffle=True)

    @cached_property
    def population(self) -> Population:
        """The law of the rows, from the recorded stream."""
        unshuffled, _, state = self._draw(shuffle=False)
        num_clusters, width = 2 * self.num_classes, self.num_informative
        factors = np.stack([2 * u - 1 for u in state.uniforms[:num_clusters]])
        sizes = np.full(num_clusters, self.num_samples // self.num_classes // 2)
        sizes[: self.num_samples - sizes.sum()] += 1
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        draws = state.normals[0][starts]
        centers = unshuffled[starts, :width] - np.einsum("km,kmn->kn", draws, factors)
        has_redundant = width < self.in_features
        mixing = 2 * state.uniforms[num_clusters] - 1 if has_redundant else np.empty((width, 0))
        return Population(
            centers=np.sign(centers) * self.class_sep,
            factors=factors,
            weights=sizes / sizes.sum(),
            mixing=mixing,
            order=self._drawn[2].order,
            num_classes=self.num_classes,
            flip_y=self.flip_y,
        )

    def make_split(self, split: Split) -> SupervisedBatch:
        """Rows of one split."""
        if split == "test":
            rng = np.random.default_rng(split_seed(self.seed, "test"))
            x, y = self.population.sample(self.num_test, rng)
        else:
            x, y, _ = self._drawn
            rows = hold_out(np.arange(len(y)), self.val_fraction, self.seed, y)
            chosen = rows[0] if split == "train" else rows[1]
            x, y = x[chosen], y[chosen]
        dtype = torch.get_default_dtype()
        return SupervisedBatch(torch.tensor(x, dtype=dtype), torch.tensor(y, dtype=torch.long))

    @property
    def standardization(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Mean and standard deviation of the training features."""
        x = self.split("train").x
        return {"x_scaler": (x.mean(0), x.std(0, correction=0))}

    @property
    def optimum(self) -> dict[str, Reference]:
        """Accuracy and cross-entropy of the exact posterior."""
        accuracy, cross_entropy = self.population.bayes(_BAYES_ROWS, self.seed)
        how = f"exact posterior of the generator, averaged over {_BAYES_ROWS:,} fresh rows"
        return {
            "test/accuracy": Reference(accuracy, how),
            "test/cross_entropy": Reference(cross_entropy, how),
        }

    @property
    def baseline(self) -> dict[str, Reference]:
        """What guessing costs."""
        how = "one guess for all rows: the classes are equally frequent"
        return {
            "test/accuracy": Reference(1 / self.num_classes, how),
            "test/cross_entropy": Reference(float(np.log(self.num_classes)), how),
        }
