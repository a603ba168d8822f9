"""Prediction with 100 networks in one batched pass, against a loop over them.

The loops are what a user writes: a module whose layers draw their weights at every call, and a
network left in training mode so that its dropout stays active.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_models import LitBayesianMLP, LitMCDropoutMLP
from lit_models.bayesian_mlp import BayesianLinear
from scripts.benchmark.ratio import Ratio, compare, print_cases

_NUM_DRAWS = 100
_ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}


class _DrawingLinear(nn.Module):
    """A Bayesian layer that draws its weights at every call."""

    def __init__(self, layer: BayesianLinear) -> None:
        super().__init__()
        self.mean, self.log_std = layer.weight_mean, layer.weight_log_std
        self.bias_mean, self.bias_log_std = layer.bias_mean, layer.bias_log_std

    def forward(self, x: Tensor) -> Tensor:
        weight = self.mean + self.log_std.exp() * torch.randn_like(self.mean)
        bias = self.bias_mean + self.bias_log_std.exp() * torch.randn_like(self.bias_mean)
        return F.linear(x, weight, bias)


@torch.no_grad()
def bayesian_mlp(num_rows: int) -> Ratio:
    """The network of the experiment, 1-20-20-1."""
    model = LitBayesianMLP(1, 1, 100, hidden_sizes=[20, 20], noise_std=0.2, num_draws=_NUM_DRAWS)
    activation = _ACTIVATIONS[model.net.activation]
    layers: list[nn.Module] = []
    for layer in model.net.layers:
        assert isinstance(layer, BayesianLinear)
        layers += [_DrawingLinear(layer), activation()]
    return _against_loop(model, nn.Sequential(*layers[:-1]), num_rows)


@torch.no_grad()
def mc_dropout(num_rows: int) -> Ratio:
    """The network of the experiment, 1-64-64-1, one mask per network."""
    model = LitMCDropoutMLP(1, 1, 100, hidden_sizes=[64, 64], tau=25.0, num_draws=_NUM_DRAWS)
    activation = _ACTIVATIONS[model.net.activation]
    layers: list[nn.Module] = []
    for layer in model.net.layers:
        layers += [layer, activation(), nn.Dropout(0.1)]
    return _against_loop(model, nn.Sequential(*layers[:-2]), num_rows)


def _against_loop(model: LitBayesianMLP | LitMCDropoutMLP, net: nn.Module, num_rows: int) -> Ratio:
    x = torch.randn(num_rows, 1)
    net.train()

    def loop() -> Tensor:
        return torch.stack([net(x) for _ in range(_NUM_DRAWS)])

    return compare(lambda: model.predictive(x).means, loop)


CASES: dict[str, Callable[[], Ratio]] = {
    "bayesian_mlp, 100 rows": lambda: bayesian_mlp(100),
    "bayesian_mlp, 1,000 rows": lambda: bayesian_mlp(1000),
    "bayesian_mlp, 10,000 rows": lambda: bayesian_mlp(10_000),
    "mc_dropout, 100 rows": lambda: mc_dropout(100),
    "mc_dropout, 10,000 rows": lambda: mc_dropout(10_000),
}

if __name__ == "__main__":
    print_cases(CASES)
