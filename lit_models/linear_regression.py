r"""Linear regression by gradient descent.

.. math:: \hat y = x W^T + b, \qquad L = \frac{1}{B} \sum_i (\hat y_i - y_i)^2

On a user's file features and target are standardised inside the model, without which one rate does
not fit columns of different units; on the synthetic task the scales are 1.

The only model here whose training has a closed form, :math:`(X^T X)^{-1} X^T y`: with a decaying
rate stochastic gradient descent reaches it, which the tests check.

Shape letters: B batch, D features.
"""

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanAbsoluteError, MeanSquaredError

from datamodules.batches import SupervisedBatch
from lit_models.base import LitModule, StepOutput
from lit_models.layers.standardize import Standardize
from lit_models.metrics.means import weigh


class LitLinearRegression(LitModule):
    """An affine map trained on the squared error.

    Args:
        in_features: Size D of each input.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer.

    Shape:
        Input ``(B, D)``, output ``(B, 1)``.
    """

    weighs_rows = True

    def __init__(
        self,
        in_features: int,
        optimizer: OptimizerCallable = torch.optim.SGD,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(
            {"mse": MeanSquaredError(), "mae": MeanAbsoluteError()}, optimizer, lr_scheduler
        )
        self.x_scaler = Standardize(in_features)
        self.y_scaler = Standardize(1)
        self.linear = nn.Linear(in_features, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Predictions, ``(B, 1)``."""
        return self.y_scaler.inverse(self.linear(self.x_scaler(x)))

    def step(self, batch: SupervisedBatch) -> StepOutput:
        """Squared error of a batch."""
        standard = self.linear(self.x_scaler(batch.x))
        losses = F.mse_loss(standard, self.y_scaler(batch.y), reduction="none")
        loss, num_targets = weigh(losses, batch.weight)
        return StepOutput(loss, num_targets, self.y_scaler.inverse(standard), batch.y)
