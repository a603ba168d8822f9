r"""Counting motifs: a task on which sum, mean and maximum aggregation provably differ.

A graph is a disjoint union of a copies of one motif and b of another: triangles with one and with
two marked nodes, a and b independent and uniform on 1..M, nodes in random order. The target is a.

All nodes of one motif that play one role have equal states at every layer, whatever the weights. A
sum over the graph counts them, so that a is exactly computable: error 0. A mean sees only their
proportions, so that (a, b) and (2a, 2b) have equal outputs: the best error is the mean variance of
a given a/(a + b). A maximum sees only which roles occur, the same in every graph: the best error is
the variance of a. (Xu et al., "How Powerful are Graph Neural Networks?", 2019, section 5.) Noise of
variance :math:`\sigma^2` on the target adds as much to each.
"""

from collections.abc import Mapping
from fractions import Fraction
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from datamodules.base import Reference, Split
from datamodules.batches import GraphBatch
from datamodules.errors import InputError, at_least
from datamodules.graph_base import GraphsDataModule, Level, block_diagonal
from datamodules.seeds import split_seed

_TRIANGLE = torch.tensor([[0, 1, 1, 2, 2, 0], [1, 0, 2, 1, 0, 2]])
_MARKS = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])


class MotifCountDataModule(GraphsDataModule):
    r"""Number of triangles with one marked node in graphs of such and of triangles with two.

    Args:
        max_copies: Largest number M of copies of each motif.
        noise_std: Standard deviation :math:`\sigma` of noise on the target; that of the test has
            mean 0 and mean square :math:`\sigma^2` exactly.
        num_graphs: Training graphs.
        num_val_graphs: Validation graphs.
        num_test_graphs: Test graphs; the pairs of counts occur equally often, as near as it goes.
        batch_size: Graphs per optimizer step.
        seed: Seed of the data.

    Raises:
        InputError: If an argument is out of range.
    """

    in_features = 1
    out_features = 1

    def __init__(
        self,
        max_copies: int = 4,
        noise_std: float = 0.0,
        num_graphs: int = 2000,
        num_val_graphs: int = 360,
        num_test_graphs: int = 3600,
        batch_size: int = 50,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, eval_batch_size=500)
        at_least(
            max_copies=(max_copies, 2),
            num_graphs=(num_graphs, 1),
            num_val_graphs=(num_val_graphs, 1),
            num_test_graphs=(num_test_graphs, 1),
        )
        if noise_std < 0:
            raise InputError(f"noise_std must not be negative, got {noise_std}")
        self.max_copies, self.noise_std = max_copies, noise_std
        self._counts = {"train": num_graphs, "val": num_val_graphs, "test": num_test_graphs}

    @property
    def level(self) -> Level:
        """A target belongs to a graph."""
        return "graph"

    @property
    def task(self) -> Literal["classification", "multilabel", "regression"]:
        """A target is a number."""
        return "regression"

    @property
    def num_train(self) -> int:
        """Number of training graphs."""
        return self._counts["train"]

    def make_split(self, split: Split) -> GraphBatch:
        """Graphs of one split."""
        rng = np.random.default_rng(split_seed(self.seed, split))
        count, pairs = self._counts[split], self.max_copies**2
        # Every pair of counts as often as the next, so that floors are those of the test set.
        number = rng.permutation(np.arange(count) % pairs)
        first, second = number // self.max_copies + 1, number % self.max_copies + 1
        graphs = (_union(int(a), int(b), rng) for a, b in zip(first, second, strict=True))
        batch = block_diagonal(list(graphs))
        if self.noise_std == 0:
            return batch
        noise = rng.standard_normal((count, 1))
        if split == "test":
            noise -= noise.mean()
            noise /= np.sqrt((noise**2).mean())
        return batch._replace(y=batch.y + self.noise_std * torch.from_numpy(noise).to(batch.y))

    @property
    def standardization(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Scale of the training targets."""
        y = self.split("train").y
        return {"y_scaler": (y.mean(0), y.std(0, correction=0).clamp(min=1e-6))}

    @cached_property
    def floors(self) -> dict[str, float]:
        """Least expected squared error by aggregation."""
        counts = range(1, self.max_copies + 1)
        by_share: dict[Fraction, list[int]] = {}
        for a in counts:
            for b in counts:
                by_share.setdefault(Fraction(a, a + b), []).append(a)
        within = sum(len(group) * float(np.var(group)) for group in by_share.values())
        floors = {"sum": 0.0, "mean": within / self.max_copies**2, "max": float(np.var(counts))}
        return {aggr: floor + self.noise_std**2 for aggr, floor in floors.items()}

    @property
    def optimum(self) -> dict[str, Reference]:
        """Exact counting, which a sum can do."""
        how = (
            f"exact counting by a sum (at best {self.floors['mean']:.4g} with mean aggregation, "
            f"{self.floors['max']:.4g} with max)"
        )
        return {"test/mse": Reference(self.floors["sum"], how)}

    @property
    def baseline(self) -> dict[str, Reference]:
        """The mean count."""
        return {"test/mse": Reference(self.floors["max"], "mean number of copies")}


def _union(first: int, second: int, rng: np.random.Generator) -> GraphBatch:
    """A graph of so many copies of each motif, its nodes in random order."""
    motif = torch.tensor([0] * first + [1] * second)
    order = torch.from_numpy(rng.permutation(3 * len(motif)))
    starts = 3 * torch.arange(len(motif))
    edges = (_TRIANGLE.unsqueeze(1) + starts[:, None]).flatten(1)
    x = torch.empty(3 * len(motif), 1)
    x[order] = _MARKS[motif].flatten().unsqueeze(1)
    return GraphBatch(
        x.to(torch.get_default_dtype()),
        order[edges],
        None,
        torch.full((1, 1), float(first)),
        torch.ones(1, dtype=torch.bool),
    )
