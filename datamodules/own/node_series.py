"""A user's series at the nodes of a graph: CSV of time x node, CSV of edges."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from datamodules.base import LitDataModule, Reference, Split
from datamodules.batches import GraphSeriesBatch
from datamodules.errors import InputError
from datamodules.files.csv_files import is_numeric, numeric_column, read_csv, require_columns
from datamodules.files.graph_files import read_edges
from datamodules.graph_base import rows_per_node
from datamodules.own.series_dates import dates_of

Array = np.ndarray[Any, Any]


class NodeSeriesDataModule(LitDataModule[GraphSeriesBatch]):
    """Windows of a CSV file with one row per time step, oldest first, and one column per node.

    The rows are split in time: training, then validation, then test. A window's targets lie in its
    own split; the values it observes may reach back into the split before. The model scales each
    node by its training rows alone.

    Args:
        path: CSV file of the series; its header names the nodes.
        edges_path: CSV file of edges: two nodes per row in its first two columns, and an optional
            column ``weight``.
        window: Number T of observed steps.
        horizon: Number H of steps to forecast.
        date: Column of dates; found by itself when it is the first column and holds text.
        directed: Whether an edge leads one way; else its reverse is added.
        val_rows: Rows for validation, or their share of all rows.
        test_rows: Rows for the test, or their share of all rows.
        predict_path: CSV file whose last window is forecast; by default every test window is.
        batch_size: Windows per optimizer step.
        seed: Seed of the order of the windows.

    Raises:
        InputError: If a file, column, node, date or value is missing or wrong.
    """

    in_features = 1

    def __init__(
        self,
        path: str,
        edges_path: str,
        window: int = 12,
        horizon: int = 1,
        date: str | None = None,
        directed: bool = False,
        val_rows: int | float = 0.2,
        test_rows: int | float = 0.2,
        predict_path: str | None = None,
        batch_size: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        for name, value in (("window", window), ("horizon", horizon)):
            if value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        self.path, self.edges_path, self.date, self.directed = path, edges_path, date, directed
        self.window, self.horizon = window, horizon
        self.val_rows, self.test_rows, self.predict_path = val_rows, test_rows, predict_path

    @cached_property
    def _frame(self) -> pd.DataFrame:
        return read_csv(self.path)

    @cached_property
    def _date_column(self) -> str | None:
        first = str(self._frame.columns[0])
        return self.date or (None if is_numeric(self._frame, first) else first)

    @cached_property
    def nodes(self) -> list[str]:
        """Names of the nodes."""
        nodes = [str(name) for name in self._frame.columns if name != self._date_column]
        if not nodes:
            raise InputError(f"{self.path} has no column beside the dates; give one per node")
        return nodes

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return len(self.nodes)

    @property
    def num_train(self) -> int:
        """Number of training windows."""
        return len(self._origins("train"))

    def _read(self, frame: pd.DataFrame, path: str) -> tuple[Array, "pd.Series[Any] | None"]:
        """Values ``(rows, N)`` and the dates where there are any."""
        date = self._date_column
        require_columns(frame, path, [*self.nodes, *([date] if date else [])])
        values = np.stack([numeric_column(frame, path, name) for name in self.nodes], axis=1)
        return values, None if date is None else dates_of(frame, path, date, True)

    @cached_property
    def _series(self) -> tuple[Array, "pd.Series[Any] | None"]:
        return self._read(self._frame, self.path)

    @cached_property
    def _to_predict(self) -> tuple[Array, "pd.Series[Any] | None"]:
        path = str(self.predict_path)
        values, dates = self._read(read_csv(path), path)
        if len(values) < self.window:
            raise InputError(f"{path} has {len(values)} rows; a window needs {self.window}")
        return values, dates

    @cached_property
    def _edges(self) -> tuple[Tensor, Tensor | None]:
        place = f"{self.path}'s header"
        edges = read_edges(self.edges_path, self.nodes, place, self.directed)
        return edges.ends, edges.weight

    @cached_property
    def _bounds(self) -> dict[str, tuple[int, int]]:
        """First and last row (exclusive) of each split."""
        num_rows = len(self._series[0])
        val, test = (
            round(rows * num_rows) if isinstance(rows, float) else rows
            for rows in (self.val_rows, self.test_rows)
        )
        train = num_rows - val - test
        bounds = {"train": (0, train), "val": (train, train + val), "test": (train + val, num_rows)}
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

    def make_split(self, split: Split) -> GraphSeriesBatch:
        """Windows of one split."""
        dtype = torch.get_default_dtype()
        if split == "predict":
            window = self._to_predict[0][None, -self.window :, :, None]
            unknown = torch.full((1, self.horizon, self.num_nodes), torch.nan, dtype=dtype)
            return GraphSeriesBatch(torch.tensor(window, dtype=dtype), unknown, *self._edges)
        values, origins = self._series[0], self._origins(split)[:, None]
        x = values[origins + np.arange(-self.window, 0)]
        y = values[origins + np.arange(self.horizon)]
        return GraphSeriesBatch(
            torch.tensor(x[..., None], dtype=dtype), torch.tensor(y, dtype=dtype), *self._edges
        )

    @property
    def predict_split(self) -> Split:
        """The last window of ``predict_path``, where it is given."""
        return "test" if self.predict_path is None else "predict"

    @property
    def standardization(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Scale of each node's training rows; a constant node keeps its unit."""
        start, end = self._bounds["train"]
        rows = torch.tensor(self._series[0][start:end])
        mean, std = rows.mean(0), rows.std(0, correction=0)
        std = torch.where(std > 0, std, torch.ones_like(std))
        return {"x_scaler": (mean, std), "y_scaler": (mean, std)}

    @cached_property
    def baselines(self) -> dict[str, tuple[float, float]]:
        """Test error of simple forecasts: mean squared and mean absolute, in the file's units."""
        train, test = self.split("train"), self.split("test")
        truth = test.y.double().numpy()
        forecasts = {"last value": np.broadcast_to(test.x[:, -1:, :, 0].numpy(), truth.shape)}
        ridge = np.empty_like(truth)
        for node in range(self.num_nodes):
            past, ahead = train.x[:, :, node, 0].numpy(), train.y[:, :, node].numpy()
            model = Ridge(alpha=1.0).fit(past, ahead)
            ridge[:, :, node] = model.predict(test.x[:, :, node, 0].numpy()).reshape(len(truth), -1)
        forecasts["ridge regression of each node on its own window"] = ridge
        errors = {name: forecast - truth for name, forecast in forecasts.items()}
        return {name: (float((e**2).mean()), float(abs(e).mean())) for name, e in errors.items()}

    @property
    def baseline(self) -> dict[str, Reference]:
        """The better of two forecasts without the graph, and what the other costs."""
        found = {}
        for index, metric in enumerate(("test/mse", "test/mae")):
            best, other = sorted(self.baselines, key=lambda name: self.baselines[name][index])
            how = f"{best} ({other} {self.baselines[other][index]:.4g})"
            found[metric] = Reference(self.baselines[best][index], how)
        return found

    def prediction_frame(self, outputs: Mapping[str, Tensor]) -> pd.DataFrame:
        """A row per window and node, with the date (or row) of the last observed step."""
        predicting = self.predict_path is not None
        names = ["prediction"] if predicting else ["prediction", "target"]
        values, dates = self._to_predict if predicting else self._series
        last = np.array([len(values) - 1]) if predicting else self._origins("test") - 1
        columns: dict[str, Any] = {}
        if dates is not None:
            columns["last_observed"] = np.repeat(dates.iloc[last].to_numpy(), self.num_nodes)
        columns["last_observed_row"] = np.repeat(last, self.num_nodes)
        columns["node"] = np.tile(np.array(self.nodes), len(last))
        flat = rows_per_node({name: outputs[name] for name in names})
        return pd.concat([pd.DataFrame(columns), super().prediction_frame(flat)], axis=1)
