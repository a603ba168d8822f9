r"""First-order vector autoregression on a graph, with the floor of every horizon.

.. math::
    x_t = \rho \hat A x_{t-1} + \sigma \epsilon_t, \qquad \hat A = D^{-1/2} A D^{-1/2}

:math:`\hat A` is symmetric with spectral radius 1, so that the process is stationary for
:math:`|\rho| < 1` with covariance :math:`\sigma^2 (I - \rho^2 \hat A^2)^{-1}`. The best forecast of
h steps is :math:`\rho^h \hat A^h x_T`, with error :math:`\frac{\sigma^2}{N} \sum_{k<h} \rho^{2k}
\mathrm{tr} \hat A^{2k}`. What a node can know of its future from its own past is the best linear
predictor by its autocovariances :math:`\sigma^2 [(\rho \hat A)^k (I - \rho^2 \hat A^2)^{-1}]_{ii}`.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.neighbors import kneighbors_graph
from torch import Tensor

from datamodules.base import LitDataModule, Reference, Split
from datamodules.batches import GraphSeriesBatch
from datamodules.errors import InputError, at_least
from datamodules.graph_base import rows_per_node
from datamodules.laws.draws import blocks, passed

_NODE_ONLY_LAGS = 12


class Floors(NamedTuple):
    """Expected squared errors per step ahead, each ``(H,)``.

    Attributes:
        bayes: Of the best forecast.
        node_only: Of the best forecast of each node from its own last 12 values.
        mean: Of the mean of the process.
    """

    bayes: Tensor
    node_only: Tensor
    mean: Tensor


class GraphVARDataModule(LitDataModule[GraphSeriesBatch]):
    r"""Windows of the process on a ring or on a random geometric graph.

    Test and validation windows come in pairs with the same past and opposite noise, scaled so that
    the mean squared noise of each step ahead is its floor: the mean squared error is the floor plus
    the mean squared distance to the best forecast.

    Args:
        num_nodes: Number N of nodes.
        rho: Persistence :math:`\rho`; in absolute value below 1.
        noise_std: Standard deviation :math:`\sigma` of the noise.
        horizon: Number H of steps to forecast.
        window: Length T of the observed window.
        graph: ``ring``, or ``geometric``: uniform points in a square, each joined to its four
            nearest.
        num_samples: Training windows.
        num_test: Windows of the test set; validation has a quarter of it.
        batch_size: Windows per optimizer step.
        seed: Seed of the data.

    Raises:
        InputError: If an argument is out of range.
    """

    in_features = 1

    def __init__(
        self,
        num_nodes: int = 64,
        rho: float = 0.95,
        noise_std: float = 1.0,
        horizon: int = 1,
        window: int = 4,
        graph: Literal["ring", "geometric"] = "ring",
        num_samples: int = 4000,
        num_test: int = 1000,
        batch_size: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, eval_batch_size=500)
        at_least(
            num_nodes=(num_nodes, 5),
            horizon=(horizon, 1),
            window=(window, 1),
            num_samples=(num_samples, 1),
            num_test=(num_test, 8),
        )
        if not -1 < rho < 1:
            raise InputError(f"rho must lie between -1 and 1, got {rho}")
        if noise_std <= 0:
            raise InputError(f"noise_std must be positive, got {noise_std}")
        self.num_nodes, self.rho, self.noise_std = num_nodes, rho, noise_std
        self.horizon, self.window, self.graph = horizon, window, graph
        self.num_samples, self.num_test = num_samples, num_test

    @property
    def num_train(self) -> int:
        """Number of training windows."""
        return self.num_samples

    @cached_property
    def positions(self) -> Tensor:
        """Place of each node in a drawing, ``(N, 2)``."""
        if self.graph == "ring":
            angle = 2 * torch.pi * torch.arange(self.num_nodes) / self.num_nodes
            return torch.stack([angle.cos(), angle.sin()], dim=1)
        return torch.rand(self.num_nodes, 2, generator=self.generator("graph"))

    @cached_property
    def edge_index(self) -> Tensor:
        """Both directions of each edge, ``(2, E)``."""
        node = torch.arange(self.num_nodes)
        if self.graph == "ring":
            pairs = torch.stack([node, node.roll(-1)])
            return torch.cat([pairs, pairs.flip(0)], dim=1)
        near = kneighbors_graph(self.positions.numpy(), 4).toarray()
        return torch.from_numpy(near + near.T).nonzero().T.contiguous()

    @cached_property
    def transition(self) -> Tensor:
        r""":math:`\rho \hat A`, ``(N, N)`` float64."""
        adjacency = torch.zeros(self.num_nodes, self.num_nodes, dtype=torch.float64)
        adjacency[self.edge_index[1], self.edge_index[0]] = 1.0
        root = adjacency.sum(1).rsqrt()
        return self.rho * root.unsqueeze(1) * adjacency * root

    @cached_property
    def covariance(self) -> Tensor:
        """Covariance of the stationary process, ``(N, N)``."""
        identity = torch.eye(self.num_nodes, dtype=torch.float64)
        inverse: Tensor = torch.linalg.inv(identity - self.transition @ self.transition)
        return self.noise_std**2 * inverse

    def _noise(self, count: int, generator: torch.Generator) -> Tensor:
        shape = (count, self.num_nodes)
        return self.noise_std * torch.randn(shape, generator=generator, dtype=torch.float64)

    def make_split(self, split: Split) -> GraphSeriesBatch:
        """Windows of one split, each a draw of its own from the stationary process."""
        generator = self.generator(split)
        shares = {"train": 1, "val": 8}
        train = split == "train"
        count = self.num_samples if train else max(self.num_test // shares.get(split, 2), 1)
        steps = range(self.window + self.horizon)
        noise = [passed(generator, count, self._noise) for _ in steps]
        root = torch.linalg.cholesky(self.covariance).T
        x = torch.empty(count, self.window, self.num_nodes, 1)
        best, error = torch.empty(2, count, self.horizon, self.num_nodes, dtype=torch.float64)
        for rows in blocks(count):
            size = len(x[rows])
            state = (self._noise(size, noise[0]) / self.noise_std) @ root
            x[rows, 0, :, 0] = state
            for step in steps[1 : self.window]:
                state = state @ self.transition + self._noise(size, noise[step])
                x[rows, step, :, 0] = state
            unseen = torch.zeros_like(state)
            for step in range(self.horizon):
                state = state @ self.transition
                unseen = unseen @ self.transition + self._noise(size, noise[self.window + step])
                best[rows, step], error[rows, step] = state, unseen
        if train:
            y = best + error
        else:
            error *= (self.floors.bayes / error.square().mean((0, 2))).sqrt().view(1, -1, 1)
            x, y = x.repeat(2, 1, 1, 1), torch.cat([best + error, best - error])
        return GraphSeriesBatch(x, y.to(x.dtype), self.edge_index, None)

    @cached_property
    def floors(self) -> Floors:
        """Errors of three predictors per step ahead."""
        lags = _NODE_ONLY_LAGS
        powers = [torch.eye(self.num_nodes, dtype=torch.float64)]
        for _ in range(lags + self.horizon):
            powers.append(powers[-1] @ self.transition)
        bayes = torch.stack([power.square().sum() for power in powers[: self.horizon]]).cumsum(0)
        own = torch.stack([(power * self.covariance).sum(1) for power in powers])
        step = torch.arange(lags)
        past = own[(step[:, None] - step).abs()].permute(2, 0, 1)
        errors = []
        for ahead in range(1, self.horizon + 1):
            cross = own[ahead : ahead + lags].T.unsqueeze(2)
            explained = (cross * torch.linalg.solve(past, cross)).sum((1, 2))
            errors.append((own[0] - explained).mean())
        return Floors(
            bayes=self.noise_std**2 * bayes / self.num_nodes,
            node_only=torch.stack(errors),
            mean=own[0].mean().repeat(self.horizon),
        )

    @property
    def standardization(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Scale of the process, the same at all nodes up to their degrees."""
        std = self.covariance.diagonal().sqrt()
        return {"x_scaler": (torch.zeros_like(std), std), "y_scaler": (torch.zeros_like(std), std)}

    def _references(self, errors: Tensor, how: str) -> dict[str, Reference]:
        return {
            "test/mse": Reference(errors.mean().item(), how),
            "test/mse_last_step": Reference(errors[-1].item(), how),
        }

    @property
    def optimum(self) -> dict[str, Reference]:
        """Error of the best forecast."""
        return self._references(self.floors.bayes, "best forecast, a power of the transition")

    @property
    def baseline(self) -> dict[str, Reference]:
        """Error of the best forecast without the graph."""
        how = f"best forecast of a node from its own last {_NODE_ONLY_LAGS} values"
        return self._references(self.floors.node_only, how)

    def prediction_frame(self, outputs: Mapping[str, Tensor]) -> pd.DataFrame:
        """A row per window and node."""
        count = len(outputs["prediction"])
        frame = super().prediction_frame(rows_per_node(outputs))
        frame.insert(0, "window", np.repeat(np.arange(count), self.num_nodes))
        frame.insert(1, "node", np.tile(np.arange(self.num_nodes), count))
        return frame
