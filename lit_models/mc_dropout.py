r"""A perceptron whose dropout stays active at prediction: approximate Bayes at no extra parameter.

Each mask is a draw of a network, :math:`W_l^{(s)} = M_l \,\mathrm{diag}(z_l^{(s)})`, and the
predictive density is the mixture over masks of :math:`\mathcal{N}(f(x, W^{(s)}), \tau^{-1})`: its
variance is :math:`\tau^{-1}` *plus* the variance of the outputs. With prior length scale l the loss
per training row of N, in nats, is

.. math:: -\log \mathcal{N}(y; f(x, W), \tau^{-1})
    + \frac{l^2}{2 N} \sum_l (1 - p_l) \lVert M_l \rVert^2 + \lVert m_l \rVert^2

Gal and Ghahramani, "Dropout as a Bayesian approximation" (2016), equation 7 times :math:`\tau`,
with :math:`p_l` the dropout of the inputs of layer l. Deviations:

* The stored weights are :math:`(1 - p_l) M_l`, since torch scales kept units by 1 / (1 - p).
* Training masks differ by row, as everywhere; prediction draws one mask per network for all rows,
  so that a draw is a function, and folds it into the weights.
* The masks of a prediction are stratified: each unit is dropped in its share p of the networks, as
  nearly as their number allows. Of 100 independent masks one in eight drops a unit of rate 0.02
  never, and where that unit alone carries the output the spread would vanish.
* :math:`\tau` may be learned: as the precision of what the mean prediction leaves
  (:mod:`lit_models.families.refreshed`). The likelihood under fresh masks would count their
  variance as noise.

Batch normalisation, if asked for, uses its running statistics at prediction: dropout alone stays
active.

Shape letters: S networks, B batch, D inputs, K outputs of a layer.
"""

from collections.abc import Sequence

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

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
    stratified_uniform,
)


class MCDropoutMLP(nn.Module):
    """Affine layers, each but the last followed by norm, non-linearity and dropout.

    Arguments as for :class:`LitMCDropoutMLP`; ``out_features`` counts the outputs.

    Raises:
        ValueError: If a width is not positive or a dropout is not in [0, 1).

    Shape:
        Input ``(B, D)``, output ``(B, K)``.

    Example:
        >>> MCDropoutMLP(4, [32], 3)(torch.zeros(8, 4)).shape
        torch.Size([8, 3])
    """

    rates: Tensor

    def __init__(
        self,
        in_features: int,
        hidden_sizes: Sequence[int],
        out_features: int,
        activation: Activation = "relu",
        dropout: float = 0.1,
        input_dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        if any(width < 1 for width in hidden_sizes):
            raise ValueError(f"hidden_sizes must be positive, got {list(hidden_sizes)}")
        for name, value in (("dropout", dropout), ("input_dropout", input_dropout)):
            if not 0 <= value < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {value}")
        sizes = [in_features, *hidden_sizes, out_features]
        self.layers = nn.ModuleList(map(nn.Linear, sizes[:-1], sizes[1:]))
        self.norms = nn.ModuleList(map(nn.BatchNorm1d, hidden_sizes if batch_norm else ()))
        # A buffer, so that networks batched by torch.func may have a rate each.
        rates = torch.tensor([input_dropout] + [dropout] * len(hidden_sizes))
        self.register_buffer("rates", rates, persistent=False)
        self.activation: Activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Outputs with fresh masks for each row; for training."""
        h = self._drop(x, 0)
        for depth, layer in enumerate(self.layers[:-1]):
            h = layer(h)
            if self.norms:
                h = self.norms[depth](h)
            h = self._drop(ACTIVATIONS[self.activation](h), depth + 1)
        outputs: Tensor = self.layers[-1](h)
        return outputs

    def _drop(self, h: Tensor, depth: int) -> Tensor:
        # On a CPU this takes less than half the time of torch's dropout, which is Bernoulli draws.
        rate = self.rates[depth]
        return h * ((torch.rand_like(h) >= rate) / (1 - rate))

    def draw(self, num_draws: int, generator: torch.Generator | None = None) -> list[AffineDraws]:
        """Networks with one mask each, folded into the weights; norms by running statistics."""
        draws = []
        for depth, rate in enumerate(self.rates.unbind()):
            weight, bias = self._affine(depth)
            uniform = stratified_uniform(num_draws, weight.shape[1], weight.device, generator)
            kept = (uniform.unsqueeze(1) >= rate).to(weight.dtype) / (1 - rate)
            draws.append(AffineDraws(weight * kept, bias.expand(num_draws, -1)))
        return draws

    def _affine(self, depth: int) -> tuple[Tensor, Tensor]:
        """Weight ``(K, D)`` and bias ``(K,)`` of a layer, with its norm's affine map folded in."""
        layer = self.layers[depth]
        assert isinstance(layer, nn.Linear)
        if depth >= len(self.norms):
            return layer.weight, layer.bias
        norm = self.norms[depth]
        assert isinstance(norm, nn.BatchNorm1d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        return layer.weight * scale.unsqueeze(1), (
            layer.bias - norm.running_mean
        ) * scale + norm.bias

    def penalty(self, length_scale: float) -> Tensor:
        r"""Prior term :math:`\frac{l^2}{2} \sum_l (1 - p_l) |M_l|^2 + |m_l|^2` in nats."""
        terms = []
        for layer, rate in zip(self.layers, self.rates.unbind(), strict=True):
            assert isinstance(layer, nn.Linear)
            terms.append(layer.weight.square().sum() / (1 - rate) + layer.bias.square().sum())
        return 0.5 * length_scale**2 * torch.stack(terms).sum()


class LitMCDropoutMLP(LearnsNoise):
    r"""Monte-Carlo dropout for regression.

    Args:
        in_features: Size D of each input.
        out_features: Number K of targets.
        num_train: Number N of training rows, which the prior is divided by.
        hidden_sizes: Width of each hidden layer.
        activation: Non-linearity.
        dropout: Probability of dropping a hidden unit.
        input_dropout: Probability of dropping an input.
        batch_norm: Whether to normalise before the non-linearity.
        tau: Precision :math:`\tau` of the noise, in units of 1 / y²; None learns it.
        length_scale: Prior length scale l of the weights, for standardised data; the prior's
            standard deviation is 1 / l.
        num_draws: Networks per prediction.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer.

    Raises:
        ValueError: If an argument is out of range.

    Shape:
        Input ``(B, D)``, output ``(B, K)``, both in the units of the data. The evaluation loss is
        the mixture's negative log-likelihood, in nats.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_train: int,
        hidden_sizes: Sequence[int] = (64, 64),
        activation: Activation = "relu",
        dropout: float = 0.1,
        input_dropout: float = 0.0,
        batch_norm: bool = False,
        tau: float | None = None,
        length_scale: float = 0.1,
        num_draws: int = 100,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        if tau is not None and tau <= 0:
            raise ValueError(f"tau must be positive, got {tau}")
        noise_std = None if tau is None else tau**-0.5
        super().__init__(in_features, out_features, noise_std, optimizer, lr_scheduler)
        _check(length_scale, num_train, num_draws)
        self.num_train, self.num_draws = num_train, num_draws
        self.length_scale = length_scale
        self.net = MCDropoutMLP(
            in_features,
            hidden_sizes,
            out_features,
            activation,
            dropout,
            input_dropout,
            batch_norm,
        )

    def predictive(self, x: Tensor, generator: torch.Generator | None = None) -> GaussianMixture:
        """One component per dropout mask."""
        draws = self.net.draw(self.num_draws, generator or draw_generator(x))
        return self.mixture(evaluate_draws(self.x_scaler(x), draws, self.net.activation))

    def step(self, batch: SupervisedBatch) -> StepOutput:
        """Negative log-likelihood under fresh masks plus the prior's share."""
        mixture = self.mixture(self.net(self.x_scaler(batch.x)).unsqueeze(0))
        nll = -mixture.log_prob(batch.y).mean()
        loss = nll + self.net.penalty(self.length_scale) / self.num_train
        return StepOutput(loss, len(batch.x), mixture, batch.y, {"expected_nll": nll})


class LitMCDropoutMLPClassifier(PredictiveClassifier):
    """Monte-Carlo dropout with a softmax.

    Args:
        in_features: Size D of each input.
        num_classes: Number K of classes.
        num_train: Number N of training rows, which the prior is divided by.
        hidden_sizes: Width of each hidden layer.
        activation: Non-linearity.
        dropout: Probability of dropping a hidden unit.
        input_dropout: Probability of dropping an input.
        batch_norm: Whether to normalise before the non-linearity.
        length_scale: Prior length scale l of the weights, for standardised data.
        num_draws: Networks per prediction.
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
        hidden_sizes: Sequence[int] = (64, 64),
        activation: Activation = "relu",
        dropout: float = 0.1,
        input_dropout: float = 0.0,
        batch_norm: bool = False,
        length_scale: float = 0.1,
        num_draws: int = 100,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(in_features, num_classes, optimizer, lr_scheduler)
        _check(length_scale, num_train, num_draws)
        self.num_train, self.num_draws, self.length_scale = num_train, num_draws, length_scale
        self.net = MCDropoutMLP(
            in_features, hidden_sizes, num_classes, activation, dropout, input_dropout, batch_norm
        )

    def predictive(self, x: Tensor, generator: torch.Generator | None = None) -> CategoricalMixture:
        """One component per dropout mask."""
        draws = self.net.draw(self.num_draws, generator or draw_generator(x))
        return CategoricalMixture(evaluate_draws(self.x_scaler(x), draws, self.net.activation))

    def step(self, batch: SupervisedBatch) -> StepOutput:
        """Cross-entropy under fresh masks plus the prior's share."""
        logits = self.net(self.x_scaler(batch.x))
        nll = nn.functional.cross_entropy(logits, batch.y)
        loss = nll + self.net.penalty(self.length_scale) / self.num_train
        return StepOutput(loss, len(batch.x), logits, batch.y, {"expected_nll": nll})


def _check(length_scale: float, num_train: int, num_draws: int) -> None:
    if length_scale < 0:
        raise ValueError(f"length_scale must not be negative, got {length_scale}")
    for name, value in (("num_train", num_train), ("num_draws", num_draws)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
