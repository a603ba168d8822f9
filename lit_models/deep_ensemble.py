r"""Perceptrons trained side by side from different initial weights, mixed at prediction.

Each member s has a mean and a variance head and minimises the same proper score,

.. math:: -\log p_s(y|x) = \frac12 \log \sigma_s^2(x) + \frac{(y - \mu_s(x))^2}{2 \sigma_s^2(x)}
    + \text{const}, \qquad p(y|x) = \frac1S \sum_s p_s(y|x)

Lakshminarayanan, Pritzel and Blundell, "Simple and scalable predictive uncertainty estimation using
deep ensembles" (2017), without the adversarial examples. Deviations:

* The paper scores the mixture by one normal density of the same mean and variance; here it is
  scored as the mixture it is.
* ``noise="constant"`` leaves the variance head out: one noise for all rows and members. Each
  member then leaves out its share 1 / S of the rows, and the noise is the geometric mean of the
  mean squares that members leave of rows they have seen, :math:`\approx \sigma^2 (1 - \gamma/N)`
  with :math:`\gamma` fitted directions, and of rows they have not,
  :math:`\approx \sigma^2 (1 + \gamma/N)`: few rows are else learned by heart, noise and all.
* Members see the same batches, which lets one ``torch.func.vmap`` train all of them at once; they
  differ by their initial weights, which the paper found to be enough.

Shape letters: S members, B batch, D inputs, K outputs.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from datamodules.batches import SupervisedBatch
from lit_models.base import StepOutput
from lit_models.families.predictive import PredictiveClassifier
from lit_models.families.refreshed import LearnsNoise
from lit_models.layers.densities import CategoricalMixture, GaussianMixture
from lit_models.mlp import MLP, Activation

Noise = Literal["predicted", "constant"]


class Ensemble(nn.Module):
    """Perceptrons of one shape with independent initial weights, evaluated in one pass.

    Arguments as for :class:`LitDeepEnsemble`; ``out_features`` counts a member's outputs.

    Raises:
        ValueError: If a width or the number of members is not positive.

    Shape:
        Input ``(B, D)``, output ``(S, B, K)``.

    Example:
        >>> Ensemble(5, 4, [32], 3)(torch.zeros(8, 4)).shape
        torch.Size([5, 8, 3])
    """

    def __init__(
        self,
        num_members: int,
        in_features: int,
        hidden_sizes: Sequence[int],
        out_features: int,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        if num_members < 1:
            raise ValueError(f"num_members must be at least 1, got {num_members}")
        members = [
            MLP(in_features, hidden_sizes, out_features, activation) for _ in range(num_members)
        ]
        stacked, _ = stack_module_state(members)
        # Parameter names may hold no dots.
        self.names = list(stacked)
        self.members = nn.ParameterList(nn.Parameter(stacked[name]) for name in self.names)
        # One member without weights, in a tuple so that it is no submodule with a state of its own.
        self._member = (members[0].to("meta"),)

    @property
    def stacked_vectors(self) -> list[Tensor]:
        """The members' biases, each a matrix with a row per member."""
        return [p for p in self.members if p.dim() == 2]

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of every member, ``(S, B, K)``."""

        def call(weights: dict[str, Tensor]) -> Tensor:
            outputs: Tensor = functional_call(self._member[0], weights, (x,))
            return outputs

        outputs: Tensor = vmap(call)(dict(zip(self.names, self.members, strict=True)))
        return outputs


class LitDeepEnsemble(LearnsNoise):
    r"""Deep ensemble for regression; each member predicts a mean and a variance.

    Args:
        in_features: Size D of each input.
        out_features: Number K of targets.
        num_members: Number S of members.
        hidden_sizes: Width of each hidden layer.
        activation: Non-linearity.
        min_std: Least standard deviation a member may predict, in units of the targets' standard
            deviation.
        noise: Whether the noise is ``predicted`` for each row, as in the paper, or one ``constant``
            for all rows: the better choice where there are few rows.
        leave_out: Whether each of several members with a constant noise leaves out its share of
            the rows, which tell the noise.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer.

    Raises:
        ValueError: If an argument is out of range.

    Shape:
        Input ``(B, D)``, output ``(B, K)``, both in the units of the data. The training loss is the
        mean of the members', the evaluation loss the mixture's negative log-likelihood; in nats.
    """

    # A noise that keeps up with the fit keeps the gradients from fading as the members fit.
    refresh_every = 10
    refresh_after = 0.0

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_members: int = 5,
        hidden_sizes: Sequence[int] = (50,),
        activation: Activation = "relu",
        min_std: float = 1e-3,
        noise: Noise = "predicted",
        leave_out: bool = True,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(in_features, out_features, None, optimizer, lr_scheduler)
        if min_std <= 0:
            raise ValueError(f"min_std must be positive, got {min_std}")
        self.min_std, self.noise, self.num_members = min_std, noise, num_members
        self.leaves_out = leave_out and noise == "constant" and num_members > 1
        width = out_features * (1 if noise == "constant" else 2)
        self.net = Ensemble(num_members, in_features, hidden_sizes, width, activation)

    def predictive(self, x: Tensor, generator: torch.Generator | None = None) -> GaussianMixture:
        """One component per member."""
        outputs = self.net(self.x_scaler(x))
        if self.noise == "constant":
            return self.mixture(outputs)
        mean, raw = outputs.chunk(2, dim=-1)
        std = (F.softplus(raw) + self.min_std**2).sqrt()
        return GaussianMixture(self.y_scaler.inverse(mean), std * self.y_scaler.std)

    def residuals(self, batch: SupervisedBatch) -> Tensor:
        """What each member leaves of the targets, in units of the data, ``(S, B, K)``."""
        return batch.y - self.predictive(batch.x).means

    def refresh(self, batches: Iterator[SupervisedBatch]) -> None:
        """As the base, for a constant noise."""
        if self.noise == "constant":
            super().refresh(batches)

    def mean_square(self, batches: Iterator[SupervisedBatch]) -> Tensor:
        """As the base; where members leave out rows, between those of seen and unseen ones."""
        if not self.leaves_out:
            return super().mean_square(batches)
        std = self.y_scaler.std
        squares, counts = torch.zeros(2, 2, len(std)).to(std)
        for batch in self.enough(batches):
            unseen = self._unseen(batch.x).unsqueeze(-1)
            left = (self.residuals(batch) / std).square()
            for index, rows in enumerate((unseen, ~unseen)):
                squares[index] += (left * rows).sum((0, 1))
                counts[index] += rows.sum()
        squares, counts = self._sum_over_ranks(torch.stack([squares, counts])).unbind()
        found: Tensor = (squares / counts).log().mean(0).exp()
        return found

    def _unseen(self, x: Tensor) -> Tensor:
        """Which member leaves out which row, ``(S, B)``: equal rows by the same one."""
        return row_shares(x, self.num_members) == torch.arange(
            self.num_members, device=x.device
        ).unsqueeze(1)

    def step(self, batch: SupervisedBatch) -> StepOutput:
        """Mean of the members' negative log-likelihoods."""
        mixture = self.predictive(batch.x)
        losses = -mixture.component_log_prob(batch.y)
        if self.leaves_out:
            # Each row is a target of all members but one.
            losses = losses * ~self._unseen(batch.x) * self.num_members / (self.num_members - 1)
        return StepOutput(losses.mean(), len(batch.x), mixture, batch.y)


def row_shares(x: Tensor, num_shares: int) -> Tensor:
    """A number in 0 to ``num_shares - 1`` for each row, by its values alone, ``(B,)``.

    Args:
        x: Rows, ``(B, D)``.
        num_shares: Number of shares, of nearly one size.
    """
    bits = x.detach().float().contiguous().view(torch.int32).long()
    key = torch.zeros_like(bits[:, 0])
    for column in bits.unbind(1):
        key = (key ^ column) * 0x2545F4914F6CDD1D
        key = key ^ (key >> 29)
    return (key ^ (key >> 17)).remainder(num_shares)


class LitDeepEnsembleClassifier(PredictiveClassifier):
    """Deep ensemble with a softmax.

    Args:
        in_features: Size D of each input.
        num_classes: Number K of classes.
        num_members: Number S of members.
        hidden_sizes: Width of each hidden layer.
        activation: Non-linearity.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer.

    Raises:
        ValueError: If an argument is out of range.

    Shape:
        Input ``(B, D)``, output log probabilities ``(B, K)``.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        num_members: int = 5,
        hidden_sizes: Sequence[int] = (50,),
        activation: Activation = "relu",
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(in_features, num_classes, optimizer, lr_scheduler)
        self.net = Ensemble(num_members, in_features, hidden_sizes, num_classes, activation)

    def predictive(self, x: Tensor, generator: torch.Generator | None = None) -> CategoricalMixture:
        """One component per member."""
        return CategoricalMixture(self.net(self.x_scaler(x)))

    def step(self, batch: SupervisedBatch) -> StepOutput:
        """Mean of the members' cross-entropies."""
        mixture = self.predictive(batch.x)
        loss = -mixture.component_log_prob(batch.y).mean()
        return StepOutput(loss, len(batch.x), mixture.log_probs, batch.y)
