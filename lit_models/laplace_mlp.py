r"""Perceptrons with a Laplace approximation of their posterior, its priors chosen by the evidence.

Training minimises the negative log posterior; the Gaussian around its minimum (see
:mod:`lit_models.layers.laplace`) gives the uncertainty of the outputs,

.. math:: L(\theta) = -\frac1N \sum_n \log p(y_n | f_\theta(x_n))
              + \frac1{2N} \sum_l \delta_l |\theta_l|^2, \qquad
          p(y | x) = \int p(y | f)\, N(f;\, f_{\hat\theta}(x), J \Sigma J^T)\, df .

Every few steps the prior precisions and the noise take the fixed point of the marginal likelihood
at the current weights, with :math:`\gamma` the number of well determined weights:

.. math:: \gamma_l = P_l - \delta_l \operatorname{tr} \Sigma_l, \quad
          \delta_l = \frac{\gamma_l}{|\theta_l|^2}, \quad
          \sigma_k^2 = \frac{\sum_n (y_{nk} - f_{nk})^2}{N - \gamma_k}, \quad
          \gamma_k = \frac{1}{\sigma_k^2} \sum_n (J_n \Sigma J_n^T)_{kk} .

MacKay, "A Practical Bayesian Framework for Backpropagation Networks" (1992); during training as in
Immer et al., "Scalable Marginal Likelihood Estimation for Model Selection in Deep Learning" (2021).
Deviations:

* Immer et al. follow the evidence's gradient; here it is MacKay's fixed point, one prior precision
  for each layer, weights and biases together.
* Classes are predicted from draws of the linearised logits, which keeps the mutual information;
  Immer et al. average them as well.

Shape letters: B batch, D inputs, K targets or classes, L layers, S draws.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.plugins.precision import HalfPrecision
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.batches import SupervisedBatch
from datamodules.errors import InputError
from lit_models.base import StepOutput
from lit_models.families.predictive import PredictiveClassifier, PredictiveRegressor
from lit_models.families.refreshed import Refreshed
from lit_models.layers.densities import CategoricalMixture, GaussianMixture
from lit_models.layers.laplace import Factors, Structure, affine_layers, factors, make_posterior
from lit_models.layers.network_draws import draw_generator
from lit_models.mlp import MLP, Activation

# A precision outside of these says that a layer is not needed, or that it is not held at all.
_DELTAS = (1e-6, 1e6)


class LaplaceMLP(nn.Module):
    """A perceptron, the Gaussian around its weights, and the precisions of their prior.

    Args:
        net: Affine layers with non-linearities between them.
        structure: Form of the covariance.
        prior_precision: Prior precision of the weights; None chooses one for each layer.
    """

    deltas: Tensor

    def __init__(
        self, net: nn.Sequential, structure: Structure, prior_precision: float | None
    ) -> None:
        super().__init__()
        if prior_precision is not None and prior_precision <= 0:
            raise ValueError(f"prior_precision must be positive, got {prior_precision}")
        self.net = net
        self.posterior = make_posterior(net, structure)
        self.chooses = prior_precision is None
        self.last_alone = structure == "last_layer"
        initial = torch.full((len(affine_layers(net)),), prior_precision or 1.0)
        self.register_buffer("deltas", initial.double())

    def forward(self, x: Tensor) -> Tensor:
        """Outputs at the weights, ``(B, K)``."""
        out: Tensor = self.net(x)
        return out

    def log_prior(self) -> Tensor:
        """Log density of the weights, up to a constant."""
        squares = torch.stack(self._squares())
        return -0.5 * (self.deltas.to(squares) * squares).sum()

    def _squares(self) -> list[Tensor]:
        return [
            layer.weight.square().sum() + layer.bias.square().sum()
            for layer in affine_layers(self.net)
        ]

    def choose_prior(self) -> None:
        """Takes MacKay's fixed point for the layers that the posterior covers."""
        if not self.chooses:
            return
        sizes = self.deltas.new_tensor(self.posterior.sizes)
        determined = (sizes - self.deltas * self.posterior.traces()).clamp(min=1e-3)
        squares = torch.stack(self._squares()).detach().to(self.deltas)
        new = (determined / squares.clamp(min=1e-12)).clamp(*_DELTAS)
        if self.last_alone:
            self.deltas[-1] = new[-1]
        else:
            self.deltas.copy_(new)


class LaplaceModel(Refreshed):
    """What both models share: the network, its posterior, and when the evidence is maximised.

    Args:
        sizes: Size D of each input and number K of targets or classes.
        num_train: Number N of training rows, which the prior is divided by.
        hidden_sizes: Width of each hidden layer.
        activation: Non-linearity.
        structure: Form of the covariance: of all weights, of each layer as a Kronecker product, or
            of the last layer alone.
        prior_precision: Prior precision of the weights, for standardised data; None chooses one for
            each layer by the evidence.
        evidence_every: Optimizer steps between two steps of the evidence.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer.

    Raises:
        ValueError: If an argument is out of range.
    """

    refresh_after = 0.2

    def __init__(
        self,
        *sizes: int,
        num_train: int,
        hidden_sizes: Sequence[int] = (50,),
        activation: Activation = "tanh",
        structure: Structure = "full",
        prior_precision: float | None = None,
        evidence_every: int = 50,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        # The other base is a predictive one, which takes the sizes.
        super().__init__(*sizes, optimizer=optimizer, lr_scheduler=lr_scheduler)  # type: ignore[arg-type, misc]
        if evidence_every < 1:
            raise ValueError(f"evidence_every must be at least 1, got {evidence_every}")
        self.num_train, self.refresh_every = num_train, evidence_every
        net = MLP(sizes[0], hidden_sizes, sizes[1], activation)
        self.laplace = LaplaceMLP(net, structure, prior_precision)
        self.register_buffer("last_refresh", torch.tensor(0))

    def setup(self, stage: str) -> None:
        """Refuses a precision in which no curvature can be factorised.

        Raises:
            InputError: For weights in half precision.
        """
        super().setup(stage)
        if isinstance(self.trainer.precision_plugin, HalfPrecision):
            raise InputError(
                f"{type(self).__name__} factorises curvatures, which half precision cannot; use "
                "--trainer.precision bf16-mixed or 32-true"
            )

    def on_validation_start(self) -> None:
        """Makes the posterior of the weights that are judged, and kept."""
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self.fit_posterior(self._train_batches())

    def refresh(self, batches: Iterator[SupervisedBatch]) -> None:
        """Maximises the evidence."""
        self.maximise_evidence(batches)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the count of steps under its former name."""
        super().on_load_checkpoint(checkpoint)
        state = checkpoint["state_dict"]
        if "last_evidence" in state:
            state["last_refresh"] = state.pop("last_evidence")

    def maximise_evidence(self, batches: Iterator[Any]) -> None:
        """One step of the fixed point."""
        raise NotImplementedError

    def fit_posterior(self, batches: Iterator[Any]) -> None:
        """Makes the posterior at the current weights."""
        raise NotImplementedError


class LitLaplaceMLP(LaplaceModel, PredictiveRegressor):
    """A perceptron whose uncertainty is the curvature around its weights.

    Args:
        in_features: Size D of each input.
        out_features: Number K of targets.
        num_train: Number N of training rows, which the prior is divided by.
        noise_std: Standard deviation of the noise, in units of y; None chooses it by the evidence.
        laplace: Further arguments of :class:`LaplaceModel`.

    Raises:
        ValueError: If an argument is out of range.

    Shape:
        Input ``(B, D)``, output ``(B, K)``, both in the units of the data.
    """

    noise_variance: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_train: int,
        noise_std: float | None = None,
        **laplace: Any,
    ) -> None:
        sizes = (in_features, out_features)
        super().__init__(*sizes, num_train=num_train, **laplace)
        if noise_std is not None and noise_std <= 0:
            raise ValueError(f"noise_std must be positive, got {noise_std}")
        self.noise_std = noise_std
        # In units of the targets' variance.
        variance = torch.full((out_features,), 0.1, dtype=torch.float64)
        self.register_buffer("noise_variance", variance)

    def _noise(self) -> Tensor:
        """Variance of the noise in standard units, ``(K,)``."""
        if self.noise_std is None:
            return self.noise_variance
        return (self.noise_std / self.y_scaler.std).square().to(self.noise_variance)

    def step(self, batch: SupervisedBatch) -> StepOutput:
        """Negative log-likelihood of the noise model plus the prior's share."""
        out, target = self.laplace(self.x_scaler(batch.x)), self.y_scaler(batch.y)
        noise = self._noise().to(out)
        nll = 0.5 * ((target - out).square() / noise + (2 * torch.pi * noise).log()).sum(1).mean()
        loss = nll - self.laplace.log_prior() / self.num_train
        preds = GaussianMixture(self.y_scaler.inverse(out).unsqueeze(0), self._std(noise))
        return StepOutput(loss, len(batch.x), preds, batch.y, {"expected_nll": nll})

    def _std(self, variance: Tensor) -> Tensor:
        """A variance in standard units as a standard deviation in those of the data."""
        return variance.to(self.y_scaler.std).sqrt() * self.y_scaler.std

    def predictive(self, x: Tensor, generator: torch.Generator | None = None) -> GaussianMixture:
        """One normal density: the outputs' variance beside the noise's."""
        out, parts = factors(self.laplace.net, self.x_scaler(x))
        epistemic = self.laplace.posterior.covariance(parts).diagonal(dim1=1, dim2=2)
        means = self.y_scaler.inverse(out).unsqueeze(0)
        total = self._std(epistemic + self._noise()).unsqueeze(0)
        return GaussianMixture(means, total, self._std(epistemic).square())

    def fit_posterior(self, batches: Iterator[SupervisedBatch]) -> None:
        r"""Adds up the curvature :math:`J^T J / \sigma^2` of all rows."""
        self.laplace.posterior.reset()
        for batch in batches:
            _, parts = factors(self.laplace.net, self.x_scaler(batch.x))
            scale = self._noise().sqrt().unsqueeze(1)
            self.laplace.posterior.add([Factors(p.inputs, p.gradients / scale) for p in parts])
        self.laplace.posterior.finish(self.laplace.deltas, self._sum_over_ranks)

    def maximise_evidence(self, batches: Iterator[SupervisedBatch]) -> None:
        """One fixed-point step of prior and noise."""
        kept = list(batches)
        self.fit_posterior(iter(kept))
        sums = self.noise_variance.new_zeros(3, len(self.noise_variance))
        for batch in kept:
            out, parts = factors(self.laplace.net, self.x_scaler(batch.x))
            variance = self.laplace.posterior.covariance(parts).diagonal(dim1=1, dim2=2)
            sums[0] += (self.y_scaler(batch.y) - out).to(sums).square().sum(0)
            sums[1] += variance.sum(0)
            sums[2] += len(out)
        squares, variances, rows = self._sum_over_ranks(sums)
        determined = (variances / self._noise()).clamp(max=0.9 * rows)
        self.laplace.choose_prior()
        self.noise_variance.copy_((squares / (rows - determined)).clamp(min=1e-8))


class LitLaplaceMLPClassifier(LaplaceModel, PredictiveClassifier):
    """A perceptron with a softmax whose uncertainty is the curvature around its weights.

    Args:
        in_features: Size D of each input.
        num_classes: Number K of classes.
        num_train: Number N of training rows, which the prior is divided by.
        structure: Form of the covariance: of all weights, of each layer as a Kronecker product, or
            of the last layer alone.
        num_draws: Draws S of the linearised logits per prediction.
        laplace: Further arguments of :class:`LaplaceModel`.

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
        structure: Structure = "kron",
        num_draws: int = 100,
        **laplace: Any,
    ) -> None:
        sizes = (in_features, num_classes)
        super().__init__(*sizes, num_train=num_train, structure=structure, **laplace)
        if num_draws < 1:
            raise ValueError(f"num_draws must be at least 1, got {num_draws}")
        self.num_draws = num_draws

    def step(self, batch: SupervisedBatch) -> StepOutput:
        """Cross-entropy plus the prior's share."""
        logits = self.laplace(self.x_scaler(batch.x))
        nll = F.cross_entropy(logits, batch.y)
        loss = nll - self.laplace.log_prior() / self.num_train
        return StepOutput(loss, len(batch.x), logits, batch.y, {"expected_nll": nll})

    def predictive(self, x: Tensor, generator: torch.Generator | None = None) -> CategoricalMixture:
        """Draws of the linearised logits."""
        logits, parts = factors(self.laplace.net, self.x_scaler(x))
        values, basis = torch.linalg.eigh(self.laplace.posterior.covariance(parts))
        root = basis * values.clamp(min=0).sqrt().unsqueeze(-2)
        # One draw of the weights for all rows would give them one normal vector each, too.
        shape = (self.num_draws, 1, logits.shape[1])
        noise = torch.randn(
            shape, generator=generator or draw_generator(x), device=x.device, dtype=root.dtype
        )
        return CategoricalMixture(logits + (noise.unsqueeze(-2) @ root.mT).squeeze(-2).to(logits))

    def fit_posterior(self, batches: Iterator[SupervisedBatch]) -> None:
        r"""Adds up the curvature of the softmax, :math:`\Lambda = \mathrm{diag}\,p - p p^T`."""
        self.laplace.posterior.reset()
        for batch in batches:
            logits, parts = factors(self.laplace.net, self.x_scaler(batch.x))
            p = logits.to(parts[0].inputs).softmax(1)
            # The root of the curvature: R R^T = diag(p) - p p^T.
            root = p.sqrt().diag_embed() - p.unsqueeze(2) * p.sqrt().unsqueeze(1)
            scaled = [Factors(part.inputs, root.mT @ part.gradients) for part in parts]
            self.laplace.posterior.add(scaled)
        self.laplace.posterior.finish(self.laplace.deltas, self._sum_over_ranks)

    def maximise_evidence(self, batches: Iterator[SupervisedBatch]) -> None:
        """One fixed-point step of the prior."""
        self.fit_posterior(batches)
        self.laplace.choose_prior()
