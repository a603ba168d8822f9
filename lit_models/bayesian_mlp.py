r"""A perceptron whose weights have a normal posterior, trained by variational Bayes.

.. math::
    q(w) = \prod_i \mathcal{N}(w_i; \mu_i, \sigma_i^2), \quad
    \mathrm{ELBO} = \mathrm{E}_q[\log p(D|w)] - \mathrm{KL}(q \,\|\, p), \quad
    \mathrm{KL} = \sum_i \log\frac{\sigma_p}{\sigma_i}
        + \frac{\sigma_i^2 + \mu_i^2}{2 \sigma_p^2} - \frac12

Blundell et al., "Weight uncertainty in neural networks" (2015); local reparametrisation from
Kingma, Salimans and Welling (2015). The loss is minus the ELBO per training row, in nats: the KL is
a sum over all weights, divided by the number of training rows that the datamodule reports. Its
weight is therefore 1 and not a hyperparameter. Deviations:

* The posterior's standard deviation is :math:`\exp(\rho)`; Blundell's is a softplus.
* The prior is one normal distribution, not a scale mixture.
* A noise that is learned follows the mean prediction (:mod:`lit_models.families.refreshed`), not
  the bound, whose noise holds the weights' variance as well.
* The weight of the KL rises from 0 to 1 at first (Sønderby et al., 2016), by default in the first
  three tenths of the run; the loss is the ELBO's from then on. A noise that is learned waits as
  long: before the rows are fitted it would explain them, and the KL would empty the network.

Prediction draws whole networks, the same ones for every row, and scores the mixture they make.

Shape letters: S networks, B batch, D inputs, K outputs of a layer.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import lightning as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.batches import SupervisedBatch
from lit_models.base import StepOutput
from lit_models.families.predictive import PredictiveClassifier
from lit_models.families.refreshed import LearnsNoise
from lit_models.layers.densities import CategoricalMixture, GaussianMixture
from lit_models.layers.network_draws import (
    ACTIVATIONS,
    Activation,
    AffineDraws,
    draw_generator,
    evaluate_draws,
)

Sampling = Literal["local", "weights"]


class BayesianLinear(nn.Module):
    r"""Affine map with an independent normal posterior for each weight and bias.

    Arguments as for :class:`LitBayesianMLP`, of one layer.

    Shape:
        Input ``(B, D)`` or ``(S, B, D)``, output ``(B, K)`` or ``(S, B, K)``.
    """

    prior_std: Tensor

    def __init__(
        self, in_features: int, out_features: int, prior_std: float = 1.0, initial_std: float = 0.05
    ) -> None:
        super().__init__()
        # A buffer, so that networks batched by torch.func may have a prior each.
        self.register_buffer("prior_std", torch.tensor(prior_std), persistent=False)
        bound = math.sqrt(1 / in_features)
        shape = (out_features, in_features)
        self.weight_mean = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.bias_mean = nn.Parameter(torch.empty(out_features).uniform_(-bound, bound))
        self.weight_log_std = nn.Parameter(torch.full(shape, math.log(initial_std)))
        self.bias_log_std = nn.Parameter(torch.full((out_features,), math.log(initial_std)))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs whose noise is drawn per row: the local reparametrisation."""
        mean = F.linear(x, self.weight_mean, self.bias_mean)
        variances = ((2 * rho).exp() for rho in (self.weight_log_std, self.bias_log_std))
        variance = F.linear(x.square(), *variances)
        return mean + variance.sqrt() * torch.randn_like(mean)

    def draw(self, num_draws: int, generator: torch.Generator | None = None) -> AffineDraws:
        """Weights drawn from the posterior: ``(S, K, D)`` and ``(S, K)``."""
        drawn = []
        for mean, log_std in self._posteriors():
            shape = (num_draws, *mean.shape)
            noise = torch.randn(shape, generator=generator, device=mean.device, dtype=mean.dtype)
            drawn.append(mean + log_std.exp() * noise)
        return AffineDraws(*drawn)

    def kl(self) -> Tensor:
        """Divergence of the posterior from the prior, summed over weights and biases, in nats."""
        total = self.weight_mean.new_zeros(())
        for mean, log_std in self._posteriors():
            squares = ((2 * log_std).exp() + mean.square()) / self.prior_std**2
            total = total + 0.5 * (squares - 1).sum() - (log_std - self.prior_std.log()).sum()
        return total

    def _posteriors(self) -> list[tuple[Tensor, Tensor]]:
        """Mean and log standard deviation of the weights, then of the biases."""
        return [
            (self.weight_mean, self.weight_log_std),
            (self.bias_mean, self.bias_log_std),
        ]


class BayesianMLP(nn.Module):
    """Bayesian affine layers with a non-linearity between them.

    Arguments as for :class:`LitBayesianMLP`; ``out_features`` counts the outputs.

    Raises:
        ValueError: If a width or standard deviation is not positive.

    Shape:
        Input ``(B, D)``, output ``(S, B, K)``.

    Example:
        >>> BayesianMLP(4, [32], 3)(torch.zeros(8, 4), num_draws=5).shape
        torch.Size([5, 8, 3])
    """

    def __init__(
        self,
        in_features: int,
        hidden_sizes: Sequence[int],
        out_features: int,
        activation: Activation = "relu",
        prior_std: float = 1.0,
        initial_std: float = 0.05,
    ) -> None:
        super().__init__()
        if any(width < 1 for width in hidden_sizes):
            raise ValueError(f"hidden_sizes must be positive, got {list(hidden_sizes)}")
        for name, value in (("prior_std", prior_std), ("initial_std", initial_std)):
            if value <= 0:
                raise ValueError(f"{name} must be positive, got {value}")
        sizes = [in_features, *hidden_sizes, out_features]
        self.layers = nn.ModuleList(
            BayesianLinear(inputs, outputs, prior_std, initial_std)
            for inputs, outputs in pairwise(sizes)
        )
        self.activation: Activation = activation

    def forward(self, x: Tensor, num_draws: int, sampling: Sampling = "local") -> Tensor:
        """Outputs of S noisy passes for training, ``(S, B, K)``.

        Args:
            x: Inputs, ``(B, D)``.
            num_draws: Number S of passes.
            sampling: ``local`` draws each row's pre-activations, ``weights`` one set of weights per
                pass. Both have the same expectation; local gradients vary less.
        """
        if sampling == "weights":
            return evaluate_draws(x, self.draw(num_draws), self.activation)
        h = x.expand(num_draws, *x.shape)
        for depth, layer in enumerate(self.layers):
            h = layer(h if depth == 0 else ACTIVATIONS[self.activation](h))
        return h

    def draw(self, num_draws: int, generator: torch.Generator | None = None) -> list[AffineDraws]:
        """Networks drawn from the posterior."""
        return [layer.draw(num_draws, generator) for layer in self._bayesian_layers()]

    def kl(self) -> Tensor:
        """Divergence of the whole posterior from the prior, in nats."""
        return torch.stack([layer.kl() for layer in self._bayesian_layers()]).sum()

    def _bayesian_layers(self) -> list[BayesianLinear]:
        return [layer for layer in self.layers if isinstance(layer, BayesianLinear)]


def kl_weight(step: int, num_warmup_steps: int) -> float:
    """Weight of the KL at an optimizer step: a linear rise to 1."""
    return min(1.0, (step + 1) / num_warmup_steps) if num_warmup_steps else 1.0


# Share of the run in which the weight of the KL rises, and a noise that is learned waits.
_WARMUP = 0.3


def warmup_steps(trainer: L.Trainer, given: int | None) -> int:
    """Optimizer steps of the rise: as given, or a share of the run; 0 in a run without an end."""
    total = trainer.estimated_stepping_batches
    if given is not None:
        return given
    return 0 if total == float("inf") else int(_WARMUP * total)


def _check_draws(
    num_train: int, num_draws: int, num_train_draws: int, kl_warmup_steps: int | None
) -> None:
    counts = {"num_train": num_train, "num_draws": num_draws, "num_train_draws": num_train_draws}
    least = [(name, value, 1) for name, value in counts.items()]
    for name, value, minimum in (*least, ("kl_warmup_steps", kl_warmup_steps or 0, 0)):
        if value < minimum:
            raise ValueError(f"{name} must be at least {minimum}, got {value}")


class LitBayesianMLP(LearnsNoise):
    r"""Variational Bayesian perceptron for regression.

    Args:
        in_features: Size D of each input.
        out_features: Number K of targets.
        num_train: Number N of training rows, which the KL is divided by.
        hidden_sizes: Width of each hidden layer.
        activation: Non-linearity.
        prior_std: Standard deviation of the prior of every weight and bias, for standardised data.
        initial_std: Standard deviation of the posterior before training.
        noise_std: Standard deviation of the noise; None learns it, ``data`` takes a stated one.
        sampling: Whether training draws pre-activations (``local``) or whole ``weights``.
        num_train_draws: Passes per training step.
        num_draws: Networks per prediction.
        kl_warmup_steps: Optimizer steps in which the weight of the KL rises to 1; None takes three
            tenths of the run.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer.

    Raises:
        ValueError: If an argument is out of range.

    Shape:
        Input ``(B, D)``, output ``(B, K)``, both in the units of the data. The training loss is
        minus the ELBO per row, the evaluation loss the mixture's negative log-likelihood; in nats.
    """

    refresh_after = _WARMUP

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_train: int,
        hidden_sizes: Sequence[int] = (20,),
        activation: Activation = "silu",
        prior_std: float = 1.0,
        initial_std: float = 0.05,
        noise_std: float | Literal["data"] | None = None,
        sampling: Sampling = "local",
        num_train_draws: int = 8,
        num_draws: int = 100,
        kl_warmup_steps: int | None = None,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(in_features, out_features, noise_std, optimizer, lr_scheduler)
        _check_draws(num_train, num_draws, num_train_draws, kl_warmup_steps)
        self.num_train, self.kl_warmup_steps = num_train, kl_warmup_steps
        self._warmup_steps = kl_warmup_steps or 0
        self.num_draws, self.num_train_draws = num_draws, num_train_draws
        self.sampling = sampling
        self.net = BayesianMLP(
            in_features, hidden_sizes, out_features, activation, prior_std, initial_std
        )

    def on_train_start(self) -> None:
        """Takes the length of the warm-up from that of the run."""
        super().on_train_start()
        self._warmup_steps = warmup_steps(self.trainer, self.kl_warmup_steps)

    def predictive(self, x: Tensor, generator: torch.Generator | None = None) -> GaussianMixture:
        """One component per network drawn from the posterior."""
        draws = self.net.draw(self.num_draws, generator or draw_generator(x))
        return self.mixture(evaluate_draws(self.x_scaler(x), draws, self.net.activation))

    def step(self, batch: SupervisedBatch) -> StepOutput:
        """Minus the ELBO per row."""
        x = self.x_scaler(batch.x)
        mixture = self.mixture(self.net(x, self.num_train_draws, self.sampling))
        nll = -mixture.component_log_prob(batch.y).mean()
        kl = self.net.kl()
        loss = nll + kl_weight(self.global_step, self._warmup_steps) * kl / self.num_train
        return StepOutput(loss, len(batch.x), mixture, batch.y, {"expected_nll": nll, "kl": kl})


class LitBayesianMLPClassifier(PredictiveClassifier):
    r"""Variational Bayesian perceptron with a softmax.

    Args:
        in_features: Size D of each input.
        num_classes: Number K of classes.
        num_train: Number N of training rows, which the KL is divided by.
        hidden_sizes: Width of each hidden layer.
        activation: Non-linearity.
        prior_std: Standard deviation of the prior of every weight and bias, for standardised data.
        initial_std: Standard deviation of the posterior before training.
        sampling: Whether training draws pre-activations (``local``) or whole ``weights``.
        num_train_draws: Passes per training step.
        num_draws: Networks per prediction.
        kl_warmup_steps: Optimizer steps in which the weight of the KL rises to 1; None takes three
            tenths of the run.
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
        num_train: int,
        hidden_sizes: Sequence[int] = (20, 20),
        activation: Activation = "relu",
        prior_std: float = 1.0,
        initial_std: float = 0.05,
        sampling: Sampling = "local",
        num_train_draws: int = 4,
        num_draws: int = 100,
        kl_warmup_steps: int | None = None,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(in_features, num_classes, optimizer, lr_scheduler)
        _check_draws(num_train, num_draws, num_train_draws, kl_warmup_steps)
        self.num_train, self.kl_warmup_steps = num_train, kl_warmup_steps
        self._warmup_steps = kl_warmup_steps or 0
        self.num_draws, self.num_train_draws = num_draws, num_train_draws
        self.sampling = sampling
        self.net = BayesianMLP(
            in_features, hidden_sizes, num_classes, activation, prior_std, initial_std
        )

    def on_train_start(self) -> None:
        """Takes the length of the warm-up from that of the run."""
        super().on_train_start()
        self._warmup_steps = warmup_steps(self.trainer, self.kl_warmup_steps)

    def predictive(self, x: Tensor, generator: torch.Generator | None = None) -> CategoricalMixture:
        """One component per network drawn from the posterior."""
        draws = self.net.draw(self.num_draws, generator or draw_generator(x))
        return CategoricalMixture(evaluate_draws(self.x_scaler(x), draws, self.net.activation))

    def step(self, batch: SupervisedBatch) -> StepOutput:
        """Minus the ELBO per row."""
        outputs = self.net(self.x_scaler(batch.x), self.num_train_draws, self.sampling)
        mixture = CategoricalMixture(outputs)
        nll = -mixture.component_log_prob(batch.y).mean()
        kl = self.net.kl()
        loss = nll + kl_weight(self.global_step, self._warmup_steps) * kl / self.num_train
        scalars = {"expected_nll": nll, "kl": kl}
        return StepOutput(loss, len(batch.x), mixture.log_probs, batch.y, scalars)
