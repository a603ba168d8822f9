"""Rows of the UCI tables that are fitted one split after the other: Laplace and boosted trees.

``python -m scripts.uci_alone DIR...`` reads the folders of :mod:`scripts.uci` and prints the same
columns. The Laplace network chooses its prior and noise by the evidence, and so takes the whole
training part at once, as ``lit-models fit`` does; so was its rate chosen, of 0.01, 0.03 and 0.1 on
the first splits. The noise of the trees, which have none, is the
mean square that they leave of a held-out fifth.
"""

import argparse
import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sklearn.ensemble import HistGradientBoostingRegressor
from torch import Tensor

from datamodules.batches import SupervisedBatch
from lit_models import LitLaplaceMLP, WarmupCosine
from lit_models.layers.densities import GaussianMixture
from scripts.uci import Part, load

Rows = dict[str, tuple[Tensor, Tensor]]


def laplace(rows: Rows, num_steps: int = 3000) -> GaussianMixture:
    """Predictive density of the test rows by a network with a Laplace posterior."""
    x, y = rows["all"]
    batch = SupervisedBatch(x, y)
    model = LitLaplaceMLP(x.shape[1], 1, len(x), hidden_sizes=[50])
    for scaler, values in ((model.x_scaler, x), (model.y_scaler, y)):
        std = values.std(0, correction=0)
        scaler.fit(values.mean(0), torch.where(std > 0, std, 1.0))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03, fused=True)
    schedule = WarmupCosine(optimizer, total_steps=num_steps)
    for step in range(1, num_steps + 1):
        optimizer.zero_grad()
        loss: Any = model.step(batch).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        if step > model.refresh_after * num_steps and step % model.refresh_every == 0:
            with torch.no_grad():
                model.maximise_evidence(iter([batch]))
    with torch.no_grad():
        model.fit_posterior(iter([batch]))
        return model.eval().predictive(rows["test"][0])


def boosted_trees(rows: Rows) -> GaussianMixture:
    """Trees of scikit-learn's defaults with one noise for all rows."""
    (x, y), (inner, inner_y), (held, held_y) = (rows[name] for name in ("all", "train", "val"))

    def fitted(inputs: Tensor, targets: Tensor) -> HistGradientBoostingRegressor:
        trees = HistGradientBoostingRegressor(learning_rate=0.05, max_iter=300, random_state=0)
        return trees.fit(inputs.numpy(), targets[:, 0].numpy())

    left = held_y[:, 0] - torch.from_numpy(fitted(inner, inner_y).predict(held.numpy()))
    mean = torch.from_numpy(fitted(x, y).predict(rows["test"][0].numpy()))
    return GaussianMixture(mean.reshape(1, -1, 1), left.square().mean().sqrt())


METHODS: dict[str, Callable[[Rows], GaussianMixture]] = {
    "laplace_mlp": laplace,
    "boosted_trees": boosted_trees,
}


def of_split(parts: dict[str, Part], split: int) -> Rows:
    """Rows of one split."""
    return {name: (part.x[split], part.y[split]) for name, part in parts.items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--num_splits", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(f"{'set':<10} {'method':<14} {'RMSE':>16} {'log-likelihood':>18} {'CPU s':>8}")
    for folder, name in itertools.product(args.folders, args.methods):
        torch.manual_seed(args.seed)
        began, scores = time.process_time(), []
        parts = load(folder)
        num_splits = min(args.num_splits, len(parts["all"].x))
        for split in range(num_splits):
            rows = of_split(parts, split)
            mixture, y = METHODS[name](rows), rows["test"][1]
            error = (mixture.mean - y).square().mean().sqrt()
            scores.append([error.item(), mixture.log_prob(y).mean().item()])
        found = torch.tensor(scores, dtype=torch.float64)
        errors = found.std(0) / math.sqrt(num_splits)
        cells = [
            f"{mean:.3f} ± {error:.3f}" for mean, error in zip(found.mean(0), errors, strict=True)
        ]
        seconds = time.process_time() - began
        row = f"{folder.name:<10} {name:<14} {cells[0]:>16} {cells[1]:>18} {seconds:>8.0f}"
        print(row, flush=True)


if __name__ == "__main__":
    main()
