"""Figures of generative models: samples beside the truth, the way back, and the noise learned."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torch import Tensor

from callbacks.figures.base import FigureCallback
from callbacks.figures.style import part_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _grid(x: Tensor) -> Tensor:
    """Points over the range of samples and a tenth more on either side."""
    low, high = x.min().item(), x.max().item()
    margin = 0.1 * (high - low)
    return torch.linspace(low - margin, high + margin, 400, dtype=torch.float64)


class SampleFigures(FigureCallback):
    """What a diffusion model draws, how, and by what prediction of the noise.

    In one dimension: a histogram of samples over the density, paths of the reverse process, the
    learned against the exact noise prediction, and how far from the truth each sampler would end
    with the exact one. In two: a scatter of samples beside true ones.

    Args:
        num_samples: Samples to draw.
        num_paths: Paths of the reverse process to show.
        steps: Steps of the process at which to show the noise prediction; those beyond the
            process's length are left out.
    """

    def __init__(
        self,
        num_samples: int = 2000,
        num_paths: int = 60,
        steps: tuple[int, ...] = (0, 50, 200, 500, 900),
    ) -> None:
        self.num_samples, self.num_paths, self.steps = num_samples, num_paths, steps

    def draw(self, trainer: L.Trainer, pl_module: L.LightningModule) -> "dict[str, Figure]":
        """The figures that the samples' dimension allows."""
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        model: Any = pl_module
        if model.sample_shape not in ((1,), (2,)):
            return {}
        true = datamodule.split("test").x0.float()
        times, paths = self._paths(model)
        if model.sample_shape == (2,):
            return {"samples": _scatter(paths[-1], true)}
        grid = _grid(true)
        figures = {
            "samples": _histogram(paths[-1][:, 0], true[:, 0], datamodule.law, grid),
            "reverse_process": self._reverse_process(times, paths[..., 0]),
        }
        if datamodule.law is not None:
            figures["noise_prediction"] = self._noise_prediction(model, datamodule.law)
            figures["sampler_laws"] = _sampler_laws(model, datamodule.law)
        return figures

    def _paths(self, model: Any) -> tuple[list[int], Tensor]:
        """Steps kept, and the samples in the units of the data there, ``(kept, B, D)``."""
        draws = model.draws(self.num_samples, stream=2, seed=0)
        x = draws.normal(model.sample_shape, model.dtype)
        num_steps = len(model.ddpm.sampler_steps.t)
        keep = set(torch.linspace(0, num_steps - 1, min(num_steps, 120)).long().tolist())
        kept = [model.x_scaler.inverse(x).float().cpu()]
        times = [model.ddpm.diffusion.num_steps]
        for i, samples in enumerate(model.ddpm.reverse(x, draws)):
            if i in keep:
                kept.append(model.x_scaler.inverse(samples).float().cpu())
                times.append(int(model.ddpm.sampler_steps.t[i]))
        return times, torch.stack(kept)

    def _reverse_process(self, times: list[int], paths: Tensor) -> "Figure":
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.2, 3.6), layout="constrained")
        axes, side = figure.subplots(1, 2, sharey=True, width_ratios=[5, 1])
        axes.plot(times, paths[:, : self.num_paths], color="tab:red", alpha=0.35, linewidth=0.7)
        axes.invert_xaxis()
        shown = part_of(min(self.num_paths, paths.shape[1]), paths.shape[1], "paths")
        axes.set(xlabel="step t of the process", ylabel="sample", title=f"noise to data, {shown}")
        axes.grid(alpha=0.3)
        side.hist(paths[-1], bins=60, orientation="horizontal", color="tab:red", alpha=0.6)
        side.set(xlabel="samples", xticks=[])
        return figure

    def _noise_prediction(self, model: Any, law: Any) -> "Figure":
        from matplotlib.figure import Figure

        steps = [t for t in self.steps if t < model.ddpm.diffusion.num_steps]
        figure = Figure(figsize=(2.4 * len(steps) + 0.4, 3.0), layout="constrained")
        panels = figure.subplots(1, len(steps), squeeze=False)[0]
        law = law.standardized(model.x_scaler.mean, model.x_scaler.std)
        for axes, step in zip(panels, steps, strict=True):
            level = model.ddpm.diffusion.alphas_cumprod[step].cpu().double()
            noised = law.noised(level)
            x = _grid(noised.quantiles(2000))
            t = torch.full((len(x),), step, device=model.device)
            noised_x = x[:, None].to(device=model.device, dtype=model.dtype)
            learned = model(noised_x, t)[:, 0].float().cpu()
            density = noised.log_prob(x[:, None]).exp()
            exact = law.noise(x[:, None], level.expand(len(x)))[:, 0]
            axes.fill_between(
                x, density / density.max() * 0.5 * exact.abs().max(), alpha=0.2, color="gray"
            )
            axes.plot(x, exact, color="black", linewidth=2, label="exact")
            axes.plot(x, learned, color="tab:red", linestyle="--", label="learned")
            axes.set(title=f"t = {step}", xlabel="noised sample")
            axes.grid(alpha=0.3)
        panels[0].set_ylabel("predicted noise")
        panels[0].legend()
        return figure


def _sampler_laws(model: Any, law: Any) -> "Figure":
    """Distance of each sampler's law from the truth over its number of steps, none of it noise."""
    from matplotlib.figure import Figure

    diffusion = model.ddpm.diffusion
    scale = law.std.item()
    law = law.standardized(law.mean, law.std)
    shown = (5, 10, 20, 50, 100)
    counts = [count for count in shown if count <= diffusion.num_steps] or [diffusion.num_steps]
    samplers: dict[str, Callable[[int], Any]] = {
        "ancestral": lambda count: diffusion.ancestral("posterior", count),
        "DDIM": lambda count: diffusion.ddim(0.0, count),
        "DPM-Solver++ (2M)": lambda count: diffusion.dpm_solver(count),
    }
    figure = Figure(figsize=(5.6, 3.8), layout="constrained")
    axes = figure.subplots()
    for (name, steps), marker in zip(samplers.items(), "os^", strict=True):
        distances = []
        for count in counts:
            grid, cdf = law.sampled(steps(count), diffusion.alphas_cumprod.cpu())
            distances.append(scale * torch.trapezoid((cdf - law.cdf(grid)).abs(), grid).item())
        axes.plot(counts, distances, marker=marker, label=name)
    axes.set(xscale="log", yscale="log", xlabel="steps", ylabel="Wasserstein distance of the law")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.set_title("samplers with the exact noise prediction")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    return figure


def _histogram(samples: Tensor, true: Tensor, law: Any, grid: Tensor) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    shown = (grid[0].item(), grid[-1].item())
    # A share of all samples: those outside are missing from the bars, and the bars show it.
    width = (shown[1] - shown[0]) / 60
    weights = torch.full_like(samples, 1 / (len(samples) * width))
    style: dict[str, Any] = {"bins": 60, "range": shown}
    axes.hist(samples, weights=weights, **style, color="tab:red", alpha=0.5, label="samples")
    if law is None:
        style |= {"histtype": "step", "density": True}
        axes.hist(true, **style, color="black", label=f"{len(true):,} held-out rows")
    else:
        axes.plot(grid, law.log_prob(grid[:, None]).exp(), color="black", label="true density")
    axes.set(xlabel="value", ylabel="density", title=_title(samples, *shown))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _title(samples: Tensor, low: float, high: float) -> str:
    """How many samples there are, and how many of them the axis does not show."""
    outside = int((~((samples >= low) & (samples <= high))).sum())
    return f"{len(samples):,} samples" + (f", {outside:,} outside the axis" if outside else "")


def _scatter(samples: Tensor, true: Tensor) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    sets = (
        (f"{len(samples):,} samples", samples, "tab:red"),
        (
            part_of(min(len(samples), len(true)), len(true), "true ones"),
            true[: len(samples)],
            "black",
        ),
    )
    ends = [(grid[0].item(), grid[-1].item()) for grid in map(_grid, true.T)]
    hidden = torch.stack([(x < low) | (x > high) for x, (low, high) in zip(samples.T, ends)]).any(0)  # noqa: B905
    if hidden.any():
        drawn = true[: len(samples)]
    others = part_of(len(drawn), len(true), "true ones")
    sets = ((f"{len(samples):,} samples", samples, "tab:red"), (others, drawn, "black"))
    ends = [(grid[0].item(), grid[-1].item()) for grid in map(_grid, true.T)]
    hidden = torch.stack([(x < low) | (x > high) for x, (low, high) in zip(samples.T, ends)]).any(0)  # noqa: B905
    if hidden.any():
        sets = ((f"{len(samples):,} samples, {int(hidden.sum()):,} outside", *sets[0][1:]), sets[1])
    panels[0].set(xlim=ends[0], ylim=ends[1])
    for axes, (title, points, color) in zip(panels, sets, strict=True):
        axes.scatter(points[:, 0], points[:, 1], s=3, alpha=0.3, linewidths=0, color=color)
        axes.set(title=title, xlabel="dimension 1")
        axes.set_aspect("equal", "box")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("dimension 2")
    return figure
