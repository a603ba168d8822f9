"""A user's graphs: tables of nodes and edges, saved torch-geometric ``Data``, or a dataset."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from datamodules.base import Reference, Split
from datamodules.batches import GraphBatch
from datamodules.errors import InputError
from datamodules.files.graph_files import (
    Edges,
    column_plan,
    encode,
    merged,
    node_ids,
    plan_width,
    read_edges,
)
from datamodules.files.graph_objects import (
    SPLIT_NAMES,
    attributes_of,
    check_graphs,
    load_dataset,
    load_graphs,
    num_nodes_of,
    split_masks,
)
from datamodules.files.notes import say
from datamodules.files.tables import Table, read_table
from datamodules.graph_base import GraphsDataModule, Level, block_diagonal
from datamodules.loading.splits import folds, hold_out
from datamodules.own.graph_rivals import features_alone, label_propagation, together
from datamodules.own.graph_targets import (
    Targets,
    Task,
    level_of,
    saved_targets,
    table_targets,
    unknown_targets,
)

Array = np.ndarray[Any, Any]
_SPLITS: tuple[Split, ...] = ("train", "val", "test")
# Below this share of non-zeros a sparse product is faster than a dense one.
_SPARSE_BELOW = 0.1
_MAX_DEGREE = 64


class GraphDataModule(GraphsDataModule):
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
        batch_size: Graphs per optimizer step, where there are several.
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
        scaling: Literal["standard", "row", "none"] | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.2,
        folds: int | None = None,
        fold: int = 0,
        predict_path: Any = None,
        predict_edges_path: Any = None,
        batch_size: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        if (path is None) == (dataset is None):
            raise InputError("give either path, a file, or dataset, a name")
        if dataset is not None and root is None:
            raise InputError(f"dataset {dataset!r} needs root, the folder it is kept in")
        self._is_table = path is not None and _holds_table(path)
        if self._is_table and edges_path is None:
            raise InputError(f"{path} holds nodes; give edges_path, the CSV file of its edges")
        if self._is_table and (predict_path is None) != (predict_edges_path is None):
            raise InputError("give predict_path and predict_edges_path together")
        if folds is not None and not (folds >= 3 and 0 <= fold < folds):
            raise InputError(f"folds must be at least 3 and fold below it, got {folds} and {fold}")
        self.path, self.edges_path = path, edges_path
        self.target = [target] if isinstance(target, str) else list(target)
        self.id_column, self.dataset, self.root = id_column, dataset, root
        self.directed, self.folds, self.fold = directed, folds, fold
        self.scaling = scaling or ("standard" if self._is_table else "none")
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.predict_path, self.predict_edges_path = predict_path, predict_edges_path
        self._task, self._level = task, level
        self.source = str(path) if isinstance(path, str) else str(dataset or "the graph")
        self._known: dict[str, Any] | None = None

    # -- reading ---------------------------------------------------------------------------------

    @cached_property
    def _table(self) -> Table:
        table = read_table(self.path)
        table.require([*self.target, *([self.id_column] if self.id_column else [])])
        if len(table) == 0:
            raise InputError(f"{table.where} has no nodes; give one row per node")
        return table

    @cached_property
    def _ids(self) -> list[str]:
        return node_ids(self._table[self._id_column])

    @property
    def _id_column(self) -> str:
        return self.id_column or next(iter(self._table.columns))

    @cached_property
    def _plan(self) -> list[dict[str, Any]]:
        skipped = {self._id_column, *self.target, "split"}
        names = [name for name in self._table.columns if name not in skipped]
        if not names:
            raise InputError(
                f"{self._table.where} has no feature column beside {', '.join(sorted(skipped))}"
            )
        return column_plan(self._table, names)

    @cached_property
    def _edges(self) -> Edges:
        return read_edges(self.edges_path, self._ids, self._table.where, self.directed)

    @cached_property
    def _graphs(self) -> list[Any]:
        """The saved graphs, checked."""
        if self.dataset is not None:
            graphs = load_dataset(self.dataset, str(self.root))
        else:
            graphs = load_graphs(self.path)
        return _checked(graphs, self.source)

    @cached_property
    def _sizes(self) -> list[int]:
        if self._is_table:
            return [len(self._table)]
        return [num_nodes_of(graph, self.source) for graph in self._graphs]

    @cached_property
    def _all_targets(self) -> Targets:
        if self._is_table:
            return table_targets(self._table, self.target, self._task, None)
        return saved_targets(
            self._graphs, self._sizes, self._found_level, self._task, None, self.source
        )

    @cached_property
    def _found_level(self) -> Level:
        if self._is_table:
            return "node"
        found = self._level or level_of(self._graphs, self._sizes, self.source)
        if found == "graph" and len(self._graphs) == 1:
            raise InputError(f"{self.source} holds one graph; targets of graphs need several")
        return found

    # -- what models need ------------------------------------------------------------------------

    def knowledge(self) -> dict[str, Any]:
        """Features, edges' features, targets, level and scale of the training file."""
        if self._known is not None:
            return self._known
        targets = self._all_targets
        scale = self._scale
        return {
            "plan": self._plan if self._is_table else None,
            "edge_plan": self._edges.plan if self._is_table else None,
            "in_features": self._raw_x[0].shape[1],
            "edge_features": self._num_edge_features,
            "has_x": self._is_table or getattr(self._graphs[0], "x", None) is not None,
            "level": self._found_level,
            "task": targets.task,
            "names": targets.names,
            "scale": None if scale is None else [part.tolist() for part in scale],
            "several": len(self._sizes) > 1,
        }

    def adopt(self, knowledge: Mapping[str, Any]) -> None:
        """Takes what a run knows: a new file is read by it."""
        if knowledge:
            self._known = dict(knowledge)

    @cached_property
    def _knows(self) -> dict[str, Any]:
        return self.knowledge()

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
    def in_features(self) -> int:
        """Number of node features."""
        return int(self._knows["in_features"])

    @property
    def edge_features(self) -> int:
        """Number of features of an edge beside its weight."""
        return int(self._knows["edge_features"])

    @property
    def num_classes(self) -> int:
        """Number of classes, labels or numbers of a target.

        Raises:
            InputError: If targets belong to whole graphs, which a model of nodes cannot tell.
        """
        if self.level == "graph":
            raise InputError(
                f"{self.source} has targets of whole graphs; use --config graph_network"
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
        return int(self.split("train").mask.sum())

    @property
    def _num_edge_features(self) -> int:
        if self._is_table:
            return plan_width(self._edges.plan)
        attributes = attributes_of(self._graphs[0])
        return 0 if attributes is None else attributes.shape[1]

    # -- splits ----------------------------------------------------------------------------------

    @cached_property
    def _masks(self) -> list[dict[str, Tensor]] | None:
        """Given splits of the nodes of each graph."""
        if self._is_table:
            return None if "split" not in self._table.columns else [self._named_splits()]
        if self._found_level == "graph":
            return None
        masks = [
            split_masks(graph, self.source, size)
            for graph, size in zip(self._graphs, self._sizes, strict=True)
        ]
        return None if masks[0] is None else [mask for mask in masks if mask is not None]

    def _named_splits(self) -> dict[str, Tensor]:
        column = self._table["split"]
        names = column.text()
        wrong = np.flatnonzero(~np.isin(names.astype(str), (*SPLIT_NAMES, "")))
        if len(wrong):
            row = int(wrong[0])
            raise InputError(
                f"{self._table.where}, row {self._table.row(row)}: split is {names[row]!r}; it "
                "must be train, val, test or empty"
            )
        unknown = np.flatnonzero((names != "") & ~self._all_targets.known.numpy())
        if len(unknown):
            row = int(unknown[0])
            raise InputError(
                f"{self._table.where}, row {self._table.row(row)}: a node of split {names[row]!r} "
                f"has no {self.target[0]!r}"
            )
        return {split: torch.from_numpy(names == split) for split in SPLIT_NAMES}

    @cached_property
    def _by_graph(self) -> bool:
        """Whether whole graphs are split, and not the nodes of each."""
        return self._masks is None and len(self._sizes) > 1

    @cached_property
    def _targets(self) -> dict[Split, Array]:
        """Numbers of each split's targets."""
        targets, graph = self._all_targets, self._graph_of_target
        known = targets.known.numpy()
        if self._masks is not None:
            found: dict[Split, Array] = {
                split: torch.cat([mask[split] for mask in self._masks]).nonzero()[:, 0].numpy()
                for split in _SPLITS
            }
        else:
            groups = np.unique(graph[known]) if self._by_graph else np.flatnonzero(known)
            one_each = not self._by_graph or self._found_level == "graph"
            labels = targets.y.numpy()[groups] if targets.task == "classification" else None
            parts = self._shares(groups, labels if one_each else None)
            keep = graph if self._by_graph else np.arange(len(known))
            found = {s: np.flatnonzero(np.isin(keep, rows) & known) for s, rows in parts.items()}
        for split, rows in found.items():
            if len(rows) == 0:
                raise InputError(f"{self.source}: the {split} split has no {self._found_level}")
            if not known[rows].all():
                what = "class" if targets.task == "classification" else "target"
                raise InputError(
                    f"{self.source}: a {self._found_level} of the {split} split has no {what}"
                )
        if targets.task == "classification":
            y = targets.y.numpy()
            unseen = np.setdiff1d(y[y >= 0], y[found["train"]])
            if len(unseen):
                name = targets.names[unseen[0]]
                raise InputError(
                    f"{self.source}: class {name!r} has no training {self._found_level}"
                )
        return found

    def _shares(self, rows: Array, labels: Array | None) -> dict[Split, Array]:
        if self.folds is not None:
            parts = folds(rows, self.folds, self.seed, labels)
            val = (self.fold + 1) % self.folds
            kept = [part for k, part in enumerate(parts) if k not in (self.fold, val)]
            merged_parts = np.sort(np.concatenate(kept))
            return {"train": merged_parts, "val": parts[val], "test": parts[self.fold]}
        of = dict(zip(rows.tolist(), labels.tolist(), strict=True)) if labels is not None else {}
        rest, test = hold_out(rows, self.test_fraction, self.seed, labels)
        left = np.array([of[row] for row in rest.tolist()]) if of else None
        train, validation = hold_out(rest, self.val_fraction, self.seed, left)
        return {"train": train, "val": validation, "test": test}

    @cached_property
    def _graph_of_target(self) -> Array:
        if self._found_level == "graph":
            return np.arange(len(self._sizes))
        return np.repeat(np.arange(len(self._sizes)), self._sizes)

    # -- tensors ---------------------------------------------------------------------------------

    @cached_property
    def _raw_x(self) -> list[Tensor]:
        """Features of each graph's nodes, unscaled."""
        if self._is_table:
            return [torch.from_numpy(encode(self._table, self._plan))]
        return [
            _features(graph, size, self.directed)
            for graph, size in zip(self._graphs, self._sizes, strict=True)
        ]

    @cached_property
    def _scale(self) -> tuple[Tensor, Tensor] | None:
        """Mean and deviation of the features that scaling divides by."""
        if self._known is not None:
            scale = self._known["scale"]
            return (
                None
                if scale is None
                else (torch.tensor(scale[0]).double(), torch.tensor(scale[1]).double())
            )
        if self.scaling != "standard":
            return None
        used: Sequence[int] = range(len(self._sizes))
        if self._by_graph:
            used = np.unique(self._graph_of_target[self._targets["train"]]).tolist()
        x = torch.cat([self._raw_x[k].double() for k in used])
        std = x.std(0, correction=0)
        return x.mean(0), torch.where(std > 0, std, torch.ones_like(std))

    def _scaled(self, x: Tensor) -> Tensor:
        if self.scaling == "row":
            if bool((x < 0).any()):
                raise InputError(f"{self.source}: scaling=row needs features that are not negative")
            sums = x.sum(1, keepdim=True)
            x = x / torch.where(sums > 0, sums, torch.ones_like(sums))
        elif self._scale is not None:
            x = (x.double() - self._scale[0]) / self._scale[1]
        return x.to(torch.get_default_dtype())

    def _batch(self, graph: Any, x: Tensor) -> GraphBatch:
        """One saved graph without its targets."""
        weight = getattr(graph, "edge_weight", None)
        edges = merged(
            graph.edge_index.long(),
            None if weight is None else weight.flatten(),
            attributes_of(graph),
            len(x),
            self.directed,
            self.source,
        )
        return _as_batch(self._scaled(x), *edges)

    @cached_property
    def _every(self) -> list[GraphBatch]:
        """All graphs, without targets."""
        if self._is_table:
            return [_as_batch(self._scaled(self._raw_x[0]), *self._edges[:3])]
        return [self._batch(g, x) for g, x in zip(self._graphs, self._raw_x, strict=True)]

    @cached_property
    def _whole(self) -> GraphBatch:
        """The one graph."""
        (graph,) = self._every
        if graph.x.count_nonzero() < _SPARSE_BELOW * graph.x.numel():
            return graph._replace(x=graph.x.to_sparse_csr())
        return graph

    def make_split(self, split: Split) -> GraphBatch:
        """The graphs of one split, or the one graph with the split's nodes scored."""
        if split == "predict":
            return self._to_predict()
        y, rows = self._all_targets.y, self._targets[split]
        mask = torch.zeros(len(y), dtype=torch.bool)
        mask[torch.from_numpy(rows)] = True
        if len(self._sizes) == 1:
            return self._whole._replace(y=y, mask=mask)
        chosen = np.unique(self._graph_of_target[rows])
        mine = torch.from_numpy(np.isin(self._graph_of_target, chosen))
        batch = block_diagonal([self._every[k] for k in chosen])
        return batch._replace(y=y[mine], mask=mask[mine])

    def _to_predict(self) -> GraphBatch:
        """New nodes or graphs, or every node of the one graph."""
        if self.predict_path is None:
            y = self._all_targets.y
            batch = self._whole if len(self._sizes) == 1 else block_diagonal(self._every)
            return batch._replace(y=y, mask=torch.ones(len(y), dtype=torch.bool))
        known = self._knows
        if known["plan"] is not None:
            return self._new_nodes()
        graphs = _checked(load_graphs(self.predict_path), str(self.predict_path))
        sizes = [num_nodes_of(graph, str(self.predict_path)) for graph in graphs]
        batches = []
        for graph, size in zip(graphs, sizes, strict=True):
            x = _features(graph, size, self.directed)
            if x.shape[1] != known["in_features"]:
                raise InputError(
                    f"{self.predict_path}: x has {x.shape[1]} columns, the training graphs have "
                    f"{known['in_features']}"
                )
            batches.append(self._batch(graph, x))
        batch = batches[0] if len(batches) == 1 else block_diagonal(batches)
        count = len(graphs) if self.level == "graph" else sum(sizes)
        if all(getattr(graph, "y", None) is not None for graph in graphs):
            task, place = self.task, str(self.predict_path)
            y = saved_targets(graphs, sizes, self.level, task, known, place).y
        else:
            y = unknown_targets(self.task, count, self.out_features)
        return batch._replace(y=y, mask=torch.ones(count, dtype=torch.bool), num_graphs=len(graphs))

    @cached_property
    def _new_table(self) -> Table:
        return read_table(self.predict_path)

    @cached_property
    def _new_ids(self) -> list[str]:
        table = self._new_table
        return node_ids(table[self.id_column or next(iter(table.columns))])

    def _new_nodes(self) -> GraphBatch:
        table, known = self._new_table, self._knows
        x = self._scaled(torch.from_numpy(encode(table, known["plan"])))
        edges = read_edges(
            self.predict_edges_path, self._new_ids, table.where, self.directed, known["edge_plan"]
        )
        if all(name in table.columns for name in self.target):
            y = table_targets(table, self.target, self.task, known).y
        else:
            y = unknown_targets(self.task, len(table), self.out_features)
        batch = _as_batch(x, *edges[:3])
        return batch._replace(y=y, mask=torch.ones(len(y), dtype=torch.bool))

    @property
    def predict_split(self) -> Split:
        """New data, or every node of the one graph, or the test graphs of several."""
        if self.predict_path is not None or (self.level == "node" and not self._by_graph):
            return "predict"
        return "test"

    def row_hashes(self, split: Split) -> Array | None:
        """A hash of each target's graph or node, features and value."""
        if split == "predict":
            return None
        y, rows = self._all_targets.y, self._targets[split]
        x = [part.to_dense() if part.layout != torch.strided else part for part in self._raw_x]
        if self._found_level == "graph":
            keys = [hash_bytes(x[k], self._graphs[k].edge_index, y[k]) for k in rows]
        else:
            flat = torch.cat(x)
            names = self._ids if self._is_table else list(map(str, range(len(flat))))
            keys = [hash_bytes(flat[k], y[k], name=names[k]) for k in rows]
        return np.array(keys, dtype=np.uint64)

    # -- references ------------------------------------------------------------------------------

    @property
    def standardization(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Scale of the training targets where they are numbers."""
        if self.task != "regression":
            return {}
        y = self._all_targets.y[torch.from_numpy(self._targets["train"])]
        mean = y.nanmean(0)
        std = (y - mean).square().nanmean(0).sqrt()
        return {"y_scaler": (mean, torch.where(std > 0, std, torch.ones_like(std)))}

    @property
    def baseline(self) -> dict[str, Reference]:
        """Most frequent class, mean or share of the training targets."""
        targets = self._all_targets
        train, test = (targets.y[torch.from_numpy(self._targets[s])] for s in ("train", "test"))
        if targets.task == "classification":
            counts = torch.bincount(train, minlength=len(targets.names)).double()
            accuracy = (test == counts.argmax()).double().mean().item()
            loss = -(counts / counts.sum())[test].log().mean().item()
            return {
                "test/accuracy": Reference(accuracy, "most frequent training class"),
                "test/cross_entropy": Reference(loss, "class shares of the training targets"),
            }
        mean = train.nanmean(0)
        if targets.task == "regression":
            error = (test - mean)[test.isfinite()]
            return {
                "test/mse": Reference(error.square().mean().item(), "mean of the training targets"),
                "test/mae": Reference(error.abs().mean().item(), "mean of the training targets"),
            }
        share = mean.clamp(1e-6, 1 - 1e-6).expand_as(test)
        losses = -torch.where(test == 1, share.log(), (1 - share).log())
        value = losses[test.isfinite()].mean().item()
        return {"test/cross_entropy": Reference(value, "share of each label in training")}

    @cached_property
    def rivals(self) -> dict[str, dict[str, float]]:
        """Regression on the features, of a node or the mean of a graph, and label propagation."""
        targets = self._all_targets
        if targets.task == "multilabel" or bool(targets.y.isnan().any()):
            return {}
        train, test = (torch.from_numpy(self._targets[s]) for s in ("train", "test"))
        classification, width = targets.task == "classification", len(targets.names)
        if self._found_level == "graph":
            pooled = [
                torch.cat(
                    [
                        g.x.mean(0),
                        g.x.sum(0),
                        torch.tensor([float(len(g.x)), float(g.edge_index.shape[1])]),
                    ]
                )
                for g in self._every
            ]
            return features_alone(
                torch.stack(pooled), targets.y, train, test, classification, width
            )
        one = len(self._sizes) == 1
        x = self._whole.x if one else torch.cat([graph.x for graph in self._every])
        found = features_alone(x, targets.y, train, test, classification, width)
        if one and classification:
            spread = label_propagation(self._whole, targets.y, train, test, width)
            return together(found, spread)
        return found

    def prediction_frame(self, outputs: Mapping[str, Tensor]) -> pd.DataFrame:
        """A row per node, or graph, with the file's own names."""
        frame = self._answers(outputs)
        new = self.predict_path is not None
        if self.level == "graph":
            numbers = np.arange(len(frame)) if new else self._targets["test"]
            frame.insert(0, "graph", numbers)
            return frame
        if new:
            table = self._knows["plan"] is not None
            frame.insert(0, "node", self._new_ids if table else np.arange(len(frame)))
            return frame
        rows = self._targets["test"] if self._by_graph else np.arange(len(frame))
        starts = np.cumsum(self._sizes) - self._sizes
        graph = self._graph_of_target[rows]
        frame.insert(0, "node", self._ids if self._is_table else rows - starts[graph])
        if len(self._sizes) > 1:
            frame.insert(0, "graph", graph)
        if not self._by_graph:
            splits = np.full(len(frame), "", dtype=object)
            for split, of_split in self._targets.items():
                splits[of_split] = split
            frame.insert(1, "split", splits)
        return frame

    def _answers(self, outputs: Mapping[str, Tensor]) -> pd.DataFrame:
        names = self.class_names
        if self.task == "classification":
            labels = np.array([*names, ""], dtype=object)
            target = np.where(outputs["target"] < 0, len(names), outputs["target"])
            columns: dict[str, Any] = {
                "class": labels[outputs["class"]],
                "target": labels[target],
            }
            for k, name in enumerate(names):
                columns[f"probability_{name}"] = outputs["probability"][:, k].float().numpy()
            return pd.DataFrame(columns)
        what = "prediction" if self.task == "regression" else "probability"
        short = what == "prediction" and len(names) == 1
        columns = {}
        for key in (what, "target"):
            for k, name in enumerate(names):
                column = key if short else f"{key}_{name}"
                columns[column] = outputs[key].reshape(-1, len(names))[:, k].double().numpy()
        return pd.DataFrame(columns)


def _holds_table(path: Any) -> bool:
    """Whether a source is a table of nodes and no graph of torch-geometric."""
    if isinstance(path, (list, tuple)):
        return False
    return not hasattr(path, "edge_index") and not str(path).endswith(".pt")


def _checked(graphs: list[Any], where: str) -> list[Any]:
    check_graphs(graphs, where)
    if sum(graph.edge_index.shape[1] for graph in graphs) == 0:
        raise InputError(f"{where} has no edges; without any, use a table model")
    if getattr(graphs[0], "x", None) is None:
        say(f"{where} has no node features; the degree of each node stands in for them")
    if attributes_of(graphs[0]) is not None:
        say(
            f"{where}: edge_attr is read by graph_network; gcn and gat leave it out (the weight of "
            "a message is edge_weight)"
        )
    return graphs


def _features(graph: Any, num_nodes: int, directed: bool) -> Tensor:
    """Features of a graph's nodes; an indicator of the degree where it has none."""
    from torch_geometric.utils import coalesce, to_undirected

    x = getattr(graph, "x", None)
    if x is None:
        merge = coalesce if directed else to_undirected
        ends = merge(graph.edge_index.long(), num_nodes=num_nodes)
        degree = torch.bincount(ends[1], minlength=num_nodes).clamp(max=_MAX_DEGREE)
        return torch.nn.functional.one_hot(degree, _MAX_DEGREE + 1).to(torch.get_default_dtype())
    x = x.to_dense() if x.layout != torch.strided else x
    features: Tensor = x.reshape(num_nodes, -1)
    return features


def _as_batch(
    x: Tensor, edge_index: Tensor, weight: Tensor | None, attributes: Tensor | None
) -> GraphBatch:
    empty, dtype = torch.empty(0, dtype=torch.long), torch.get_default_dtype()
    return GraphBatch(
        x=x,
        edge_index=edge_index,
        edge_weight=None if weight is None else weight.to(dtype),
        y=empty,
        mask=empty.bool(),
        edge_attr=None if attributes is None else attributes.to(dtype),
    )


def hash_bytes(*tensors: Tensor, name: str = "") -> int:
    """A 64-bit hash of tensors and a name."""
    import hashlib

    digest = hashlib.blake2b(name.encode(), digest_size=8)
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().tobytes())
    return int.from_bytes(digest.digest(), "little")
