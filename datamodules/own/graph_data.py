"""A user's graphs: tables of nodes and edges, saved torch-geometric ``Data``, or a dataset."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from datamodules.base import Reference
from datamodules.errors import InputError, at_least
from datamodules.files.graph_files import Missing
from datamodules.graph_base import Level
from datamodules.loading.neighbors import check_num_neighbors
from datamodules.own.graph_answers import answers, trivial_scores, with_nodes
from datamodules.own.graph_features import Scaling
from datamodules.own.graph_rivals import graph_rivals
from datamodules.own.graph_source import GraphSource, SavedGraphs
from datamodules.own.graph_splits import Shares
from datamodules.own.graph_tables import NodeTable, holds_table, reading_of
from datamodules.own.graph_targets import Targets, Task, scale_of_targets
from datamodules.own.split_graphs import SplitGraphs


class GraphDataModule(SplitGraphs):
    """Classes, labels or numbers of the nodes of graphs, or of whole graphs.

    Give either ``path`` or ``dataset``. A table of nodes has a row per node: an identifier in its
    first column, or in ``id_column``; the target in ``target``; where it has a column ``split`` of
    train, val, test or nothing, these are the splits; all other columns are features, text ones as
    indicators. The table of edges names two nodes per row in its first two columns, and has an
    optional column ``weight``; its other columns are features of the edges. A path that ends in
    ``.pt`` is a saved ``Data``, whose masks are the splits where it has them (the first of
    several), or a list of them with targets of nodes or of graphs.

    One graph is whole in every split; the splits differ in the nodes that are scored. Without given
    splits, targets are split at random, by class where they are classes. A graph may be
    disconnected, and a node isolated. Graphs without features get the degree of each node.

    Args:
        path: Table of nodes, or ``.pt`` file of a ``Data`` or a list of them; or these themselves.
        edges_path: Table of edges, for a table of nodes.
        target: Column of the target, or several; a node without one is only predicted.
        id_column: Column of the nodes' identifiers; the first by default.
        dataset: Dataset of torch-geometric: ``Cora``, ``CiteSeer`` or ``PubMed``, or
            ``Class:name`` such as ``TUDataset:MUTAG``, or ``Class``.
        root: Folder of the dataset; what is not there is downloaded.
        task: What a target is: ``classification``, ``multilabel`` for several labels at once, or
            ``regression`` for one or more numbers; found from the targets by default.
        level: Whether targets belong to nodes or to graphs; found from their shape by default.
        directed: Whether an edge leads one way; else its reverse is added.
        scaling: ``standard`` centres each feature and divides by its deviation over all nodes of
            the one graph, or of the training graphs, ``row`` divides each node's features by their
            sum, ``none`` leaves them; by default ``standard`` for a table and ``none`` otherwise.
        val_fraction: Share of the targets, or graphs, left after the test, for validation.
        test_fraction: Share of the targets, or graphs, for the test.
        folds: Number of parts for cross-validation, in place of the two shares: one part is the
            test, the next validates.
        fold: Part that is the test, from 0.
        predict_path: New nodes or graphs to predict, as ``path``.
        predict_edges_path: Their edges, as ``edges_path``.
        num_neighbors: Neighbours of a node that training samples at most, one number per layer, -1
            for all; None for whole graphs. Evaluation sees all of them.
        batch_size: Graphs per optimizer step, where there are several; with ``num_neighbors``,
            nodes. None for a sixteenth of the training graphs, from 4 to 32, so that a small set is
            seen in enough steps, or for 1024 nodes.
        passes: Optimizer steps of an epoch on one graph that is whole in each step.
        label_inputs: Whether the classes of the training nodes, spread along the edges, are inputs
            too; a node's own is hidden while it is scored. None: wherever nodes of one graph that
            is not sampled have a class, and of new graphs no label is read.
        missing: Whether a missing value of a feature is an ``error``, or ``fill`` puts the median
            of its column there, beside a column that tells; of text it is a value of its own.
        categorical: Columns of numbers that are names, beside all text columns.
        seed: Seed of the splits.

    Raises:
        InputError: If a file, column, node or value is missing or wrong; the message names it.
    """

    def __init__(
        self,
        path: Any = None,
        edges_path: Any = None,
        target: str | list[str] = "y",
        id_column: str | None = None,
        dataset: str | None = None,
        root: str | None = None,
        task: Task | None = None,
        level: Literal["node", "graph"] | None = None,
        directed: bool = False,
        scaling: Scaling | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.2,
        folds: int | None = None,
        fold: int = 0,
        predict_path: Any = None,
        predict_edges_path: Any = None,
        num_neighbors: list[int] | None = None,
        batch_size: int | None = None,
        passes: int = 1,
        label_inputs: bool | None = False,
        missing: Missing = "error",
        categorical: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        at_least(passes=(passes, 1))
        if (path is None) == (dataset is None):
            raise InputError("give either path, a file, or dataset, a name")
        if dataset is not None and root is None:
            raise InputError(f"dataset {dataset!r} needs root, the folder it is kept in")
        self._is_table = path is not None and holds_table(path)
        if self._is_table and edges_path is None:
            raise InputError(f"{path} holds nodes; give edges_path, the CSV file of its edges")
        if self._is_table and (predict_path is None) != (predict_edges_path is None):
            raise InputError("give predict_path and predict_edges_path together")
        if folds is not None and not (folds >= 3 and 0 <= fold < folds):
            raise InputError(f"folds must be at least 3 and fold below it, got {folds} and {fold}")
        self.path, self.edges_path = path, edges_path
        self.target = [target] if isinstance(target, str) else list(target)
        self.id_column, self.dataset, self.root = id_column, dataset, root
        self.directed, self.reading = directed, reading_of(missing, categorical, self._is_table)
        self.scaling = scaling or ("standard" if self._is_table else "none")
        self.shares = Shares(val_fraction, test_fraction, folds, fold, seed)
        self.predict_path, self.predict_edges_path = predict_path, predict_edges_path
        self.num_neighbors = check_num_neighbors(num_neighbors)
        self._task, self._level = task, level
        self.passes, self._label_inputs = passes, label_inputs

    # -- reading ---------------------------------------------------------------------------------

    @cached_property
    def _source(self) -> GraphSource:
        """The graphs to train on."""
        if self._is_table:
            names = (self.target, self.id_column, self.directed)
            return NodeTable(self.path, self.edges_path, *names, reading=self.reading)
        return SavedGraphs(self.path, self.dataset, self.root, self.directed)

    @cached_property
    def _new(self) -> GraphSource:
        """The graphs to predict, read as the training ones were."""
        if self._knows["plan"] is None:
            return SavedGraphs(self.predict_path, None, None, self.directed)
        return NodeTable(
            self.predict_path,
            self.predict_edges_path,
            self.target,
            self.id_column,
            self.directed,
            self._knows,
            self.reading,
        )

    @cached_property
    def _found_level(self) -> Level:
        return self._source.level(self._level)

    @cached_property
    def _all_targets(self) -> Targets:
        return self._source.targets(self._found_level, self._task, None)

    # -- what models need ------------------------------------------------------------------------

    def _decided(self) -> dict[str, Any]:
        targets = self._all_targets
        return {
            "in_features": self._source.x[0].shape[1],
            "level": self._found_level,
            "task": targets.task,
            "names": targets.names,
            "several": len(self._source.sizes) > 1,
            "label_inputs": self._reads_labels(targets),
        }

    @property
    def level(self) -> Level:
        """Whether targets belong to nodes or to graphs."""
        found: Level = self._knows["level"]
        return found

    @property
    def task(self) -> Task:
        """What a target is."""
        found: Task = self._knows["task"]
        return found

    @property
    def num_classes(self) -> int:
        """Number of classes, labels or numbers of a target.

        Raises:
            InputError: If targets belong to whole graphs, which a model of nodes cannot tell.
        """
        if self.level == "graph":
            raise InputError(
                f"{self._source.where} has targets of whole graphs; use --config graph_network"
            )
        return self.out_features

    @property
    def out_features(self) -> int:
        """Number of scores per target."""
        return len(self.class_names)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of their numbers, or of the labels or numbers."""
        names: list[str] = self._knows["names"]
        return names

    @property
    def num_train(self) -> int:
        """Number of training targets."""
        return len(self._targets["train"])

    # -- references ------------------------------------------------------------------------------

    @property
    def standardization(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Scale of the training targets where they are numbers."""
        if self.task != "regression":
            return {}
        train = torch.from_numpy(self._targets["train"])
        return {"y_scaler": scale_of_targets(self._all_targets.y[train])}

    @property
    def baseline(self) -> dict[str, Reference]:
        """Most frequent class, mean or share of the training targets."""
        train, test = (torch.from_numpy(self._targets[s]) for s in ("train", "test"))
        return trivial_scores(self._all_targets, train, test)

    @cached_property
    def rivals(self) -> dict[str, dict[str, float]]:
        """Regression on the features, of a node or the mean of a graph, and label propagation."""
        train, test = (torch.from_numpy(self._targets[s]) for s in ("train", "test"))
        graphs = [self._whole] if len(self._source.sizes) == 1 else self._every
        return graph_rivals(graphs, self._all_targets, self._found_level, train, test)

    def prediction_frame(self, outputs: Mapping[str, Tensor]) -> pd.DataFrame:
        """A row per node, or graph, with the file's own names."""
        frame = answers(outputs, self.task, self.class_names)
        new = self.predict_path is not None
        source = self._new if new else self._source
        if self.level == "graph":
            frame.insert(0, "graph", np.arange(len(frame)) if new else self._targets["test"])
            return frame
        of_test = not new and self._by_graph
        rows = self._targets["test"] if of_test else np.arange(len(frame))
        splits = None if new or of_test else self._targets
        return with_nodes(frame, rows, source.sizes, source.ids, splits)
