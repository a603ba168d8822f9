r"""Spatio-temporal graph networks: graph convolutions in a recurrent cell, or between others.

.. math::
    \Theta \star X &= \sum_{k=0}^{K} \hat A^k X W_k + b, \qquad
        \hat A = D_{in}^{-1/2} A D_{out}^{-1/2} \\
    \text{gru:}\quad z, r &= \sigma(\Theta_{zr} \star [x_t, h_{t-1}]), \quad
        n = \tanh(\Theta_n \star [x_t, r \odot h_{t-1}]), \quad
        h_t = z \odot h_{t-1} + (1 - z) \odot n \\
    \text{conv:}\quad \Gamma X &= (P X) \odot \sigma(Q X) \;\text{(causal in time)}, \qquad
        h = \Gamma_2\, \mathrm{ReLU}(\Theta \star \Gamma_1 X)

Seo et al., "Structured Sequence Modeling with Graph Convolutional Recurrent Networks" (2018), and
Li et al., "Diffusion Convolutional Recurrent Neural Network" (2018), for the cell; Yu, Yin and Zhu,
"Spatio-Temporal Graph Convolutional Networks" (2018), for the convolutions. Deviations:

* The graph convolution is the polynomial of Du et al. (2017) in the normalised adjacency, without
  self-loops: a node and its neighbours have weights of their own. Seo's are Chebyshev polynomials,
  Li's random walks; all span the same maps of a graph whose degrees are equal. On a directed graph
  the receiver's incoming and the sender's outgoing weights normalise, as in Li's two walks, so that
  a node without an incoming edge is heard.
* A missing value (NaN) in the window is the node's last known one, or its mean; a missing target
  carries no loss and no score.
* ``autoregression`` forecasts the distance from a mean of linear autoregressions that are solved
  before the first step (:mod:`lit_models.layers.autoregression`), times the factor in [0, 1] that
  is best on the validation windows: there the forecast never ends below any of them, in the units
  of the data.
* Temporal convolutions pad the past with zeros, so that a window of any length will do.
* ``residual`` predicts the distance from the last observed value, and ``linear_skip`` adds a linear
  map :math:`\Theta \star` of the window: a vector autoregression on the graph, built in.

States are kept node first, so that a power of :math:`\hat A` is one sparse product for all windows
and features. Shape letters: B batch, T window, N nodes, F node features, W width, H horizon.
"""

from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from datamodules.batches import GraphSeriesBatch
from lit_models.base import LitModule, StepOutput
from lit_models.layers.autoregression import NodeAutoregression
from lit_models.layers.graph import Adjacency, AdjacencyCache
from lit_models.layers.graph_time import ConvolutionalEncoder, GraphPolynomial, RecurrentEncoder
from lit_models.layers.standardize import Standardize
from lit_models.metrics.forecast_errors import ForecastErrors

Temporal = Literal["gru", "conv"]
_MAX_WINDOWS = 4096  # so many, evenly spaced, tell a linear map


class SpatioTemporalForecaster(nn.Module):
    """Encoder, linear skip and head, for all steps at once or one after the other.

    Arguments as for :class:`LitSTGNN`; ``num_outputs`` counts the steps the head forecasts at once.

    Shape:
        Window ``(N, B, T, F)`` to ``(N, B, H)``.

    Example:
        >>> edges = torch.tensor([[0, 1, 2], [1, 2, 0]])
        >>> adjacency = AdjacencyCache()(edges, None, 3, torch.float32)
        >>> net = SpatioTemporalForecaster(1, 4, 2, 8, "gru", 1, 1, 3, 0.0, False, True, 1)
        >>> net(torch.zeros(3, 5, 4, 1), adjacency).shape
        torch.Size([3, 5, 2])
    """

    def __init__(
        self,
        in_features: int,
        window: int,
        num_outputs: int,
        hidden_size: int,
        temporal: Temporal,
        num_layers: int,
        num_hops: int,
        kernel_size: int,
        dropout: float,
        residual: bool,
        linear_skip: bool,
        skip_hops: int,
    ) -> None:
        super().__init__()
        self.encoder: RecurrentEncoder | ConvolutionalEncoder
        if temporal == "gru":
            self.encoder = RecurrentEncoder(in_features, hidden_size, num_layers, num_hops)
        else:
            self.encoder = ConvolutionalEncoder(
                in_features, hidden_size, num_layers, num_hops, kernel_size
            )
        self.residual = residual
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_size, num_outputs)
        self.skip = (
            GraphPolynomial(window * in_features, num_outputs, skip_hops) if linear_skip else None
        )
        if self.skip is not None:
            nn.init.zeros_(self.skip.lin.weight)

    def forward(self, window: Tensor, adjacency: Adjacency) -> Tensor:
        """All outputs of the head, ``(N, B, num_outputs)``."""
        summary, _ = self.encoder(window, adjacency)
        return self._read(summary, window, adjacency)

    def roll(self, window: Tensor, adjacency: Adjacency, num_steps: int) -> Tensor:
        """Forecasts step by step, each fed back, ``(N, B, num_steps)``."""
        summary, states = self.encoder(window, adjacency)
        steps = [self._read(summary, window, adjacency)]
        for _ in range(num_steps - 1):
            window = torch.cat([window[:, :, 1:], steps[-1].unsqueeze(2)], dim=2)
            if isinstance(self.encoder, RecurrentEncoder):
                states = self.encoder.advance(steps[-1], states, adjacency)
                summary = states[-1]
            else:
                summary, _ = self.encoder(window, adjacency)
            steps.append(self._read(summary, window, adjacency))
        return torch.cat(steps, dim=-1)

    def _read(self, summary: Tensor, window: Tensor, adjacency: Adjacency) -> Tensor:
        out: Tensor = self.head(self.dropout(summary))
        last = window[:, :, -1, :1]
        if self.skip is not None:
            out = out + self.skip(window.flatten(2), adjacency)
        return out + last if self.residual else out


class LitSTGNN(LitModule):
    """Forecasts a series at every node of a graph from a window of all of them.

    Args:
        in_features: Number F of node features; feature 0 is the series to forecast.
        num_nodes: Number N of nodes.
        horizon: Number H of steps to forecast.
        window: Length T of the observed window.
        temporal: ``gru`` for graph convolutions inside a recurrent cell, ``conv`` for a graph
            convolution between gated convolutions in time.
        hidden_size: Width W of a node's state.
        num_layers: Number of cells or blocks.
        num_hops: Largest power of the adjacency in a graph convolution; 0 leaves the graph out.
        kernel_size: Steps that a temporal convolution sees.
        dropout: Probability of dropping a unit before the head.
        mode: ``direct`` forecasts the horizon at once; ``rolling`` forecasts one step and feeds it
            back H - 1 times, for a single node feature.
        residual: Whether forecasts are distances from the last observed value.
        linear_skip: Whether to add a graph convolution of the window itself.
        skip_hops: Largest power of the adjacency in that convolution.
        autoregression: Whether the forecast starts at a linear autoregression and is never worse
            than it on the validation windows; for mode direct.
        report_steps: Steps ahead whose MAE, RMSE and MAPE are reported too.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer.

    Raises:
        ValueError: If a size is out of range or arguments contradict each other.

    Shape:
        Input ``(B, T, N, F)``, output ``(B, H, N)``, both in the units of the data. The loss is in
        units of each node's training variance, ``mse`` and ``mae`` in units of the data.
    """

    network_share: Tensor

    def __init__(
        self,
        in_features: int,
        num_nodes: int,
        horizon: int,
        window: int,
        temporal: Temporal = "gru",
        hidden_size: int = 16,
        num_layers: int = 1,
        num_hops: int = 1,
        kernel_size: int = 3,
        dropout: float = 0.0,
        mode: Literal["direct", "rolling"] = "direct",
        residual: bool = False,
        linear_skip: bool = True,
        skip_hops: int = 1,
        autoregression: bool = False,
        report_steps: tuple[int, ...] = (3, 6, 12),
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        metrics = {"errors": ForecastErrors(horizon, report_steps)}
        super().__init__(metrics, optimizer, lr_scheduler)
        if min(hidden_size, num_layers, kernel_size) < 1 or min(num_hops, skip_hops) < 0:
            raise ValueError(
                "hidden_size, num_layers and kernel_size must be positive and num_hops and "
                f"skip_hops not negative, got {hidden_size}, {num_layers}, {kernel_size}, "
                f"{num_hops} and {skip_hops}"
            )
        if mode == "rolling" and in_features > 1:
            raise ValueError(
                f"a rolling forecast feeds back its one series, got in_features={in_features}; "
                "use mode direct"
            )
        if autoregression and (mode == "rolling" or residual):
            raise ValueError("autoregression needs mode=direct and residual=False")
        self.horizon, self.mode = horizon, mode
        self.x_scaler = Standardize(num_nodes * in_features)
        self.y_scaler = Standardize(num_nodes)
        self.adjacency = AdjacencyCache(add_self_loops=False)
        self.net = SpatioTemporalForecaster(
            in_features=in_features,
            window=window,
            num_outputs=1 if mode == "rolling" else horizon,
            hidden_size=hidden_size,
            temporal=temporal,
            num_layers=num_layers,
            num_hops=num_hops,
            kernel_size=kernel_size,
            dropout=dropout,
            residual=residual,
            linear_skip=linear_skip,
            skip_hops=skip_hops,
        )
        self.autoregression: NodeAutoregression | None = None
        if autoregression:
            self.autoregression = NodeAutoregression(num_nodes, window, horizon)
            self.register_buffer("network_share", torch.ones(()))
            for last in (self.net.head, *([] if self.net.skip is None else [self.net.skip.lin])):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
        self._validated: list[tuple[Tensor, Tensor, Tensor]] = []

    def _inputs(self, batch: GraphSeriesBatch) -> tuple[Tensor, Adjacency]:
        """Standardised window without gaps, ``(N, B, T, F)``, and the adjacency."""
        standard = self.x_scaler(batch.x.flatten(2)).view(batch.x.shape)
        window = _filled(standard.permute(2, 0, 1, 3)).contiguous()
        dtype = self.net.head.weight.dtype
        return window, self.adjacency(batch.edge_index, batch.edge_weight, len(window), dtype)

    def _parts(self, batch: GraphSeriesBatch) -> tuple[Tensor, Tensor]:
        """The standardised forecasts of the autoregression and of the network, ``(B, H, N)``."""
        window, adjacency = self._inputs(batch)
        if self.mode == "rolling":
            steps = self.net.roll(window, adjacency, self.horizon)
        else:
            steps = self.net(window, adjacency)
        network = steps.permute(1, 2, 0).contiguous()
        if self.autoregression is None:
            return torch.zeros_like(network), network
        own = window[..., 0]
        start = self.autoregression(own, self._neighbours(own, adjacency))
        return start.permute(1, 2, 0), network

    def forward(self, batch: GraphSeriesBatch) -> Tensor:
        """Forecast in the units of the data, ``(B, H, N)``."""
        return self.y_scaler.inverse(self._joined(*self._parts(batch)))

    def _neighbours(self, own: Tensor, adjacency: Adjacency) -> Tensor:
        """The neighbours' windows, standardised and in units of the data, ``(N, B, 2 T)``."""
        unit = self.y_scaler.std.to(own)[:, None]
        found = adjacency.matmul(own.flatten(1)), adjacency.matmul(unit * own.flatten(1)) / unit
        return torch.cat([near.view_as(own) for near in found], dim=-1)

    def _joined(self, start: Tensor, network: Tensor, share: Tensor | None = None) -> Tensor:
        if self.autoregression is None:
            return network
        return start + (self.network_share if share is None else share) * network

    def _output(self, forecast: Tensor, y: Tensor) -> StepOutput:
        """Squared error of the known targets, in units of each node's variance."""
        known = y.isfinite()
        count = int(known.sum())
        error = torch.where(known, forecast - self.y_scaler(y), 0.0)
        loss = error.square().sum() / max(count, 1) if count < y.numel() else error.square().mean()
        return StepOutput(loss, count, self.y_scaler.inverse(forecast), y)

    def step(self, batch: GraphSeriesBatch) -> StepOutput:
        """Squared error of a batch, in units of each node's variance."""
        start, network = self._parts(batch)
        return self._output(self._joined(start, network, network.new_ones(())), batch.y)

    def eval_step(self, batch: GraphSeriesBatch) -> StepOutput:
        """As :meth:`step`, with the network's share."""
        return self._output(self._joined(*self._parts(batch)), batch.y)

    def take_scale(self, datamodule: Any) -> None:
        """Takes the scale of the training data and solves the autoregression on them."""
        super().take_scale(datamodule)
        if self.autoregression is not None:
            self.fit_autoregression(datamodule.split("train"), datamodule.split("val"))

    @torch.no_grad()
    def fit_autoregression(self, train: GraphSeriesBatch, val: GraphSeriesBatch) -> str:
        """Solves the autoregression; the scale must have been taken.

        Args:
            train: All training windows.
            val: All validation windows, which weigh its forms.

        Returns:
            The forms that count, with their weights.
        """
        assert self.autoregression is not None
        parts = []
        for batch in (train, val):
            rows = torch.linspace(0, len(batch.x) - 1, min(len(batch.x), _MAX_WINDOWS)).long()
            batch = batch._replace(x=batch.x[rows], y=batch.y[rows])
            window, adjacency = self._inputs(batch)
            own = window[..., 0]
            parts.append(
                (own, self._neighbours(own, adjacency), self.y_scaler(batch.y).permute(2, 0, 1))
            )
        return self.autoregression.fit(parts[0], parts[1], self.y_scaler.std)

    def validation_step(self, batch: GraphSeriesBatch, batch_idx: int) -> dict[str, Tensor]:
        """Keeps both forecasts until their best mixture is known."""
        if self.autoregression is None:
            return super().validation_step(batch, batch_idx)
        start, network = self._parts(batch)
        self._validated.append((start, network, batch.y))
        return {"preds": self.y_scaler.inverse(self._joined(start, network)), "target": batch.y}

    def on_validation_epoch_end(self) -> None:
        """Takes the network's share that is best on the validation windows, and scores it."""
        kept, self._validated = self._validated, []
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        for start, network, y in kept:
            known = y.isfinite()
            unit = self.y_scaler.std.to(sums.dtype)  # errors in the units of the data
            left = torch.where(known, self.y_scaler(y) - start, 0.0).double() * unit
            part = torch.where(known, network, 0.0).double() * unit
            sums += torch.stack([(left * part).sum(), part.square().sum()])
        if self.autoregression is not None:
            sums = self._sum_over_ranks(sums)
            share = sums[0] / sums[1] if sums[1] > 0 else torch.zeros(())
            self.network_share.fill_(float(share.clamp(0, 1)))
        for start, network, y in kept:
            output = self._output(self._joined(start, network), y)
            self._accumulate("val", output)
            self.update_metrics(self.val_metrics, output)
        super().on_validation_epoch_end()


def _filled(window: Tensor) -> Tensor:
    """Each gap of a standardised ``(N, B, T, F)`` as the value before it, or the mean, 0."""
    last, steps = torch.zeros_like(window[:, :, 0]), []
    for step in window.unbind(2):
        last = torch.where(step.isfinite(), step, last)
        steps.append(last)
    return torch.stack(steps, dim=2)
