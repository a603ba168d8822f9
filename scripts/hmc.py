r"""Hamiltonian Monte Carlo of the small Bayesian network, the reference for its approximations.

``python -m scripts.hmc --seeds 0 1 2 3 --noise_std 0.1 --num_samples 50`` samples the exact
posterior of a perceptron on the data sets of the sine task, and prints the scores that the
approximations are judged against. Its prior suits the task: standard deviations of 1.3 in both
layers are about what the evidence of ``laplace_mlp`` finds for the same network. The noise is known
to it.

Hamiltonian dynamics (Neal, "MCMC using Hamiltonian dynamics", 2011) with potential
:math:`U(w) = -\log p(D \mid w) p(w)`, unit mass, leapfrog steps and a Metropolis correction. The
step size is tuned by dual averaging (Hoffman and Gelman, 2014) and fixed after the warm-up; path
lengths are jittered. All chains of all data sets move as one batch, which is why this is sixty
lines of torch rather than a dependency: the well-kept samplers (NumPyro, BlackJAX) bring JAX as a
second array library, and Pyro runs its chains one by one or in processes.
"""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from datamodules import NoisySineRegressionDataModule
from lit_models.layers.densities import GaussianMixture
from lit_models.layers.network_draws import ACTIVATIONS, Activation, AffineDraws, evaluate_draws
from lit_models.metrics.predictive import regression_metrics

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


def unflatten(theta: Tensor, sizes: Sequence[int]) -> list[AffineDraws]:
    """Layers of a perceptron with the given widths from flat weights ``(C, P)``."""
    layers, start = [], 0
    for inputs, outputs in pairwise(sizes):
        end = start + outputs * inputs
        weight = theta[:, start:end].reshape(-1, outputs, inputs)
        layers.append(AffineDraws(weight, theta[:, end : end + outputs]))
        start = end + outputs
    return layers


class Posterior:
    """Log posterior of a perceptron with normal prior and noise, one data set per chain.

    Args:
        x: Inputs shared by all chains, ``(B, D)``.
        y: Targets of each chain, ``(C, B, K)``.
        sizes: Widths from input to output.
        prior_std: Standard deviation of every weight and bias.
        noise_std: Standard deviation of the noise.
        activation: Non-linearity.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        sizes: Sequence[int],
        prior_std: float,
        noise_std: float,
        activation: Activation = "relu",
    ) -> None:
        self.x, self.y, self.sizes = x, y, list(sizes)
        self.prior_std, self.noise_std, self.activation = prior_std, noise_std, activation

    @property
    def num_parameters(self) -> int:
        """Number P of weights and biases."""
        return sum(outputs * (inputs + 1) for inputs, outputs in pairwise(self.sizes))

    def outputs(self, theta: Tensor, x: Tensor) -> Tensor:
        """Network outputs, ``(C, B, K)``."""
        return evaluate_draws(x, unflatten(theta, self.sizes), self.activation)

    def __call__(self, theta: Tensor) -> Tensor:
        """Log posterior up to a constant, ``(C,)``."""
        errors = (self.y - self.outputs(theta, self.x)) / self.noise_std
        prior = (theta / self.prior_std).square().sum(1)
        return -0.5 * (errors.square().sum((1, 2)) + prior)


def start(posterior: Posterior, num_chains: int, generator: torch.Generator) -> Tensor:
    """States near modes: prior draws improved by Adam."""
    shape = (num_chains, posterior.num_parameters)
    theta = 0.3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    theta.requires_grad_()
    optimizer = torch.optim.Adam([theta], lr=0.02)
    for _ in range(1000):
        optimizer.zero_grad()
        theta.grad = -gradient(posterior, theta)[1]
        optimizer.step()
    return theta.detach()


def run(args: argparse.Namespace) -> None:
    """Samples all data sets as one batch and prints a row for each."""
    generator = torch.Generator().manual_seed(args.seed)
    torch.set_default_dtype(torch.float64)
    data = [
        NoisySineRegressionDataModule(args.num_samples, args.noise_std, seed=seed)
        for seed in args.seeds
    ]
    x = data[0].split("train").x
    y = torch.cat([d.split("train").y.expand(args.num_chains, -1, -1) for d in data])
    sizes = (1, *args.hidden_sizes, 1)
    posterior = Posterior(x, y, sizes, args.prior_std, args.noise_std, args.activation)
    began = time.perf_counter()
    initial = start(posterior, len(y), generator)
    chains = sample(
        posterior,
        initial,
        args.num_draws,
        args.num_warmup,
        args.path_length,
        generator=generator,
    )
    seconds = time.perf_counter() - began
    print(
        f"{len(y)} chains, {args.num_draws} draws each: acceptance {chains.acceptance:.3f}, "
        f"step {chains.step_size:.2g}, {seconds:.0f} s"
    )
    print("seed   nll       coverage_95  rmse to sine  std inside  std at -5, +5   max R-hat")
    scores = []
    for index, datamodule in enumerate(data):
        part = slice(index * args.num_chains, (index + 1) * args.num_chains)
        scores.append(report(posterior, chains.draws[:, part], datamodule))
    nll, coverage = torch.tensor(scores).mean(0).tolist()
    print(f"mean   {nll:+.4f}   {coverage:.4f}")


def report(
    posterior: Posterior, draws: Tensor, data: NoisySineRegressionDataModule
) -> tuple[float, float]:
    """Prints and returns the scores of one data set."""
    num_draws, num_chains, _ = draws.shape
    flat = draws.flatten(0, 1)
    metrics = regression_metrics()
    test = data.split("test")
    std = torch.tensor(data.noise_std)
    for x, y in zip(torch.split(test.x, 1000), torch.split(test.y, 1000), strict=True):
        mixture = GaussianMixture(posterior.outputs(flat, x), std)
        for name in ("nll", "coverage_95"):
            metrics[name].update(mixture, y)
    grid = torch.linspace(-5, 5, 101).unsqueeze(1)
    outputs = posterior.outputs(flat, grid)[..., 0]
    inside = grid[:, 0].abs() <= data.x_max
    spread = outputs.std(0)
    error = (outputs.mean(0) - data.clean(grid)[:, 0])[inside].square().mean().sqrt()
    rhat = split_rhat(outputs.reshape(num_draws, num_chains, -1))[inside].max()
    nll, coverage = (metrics[name].compute().item() for name in ("nll", "coverage_95"))
    print(
        f"{data.seed:<6d} {nll:+.4f}   {coverage:.4f}       {error:.4f}        "
        f"{spread[inside].mean():.4f}      {spread[0]:.2f}, {spread[-1]:.2f}      {rhat:.3f}",
        flush=True,
    )
    return nll, coverage


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3], help="data seeds")
    parser.add_argument("--noise_std", type=float, default=0.2)
    parser.add_argument("--num_samples", type=int, default=100, help="training points")
    parser.add_argument("--hidden_sizes", type=int, nargs="+", default=[50])
    parser.add_argument("--activation", choices=list(ACTIVATIONS), default="tanh")
    parser.add_argument("--prior_std", type=float, default=1.3)
    parser.add_argument("--num_chains", type=int, default=8, help="chains per data set")
    parser.add_argument("--num_draws", type=int, default=150, help="draws per chain")
    parser.add_argument("--num_warmup", type=int, default=60, help="draws to tune and drop")
    parser.add_argument("--path_length", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0, help="seed of the chains")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
