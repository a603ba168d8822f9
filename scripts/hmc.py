r"""Hamiltonian Monte Carlo of the small Bayesian network, the reference for its approximations.

``python -m scripts.hmc --seeds 0 1 2 3 --noise_std 0.1 --num_samples 50`` samples the exact
posterior of a perceptron with one hidden layer on the data sets of the sine task, and prints the
scores that the approximations are judged against. Its prior suits the task: standard deviations of
1.3 in both layers are about what the evidence of ``laplace_mlp`` finds for the same network. The
noise is known to it.

Hamiltonian dynamics (Neal, "MCMC using Hamiltonian dynamics", 2011) with potential
:math:`U(w) = -\log p(D \mid w) p(w)`, unit mass, leapfrog steps and a Metropolis correction. The
step size is tuned by dual averaging (Hoffman and Gelman, 2014) and fixed after the warm-up; path
lengths are jittered. Only the hidden layer is sampled: the output layer has its integral in closed
form (:class:`HiddenLayer`), without which the step would have to be a hundredth. All chains of all
data sets move as one batch, which is why this is sixty lines of torch rather than a dependency: the
well-kept samplers (NumPyro, BlackJAX) bring JAX as a second array library, and Pyro runs its chains
one by one or in processes.
"""

import argparse
import itertools
import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from datamodules import NoisySineRegressionDataModule
from lit_models.layers.densities import GaussianMixture
from lit_models.layers.network_draws import ACTIVATIONS, Activation
from lit_models.metrics.predictive import regression_metrics

# Draws of a data set that answer the test rows, at most about.
_SCORED = 200

LogDensity = Callable[[Tensor], Tensor]


class Chains(NamedTuple):
    """What the sampler returns.

    Attributes:
        draws: States after the warm-up, ``(draws, C, P)``.
        acceptance: Mean acceptance probability after the warm-up.
        step_size: Leapfrog step size.
    """

    draws: Tensor
    acceptance: float
    step_size: float


class DualAveraging:
    """Step size whose mean acceptance reaches a target; Hoffman and Gelman, section 3.2.

    Args:
        step_size: Initial step size.
        target: Wanted mean acceptance probability.
    """

    def __init__(self, step_size: float, target: float = 0.8) -> None:
        self.shrinkage = math.log(10 * step_size)
        self.target = target
        self.count, self.error, self.log_average = 0, 0.0, 0.0

    def update(self, acceptance: float) -> float:
        """Next step size to try after one with the given acceptance."""
        self.count += 1
        weight = 1 / (self.count + 10)
        self.error += weight * (self.target - acceptance - self.error)
        log_step = self.shrinkage - math.sqrt(self.count) / 0.05 * self.error
        decay = self.count**-0.75
        self.log_average += decay * (log_step - self.log_average)
        return math.exp(log_step)

    @property
    def tuned(self) -> float:
        """Step size to keep."""
        return math.exp(self.log_average)


def gradient(log_density: LogDensity, state: Tensor) -> tuple[Tensor, Tensor]:
    """Log density ``(C,)`` and its gradient ``(C, P)``; the chains are independent."""
    state = state.detach().requires_grad_()
    value = log_density(state)
    (slope,) = torch.autograd.grad(value.sum(), state)
    return value.detach(), slope


def sample(
    log_density: LogDensity,
    initial: Tensor,
    num_draws: int,
    num_warmup: int,
    path_length: float = 1.0,
    step_size: float = 1e-3,
    generator: torch.Generator | None = None,
) -> Chains:
    """Runs all chains at once.

    Args:
        log_density: Log density of each chain's state up to a constant, ``(C, P)`` to ``(C,)``.
        initial: First states, ``(C, P)``.
        num_draws: Draws to keep per chain.
        num_warmup: Draws that tune the step size and are dropped.
        path_length: Mean time a path follows the dynamics, in units of the parameters.
        step_size: First step size.
        generator: Source of randomness.

    Returns:
        The draws after the warm-up.
    """
    state = initial
    value, slope = gradient(log_density, state)
    tuner = DualAveraging(step_size)
    draws, acceptances = [], []
    for iteration in range(num_warmup + num_draws):
        jitter = 0.5 + torch.rand((), generator=generator).item()
        num_steps = max(1, round(jitter * path_length / step_size))
        momentum = torch.randn(state.shape, generator=generator, dtype=state.dtype)
        energy = 0.5 * momentum.square().sum(-1) - value
        proposal, new_slope = state, slope
        for _ in range(num_steps):
            momentum = momentum + 0.5 * step_size * new_slope
            proposal = proposal + step_size * momentum
            new_value, new_slope = gradient(log_density, proposal)
            momentum = momentum + 0.5 * step_size * new_slope
        change = energy - (0.5 * momentum.square().sum(-1) - new_value)
        chance = change.clamp(max=0).exp().nan_to_num(0.0)  # a diverged path is refused
        accepted = torch.rand(chance.shape, generator=generator, dtype=state.dtype) < chance
        state = torch.where(accepted.unsqueeze(-1), proposal, state)
        slope = torch.where(accepted.unsqueeze(-1), new_slope, slope)
        value = torch.where(accepted, new_value, value)
        if iteration < num_warmup:
            step_size = tuner.update(chance.mean().item())
            if iteration == num_warmup - 1:
                step_size = tuner.tuned
        else:
            draws.append(state)
            acceptances.append(chance.mean().item())
    return Chains(torch.stack(draws), sum(acceptances) / len(acceptances), step_size)


def split_rhat(values: Tensor) -> Tensor:
    """Potential scale reduction of split chains (Gelman et al., BDA3, section 11.4).

    Args:
        values: Draws, ``(draws, C, ...)``.

    Returns:
        One figure per trailing position; 1 where the chains agree.
    """
    half = len(values) // 2
    halves = torch.cat([values[:half], values[half : 2 * half]], dim=1)
    within = halves.var(0).mean(0)
    between = halves.mean(0).var(0)
    return ((half - 1) / half + between / within).sqrt()


class HiddenLayer:
    r"""Log posterior of a hidden layer's weights, the output layer integrated out.

    Given the hidden units :math:`\phi(x)`, with a 1 for the output's bias, the prior of the output
    weights and the noise are normal, so that

    .. math:: y \sim \mathcal{N}(0, \sigma_p^2 \Phi \Phi^T + \sigma^2 I), \qquad
        \Lambda = I + \frac{\sigma_p^2}{\sigma^2} \Phi^T \Phi

    and a prediction is normal again. What is left to sample has no stiff direction: the output
    weights always fit.

    Args:
        x: Inputs shared by all chains, ``(B, D)``.
        y: Targets of each chain, ``(C, B)``.
        hidden_size: Hidden units K.
        prior_std: Standard deviation of every weight and bias.
        noise_std: Standard deviation of the noise.
        activation: Non-linearity.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        hidden_size: int,
        prior_std: float,
        noise_std: float,
        activation: Activation = "tanh",
    ) -> None:
        self.x, self.y, self.hidden_size = x, y, hidden_size
        self.prior_std, self.noise_std = prior_std, noise_std
        self.activation = ACTIVATIONS[activation]
        self.ratio = (prior_std / noise_std) ** 2

    @property
    def num_parameters(self) -> int:
        """Number P of the hidden layer's weights and biases."""
        return self.hidden_size * (self.x.shape[1] + 1)

    def features(self, theta: Tensor, x: Tensor) -> Tensor:
        """Hidden units and a 1, ``(C, B, K + 1)``."""
        weights = theta.reshape(len(theta), self.hidden_size, -1)
        hidden = self.activation(x @ weights[..., :-1].mT + weights[..., None, :, -1])
        return torch.cat([hidden, torch.ones_like(hidden[..., :1])], dim=-1)

    def _factor(self, theta: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        r"""Root of :math:`\Lambda` ``(C, K + 1, K + 1)``, and it divided into the data."""
        phi = self.features(theta, self.x)
        eye = torch.eye(phi.shape[-1], dtype=phi.dtype)
        root = torch.linalg.cholesky(eye + self.ratio * phi.mT @ phi)
        projected = torch.linalg.solve_triangular(root, phi.mT @ y.unsqueeze(-1), upper=False)
        return root, projected

    def __call__(self, theta: Tensor) -> Tensor:
        """Log posterior up to a constant, ``(C,)``."""
        root, projected = self._factor(theta, self.y)
        explained = self.ratio * projected.square().sum((1, 2))
        fit = (self.y.square().sum(1) - explained) / self.noise_std**2
        log_det = 2 * root.diagonal(dim1=1, dim2=2).log().sum(1)
        return -0.5 * (fit + log_det + (theta / self.prior_std).square().sum(1))

    def predict(self, theta: Tensor, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the output under states ``(S, P)`` for targets ``(B,)``.

        Returns:
            Two of ``(S, rows)``; the variance is that of the output weights alone.
        """
        root, projected = self._factor(theta, y.expand(len(theta), -1))
        phi = self.features(theta, x)
        scaled = torch.linalg.solve_triangular(root, phi.mT, upper=False)
        mean = self.ratio * (scaled.mT @ projected).squeeze(-1)
        return mean, self.prior_std**2 * scaled.square().sum(1)


class Score(NamedTuple):
    """What the exact posterior reaches on one data set.

    Attributes:
        nll: Negative log-likelihood of the test rows, nats.
        coverage_95: Share of them inside the central 95 % interval.
        rmse: Root mean squared error.
        extrapolation_ratio: Epistemic standard deviation at -5 or 5, the smaller one, over its mean
            where the data are.
        rhat: Largest split R-hat of the output where the data are.
    """

    nll: float
    coverage_95: float
    rmse: float
    extrapolation_ratio: float
    rhat: float


def reference(
    noise_std: float, num_samples: int, seeds: Sequence[int], args: argparse.Namespace
) -> list[Score]:
    """Samples the data sets of all seeds as one batch."""
    generator = torch.Generator().manual_seed(args.seed)
    data = [NoisySineRegressionDataModule(num_samples, noise_std, seed=seed) for seed in seeds]
    x = data[0].split("train").x.double()
    targets = [datamodule.split("train").y[:, 0].double() for datamodule in data]
    y = torch.stack(targets).repeat_interleave(args.num_chains, dim=0)
    posterior = HiddenLayer(x, y, args.hidden_size, args.prior_std, noise_std, args.activation)
    began = time.process_time()
    shape = (len(y), posterior.num_parameters)
    initial = args.prior_std * torch.randn(shape, generator=generator, dtype=torch.float64)
    chains = sample(
        posterior,
        initial,
        args.num_draws,
        args.num_warmup,
        args.path_length,
        step_size=0.05,
        generator=generator,
    )
    print(
        f"noise {noise_std:g}, {num_samples} points, {len(y)} chains: acceptance "
        f"{chains.acceptance:.3f}, step {chains.step_size:.2g}, "
        f"{time.process_time() - began:.0f} CPU s"
    )
    parts = torch.split(chains.draws, args.num_chains, dim=1)
    return [
        score(posterior, draws, target, datamodule)
        for draws, target, datamodule in zip(parts, targets, data, strict=True)
    ]


def score(
    posterior: HiddenLayer, draws: Tensor, y: Tensor, data: NoisySineRegressionDataModule
) -> Score:
    """Scores the draws ``(draws, C, P)`` of one data set."""
    flat = draws[:: max(1, draws.shape[0] * draws.shape[1] // _SCORED)].flatten(0, 1)
    metrics = regression_metrics()
    test = data.split("test")
    noise = data.noise_std**2
    blocks = (torch.split(field.double(), 1000) for field in (test.x, test.y))
    for rows, target in zip(*blocks, strict=True):
        mean, variance = (part.unsqueeze(-1) for part in posterior.predict(flat, y, rows))
        mixture = GaussianMixture(mean, (variance + noise).sqrt(), variance.mean(0))
        for name in ("nll", "coverage_95", "rmse"):
            metrics[name].update(mixture, target)
    grid = torch.linspace(-5, 5, 101, dtype=torch.float64).unsqueeze(1)
    mean, variance = posterior.predict(draws.flatten(0, 1), y, grid)
    inside = grid[:, 0].abs() <= data.x_max
    spread = (mean.var(0) + variance.mean(0)).sqrt()
    ratio = torch.minimum(spread[0], spread[-1]) / spread[inside].mean()
    rhat = split_rhat(mean.reshape(*draws.shape[:2], -1))[inside].max()
    nll, coverage, rmse = (
        metrics[name].compute().item() for name in ("nll", "coverage_95", "rmse")
    )
    return Score(nll, coverage, rmse, ratio.item(), rhat.item())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sampler."""
    parser.add_argument("--hidden_size", type=int, default=50)
    parser.add_argument("--activation", choices=list(ACTIVATIONS), default="tanh")
    parser.add_argument("--prior_std", type=float, default=1.3)
    parser.add_argument("--num_chains", type=int, default=4, help="chains per data set")
    parser.add_argument("--num_draws", type=int, default=100, help="draws per chain")
    parser.add_argument("--num_warmup", type=int, default=60, help="draws to tune and drop")
    parser.add_argument("--path_length", type=float, default=1.5)
    parser.add_argument("--seed", type=int, default=0, help="seed of the chains")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3], help="data seeds")
    parser.add_argument("--noise_std", type=float, nargs="+", default=[0.2])
    parser.add_argument("--num_samples", type=int, nargs="+", default=[100], help="points")
    add_arguments(parser)
    args = parser.parse_args()
    for noise_std, num_samples in itertools.product(args.noise_std, args.num_samples):
        scores = reference(noise_std, num_samples, args.seeds, args)
        print("seed   " + "  ".join(f"{name:>10.10}" for name in Score._fields))
        rows = [*zip(args.seeds, scores, strict=True)]
        means = Score(*torch.tensor([*scores]).mean(0).tolist())
        for name, row in (*rows, ("mean", means)):
            print(f"{name!s:<6} " + "  ".join(f"{value:10.4f}" for value in row), flush=True)


if __name__ == "__main__":
    main()
