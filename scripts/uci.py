"""The three uncertainty models on UCI regression sets with given splits, as in the literature.

``python -m scripts.uci DIR...`` reads ``DIR/data.csv`` (a column ``target``) and
``DIR/test_rows.txt`` (line k: the test rows of split k) and prints root mean squared error and test
log-likelihood, mean and standard error over the splits.

Hyperparameters are chosen inside each training part: a fifth of it is held out, every setting of
the grid is trained on the rest, the best held-out likelihood wins, and the winner is trained on the
whole part. The networks of all splits and settings train as one batch: their states are stacked
and the packaged model's own loss is mapped over them by ``torch.func``.
"""

import argparse
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from datamodules import CSVTabularDataModule
from datamodules.batches import SupervisedBatch
from lit_models import LitBayesianMLP, LitDeepEnsemble, LitMCDropoutMLP
from lit_models.base import LitModule
from lit_models.layers.densities import GaussianMixture

Setting = Mapping[str, float]


class Part(NamedTuple):
    """Rows of all splits side by side: x ``(splits, rows, D)`` and y ``(splits, rows, 1)``."""

    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class Method:
    """How a model is trained on one table.

    Attributes:
        make: Makes the model from in_features, num_train and the setting.
        grid: Values to choose from, by name; ``weight_decay`` belongs to the optimizer.
        num_epochs: Passes over the rows.
        lr: First learning rate of Adam; a cosine takes it to 0.
        chooses_noise: Whether the noise is chosen on the held-out rows too.
        batch_size: Rows per step.
    """

    make: Callable[[int, int, Setting], LitModule]
    grid: Mapping[str, Sequence[float]]
    num_epochs: int
    lr: float
    chooses_noise: bool = False
    batch_size: int = 128

    @property
    def settings(self) -> list[dict[str, float]]:
        """Every combination of the grid."""
        values = itertools.product(*self.grid.values())
        return [dict(zip(self.grid, row, strict=True)) for row in values]


def _bayesian_mlp(in_features: int, num_train: int, setting: Setting) -> LitModule:
    return LitBayesianMLP(
        in_features,
        1,
        num_train,
        hidden_sizes=[50],
        num_train_draws=1,
        num_draws=500,
        prior_std=setting["prior_std"],
    )


def _mc_dropout(in_features: int, num_train: int, setting: Setting) -> LitModule:
    rate = setting["dropout"]
    return LitMCDropoutMLP(
        in_features,
        1,
        num_train,
        hidden_sizes=[50],
        dropout=rate,
        input_dropout=rate,
        length_scale=1e-2,
        num_draws=2000,
    )


def _deep_ensemble(in_features: int, num_train: int, setting: Setting) -> LitModule:
    return LitDeepEnsemble(in_features, 1, hidden_sizes=[50], noise="constant", leave_out=False)


# The noise that a model learns follows the batches; a fit by the command takes all rows at once.
_NOISE, _NOISE_RATE = "model.noise_variance", 0.01

METHODS = {
    "mc_dropout": Method(
        _mc_dropout, {"dropout": [0.005, 0.01, 0.05, 0.1]}, 1200, 5e-3, chooses_noise=True
    ),
    "bayesian_mlp": Method(_bayesian_mlp, {"prior_std": [0.5, 1.0, 2.0]}, 1200, 5e-3),
    "deep_ensemble": Method(
        _deep_ensemble, {"weight_decay": [0.01, 0.1]}, 600, 1e-2, chooses_noise=True
    ),
}


class _Loss(nn.Module):
    """A model's own training loss as a forward pass."""

    def __init__(self, model: LitModule) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of a batch, and the mean square that the mean of its passes leaves."""
        output = self.model.step(SupervisedBatch(x, y))
        left = (output.preds.mean.detach() - y) / self.model.get_submodule("y_scaler").get_buffer(
            "std"
        )
        return output.loss, left.square().mean(0)


def load(folder: Path) -> dict[str, Part]:
    """Rows of every split: ``train`` and ``val`` make the training part, ``test`` the rest."""
    num_splits = len((folder / "test_rows.txt").read_text(encoding="utf-8").splitlines())
    modules = [
        CSVTabularDataModule(
            str(folder / "data.csv"),
            "target",
            task="regression",
            val_fraction=0.2,
            test_rows=str(folder / "test_rows.txt"),
            split=split,
        )
        for split in range(num_splits)
    ]
    parts = {}
    for name in ("train", "val", "test"):
        batches = [module.split(name)[:2] for module in modules]
        parts[name] = Part(*(torch.stack(fields) for fields in zip(*batches, strict=True)))
    both = zip(parts["train"], parts["val"], strict=True)
    parts["all"] = Part(*(torch.cat(fields, dim=1) for fields in both))
    return parts


def train(method: Method, settings: Sequence[Setting], part: Part, seed: int) -> list[LitModule]:
    """Trains one model per row of the part, all at once.

    Args:
        method: What to train and how.
        settings: Setting of each model.
        part: Training rows of each model.
        seed: Seed of initial weights, order and noise.

    Returns:
        The trained models.
    """
    torch.manual_seed(seed)
    num_rows, in_features = part.x.shape[1:]
    models = [method.make(in_features, num_rows, setting) for setting in settings]
    for model, x, y in zip(models, part.x, part.y, strict=True):
        for scaler, values in ((model.x_scaler, x), (model.y_scaler, y)):
            std = values.std(0, correction=0)
            scaler.fit(values.mean(0), torch.where(std > 0, std, 1.0))  # type: ignore[union-attr, operator]
    losses = [_Loss(model) for model in models]
    weights, buffers = stack_module_state(losses)
    decay = torch.tensor([setting.get("weight_decay", 0.0) for setting in settings])

    def loss(weights: Any, buffers: Any, x: Tensor, y: Tensor) -> Any:
        return functional_call(losses[0], (weights, buffers), (x, y))

    batched = vmap(loss, randomness="different")
    optimizer = torch.optim.Adam(weights.values(), lr=method.lr, fused=True)
    batches = math.ceil(num_rows / method.batch_size)
    total = method.num_epochs * batches
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    for _ in range(method.num_epochs):
        order = torch.randperm(num_rows)
        x, y = part.x[:, order], part.y[:, order]
        for rows in torch.arange(num_rows).tensor_split(batches):
            optimizer.zero_grad()
            losses_of, squares = batched(weights, buffers, x[:, rows], y[:, rows])
            losses_of.sum().backward()
            optimizer.step()
            buffers[_NOISE].lerp_(squares.to(buffers[_NOISE]), _NOISE_RATE)
            if decay.any():
                _decay(weights, decay * schedule.get_last_lr()[0])
            schedule.step()
    for n, trained in enumerate(losses):
        state = {**weights, _NOISE: buffers[_NOISE]}
        trained.load_state_dict({name: value[n] for name, value in state.items()}, strict=False)
    return models


@torch.no_grad()
def _decay(weights: Mapping[str, Tensor], share: Tensor) -> None:
    """Decoupled weight decay with a rate for each model."""
    for value in weights.values():
        value.mul_((1 - share).reshape(-1, *[1] * (value.dim() - 1)))


@torch.no_grad()
def predict(models: Sequence[LitModule], part: Part) -> list[GaussianMixture]:
    """Predictive density of each model on its own rows."""
    predictives: list[Any] = [model.eval() for model in models]
    return [model.predictive(x) for model, x in zip(predictives, part.x, strict=True)]


def noise_grid(model: LitModule) -> Tensor:
    """Standard deviations to choose from, in units of y."""
    scale = model.get_submodule("y_scaler").get_buffer("std")
    return scale * torch.logspace(-2.5, 0, 33).unsqueeze(1)


def choose_noise(mixture: GaussianMixture, y: Tensor, grid: Tensor) -> int:
    """Index of the noise with the best held-out likelihood."""
    scores = [GaussianMixture(mixture.means, std).log_prob(y).mean() for std in grid]
    return int(torch.stack(scores).argmax())


def evaluate(method: Method, parts: Mapping[str, Part], seed: int) -> dict[str, Any]:
    """Chooses, trains and scores on every split.

    Returns:
        RMSE and log-likelihood of each split, and how often each setting was chosen.
    """
    num_splits, grid = len(parts["all"].x), method.settings
    settings = [setting for setting in grid for _ in range(num_splits)]
    inner = Part(*(field.repeat(len(grid), 1, 1) for field in parts["train"]))
    held_out = Part(*(field.repeat(len(grid), 1, 1) for field in parts["val"]))
    models = train(method, settings, inner, seed)
    scores, noises = [], []
    for model, mixture, y in zip(models, predict(models, held_out), held_out.y, strict=True):
        if method.chooses_noise:
            candidates = noise_grid(model)
            noises.append(choose_noise(mixture, y, candidates))
            mixture = GaussianMixture(mixture.means, candidates[noises[-1]])
        scores.append(mixture.log_prob(y).mean())
    best = torch.stack(scores).reshape(len(grid), num_splits).argmax(0)
    chosen = [grid[index] for index in best]
    models = train(method, chosen, parts["all"], seed + 1)
    rmse, log_prob = [], []
    for split, mixture in enumerate(predict(models, parts["test"])):
        if method.chooses_noise:
            noise = noises[int(best[split]) * num_splits + split]
            mixture = GaussianMixture(mixture.means, noise_grid(models[split])[noise])
        y = parts["test"].y[split]
        rmse.append((mixture.mean - y).square().mean().sqrt())
        log_prob.append(mixture.log_prob(y).mean())
    counts = torch.bincount(best, minlength=len(grid)).tolist()
    return {
        "rmse": torch.stack(rmse),
        "log_prob": torch.stack(log_prob),
        "chosen": [(setting, n) for setting, n in zip(grid, counts, strict=True) if n],
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(f"{'set':<10} {'method':<14} {'RMSE':>16} {'log-likelihood':>18} {'seconds':>8}  chosen")
    for folder, name in itertools.product(args.folders, args.methods):
        began = time.perf_counter()
        result = evaluate(METHODS[name], load(folder), args.seed)
        cells = []
        for key in ("rmse", "log_prob"):
            error = result[key].std() / math.sqrt(len(result[key]))
            cells.append(f"{result[key].mean():.3f} ± {error:.3f}")
        seconds = time.perf_counter() - began
        chosen = ", ".join(f"{dict(setting)} x {count}" for setting, count in result["chosen"])
        row = f"{folder.name:<10} {name:<14} {cells[0]:>16} {cells[1]:>18} {seconds:>8.0f}"
        print(f"{row}  {chosen}", flush=True)


if __name__ == "__main__":
    main()
