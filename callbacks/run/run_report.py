"""``results.json`` and the table against the optimum."""

import json
import math
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch

from callbacks.run.throughput import rates_of
from datamodules.files.whole_file import whole_file

Results = dict[str, Any]


def peak_memory_mb(device: torch.device) -> float:
    """Largest memory this process has held so far, in MB: of the accelerator where there is one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


class RunReport(L.Callback):
    """Measures the fit and writes what came out of it.

    ``results.json`` holds, by metric name, the test metrics, the optimum and the baseline of the
    task, the excess over the optimum, in the metric's units (value minus optimum, also where
    larger is better), the rivals' scores, errors by series and the fit's cost, of text with its
    tokens a second; a value that is not finite is null.

    Args:
        experiment: Name of the experiment.
        test_metrics: Names of the metrics that head the table.
        seed: Seed of the run.
        command: Command line of the run.
        git_commit: Commit of the source tree.
        versions: Versions of the packages, by name.

    Attributes:
        results: What ``results.json`` holds; empty before the test.
        larger_is_better: Names of the metrics that are better the larger they are.
    """

    def __init__(
        self,
        experiment: str,
        test_metrics: Sequence[str] = (),
        seed: int | None = None,
        command: str = "",
        git_commit: str | None = None,
        versions: Mapping[str, str] | None = None,
    ) -> None:
        self.experiment, self.test_metrics = experiment, list(test_metrics)
        self.seed, self.command, self.git_commit = seed, command, git_commit
        self.versions = dict(versions or {})
        self.train_seconds = 0.0
        self.results: Results = {}
        self._references: dict[str, Mapping[str, Any]] = {}
        self.larger_is_better: set[str] = set()
        self._started: float | None = None
        self._has_trained = False

    def state_dict(self) -> dict[str, Any]:
        """Seconds trained so far, so that a resumed run reports the sum."""
        running = 0.0 if self._started is None else time.perf_counter() - self._started
        return {"train_seconds": self.train_seconds + running}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues the count of a resumed run; the test after a fit brings an earlier one."""
        if not self._has_trained:
            self.train_seconds = state_dict["train_seconds"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        self._has_trained = True
        self._started = time.perf_counter()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stops the clock."""
        self.train_seconds = self.state_dict()["train_seconds"]
        self._started = None

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reports `lit-models validate`; a validation during a fit is not a result."""
        if trainer.state.fn == "validate":
            self._report(trainer, pl_module, "validate")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reports the test at the end of a fit, or `lit-models test`."""
        self._report(trainer, pl_module, "test")

    def _report(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self.results = self._collect(trainer, pl_module)
        fitted = stage == "test" and trainer.global_step > 0 and self.train_seconds > 0
        name = "results.json" if fitted else f"{stage}.json"
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(_plain(self.results), indent=2, ensure_ascii=False, allow_nan=False)
        with whole_file(folder / name) as file:
            file.write(text + "\n")
        sys.stdout.write(self.table(folder) + "\n")

    def _collect(self, trainer: L.Trainer, pl_module: L.LightningModule) -> Results:
        validates = trainer.state.fn == "validate"
        metrics = {
            name: getattr(pl_module, "scores", {}).get(name, float(value))
            for name, value in trainer.callback_metrics.items()
            if name.startswith(("test/", "val/") if validates else "test/")
        }
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        # Test scores, as all that is published: a validation need not work them out.
        known: Any = None if validates else datamodule
        self._references = {
            kind: {k: v for k, v in getattr(known, kind, {}).items() if k in metrics}
            for kind in ("optimum", "baseline")
        }
        optimum = {name: ref.value for name, ref in self._references["optimum"].items()}
        self.larger_is_better = _larger_is_better(pl_module)
        return {
            "experiment": self.experiment,
            "model": type(pl_module).__name__,
            "data": type(datamodule).__name__,
            "seed": self.seed,
            "metrics": metrics,
            "optimum": optimum,
            "baseline": {name: ref.value for name, ref in self._references["baseline"].items()},
            "excess": {name: metrics[name] - value for name, value in optimum.items()},
            "rivals": {} if validates else _rivals((datamodule, pl_module), metrics),
            "larger_is_better": sorted(self.larger_is_better & metrics.keys()),
            "series": getattr(pl_module, "scores_by_series", {}),
            "num_parameters": sum(p.numel() for p in pl_module.parameters() if p.requires_grad),
            "optimizer_steps": trainer.global_step,
            "train_seconds": round(self.train_seconds, 3),
            **rates_of(trainer),
            "peak_memory_mb": round(peak_memory_mb(pl_module.device), 1),
            "git_commit": self.git_commit,
            "versions": self.versions,
            "command": self.command,
        }

    def table(self, folder: Path) -> str:
        """The results as a table for a terminal."""
        results = self.results
        head = [name for name in self.test_metrics if name in results["metrics"]]
        names = head + sorted(set(results["metrics"]) - set(head))
        rows = [("metric", "value", "optimum", "excess", "baseline")]
        for name in names:
            kinds = ("metrics", "optimum", "excess", "baseline")
            cells = (_cell(results[kind].get(name), kind == "excess") for kind in kinds)
            rows.append((name, *cells))
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
            for row in rows
        ]
        cost = (
            f"{results['experiment']}: {results['model']} on {results['data']}, "
            f"{results['num_parameters']:,} parameters, {results['optimizer_steps']:,} steps, "
            f"{results['train_seconds']:.1f} s"
        )
        notes = []
        for kind, references in self._references.items():
            derivations: dict[str, list[str]] = {}
            for name, reference in references.items():
                derivations.setdefault(reference.how, []).append(name)
            notes += [f"{kind} {', '.join(names)}: {how}" for how, names in derivations.items()]
        notes += self._rival_lines()
        places = [f"run: {folder}"]
        if any((folder / "figures").glob("*.png")):
            places.append(f"figures: {folder / 'figures'}")
        return "\n".join(["", cost, *lines, *notes, *places])

    def _rival_lines(self) -> list[str]:
        """The rivals' scores, best first, and a line for each metric in which the run loses."""
        lines, losses = [], []
        for name, scores in self.results["rivals"].items():
            larger, value = name in self.larger_is_better, self.results["metrics"][name]
            order = sorted(scores.items(), key=lambda rival: rival[1], reverse=larger)
            lines.append(f"rivals {name}: " + ", ".join(f"{k} {v:.5g}" for k, v in order))
            best, score = order[0]
            # Scores add up in another order than the rivals': no difference that cannot be seen.
            even = f"{value:.5g}" == f"{score:.5g}"
            if not (even or (value > score if larger else value < score)):
                losses.append(f"{name} {value:.5g} loses to {best}, {score:.5g}")
        return lines + losses


def _larger_is_better(pl_module: L.LightningModule) -> set[str]:
    """Names of the scores of which more is better."""
    return {
        f"{stage}/{name}"
        for stage in ("val", "test")
        for key, judge in getattr(pl_module, f"{stage}_metrics", {}).items()
        if judge.higher_is_better
        for name in getattr(judge, "names", (key.partition("/")[2],))  # of one that has several
    }


def _rivals(publishers: Sequence[Any], metrics: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Scores of the rivals that data and model publish, of the metrics of a run."""
    return {
        name: dict(scores)
        for publisher in publishers
        for name, scores in getattr(publisher, "rivals", {}).items()
        if name in metrics
    }


def _plain(value: Any) -> Any:
    """A result as JSON can hold it."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value: float | None, signed: bool = False) -> str:
    if value is None:
        return ""
    return f"{value:+.5g}" if signed else f"{value:.5g}"
