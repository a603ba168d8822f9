"""Vanishing and exploding gradients, seen: the gradient of the loss by lag, for each cell."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import pandas as pd
import torch
from torch import Tensor

from callbacks.figures.base import FigureCallback
from callbacks.figures.series import series_windows
from callbacks.figures.style import data_name, part_of
from callbacks.run.sharded import takes_part, whole_weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILE_NAME = "gradient_flow.csv"
_AT_ONCE = 32  # windows whose unrolled graph is held, less than a training step takes


class GradientFlow(FigureCallback):
    r"""Records the norm of :math:`\partial L / \partial s_t` over the lag, and draws it.

    It is measured on windows of the validation set before the first step and after every
    validation, into the run's ``gradient_flow.csv``. The figure shows the run's cell at the start
    and at the end, and beside it the other kinds of cell, each from its newest run on the same
    data under the same folder of runs: fit ``rnn``, ``lstm`` and ``gru``, and the last one's figure
    holds all three.

    Args:
        num_windows: Windows to average over, at most.
    """

    def __init__(self, num_windows: int = 128) -> None:
        self.num_windows = num_windows
        self._rows: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        """What was recorded so far, so that a resumed run keeps it."""
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues the record of a resumed run."""
        self._rows = list(state_dict["rows"])

    def _measure(self, trainer: L.Trainer, pl_module: Any) -> Tensor:
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        count = len(datamodule.split("val")[0])
        rows = torch.arange(min(self.num_windows, count))
        total = torch.zeros(())
        for part in torch.split(rows, _AT_ONCE):
            head = series_windows(datamodule, "val", part, pl_module.device)
            norms: Tensor = pl_module.state_gradients(head)
            total = total + len(part) / len(rows) * norms.detach().cpu()
        return total

    def _record(self, trainer: L.Trainer, pl_module: Any) -> None:
        if not takes_part(trainer, pl_module):
            return
        with whole_weights(pl_module):
            norms = self._measure(trainer, pl_module)
        for lag, norm in enumerate(norms.tolist()):
            self._rows.append(
                {
                    "data": data_name(trainer.datamodule),  # type: ignore[attr-defined]
                    "cell": pl_module.hparams["cell"],
                    "step": trainer.global_step,
                    "lag": lag,
                    "norm": norm,
                }
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measures the initial weights."""
        if trainer.global_step == 0:
            self._record(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measures the weights of a training epoch."""
        if trainer.state.fn == "fit":
            self._record(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the record."""
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            folder = Path(trainer.default_root_dir)
            folder.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(self._rows).to_csv(folder / FILE_NAME, index=False)

    def draw(self, trainer: L.Trainer, pl_module: L.LightningModule) -> "dict[str, Figure]":
        """The figure of all cells; nothing where no fit has recorded them."""
        own = Path(trainer.default_root_dir) / FILE_NAME
        if not own.is_file():
            return {}
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        records = {**_others(own, data_name(datamodule)), **_read(own)}
        count = len(datamodule.split("val")[0])
        figure = _figure(records)
        shown = part_of(min(self.num_windows, count), count, "validation windows")
        figure.axes[0].set_title(f"mean over {shown}")
        return {"gradient_flow": figure}


def _read(path: Path) -> dict[str, pd.DataFrame]:
    frame = pd.read_csv(path)
    return {str(frame["cell"].iloc[0]): frame}


def _others(own: Path, data: str) -> dict[str, pd.DataFrame]:
    """Newest record of each cell on the same data under the folder of runs."""
    found = own.parent.parent.parent.glob(f"*/*/{FILE_NAME}")
    records: dict[str, pd.DataFrame] = {}
    for path in sorted(found, key=lambda path: path.stat().st_mtime_ns):
        for cell, frame in _read(path).items():
            if "data" in frame and frame["data"].iloc[0] == data:
                records[cell] = frame
    return records


def _figure(records: dict[str, pd.DataFrame]) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.8, 4.2), layout="constrained")
    axes = figure.subplots()
    order = [cell for cell in ("rnn", "lstm", "gru") if cell in records]
    for index, cell in enumerate(order):
        frame = records[cell]
        for step, style in ((frame["step"].min(), "--"), (frame["step"].max(), "-")):
            curve = frame[frame["step"] == step]
            label = f"{cell.upper()}, {'untrained' if style == '--' else f'after {step:,} steps'}"
            axes.plot(curve["lag"], curve["norm"], style, color=f"C{index}", label=label)
    axes.set_yscale("log")
    axes.set(xlabel="lag T - t", ylabel="norm of the gradient by the state of step t")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
