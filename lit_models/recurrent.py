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

Shape letters: B batch, T window, D input series, W state width, H horizon, M targets, P parameters.
"""

from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from datamodules.batches import SeriesBatch
from lit_models.families.forecast import Head
from lit_models.families.forecast_intervals import LitIntervalForecaster
from lit_models.layers.scored_attention import Attention
from lit_models.layers.series_units import KnownSteps, ScaledWindows, SeriesVectors

Cell = Literal["rnn", "lstm", "gru"]
_CELLS: dict[str, type[nn.RNN | nn.LSTM | nn.GRU]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class RecurrentEncoder(nn.Module):
    """Reads a window step by step.

    Arguments as for :class:`LitRecurrentForecaster`.

    Raises:
        ValueError: If a bidirectional width is odd.

    Shape:
        Input ``(B, T, D)``, output states ``(B, T, W)`` and summary ``(B, W)``.

    Example:
        >>> states, summary = RecurrentEncoder(3, 8, "gru")(torch.zeros(2, 5, 3))
        >>> states.shape, summary.shape
        (torch.Size([2, 5, 8]), torch.Size([2, 8]))
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


class RecurrentForecaster(nn.Module):
    """Encoder, optional attention, and a head that forecasts all steps at once.

    Arguments as for :class:`LitRecurrentForecaster`; ``num_outputs`` counts the steps.

    Shape:
        Input ``(B, T, D)``, output ``(B, num_outputs)`` and attention weights ``(B, T)`` or None.

    Example:
        >>> net = RecurrentForecaster(RecurrentEncoder(3, 8), 8, num_outputs=4)
        >>> net(torch.zeros(2, 5, 3))[0].shape
        torch.Size([2, 4])
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
        self.attention = Attention(hidden_size, "concat") if attention else None
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * hidden_size if attention else hidden_size, num_outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Forecast and attention weights."""
        return self.read_out(*self.encoder(x))

    def read_out(self, states: Tensor, summary: Tensor) -> tuple[Tensor, Tensor | None]:
        """Forecast and attention weights of an encoded window."""
        weights = None
        if self.attention is not None:
            keys = self.attention.keys(states)
            context, weights = self.attention(summary.unsqueeze(1), keys, states)
            summary, weights = torch.cat([summary, context[:, 0]], dim=-1), weights[:, 0]
        return self.head(self.dropout(summary)), weights


class LitRecurrentForecaster(LitIntervalForecaster):
    """Forecasts the next values of a series from a window of it and of further series.

    Args:
        in_features: Number D of input series; series 0, or the first M, are those to forecast.
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
        head: What is said of each step: a ``point`` (squared error), a ``quantile`` for each of
            seven probabilities (pinball loss) or a ``mixture`` of normal densities (likelihood).
        num_components: Components of the mixture.
        ridge_start: Whether to learn what is added to the ridge regression of the training
            windows; the share that is added is chosen on the validation windows.
        embedding_dim: Width of a learned vector of each series, which is read beside the window; 0
            for none. A series that training did not have reads zeros.
        num_series: Number of series of a user's file, which is scored by scale-free metrics and
            has conformal intervals; 0 for generated windows.
        num_known: Number of channels known ahead.
        num_targets: Number M of series that a window forecasts together.
        target_power: Exponent, shift and least value of the target's transform; None for none.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer.

    Raises:
        ValueError: If arguments contradict each other.

    Shape:
        Input ``(B, T, D)``, output ``(B, H)`` or ``(B, H, M)``, both in the units of the data. The
        loss is in units of the training series' variance, ``mse`` and ``mae`` in those of the data.
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
        head: Head = "point",
        num_components: int = 3,
        ridge_start: bool = False,
        embedding_dim: int = 0,
        num_series: int = 0,
        num_known: int = 0,
        num_targets: int = 1,
        target_power: tuple[float, float, float] | None = None,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(
            in_features, horizon, window, head, num_components, num_series, num_known, num_targets,
            target_power, ridge_start, optimizer, lr_scheduler,
        )  # fmt: skip
        if mode == "rolling" and (
            in_features > 1 or num_auxiliary or head != "point" or ridge_start
        ):
            raise ValueError(
                "a rolling forecast feeds back the values of its one series, got "
                f"in_features={in_features}, num_auxiliary={num_auxiliary}, head={head} and "
                f"ridge_start={ridge_start}; use mode direct"
            )
        if embedding_dim and not num_series:
            raise ValueError(f"embedding_dim={embedding_dim} needs data with several series")
        self.mode, self.residual = mode, residual
        num_params = num_targets * self.head.num_params
        num_outputs = 1 if mode == "rolling" else (horizon + num_auxiliary) * num_params
        encoder = RecurrentEncoder(
            in_features + embedding_dim, hidden_size, cell, num_layers, bidirectional, dropout
        )
        self.net = RecurrentForecaster(encoder, hidden_size, num_outputs, attention, dropout)
        self.skip = nn.Linear(window * num_targets, num_outputs) if linear_skip else None
        self.embedding = SeriesVectors(num_series, embedding_dim) if embedding_dim else None
        self.known = KnownSteps(num_known, hidden_size, num_params) if num_known else None
        if self.skip is not None:
            nn.init.zeros_(self.skip.weight)
        if ridge_start:
            for last in (self.net.head, self.skip):
                if last is not None:
                    nn.init.zeros_(last.weight)
                    nn.init.zeros_(last.bias)

    @property
    def reads_series(self) -> bool:
        """Whether the series have vectors of their own."""
        return self.embedding is not None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the attention's weights under their former name, too."""
        super().on_load_checkpoint(checkpoint)
        for state in (checkpoint["state_dict"], checkpoint.get("current_model_state", {})):
            if "net.attention.score.weight" in state:
                state["net.attention.energy.weight"] = state.pop("net.attention.score.weight")

    def attention_weights(self, batch: SeriesBatch) -> Tensor | None:
        """Attention over the window, ``(B, T)``; None without attention."""
        windows = self.units.windows(batch, self.x_scaler, self._compute_dtype)
        seen = self._with_series(self._center(windows.x)[0], batch.series)
        weights: Tensor | None = self.net(seen)[1]
        return weights

    def change(self, windows: ScaledWindows, series: Tensor | None) -> Tensor:
        """Parameters of all outputs, ``(B M, H or more, P)``, less those of a linear start."""
        if self.mode == "direct":
            return self._direct(windows.x, windows.known, series)
        x, steps = windows.x, []
        for _ in range(self.horizon):
            steps.append(self._direct(x, None, series))
            x = torch.cat([x[:, 1:], steps[-1]], dim=1)
        return torch.cat(steps, dim=1)

    def _direct(self, x: Tensor, known: Tensor | None, series: Tensor | None) -> Tensor:
        window, last = self._center(x)
        states, summary = self.net.encoder(self._with_series(window, series))
        return self._finish(states, summary, window, last, known)

    def _with_series(self, window: Tensor, series: Tensor | None) -> Tensor:
        return window if self.embedding is None else self.embedding.beside(window, series)

    def _center(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The window as the network sees it, and what its forecasts are distances from, (B, M)."""
        m = self.num_targets
        last = x[:, -1, :m]
        if not self.residual:
            return x, torch.zeros_like(last)
        unit = 1 if self.start is None else self.start.reach.to(x)
        return torch.cat([(x[..., :m] - last.unsqueeze(1)) / unit, x[..., m:]], dim=-1), last

    def _finish(
        self, states: Tensor, summary: Tensor, window: Tensor, last: Tensor, known: Tensor | None
    ) -> Tensor:
        """Parameters ``(B M, steps, P)`` from an encoded window."""
        out: Tensor = self.net.read_out(states, summary)[0]
        if self.skip is not None:
            out = out + self.skip(window[..., : self.num_targets].flatten(1))
        width = 1 if self.mode == "rolling" else self.num_targets * self.head.num_params
        steps = out.reshape(out.shape[0], out.shape[1] // width, width)
        if self.known is not None and known is not None:
            ahead, auxiliary = steps[:, : self.horizon], steps[:, self.horizon :]
            steps = torch.cat([ahead + self.known(known, summary), auxiliary], dim=1)
        split = steps.reshape(*steps.shape[:2], self.num_targets, width // self.num_targets)
        params = split.movedim(2, 1).flatten(0, 1)
        if self.start is not None:
            return self.head.stretch(params, self.start.units(params))  # it holds the last value
        return params + last.reshape(-1, 1, 1)

    def state_gradients(self, batch: SeriesBatch) -> Tensor:
        r"""Norm of :math:`\partial L / \partial s_t` by lag :math:`T - t`, for the direct forecast.

        What vanishes or explodes: :math:`s_t` is all that step t hands to step t + 1, for an LSTM
        the cell included; L is the loss of one window.

        Returns:
            Mean norm over the windows, ``(T,)``; lag 0 is the last step.
        """
        windows = self.units.windows(batch, self.x_scaler, self._compute_dtype)
        window, last = self._center(windows.x)
        target = self.units.target(self._rows(batch), self.y_scaler, self._compute_dtype)
        with torch.enable_grad():
            seen = self._with_series(window, batch.series)
            states, summary, carried = self.net.encoder.unroll(seen)
            params = self._finish(states, summary, window, last, windows.known)
            start = self._start(windows, params)
            params = params if start is None else start + params
            num_steps = min(params.shape[1], target.shape[1])
            losses = self.head.losses(params[:, :num_steps], target[:, :num_steps])
            loss = losses.mean() * len(window)
            parts = [part for step in carried for part in step]
            gradients = torch.autograd.grad(loss, parts, materialize_grads=True)
        squares = torch.stack([gradient.square().sum((0, 2)) for gradient in gradients])
        norms = squares.view(len(carried), -1, len(window)).sum(1).sqrt()
        return norms.mean(1).flip(0)
