r"""Recurrent forecasters: RNN, LSTM and GRU over an observed window.

.. math::
    \text{RNN:}\quad & s_t = \tanh(W_x x_t + W_s s_{t-1} + b) \\
    \text{LSTM:}\quad & i, f, o = \sigma(W x_t + U h_{t-1} + b), \quad
        c_t = f \odot c_{t-1} + i \odot \tanh(W_c x_t + U_c h_{t-1} + b_c), \quad
        h_t = o \odot \tanh(c_t) \\
    \text{GRU:}\quad & z, r = \sigma(W x_t + U h_{t-1} + b), \quad
        n = \tanh(W_n x_t + b_n + r \odot (U_n h_{t-1} + b_u)), \quad
        h_t = (1 - z) \odot n + z \odot h_{t-1}

Elman (1990); Hochreiter and Schmidhuber (1997); Cho et al. (2014). Deviations:

* The GRU is torch's: its reset gate acts after the product with :math:`U_n`, Cho's before it.
* torch keeps two bias vectors per gate, the equations one.
* A bidirectional encoder reads the *observed* window, which leaks nothing. Its summary is the
  final state of the forward cell beside the state of the backward cell at the first step; at the
  last step the backward cell has read a single input.
* ``residual`` reads and forecasts distances from the last observed value, so that a shift of the
  series shifts the forecast, and ``linear_skip`` adds a linear map of the window: the baselines
  that are hard to beat on real series, built in.

Attention over the window (Bahdanau et al., 2015) scores each step's state against the summary,
:math:`e_t = v^T \tanh(W_1 h_t + W_2 h), \; \alpha = \mathrm{softmax}(e)`, and hands
:math:`\sum_t \alpha_t h_t` to the head beside the summary.

Shape letters: B batch, T window, D input series, W state width, H horizon.
"""

from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanAbsoluteError, MeanSquaredError

from datamodules.batches import SeriesBatch
from lit_models.base import LitModule, StepOutput
from lit_models.layers.standardize import Standardize

Cell = Literal["rnn", "lstm", "gru"]
_CELLS: dict[str, type[nn.RNN | nn.LSTM | nn.GRU]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class RecurrentEncoder(nn.Module):
    """Reads a window step by step.

    Args:
        in_features: Number D of input series.
        hidden_size: Width of the state; of both directions together where there are two.
        cell: Kind of cell.
        num_layers: Number of stacked cells.
        bidirectional: Whether a second cell reads the window backwards.
        dropout: Probability of dropping a state between two layers.

    Raises:
        ValueError: If a bidirectional width is odd.

    Shape:
        Input ``(B, T, D)``, output states ``(B, T, W)`` and summary ``(B, W)``.
    """

    def __init__(
        self,
        in_features: int,
        hidden_size: int,
        cell: Cell = "lstm",
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if hidden_size < 1 or num_layers < 1:
            raise ValueError(
                f"hidden_size and num_layers must be positive, got {hidden_size} and {num_layers}"
            )
        if bidirectional and hidden_size % 2:
            raise ValueError(f"a bidirectional hidden_size must be even, got {hidden_size}")
        self.bidirectional = bidirectional
        self.cell = _CELLS[cell](
            in_features,
            hidden_size // 2 if bidirectional else hidden_size,
            num_layers,
            batch_first=True,
            bidirectional=bidirectional,
            dropout=dropout if num_layers > 1 else 0.0,
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """State of the last layer at each step, and their summary."""
        states, _ = self.cell(x)
        if not self.bidirectional:
            return states, states[:, -1]
        forward, backward = states.chunk(2, dim=-1)
        return states, torch.cat([forward[:, -1], backward[:, 0]], dim=-1)

    def unroll(self, x: Tensor) -> tuple[Tensor, Tensor, list[tuple[Tensor, ...]]]:
        """As :meth:`forward`, one step at a time, with what each step hands to the next.

        Returns:
            States, summary, and per step the carried tensors ``(num_layers, B, W)``: the state, and
            for an LSTM the cell beside it.

        Raises:
            ValueError: For a bidirectional encoder, whose two chains have no common step.
        """
        if self.bidirectional:
            raise ValueError("a bidirectional encoder cannot be unrolled; use bidirectional=False")
        carried: list[tuple[Tensor, ...]] = []
        state: Any = None
        for step in torch.split(x, 1, dim=1):
            _, state = self.cell(step, state)
            carried.append(state if isinstance(state, tuple) else (state,))
        states = torch.stack([parts[0][-1] for parts in carried], dim=1)
        return states, states[:, -1], carried


class WindowAttention(nn.Module):
    """Additive attention of the summary over the states of the window.

    Args:
        hidden_size: Width W of the states.

    Shape:
        States ``(B, T, W)`` and summary ``(B, W)`` to context ``(B, W)`` and weights ``(B, T)``.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.key = nn.Linear(hidden_size, hidden_size, bias=False)
        self.query = nn.Linear(hidden_size, hidden_size)
        self.score = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, states: Tensor, summary: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted mean of the states, and the weights."""
        energy = self.score(torch.tanh(self.key(states) + self.query(summary).unsqueeze(1)))
        weights = energy.squeeze(-1).softmax(-1)
        return (weights.unsqueeze(1) @ states).squeeze(1), weights


class RecurrentForecaster(nn.Module):
    """Encoder, optional attention, and a head that forecasts all steps at once.

    Args:
        encoder: Reads the window.
        hidden_size: Width W of the encoder's summary.
        num_outputs: Number of steps the head forecasts.
        attention: Whether the head also sees an attention context.
        dropout: Probability of dropping a unit before the head.

    Shape:
        Input ``(B, T, D)``, output ``(B, num_outputs)`` and attention weights ``(B, T)`` or None.
    """

    def __init__(
        self,
        encoder: RecurrentEncoder,
        hidden_size: int,
        num_outputs: int,
        attention: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.attention = WindowAttention(hidden_size) if attention else None
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * hidden_size if attention else hidden_size, num_outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Forecast and attention weights."""
        return self.read_out(*self.encoder(x))

    def read_out(self, states: Tensor, summary: Tensor) -> tuple[Tensor, Tensor | None]:
        """Forecast and attention weights of an encoded window."""
        weights = None
        if self.attention is not None:
            context, weights = self.attention(states, summary)
            summary = torch.cat([summary, context], dim=-1)
        return self.head(self.dropout(summary)), weights


class LitRecurrentForecaster(LitModule):
    """Forecasts the next values of a series from a window of it and of further series.

    Args:
        in_features: Number D of input series; series 0 is the one to forecast.
        horizon: Number H of steps to forecast.
        window: Length T of the observed window; needed by ``linear_skip``.
        cell: Kind of cell.
        hidden_size: Width of the state; of both directions together where there are two.
        num_layers: Number of stacked cells.
        bidirectional: Whether a second cell reads the window backwards.
        attention: Whether the head attends to all steps of the window.
        dropout: Probability of dropping a state between layers and before the head.
        mode: ``direct`` forecasts the horizon at once; ``rolling`` forecasts one step and feeds it
            back H - 1 times, for a single input series.
        residual: Whether the target series is read and forecast as distances from its last
            observed value.
        linear_skip: Whether to add a linear map of the window's target series.
        num_auxiliary: Steps beyond the horizon the direct head also learns to forecast. They are
            known in training alone and shape the state; evaluation ignores them.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer.

    Raises:
        ValueError: If arguments contradict each other.

    Shape:
        Input ``(B, T, D)``, output ``(B, H)``, both in the units of the data. The loss is in units
        of the training series' variance, ``mse`` and ``mae`` in units of the data.
    """

    def __init__(
        self,
        in_features: int,
        horizon: int,
        window: int,
        cell: Cell = "lstm",
        hidden_size: int = 64,
        num_layers: int = 1,
        bidirectional: bool = False,
        attention: bool = False,
        dropout: float = 0.0,
        mode: Literal["direct", "rolling"] = "direct",
        residual: bool = False,
        linear_skip: bool = False,
        num_auxiliary: int = 0,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        metrics = {"mse": MeanSquaredError(), "mae": MeanAbsoluteError()}
        super().__init__(metrics, optimizer, lr_scheduler)
        if mode == "rolling" and (in_features > 1 or num_auxiliary):
            raise ValueError(
                f"a rolling forecast feeds back its one series and no auxiliary steps, got "
                f"in_features={in_features} and num_auxiliary={num_auxiliary}; use mode direct"
            )
        self.horizon, self.mode, self.residual = horizon, mode, residual
        self.x_scaler = Standardize(in_features)
        self.y_scaler = Standardize(1)
        num_outputs = 1 if mode == "rolling" else horizon + num_auxiliary
        encoder = RecurrentEncoder(
            in_features, hidden_size, cell, num_layers, bidirectional, dropout
        )
        self.net = RecurrentForecaster(encoder, hidden_size, num_outputs, attention, dropout)
        self.skip = nn.Linear(window, num_outputs) if linear_skip else None
        if self.skip is not None:
            nn.init.zeros_(self.skip.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Forecast in the units of the data, ``(B, H)``."""
        return self.y_scaler.inverse(self._forecast(self.x_scaler(x))[:, : self.horizon])

    def attention_weights(self, batch: SeriesBatch) -> Tensor | None:
        """Attention over the window, ``(B, T)``; None without attention."""
        weights: Tensor | None = self.net(self._center(self.x_scaler(batch.x))[0])[1]
        return weights

    def _forecast(self, x: Tensor) -> Tensor:
        """Standardised forecast of all outputs."""
        if self.mode == "direct":
            return self._direct(x)
        steps = []
        for _ in range(self.horizon):
            steps.append(self._direct(x))
            x = torch.cat([x[:, 1:], steps[-1].unsqueeze(-1)], dim=1)
        return torch.cat(steps, dim=1)

    def _direct(self, x: Tensor) -> Tensor:
        window, last = self._center(x)
        return self._finish(self.net(window)[0], window, last)

    def _center(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The window as the network sees it, and what its forecasts are distances from."""
        last = x[:, -1, :1]
        if not self.residual:
            return x, torch.zeros_like(last)
        return torch.cat([x[..., :1] - last.unsqueeze(1), x[..., 1:]], dim=-1), last

    def _finish(self, out: Tensor, window: Tensor, last: Tensor) -> Tensor:
        if self.skip is not None:
            out = out + self.skip(window[..., 0])
        return out + last

    def step(self, batch: SeriesBatch) -> StepOutput:
        """Squared error of a batch, auxiliary steps included where the batch has them."""
        forecast = self._forecast(self.x_scaler(batch.x))
        target = self.y_scaler(batch.y)
        loss = _squared_error(forecast, target)
        preds = self.y_scaler.inverse(forecast[:, : self.horizon])
        return StepOutput(loss, len(batch.x), preds, batch.y[:, : self.horizon])

    def state_gradients(self, batch: SeriesBatch) -> Tensor:
        r"""Norm of :math:`\partial L / \partial s_t` by lag :math:`T - t`, for the direct forecast.

        What vanishes or explodes: :math:`s_t` is all that step t hands to step t + 1, for an LSTM
        the cell included; L is the loss of one window.

        Returns:
            Mean norm over the windows, ``(T,)``; lag 0 is the last step.
        """
        window, last = self._center(self.x_scaler(batch.x))
        with torch.enable_grad():
            states, summary, carried = self.net.encoder.unroll(window)
            forecast = self._finish(self.net.read_out(states, summary)[0], window, last)
            loss = _squared_error(forecast, self.y_scaler(batch.y)) * len(window)
            parts = [part for step in carried for part in step]
            gradients = torch.autograd.grad(loss, parts, materialize_grads=True)
        squares = torch.stack([gradient.square().sum((0, 2)) for gradient in gradients])
        norms = squares.view(len(carried), -1, len(window)).sum(1).sqrt()
        return norms.mean(1).flip(0)


def _squared_error(forecast: Tensor, target: Tensor) -> Tensor:
    """Mean over the steps that both have."""
    num_steps = min(forecast.shape[1], target.shape[1])
    return F.mse_loss(forecast[:, :num_steps], target[:, :num_steps])
