"""A user's series at the nodes of a graph: a table of time x node, a table of edges."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from datamodules.base import LitDataModule, Reference, Split
from datamodules.batches import GraphSeriesBatch
from datamodules.errors import InputError
from datamodules.files.graph_files import read_edges
from datamodules.files.notes import say
from datamodules.files.tables import Table, read_table
from datamodules.graph_base import rows_per_node
from datamodules.own.node_rivals import forecasts
from datamodules.own.series_columns import Columns, Gaps
from datamodules.own.series_grid import Grid
from datamodules.own.series_labels import RowLabels

Array = np.ndarray[Any, Any]
Channel = Literal["time_of_day", "day_of_week", "observed"]


class NodeSeriesDataModule(LitDataModule[GraphSeriesBatch]):
    """Windows of a table with one row per time step, oldest first, and one column per node.

    The rows are split in time: training, then validation, then test. A window's targets lie in its
    own split; the values it observes may reach back into the split before. The model scales each
    node by its training rows alone. An empty cell is missing: NaN in the windows, and without a
    part in losses, scores, scales and rivals.

    Args:
        path: Table of the series; its header names the nodes.
        edges_path: Table of edges: two nodes per row in its first two columns, and an optional
            column ``weight``.
        window: Number T of observed steps.
        horizon: Number H of steps to forecast.
        date: Column of dates; found by itself when it is the first column and holds dates.
        directed: Whether an edge leads one way; else its reverse is added.
        missing_value: Value that means missing, beside the empty cell; 0 in the traffic sets.
        gaps: What becomes of a step that the dates leave out: an ``error``; ``fill`` takes it for a
            row of missing values, of which a window shows the last value before; ``mask`` also
            gives the channel ``observed``.
        channels: Further inputs: ``time_of_day`` and ``day_of_week``, each as sine and cosine, and
            ``observed``, 1 where a cell is not missing.
        val_rows: Rows for validation, or their share of all rows.
        test_rows: Rows for the test, or their share of all rows.
        predict_path: Table whose last window is forecast; by default every test window is.
        batch_size: Windows per optimizer step; None for a sixteenth of the training windows, from
            4 to 64, so that short series are seen in enough steps.
        seed: Seed of the order of the windows.

    Raises:
        InputError: If a file, column, node, date or value is missing or wrong.
    """

    def __init__(
        self,
        path: Any,
        edges_path: Any,
        window: int = 12,
        horizon: int = 1,
        date: str | None = None,
        directed: bool = False,
        missing_value: float | None = None,
        gaps: Gaps = "error",
        channels: list[Channel] | None = None,
        val_rows: int | float = 0.2,
        test_rows: int | float = 0.2,
        predict_path: Any = None,
        batch_size: int | None = 32,
        seed: int = 0,
    ) -> None:
        super().__init__(32 if batch_size is None else batch_size, seed)
        for name, value in (("window", window), ("horizon", horizon)):
            if value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        self.path, self.edges_path, self.date, self.directed = path, edges_path, date, directed
        self.window, self.horizon, self.missing_value = window, horizon, missing_value
        told: list[Channel] = ["observed"] if gaps == "mask" else []
        self.channels: list[Channel] = list(dict.fromkeys([*(channels or []), *told]))
        self.gaps = gaps
        self.val_rows, self.test_rows, self.predict_path = val_rows, test_rows, predict_path
        self._few_steps = batch_size is None
        self._known: dict[str, Any] = {}

    def setup(self, stage: str) -> None:
        """Makes the splits of a stage, and the size of a batch where the data decide it."""
        if self._few_steps and stage == "fit":
            self.batch_size = min(max(self.num_train // 16, 4), 64)
        super().setup(stage)

    def knowledge(self) -> dict[str, Any]:
        """The nodes, the column of dates, their step and format, and the training rows' scale."""
        if not self._known:
            mean, std = self._scale
            return {
                "nodes": self.nodes,
                "date": self._date_column,
                "dates": self._series[2],
                "mean": mean.tolist(),
                "std": std.tolist(),
            }
        return self._known

    def adopt(self, knowledge: Mapping[str, Any]) -> None:
        """Takes what a run knows: new rows are read by it."""
        self._known = dict(knowledge)

    @cached_property
    def _table(self) -> Table:
        return read_table(self.path, header="first")

    @cached_property
    def _date_column(self) -> str | None:
        if self._known:
            known: str | None = self._known["date"]
            return known
        if self.date is not None:
            self._table.require([self.date])
            return self.date
        first = next(iter(self._table.columns))
        return first if self._table[first].kind() == "date" else None

    @cached_property
    def nodes(self) -> list[str]:
        """Names of the nodes."""
        if self._known:
            known: list[str] = self._known["nodes"]
            return known
        nodes = [name for name in self._table.columns if name != self._date_column]
        if not nodes:
            raise InputError(f"{self.path} has no column beside the dates; give one per node")
        return nodes

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return len(self.nodes)

    @property
    def in_features(self) -> int:
        """Number of inputs of a node: its series, and the channels."""
        return 1 + sum(1 if channel == "observed" else 2 for channel in self.channels)

    @property
    def num_train(self) -> int:
        """Number of training windows."""
        return len(self._origins("train"))

    def _read(self, table: Table) -> tuple[Array, "pd.Series[Any] | None", dict[str, Any]]:
        """Values ``(rows, N)``, NaN where missing, dates if any, and what was decided of them."""
        date = self._date_column
        table.require([*self.nodes, *([date] if date else [])])
        values = np.stack([table[name].numbers() for name in self.nodes], axis=1)
        if self.missing_value is not None:
            values[values == self.missing_value] = np.nan
        missing = int(np.isnan(values).sum())
        if missing:
            say(f"{table.where}: {missing:,} of {values.size:,} values are missing; left out")
        decided = dict(self._known.get("dates", {}))
        if date is None:
            return values, None, decided
        labels = RowLabels(table, Columns(self.nodes, date=date), decided)
        grid = Grid(labels, self.gaps, decided, table.where)
        every = np.full((int(grid.offsets[-1]), values.shape[1]), np.nan)
        every[grid.position] = values
        return every, pd.Series(grid.dates), decided

    @cached_property
    def _series(self) -> tuple[Array, "pd.Series[Any] | None", dict[str, Any]]:
        values, dates, decided = self._read(self._table)
        start, end = self._split_rows(len(values))["train"]
        empty = np.flatnonzero(np.isnan(values[start:end]).all(0))
        if len(empty):
            raise InputError(f"{self.path}: {self.nodes[empty[0]]!r} has no value in training rows")
        return values, dates, decided

    @cached_property
    def _to_predict(self) -> tuple[Array, "pd.Series[Any] | None"]:
        values, dates, _ = self._read(read_table(self.predict_path, header="first"))
        if len(values) < self.window:
            raise InputError(
                f"{self.predict_path} has {len(values)} rows; a window needs {self.window}"
            )
        return values, dates

    def _split_rows(self, num_rows: int) -> dict[str, tuple[int, int]]:
        val, test = (
            round(rows * num_rows) if isinstance(rows, float) else rows
            for rows in (self.val_rows, self.test_rows)
        )
        train = max(num_rows - val - test, 0)
        return {"train": (0, train), "val": (train, train + val), "test": (train + val, num_rows)}

    @cached_property
    def _edges(self) -> tuple[Tensor, Tensor | None]:
        place = f"{self.path}'s header"
        edges = read_edges(self.edges_path, self.nodes, place, self.directed)
        return edges.ends, edges.weight

    @cached_property
    def _bounds(self) -> dict[str, tuple[int, int]]:
        """First and last row (exclusive) of each split."""
        bounds = self._split_rows(len(self._series[0]))
        for split, (start, end) in bounds.items():
            need = self.horizon + (self.window if split == "train" else 0)
            if end - start < need:
                raise InputError(
                    f"the {split} part of {self.path} has {max(end - start, 0)} rows; window "
                    f"{self.window} and horizon {self.horizon} need {need}: shorten them or give "
                    "more rows"
                )
        return bounds

    def _origins(self, split: str) -> Array:
        """Row of the first target of each window."""
        start, end = self._bounds[split]
        return np.arange(max(start, self.window), end - self.horizon + 1)

    def _inputs(self, values: Array, dates: "pd.Series[Any] | None") -> Array:
        """Inputs of every row, ``(rows, N, F)``."""
        parts = [values]
        for channel in self.channels:
            if channel == "observed":
                parts.append(np.isfinite(values).astype(np.float64))
                continue
            if dates is None:
                raise InputError(f"{self.path} has no dates; channel {channel} needs them")
            of_day = (dates.dt.hour * 3600 + dates.dt.minute * 60 + dates.dt.second) / 86400
            share = of_day if channel == "time_of_day" else (dates.dt.dayofweek + of_day) / 7
            angle = 2 * np.pi * share.to_numpy(dtype=np.float64)[:, None]
            parts += [np.broadcast_to(f(angle), values.shape) for f in (np.sin, np.cos)]
        return np.stack(parts, axis=-1)

    def make_split(self, split: Split) -> GraphSeriesBatch:
        """Windows of one split, in the units of the file."""
        if split == "predict":
            window = self._inputs(*self._to_predict)[None, -self.window :]
            unknown = torch.full((1, self.horizon, self.num_nodes), torch.nan, dtype=torch.float64)
            return GraphSeriesBatch(torch.from_numpy(window), unknown, *self._edges)
        origins = self._origins(split)[:, None]
        x = self._inputs(*self._series[:2])[origins + np.arange(-self.window, 0)]
        y = self._series[0][origins + np.arange(self.horizon)]
        return GraphSeriesBatch(torch.from_numpy(x), torch.from_numpy(y), *self._edges)

    def row_hashes(self, split: Split) -> Array | None:
        """A hash of each window's values."""
        if split == "predict":
            return None
        batch = self.split(split)
        rows = torch.cat([batch.x[..., 0], batch.y], dim=1).flatten(1).numpy()
        return pd.util.hash_pandas_object(
            pd.Series([row.tobytes() for row in rows]), index=False
        ).to_numpy(dtype=np.uint64)

    @property
    def predict_split(self) -> Split:
        """The last window of ``predict_path``, where it is given."""
        return "test" if self.predict_path is None else "predict"

    @cached_property
    def _scale(self) -> tuple[Tensor, Tensor]:
        if self._known:
            mean, std = (torch.tensor(self._known[k], dtype=torch.float64) for k in ("mean", "std"))
            return mean, std
        start, end = self._bounds["train"]
        rows = self._series[0][start:end]
        mean, std = torch.tensor(np.nanmean(rows, 0)), torch.tensor(np.nanstd(rows, 0))
        return mean, torch.where(std > 0, std, torch.ones_like(std))

    @property
    def standardization(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Scale of each node's training rows; a constant node and a channel keep their unit."""
        mean, std = self._scale
        size = (self.num_nodes, self.in_features)
        means, stds = torch.zeros(size).double(), torch.ones(size).double()
        means[:, 0], stds[:, 0] = mean, std
        return {"x_scaler": (means.flatten(), stds.flatten()), "y_scaler": (mean, std)}

    @cached_property
    def rivals(self) -> dict[str, dict[str, float]]:
        """Last value, and autoregressions of all nodes together and of each alone."""
        train, test = self.split("train"), self.split("test")
        found: dict[str, dict[str, float]] = {"test/mse": {}, "test/mae": {}}
        for name, forecast in forecasts(train, test, *self._scale).items():
            error = (forecast - test.y)[test.y.isfinite()]
            found["test/mse"][name] = error.square().mean().item()
            found["test/mae"][name] = error.abs().mean().item()
        return found

    @property
    def baselines(self) -> dict[str, tuple[float, float]]:
        """Mean squared and mean absolute test error of each rival."""
        squared, absolute = self.rivals["test/mse"], self.rivals["test/mae"]
        return {name: (squared[name], absolute[name]) for name in squared}

    @property
    def baseline(self) -> dict[str, Reference]:
        """The best of the forecasts without the graph."""
        found = {}
        for metric, scores in self.rivals.items():
            best = min(scores, key=scores.__getitem__)
            found[metric] = Reference(scores[best], best)
        return found

    def prediction_frame(self, outputs: Mapping[str, Tensor]) -> pd.DataFrame:
        """A row per window and node, with the date (or row) of the last observed step."""
        predicting = self.predict_path is not None
        names = ["prediction"] if predicting else ["prediction", "target"]
        values, dates = self._to_predict if predicting else self._series[:2]
        last = np.array([len(values) - 1]) if predicting else self._origins("test") - 1
        columns: dict[str, Any] = {}
        if dates is not None:
            columns["last_observed"] = np.repeat(dates.iloc[last].to_numpy(), self.num_nodes)
        columns["last_observed_row"] = np.repeat(last, self.num_nodes)
        columns["node"] = np.tile(np.array(self.nodes), len(last))
        flat = rows_per_node({name: outputs[name] for name in names})
        return pd.concat([pd.DataFrame(columns), super().prediction_frame(flat)], axis=1)
