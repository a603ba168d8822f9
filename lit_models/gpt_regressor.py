r"""A GPT over numbers: it forecasts an answer from the examples in its context.

.. math::
    h_t = \text{Decoder}\big(W_{in} [x_t; x_{t-1}; y_{t-1}]\big), \qquad
    \hat y_t = w_{out}^T h_t + b

Garg et al., "What Can Transformers Learn In-Context? A Case Study of Simple Function Classes"
(2022). Deviation: they give x and y a position each, which the model must first learn to pair;
here position t holds its question and the example before it, so that T examples take T positions.

Shape letters: B batch, T examples, F input size, D model width, L blocks.
"""

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanSquaredError

from datamodules.batches import ExamplesBatch
from lit_models.base import LitModule, StepOutput
from lit_models.gpt import Decoder, DecoderConfig


class GPTRegressor(Decoder):
    """A decoder whose inputs are examples.

    Shape:
        Inputs ``(B, T, F)`` and answers ``(B, T)`` to forecasts ``(B, T)``; forecast t sees answers
        before t alone.
    """

    def __init__(self, in_features: int, config: DecoderConfig) -> None:
        super().__init__(config)
        self.read_in = nn.Linear(2 * in_features + 1, config.d_model)
        self.read_out = nn.Linear(config.d_model, 1)
        self.reset_parameters()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Forecast of each answer."""
        examples = torch.cat([x, y.unsqueeze(-1)], dim=-1)
        before = F.pad(examples[:, :-1], (0, 0, 1, 0))
        embedded = self.read_in(torch.cat([x, before], dim=-1))
        forecast: Tensor = self.read_out(self.hidden_states(embedded)).squeeze(-1)
        return forecast


class LitGPTRegressor(LitModule):
    """Forecasts answers of unseen tasks from the examples in the context.

    Args:
        in_features: Size F of each input.
        context_length: Largest number T of examples.
        d_model: Width D.
        num_layers: Number L of blocks.
        num_heads: Attention heads per block; divides D.
        dropout: Probability of dropping a unit or an attention weight in training.
        norm_first: Whether norms stand before attention and network (GPT-2) or after (GPT-1).
        init_std: Standard deviation of the initial weights.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer.

    Raises:
        ValueError: If arguments contradict each other.

    Shape:
        Inputs ``(B, T, F)`` and answers ``(B, T)`` to forecasts ``(B, T)``.
    """

    def __init__(
        self,
        in_features: int,
        context_length: int,
        d_model: int = 64,
        num_layers: int = 3,
        num_heads: int = 4,
        dropout: float = 0.0,
        norm_first: bool = True,
        init_std: float = 0.02,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__({"mse": MeanSquaredError()}, optimizer, lr_scheduler)
        config = DecoderConfig(
            context_length=context_length,
            d_model=d_model,
            num_layers=num_layers,
            num_heads=num_heads,
            dropout=dropout,
            norm_first=norm_first,
            init_std=init_std,
        )
        self.net = GPTRegressor(in_features, config)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Forecast of each answer, ``(B, T)``."""
        forecast: Tensor = self.net(x, y)
        return forecast

    def step(self, batch: ExamplesBatch) -> StepOutput:
        """Squared error over all examples of a batch."""
        forecast = self(batch.x, batch.y)
        return StepOutput(F.mse_loss(forecast, batch.y), batch.y.numel(), forecast, batch.y)
