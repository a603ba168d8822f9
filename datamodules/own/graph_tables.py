"""A graph of tables: one of its nodes and one of its edges, or of its edges alone."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.errors import InputError
from datamodules.files.graph_files import (
    AS_WRITTEN,
    Edges,
    Missing,
    Reading,
    column_plan,
    encode,
    node_ids,
    read_edges,
)
from datamodules.files.graph_objects import SPLIT_NAMES
from datamodules.files.tables import Table, read_table
from datamodules.graph_base import Level
from datamodules.own.graph_targets import Targets, Task, table_targets

Known = Mapping[str, Any]


def holds_table(path: Any) -> bool:
    """Whether a source is a table of nodes and no graph of torch-geometric."""
    if isinstance(path, (list, tuple)):
        return False
    return not hasattr(path, "edge_index") and not str(path).endswith(".pt")


def reading_of(missing: Missing, categorical: Sequence[str], is_table: bool) -> Reading:
    """What the user says of columns of features.

    Raises:
        InputError: If it is said of graphs that have no columns.
    """
    names = [categorical] if isinstance(categorical, str) else list(categorical)
    if not is_table and (missing != "error" or names):
        option = "missing" if missing != "error" else "categorical"
        raise InputError(
            f"{option} is about columns of a table; fill or encode the features of a Data in x "
            "itself and leave it out"
        )
    return Reading(missing, names)


class NodeTable:
    """One graph: a table with a row per node and a table of edges.

    Args:
        path: Table of nodes.
        edges_path: Table of edges.
        target: Columns of the target; no features.
        id_column: Column of the nodes' identifiers; the first by default.
        directed: Whether an edge leads one way.
        plans: How columns become features; decided by the tables when None.
        reading: What the user says of the columns of features.
    """

    def __init__(
        self,
        path: Any,
        edges_path: Any,
        target: Sequence[str],
        id_column: str | None,
        directed: bool,
        plans: Known | None = None,
        reading: Reading = AS_WRITTEN,
    ) -> None:
        self._path, self._edges_path, self._target = path, edges_path, list(target)
        self._given_ids, self._directed, self._plans = id_column, directed, plans
        self._reading = reading
        self.where = path if isinstance(path, str) else "the graph"

    @cached_property
    def table(self) -> Table:
        """The table of nodes."""
        table = read_table(self._path)
        new = self._plans is not None  # a target is not asked of nodes to predict
        required = [] if new else self._target
        table.require([*required, *([self._given_ids] if self._given_ids else [])])
        if len(table) == 0:
            raise InputError(f"{table.where} has no nodes; give one row per node")
        return table

    @property
    def _id_column(self) -> str:
        return self._given_ids or next(iter(self.table.columns))

    @cached_property
    def ids(self) -> list[str] | None:
        """Identifiers of the nodes, as written."""
        return node_ids(self.table[self._id_column])

    @property
    def sizes(self) -> list[int]:
        """Number of nodes."""
        return [len(self.table)]

    @property
    def has_x(self) -> bool:
        """Whether there is a column beside identifiers, targets and splits."""
        return bool(self._plan)

    @property
    def _no_features(self) -> set[str]:
        return {self._id_column, *self._target, "split"}

    @cached_property
    def _plan(self) -> list[dict[str, Any]]:
        if self._plans is not None:
            plan: list[dict[str, Any]] = self._plans["plan"]
            return plan
        names = [name for name in self.table.columns if name not in self._no_features]
        return column_plan(self.table, names, self._reading)

    @property
    def plans(self) -> dict[str, Any]:
        """How the columns of nodes and edges become features.

        Raises:
            InputError: If a column that is named categorical is none of them.
        """
        found = {"plan": self._plan, "edge_plan": self.edges[0].plan}
        names = [entry["name"] for plan in found.values() for entry in plan]
        for name in self._reading.categorical:
            if name not in names:
                have = ", ".join(names) or "none"
                raise InputError(
                    f"{self.where} and its edges have no feature {name!r}; they have {have}"
                )
        return found

    @cached_property
    def x(self) -> list[Tensor]:
        """Features of the nodes, float64.

        Raises:
            InputError: If there is no column of features.
        """
        if not self._plan:
            names = ", ".join(sorted(self._no_features))
            raise InputError(f"{self.table.where} has no feature column beside {names}")
        return [torch.from_numpy(encode(self.table, self._plan, self._reading.missing))]

    @cached_property
    def edges(self) -> list[Edges]:
        """Edges of the one graph."""
        ids, plan = self.ids, None if self._plans is None else self._plans["edge_plan"]
        assert ids is not None
        where, reading = self.table.where, self._reading
        return [read_edges(self._edges_path, ids, where, self._directed, plan, reading)]

    @property
    def edge_features(self) -> int:
        """Width of the edges' features."""
        attributes = self.edges[0].attributes
        return 0 if attributes is None else attributes.shape[1]

    def level(self, asked: Level | None) -> Level:
        """A row is a node.

        Raises:
            InputError: If targets of graphs are asked for.
        """
        if asked == "graph":
            raise InputError(f"{self.where} has a target per node; leave --data.level out")
        return "node"

    def has_targets(self) -> bool:
        """Whether the table has all columns of the target."""
        return all(name in self.table.columns for name in self._target)

    def targets(self, level: Level, task: Task | None, known: Known | None) -> Targets:
        """Targets of the rows."""
        as_dict = None if known is None else dict(known)
        return table_targets(self.table, self._target, task, as_dict)

    def masks(self, known: Tensor) -> list[dict[str, Tensor]] | None:
        """The splits that a column names; None without one.

        Raises:
            InputError: If a cell is no split, or a node of a split has no target.
        """
        if "split" not in self.table.columns:
            return None
        table = self.table
        names = table["split"].text()
        wrong = np.flatnonzero(~np.isin(names.astype(str), (*SPLIT_NAMES, "")))
        if len(wrong):
            row = int(wrong[0])
            raise InputError(
                f"{table.where}, row {table.row(row)}: split is {names[row]!r}; it must be train, "
                "val, test or empty"
            )
        unknown = np.flatnonzero((names != "") & ~known.numpy())
        if len(unknown):
            row = int(unknown[0])
            raise InputError(
                f"{table.where}, row {table.row(row)}: a node of split {names[row]!r} has no "
                f"{self._target[0]!r}"
            )
        return [{split: torch.from_numpy(names == split) for split in SPLIT_NAMES}]


class EdgeTable(NodeTable):
    """One graph of a table of edges alone: its nodes are those that an edge names.

    Args:
        edges_path: Table of edges.
        directed: Whether an edge leads one way.
        plans: How columns become features; decided by the table when None.
        reading: What the user says of the columns of features.
    """

    def __init__(
        self,
        edges_path: Any,
        directed: bool,
        plans: Known | None = None,
        reading: Reading = AS_WRITTEN,
    ) -> None:
        super().__init__(edges_path, edges_path, [], None, directed, plans, reading)

    @cached_property
    def table(self) -> Table:
        """The table of edges."""
        return read_table(self._edges_path, header="first")

    @cached_property
    def ids(self) -> list[str] | None:
        """The nodes that edges name, in order.

        Raises:
            InputError: If the table has one column, or a cell is empty.
        """
        names = list(self.table.columns)[:2]
        if len(names) < 2:
            raise InputError(
                f"{self.where} has one column; an edge needs two, its source and its target"
            )
        found: set[str] = set()
        for name in names:
            self.table[name].check_complete()
            found |= set(self.table[name].counts)
        return sorted(found)

    @property
    def sizes(self) -> list[int]:
        """Number of nodes."""
        assert self.ids is not None
        return [len(self.ids)]

    @cached_property
    def _plan(self) -> list[dict[str, Any]]:
        return []
