"""Where a user's graphs come from: the contract of a source, and torch-geometric's data."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from datamodules.errors import InputError
from datamodules.files.graph_files import Edges, merged, say_repeats
from datamodules.files.graph_objects import (
    attributes_of,
    check_graphs,
    load_dataset,
    load_graphs,
    num_nodes_of,
    split_masks,
)
from datamodules.files.notes import say
from datamodules.graph_base import Level
from datamodules.own.graph_features import degree_features
from datamodules.own.graph_targets import Targets, Task, level_of, saved_targets

Known = Mapping[str, Any]


class GraphSource(Protocol):
    """Graphs as they were read, without splits and scales."""

    where: str

    @property
    def sizes(self) -> list[int]:
        """Number of nodes of each graph."""

    @property
    def ids(self) -> list[str] | None:
        """Names of the nodes of the one graph; None where nodes are numbers."""

    @property
    def x(self) -> list[Tensor]:
        """Features of each graph's nodes, unscaled; an indicator of the degree for none."""

    @property
    def edges(self) -> list[Edges]:
        """Edges of each graph, sorted and each once."""

    @property
    def has_x(self) -> bool:
        """Whether nodes have features of their own."""

    @property
    def plans(self) -> dict[str, Any]:
        """How columns became features; None where there are no columns."""

    @property
    def edge_features(self) -> int:
        """Number of features of an edge beside its weight."""

    def level(self, asked: Level | None) -> Level:
        """What targets belong to."""

    def has_targets(self) -> bool:
        """Whether targets are there."""

    def targets(self, level: Level, task: Task | None, known: Known | None) -> Targets:
        """The targets."""

    def masks(self, known: Tensor) -> list[dict[str, Tensor]] | None:
        """Given splits of each graph's nodes, of which some have a known target."""


class SavedGraphs:
    """Graphs of torch-geometric: saved ones, those themselves, or a dataset's.

    Args:
        source: Path of a ``.pt`` file, or the graphs.
        dataset: Dataset of torch-geometric, in place of a source.
        root: Folder of the dataset.
        directed: Whether an edge leads one way.
    """

    def __init__(self, source: Any, dataset: str | None, root: str | None, directed: bool) -> None:
        self._source, self._dataset, self._root = source, dataset, root
        self._directed = directed
        self.where = source if isinstance(source, str) else str(dataset or "the graph")
        self.ids: list[str] | None = None
        self.plans: dict[str, Any] = {"plan": None, "edge_plan": None}

    @cached_property
    def graphs(self) -> list[Any]:
        """The graphs, checked."""
        if self._dataset is not None:
            graphs = load_dataset(self._dataset, str(self._root))
        else:
            graphs = load_graphs(self._source)
        check_graphs(graphs, self.where)
        if sum(graph.edge_index.shape[1] for graph in graphs) == 0:
            raise InputError(f"{self.where} has no edges; without any, use a table model")
        if getattr(graphs[0], "x", None) is None:
            say(f"{self.where} has no node features; the degree of each node stands in for them")
        if attributes_of(graphs[0]) is not None:
            say(
                f"{self.where}: edge_attr is read by graph_network; gcn and gat leave it out (the "
                "weight of a message is edge_weight)"
            )
        return graphs

    @cached_property
    def sizes(self) -> list[int]:
        """Number of nodes of each graph."""
        return [num_nodes_of(graph, self.where) for graph in self.graphs]

    @property
    def has_x(self) -> bool:
        """Whether the graphs have ``x``."""
        return getattr(self.graphs[0], "x", None) is not None

    @cached_property
    def x(self) -> list[Tensor]:
        """Features, or an indicator of the degree."""
        if not self.has_x:
            pairs = zip(self.edges, self.sizes, strict=True)
            return [degree_features(edges.ends, size) for edges, size in pairs]
        found = []
        for graph, size in zip(self.graphs, self.sizes, strict=True):
            x = graph.x.to_dense() if graph.x.layout != torch.strided else graph.x
            found.append(x.reshape(size, -1))
        return found

    @cached_property
    def edges(self) -> list[Edges]:
        """Edges of each graph, with their reverses unless directed."""
        found, repeated = [], []
        for graph, size in zip(self.graphs, self.sizes, strict=True):
            weight = getattr(graph, "edge_weight", None)
            edges, again = merged(
                graph.edge_index.long(),
                None if weight is None else weight.flatten(),
                attributes_of(graph),
                size,
                self._directed,
            )
            found.append(edges)
            repeated.append(again)
        say_repeats(repeated, self.where)
        return found

    @property
    def edge_features(self) -> int:
        """Width of ``edge_attr``."""
        attributes = attributes_of(self.graphs[0])
        return 0 if attributes is None else attributes.shape[1]

    def level(self, asked: Level | None) -> Level:
        """What targets belong to, by their shape.

        Raises:
            InputError: If targets of graphs are asked of one graph.
        """
        found = asked or level_of(self.graphs, self.sizes, self.where)
        if found == "graph" and len(self.graphs) == 1:
            raise InputError(f"{self.where} holds one graph; targets of graphs need several")
        return found

    def has_targets(self) -> bool:
        """Whether all graphs have ``y``."""
        return all(getattr(graph, "y", None) is not None for graph in self.graphs)

    def targets(self, level: Level, task: Task | None, known: Known | None) -> Targets:
        """Targets ``y`` of the nodes or graphs."""
        as_dict = None if known is None else dict(known)
        return saved_targets(self.graphs, self.sizes, level, task, as_dict, self.where)

    def masks(self, known: Tensor) -> list[dict[str, Tensor]] | None:
        """The masks of the graphs; None without any."""
        pairs = zip(self.graphs, self.sizes, strict=True)
        masks = [split_masks(graph, self.where, size) for graph, size in pairs]
        return None if masks[0] is None else [mask for mask in masks if mask is not None]
