"""The uncertainty experiments over noise and size of the sine task, beside the exact posterior.

``python -m scripts.uncertainty_grid --noise_std 0.05 0.2 0.5 --num_samples 20 100 500`` fits the
packaged configs with no option but the data's, samples the exact posterior
(:mod:`scripts.hmc`) of the same data sets, and draws how far apart the scores are. What is in the
file already is not fitted again. A cell holds its bar where the negative log-likelihood is within
0.06 nats of the exact posterior's and the epistemic standard deviation at -5 and 5 is at least
twice that where the data are.
"""

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import torch

from lit_models.command.cli import build
from lit_models.metrics.predictive import regression_metrics
from scripts import hmc

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXPERIMENTS = ("bayesian_mlp", "mc_dropout", "deep_ensemble", "laplace_mlp")
REFERENCE = "hmc"
_MAX_EXCESS, _LEAST_RATIO = 0.06, 2.0

Cell = tuple[float, int]
Record = Mapping[str, Any]


def fit(experiment: str, noise_std: float, num_samples: int, seed: int) -> dict[str, float]:
    """Fits a packaged config on one data set, without logs and figures, and scores it."""
    data = ["--data.noise_std", str(noise_std), "--data.num_samples", str(num_samples)]
    seeds = ["--data.seed", str(seed), "--seed_everything", str(seed)]
    with tempfile.TemporaryDirectory() as folder:
        cli = build(["--config", experiment, *data, *seeds, "--runs_dir", folder])
    model: Any = cli.model
    epochs = cli.trainer.max_epochs
    began = time.process_time()
    trainer = L.Trainer(
        max_epochs=epochs,
        check_val_every_n_epoch=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, cli.datamodule)
    seconds = time.process_time() - began
    return {**scores(model.eval(), cli.datamodule), "cpu_seconds": seconds}


@torch.no_grad()
def scores(model: Any, datamodule: Any) -> dict[str, float]:
    """Scores of the predictive density, and its spread where there are no data."""
    metrics = regression_metrics()
    test = datamodule.split("test")
    for x, y in zip(test.x.split(2000), test.y.split(2000), strict=True):
        mixture = model.predictive(x)
        for name in ("nll", "coverage_95", "rmse"):
            metrics[name].update(mixture, y)
    grid = torch.linspace(-5, 5, 101).unsqueeze(1)
    spread = model.predictive(grid).epistemic_variance.sqrt()[:, 0]
    inside = grid[:, 0].abs() <= datamodule.x_max
    ratio = torch.minimum(spread[0], spread[-1]) / spread[inside].mean()
    found = {name: metrics[name].compute().item() for name in ("nll", "coverage_95", "rmse")}
    return {**found, "extrapolation_ratio": ratio.item()}


def key(record: Record) -> tuple[Any, ...]:
    """What tells records apart."""
    return tuple(record[name] for name in ("method", "noise_std", "num_samples", "seed"))


def fill(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Fits and samples what the file lacks; it is written after each."""
    records: list[dict[str, Any]] = []
    if args.out.exists():
        records = json.loads(args.out.read_text(encoding="utf-8"))
    known = {key(record) for record in records}

    def keep(method: str, cell: Cell, seed: int, found: Mapping[str, float]) -> None:
        cell_of = {"method": method, "noise_std": cell[0], "num_samples": cell[1], "seed": seed}
        records.append({**cell_of, **{name: round(value, 5) for name, value in found.items()}})
        args.out.write_text(_as_lines(records), encoding="utf-8")
        print(json.dumps(records[-1]), flush=True)

    for cell in itertools.product(args.noise_std, args.num_samples):
        missing = [seed for seed in args.seeds if (REFERENCE, *cell, seed) not in known]
        found = hmc.reference(*cell, missing, args) if missing else []
        for seed, score in zip(missing, found, strict=True):
            keep(REFERENCE, cell, seed, score._asdict())
        for seed, method in itertools.product(args.seeds, args.methods):
            if (method, *cell, seed) not in known:
                keep(method, cell, seed, fit(method, *cell, seed))
    return records


def _as_lines(records: Iterable[Record]) -> str:
    rows = ",\n".join(json.dumps(record) for record in sorted(records, key=key))
    return f"[\n{rows}\n]\n"


def means(records: Iterable[Record], method: str, name: str) -> dict[Cell, float]:
    """Mean of one score over the data sets of each cell."""
    values: dict[Cell, list[float]] = {}
    for record in records:
        if record["method"] == method:
            cell = (record["noise_std"], record["num_samples"])
            values.setdefault(cell, []).append(record[name])
    return {cell: sum(found) / len(found) for cell, found in values.items()}


def holds(excess: float, ratio: float) -> bool:
    """Whether a cell keeps its bar."""
    return excess <= _MAX_EXCESS and ratio >= _LEAST_RATIO


def draw(records: Sequence[Record]) -> "Figure":
    """A panel for each method: excess over the exact posterior, and the spread outside."""
    from matplotlib.figure import Figure

    reference = means(records, REFERENCE, "nll")
    noises, sizes = (sorted({cell[axis] for cell in reference}) for axis in (0, 1))
    figure = Figure(figsize=(13.5, 3.4), layout="constrained")
    panels = figure.subplots(1, len(EXPERIMENTS), sharey=True)
    for axes, method in zip(panels, EXPERIMENTS, strict=True):
        excess = torch.full((len(noises), len(sizes)), torch.nan)
        nll, ratios = (means(records, method, name) for name in ("nll", "extrapolation_ratio"))
        for (noise, size), value in nll.items():
            place = noises.index(noise), sizes.index(int(size))
            difference, ratio = value - reference[noise, size], ratios[noise, size]
            excess[place] = difference
            kept = holds(difference, ratio)
            axes.text(
                *place[::-1],
                f"{difference:+.3f}\n{ratio:.1f} x{'' if kept else ' *'}",
                ha="center",
                va="center",
                fontsize=8,
                fontweight="normal" if kept else "bold",
                color="white" if abs(difference) > 1.5 * _MAX_EXCESS else "black",
            )
        limits = {"vmin": -2 * _MAX_EXCESS, "vmax": 2 * _MAX_EXCESS}
        image = axes.imshow(excess, cmap="RdBu_r", aspect="auto", **limits)
        axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
        axes.set_yticks(range(len(noises)), [f"{noise:g}" for noise in noises])
        axes.set(title=method, xlabel="training points")
    panels[0].set_ylabel("noise, in units of y")
    label = "nats above the exact posterior"
    figure.colorbar(image, ax=panels, label=label, ticks=[-0.12, -0.06, 0, 0.06, 0.12])
    figure.suptitle(
        "Mean NLL above the exact posterior's, and spread at -5 and 5 over that inside; "
        f"* misses {_MAX_EXCESS} nats or {_LEAST_RATIO:g} x"
    )
    return figure


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--noise_std", type=float, nargs="+", default=[0.05, 0.1, 0.2, 0.5])
    parser.add_argument("--num_samples", type=int, nargs="+", default=[20, 50, 100, 500])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3], help="data seeds")
    parser.add_argument("--methods", nargs="*", default=list(EXPERIMENTS), choices=EXPERIMENTS)
    parser.add_argument("--out", type=Path, default=Path("docs/uncertainty_grid.json"))
    parser.add_argument("--figure", type=Path, default=None, help="PNG file to draw into")
    hmc.add_arguments(parser)
    args = parser.parse_args()
    records = fill(args)
    if args.figure is not None:
        draw(records).savefig(args.figure, dpi=120)


if __name__ == "__main__":
    main()
