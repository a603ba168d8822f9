"""A small pair that the tests of the command, of resume and of several ranks run."""

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn
from torchmetrics import MeanSquaredError

from datamodules import LitDataModule, Reference
from datamodules.batches import SupervisedBatch
from lit_models import LitModule, StepOutput


class LitTiny(LitModule):
    """One hidden layer with dropout.

    Args:
        in_features: Size D of each input.
        hidden_size: Width of the hidden layer.
        dropout: Probability of dropping a hidden unit.
        optimizer: Makes the optimizer.
        lr_scheduler: Makes the schedule.
    """

    def __init__(
        self,
        in_features: int,
        hidden_size: int = 7,
        dropout: float = 0.0,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__({"mse": MeanSquaredError()}, optimizer, lr_scheduler)
        if hidden_size < 1:
            raise ValueError(f"hidden_size must be positive, got {hidden_size}")
        self.net = nn.Sequential(
            nn.Linear(in_features, hidden_size),
            nn.Tanh(),
            nn.Dropout(dropout),
            nn.Linear(hidden_size, 1),
        )

    def step(self, batch: SupervisedBatch) -> StepOutput:
        preds = self.net(batch.x)
        loss = nn.functional.mse_loss(preds, batch.y)
        return StepOutput(loss, len(batch.x), preds, batch.y, {"twice": 2 * loss})


class TinyDataModule(LitDataModule[SupervisedBatch]):
    """A noisy sum.

    Args:
        num_samples: Rows of each split.
        noise_std: Standard deviation of the noise.
        batch_size: Rows per step.
        seed: Seed of the data.
    """

    in_features = 3

    def __init__(
        self,
        num_samples: int = 53,
        noise_std: float = 0.1,
        batch_size: int = 8,
        seed: int = 0,
        drop_last: bool = True,
    ) -> None:
        super().__init__(batch_size, seed, eval_batch_size=10, drop_last=drop_last)
        self.num_samples, self.noise_std = num_samples, noise_std

    def make_split(self, split: str) -> SupervisedBatch:
        generator = self.generator(split)
        x = torch.randn(self.num_samples, 3, generator=generator, dtype=torch.float64)
        noise = torch.randn(self.num_samples, 1, generator=generator, dtype=torch.float64)
        y = x.sum(1, keepdim=True) + self.noise_std * noise
        return SupervisedBatch(x.to(torch.get_default_dtype()), y.to(torch.get_default_dtype()))

    @property
    def optimum(self) -> dict[str, Reference]:
        return {"test/mse": Reference(self.noise_std**2, "noise variance")}

    @property
    def baseline(self) -> dict[str, Reference]:
        return {"test/mse": Reference(3 + self.noise_std**2, "mean of the target")}
