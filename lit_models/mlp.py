r"""Multilayer perceptrons for tables: classification and regression.

.. math:: h_0 = \frac{x - \mu}{\sigma}, \quad
          h_l = \mathrm{Dropout}(f(\mathrm{BatchNorm}(W_l h_{l-1} + b_l))), \quad o = W_o h_L + b_o

Batch normalisation (Ioffe and Szegedy, 2015) stands before the non-linearity, as in its paper;
dropout (Srivastava et al., 2014) after it. Either is left out by a flag. Two classes are scored by
two logits and the same cross-entropy as any other number; a sigmoid on their difference is the
same model.

Shape letters: B batch, D features, K classes or targets.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Accuracy, MeanAbsoluteError, MeanSquaredError

from datamodules.batches import SupervisedBatch
from lit_models.base import LitModule, StepOutput
from lit_models.layers.standardize import Standardize
from lit_models.metrics.means import weigh
from lit_models.metrics.scores import CrossEntropy

Activation = Literal["relu", "gelu", "silu", "tanh"]
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


class MLP(nn.Sequential):
    """Affine layers, each but the last followed by norm, non-linearity and dropout.

    Arguments as for :class:`LitMLPClassifier`; ``out_features`` counts the outputs.

    Raises:
        ValueError: If a width is not positive or the dropout is not in [0, 1).

    Shape:
        Input ``(B, D)``, output ``(B, K)``.

    Example:
        >>> MLP(in_features=4, hidden_sizes=[32], out_features=3)(torch.zeros(8, 4)).shape
        torch.Size([8, 3])
    """

    def __init__(
        self,
        in_features: int,
        hidden_sizes: Sequence[int],
        out_features: int,
        activation: Activation = "relu",
        batch_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        if any(width < 1 for width in hidden_sizes):
            raise ValueError(f"hidden_sizes must be positive, got {list(hidden_sizes)}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {dropout}")
        layers: list[nn.Module] = []
        width = in_features
        for hidden in hidden_sizes:
            layers.append(nn.Linear(width, hidden))
            if batch_norm:
                layers.append(nn.BatchNorm1d(hidden))
            layers.append(_ACTIVATIONS[activation]())
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
            width = hidden
        super().__init__(*layers, nn.Linear(width, out_features))


class LitMLPClassifier(LitModule):
    """A perceptron with softmax cross-entropy.

    Args:
        in_features: Size D of each input.
        num_classes: Number K of classes.
        hidden_sizes: Width of each hidden layer.
        activation: Non-linearity.
        batch_norm: Whether to normalise before the non-linearity.
        dropout: Probability of dropping a hidden unit.
        label_smoothing: Share of each training target spread over all classes.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer.

    Raises:
        ValueError: If an argument is out of range.

    Shape:
        Input ``(B, D)``, output logits ``(B, K)``.
    """

    weighs_rows = True

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        hidden_sizes: Sequence[int] = (64, 32),
        activation: Activation = "relu",
        batch_norm: bool = True,
        dropout: float = 0.2,
        label_smoothing: float = 0.0,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        metrics = {
            "accuracy": Accuracy(task="multiclass", num_classes=num_classes),
            "cross_entropy": CrossEntropy(),
        }
        super().__init__(metrics, optimizer, lr_scheduler)
        self.x_scaler = Standardize(in_features)
        self.net = MLP(in_features, hidden_sizes, num_classes, activation, batch_norm, dropout)
        self.label_smoothing = label_smoothing

    def forward(self, x: Tensor) -> Tensor:
        """Logits, ``(B, K)``."""
        logits: Tensor = self.net(self.x_scaler(x))
        return logits

    def step(self, batch: SupervisedBatch) -> StepOutput:
        """Cross-entropy of a batch."""
        logits = self(batch.x)
        smoothing = self.label_smoothing if self.training else 0.0
        losses = F.cross_entropy(logits, batch.y, label_smoothing=smoothing, reduction="none")
        return StepOutput(*weigh(losses, batch.weight), logits, batch.y)

    def predict_step(self, batch: SupervisedBatch, batch_idx: int = 0) -> dict[str, Tensor]:
        """Most probable class, probability of each class, and the true class."""
        probability = self(batch.x).softmax(1)
        return {"class": probability.argmax(1), "probability": probability, "target": batch.y}


class LitMLPRegressor(LitModule):
    """A perceptron with squared error; targets are standardised inside.

    Args:
        in_features: Size D of each input.
        out_features: Number K of targets.
        hidden_sizes: Width of each hidden layer.
        activation: Non-linearity.
        batch_norm: Whether to normalise before the non-linearity.
        dropout: Probability of dropping a hidden unit.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer.

    Raises:
        ValueError: If an argument is out of range.

    Shape:
        Input ``(B, D)``, output ``(B, K)``, both in the units of the data. The loss is in units of
        the training targets' variance, ``mse`` and ``mae`` in units of the data.
    """

    weighs_rows = True

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden_sizes: Sequence[int] = (64, 32),
        activation: Activation = "relu",
        batch_norm: bool = False,
        dropout: float = 0.1,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        metrics = {"mse": MeanSquaredError(), "mae": MeanAbsoluteError()}
        super().__init__(metrics, optimizer, lr_scheduler)
        self.x_scaler = Standardize(in_features)
        self.y_scaler = Standardize(out_features)
        self.net = MLP(in_features, hidden_sizes, out_features, activation, batch_norm, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Predictions in the units of the data, ``(B, K)``."""
        return self.y_scaler.inverse(self.net(self.x_scaler(x)))

    def step(self, batch: SupervisedBatch) -> StepOutput:
        """Standardised squared error of a batch."""
        standard = self.net(self.x_scaler(batch.x))
        losses = F.mse_loss(standard, self.y_scaler(batch.y), reduction="none")
        loss, num_targets = weigh(losses, batch.weight)
        return StepOutput(loss, num_targets, self.y_scaler.inverse(standard), batch.y)
