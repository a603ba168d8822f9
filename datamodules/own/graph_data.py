"""A user's graphs: CSV files of nodes and edges, a saved torch-geometric ``Data``, or a dataset."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from datamodules.base import Reference, Split
from datamodules.batches import GraphBatch
from datamodules.errors import InputError
from datamodules.files.csv_files import (
    check_complete,
    is_numeric,
    numeric_column,
    read_csv,
    require_columns,
)
from datamodules.files.graph_files import (
    check_graph,
    load_dataset,
    load_saved,
    node_ids,
    read_edges,
)
from datamodules.graph_base import GraphsDataModule, Level, block_diagonal
from datamodules.loading.splits import hold_out

Array = np.ndarray[Any, Any]
_SPLITS: tuple[Split, ...] = ("train", "val", "test")
_UNKNOWN = -100  # a target that carries no loss
# Below this share of non-zeros a sparse product is faster than a dense one.
_SPARSE_BELOW = 0.1


class GraphDataModule(GraphsDataModule):
    """Classes of the nodes of one graph, or of whole graphs.

    Give either ``path`` or ``dataset``. A CSV file of nodes has a row per node: an identifier in
    its first column, or in ``id_column``; the class in ``target``; where it has a column ``split``
    of train, val, test or nothing, these are the splits; all other columns are features, text ones
    as indicators. The CSV file of edges names two nodes per row in its first two columns, and has
    an optional column ``weight``. A path that ends in ``.pt`` is a saved ``Data``, whose masks are
    the splits where it has them (the first of several), or a list of them, each a graph with a
    class of its own.

    One graph is whole in every split; the splits differ in the nodes that are scored. Without given
    splits, targets are split at random by class. A graph may be disconnected, and a node isolated.

    Args:
        path: CSV file of nodes, or ``.pt`` file of a ``Data`` or a list of them.
        edges_path: CSV file of edges, for a CSV file of nodes.
        target: Column of the class; a node without one is only predicted.
        id_column: Column of the nodes' identifiers; the first by default.
        dataset: Dataset of torch-geometric: ``Cora``, ``CiteSeer`` or ``PubMed``, or
            ``Class:name`` such as ``TUDataset:MUTAG``, or ``Class``.
        root: Folder of the dataset; what is not there is downloaded.
        directed: Whether an edge leads one way; else its reverse is added.
        scaling: ``standard`` centres each feature and divides by its deviation over all nodes,
            ``row`` divides each node's features by their sum, ``none`` leaves them; by default
            ``standard`` for a CSV file and ``none`` otherwise.
        val_fraction: Share of the targets left after the test, for validation.
        test_fraction: Share of the targets for the test.
        batch_size: Graphs per optimizer step, where targets belong to graphs.
        seed: Seed of the splits.

    Raises:
        InputError: If a file, column, node or value is missing or wrong; the message names it.
    """

    def __init__(
        self,
        path: str | None = None,
        edges_path: str | None = None,
        target: str = "y",
        id_column: str | None = None,
        dataset: str | None = None,
        root: str | None = None,
        directed: bool = False,
        scaling: Literal["standard", "row", "none"] | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.2,
        batch_size: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        if (path is None) == (dataset is None):
            raise InputError("give either path, a file, or dataset, a name")
        if dataset is not None and root is None:
            raise InputError(f"dataset {dataset!r} needs root, the folder it is kept in")
        self._is_csv = path is not None and not path.endswith(".pt")
        if self._is_csv and edges_path is None:
            raise InputError(f"{path} holds nodes; give edges_path, the CSV file of its edges")
        self.path, self.edges_path = path, edges_path
        self.target, self.id_column = target, id_column
        self.dataset, self.root, self.directed = dataset, root, directed
        self.scaling = scaling or ("standard" if self._is_csv else "none")
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.source = str(path or dataset)

    @cached_property
    def _graphs(self) -> list[Any]:
        if self._is_csv:
            graphs = [self._read_csv()]
        elif self.path is not None:
            graphs = load_saved(Path(self.path))
        else:
            graphs = load_dataset(str(self.dataset), str(self.root))
        if not graphs:
            raise InputError(f"{self.source} holds no graph")
        for index, graph in enumerate(graphs):
            where = self.source if len(graphs) == 1 else f"{self.source}, graph {index}"
            check_graph(graph, where)
        if sum(graph.edge_index.shape[1] for graph in graphs) == 0:
            raise InputError(f"{self.source} has no edges; without any, use a table model")
        return graphs

    @cached_property
    def _frame(self) -> pd.DataFrame:
        path = str(self.path)
        frame = read_csv(path)
        require_columns(frame, path, [self.target, *([self.id_column] if self.id_column else [])])
        if len(frame) == 0:
            raise InputError(f"{path} has no nodes; give one row per node")
        return frame

    @cached_property
    def _ids(self) -> list[str]:
        return node_ids(self._frame, str(self.path), self._id_column)

    @property
    def _id_column(self) -> str:
        return self.id_column or str(self._frame.columns[0])

    def _read_csv(self) -> Any:
        from torch_geometric.data import Data

        edge_index, weight = read_edges(
            str(self.edges_path), self._ids, str(self.path), self.directed
        )
        labels = self._frame[self.target]
        codes = labels.astype(str).map({name: k for k, name in enumerate(self.class_names)})
        codes = codes.where(labels.notna(), _UNKNOWN)
        data = Data(
            x=torch.tensor(self._features(), dtype=torch.get_default_dtype()),
            edge_index=edge_index,
            edge_weight=weight,
            y=torch.tensor(codes.to_numpy(dtype=np.int64)),
        )
        if "split" in self._frame:
            for split, mask in self._named_splits().items():
                data[f"{split}_mask"] = torch.tensor(mask)
        return data

    def _features(self) -> Array:
        path, skipped = str(self.path), {self._id_column, self.target, "split"}
        columns = [str(name) for name in self._frame.columns if name not in skipped]
        if not columns:
            raise InputError(f"{path} has no feature column beside {', '.join(sorted(skipped))}")
        parts = []
        for column in columns:
            if is_numeric(self._frame, column):
                parts.append(numeric_column(self._frame, path, column)[:, None])
            else:
                check_complete(self._frame, path, column)
                indicators = pd.get_dummies(self._frame[column].astype(str))
                parts.append(indicators.to_numpy(dtype=np.float64))
        return np.concatenate(parts, axis=1)

    def _named_splits(self) -> dict[str, Array]:
        names, labels = self._frame["split"], self._frame[self.target]
        named = names.notna().to_numpy()
        wrong = np.flatnonzero(named & ~names.isin(_SPLITS).to_numpy())
        if len(wrong):
            raise InputError(
                f"{self.path}, row {wrong[0] + 2}: split is {names.iloc[wrong[0]]!r}; "
                "it must be train, val, test or empty"
            )
        unknown = np.flatnonzero(named & labels.isna().to_numpy())
        if len(unknown):
            raise InputError(
                f"{self.path}, row {unknown[0] + 2}: a node of split {names.iloc[unknown[0]]!r} "
                f"has no {self.target!r}"
            )
        return {split: (names == split).to_numpy(dtype=bool) for split in _SPLITS}

    @property
    def level(self) -> Level:
        """``graph`` for several graphs, ``node`` for one."""
        return "graph" if len(self._graphs) > 1 else "node"

    @property
    def in_features(self) -> int:
        """Number of node features."""
        return int(self._graphs[0].x.shape[1])

    @property
    def edge_features(self) -> int:
        """Number of features of an edge beside its weight."""
        attributes = _attributes(self._graphs[0])
        return 0 if attributes is None else attributes.shape[1]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def out_features(self) -> int:
        """Number of scores per target."""
        return self.num_classes

    @property
    def num_train(self) -> int:
        """Number of training targets."""
        return len(self._targets["train"])

    @cached_property
    def class_names(self) -> list[str]:
        """Classes in the order of their numbers."""
        if self._is_csv:
            labels = self._frame[self.target]
            names = [str(value) for value in sorted(labels.dropna().unique())]
        else:
            names = [str(k) for k in range(int(self._y.max()) + 1)]
        if len(names) < 2:
            raise InputError(f"{self.source}: {self.target!r} needs at least two classes")
        if self._is_csv and len(names) > max(labels.notna().sum() // 2, 2):
            raise InputError(
                f"{self.path}: {self.target!r} has {len(names)} classes in {len(labels)} nodes"
            )
        return names

    @cached_property
    def _y(self) -> Tensor:
        """Class of each node of the one graph, or of each graph."""
        sizes = [1] * len(self._graphs) if len(self._graphs) > 1 else [len(self._graphs[0].x)]
        parts = []
        for graph, size in zip(self._graphs, sizes, strict=True):
            y = getattr(graph, "y", None)
            if not isinstance(y, Tensor) or y.numel() != size or y.is_floating_point():
                what = "graph" if len(sizes) > 1 else "node"
                raise InputError(
                    f"{self.source}: y must hold one whole number, a class, per {what}"
                )
            parts.append(y.flatten().long())
        y = torch.cat(parts)
        return torch.where(y < 0, _UNKNOWN, y)

    @cached_property
    def _targets(self) -> dict[Split, Array]:
        """Numbers of each split's nodes or graphs."""
        graph, y = self._graphs[0], self._y.numpy()
        if self.level == "node" and getattr(graph, "train_mask", None) is not None:
            found: dict[Split, Array] = {}
            for split in _SPLITS:
                mask = getattr(graph, f"{split}_mask", None)
                if mask is None:
                    raise InputError(f"{self.source} has train_mask but no {split}_mask")
                found[split] = (mask if mask.dim() == 1 else mask[:, 0]).nonzero()[:, 0].numpy()
        else:
            known = np.flatnonzero(y >= 0)
            rest, test = hold_out(known, self.test_fraction, self.seed, y[known])
            train, val = hold_out(rest, self.val_fraction, self.seed, y[rest])
            found = {"train": train, "val": val, "test": test}
        for split, rows in found.items():
            if len(rows) == 0:
                raise InputError(f"{self.source}: the {split} split has no {self.level}")
            if (y[rows] < 0).any():
                raise InputError(f"{self.source}: a {self.level} of the {split} split has no class")
        unseen = np.setdiff1d(y[y >= 0], y[found["train"]])
        if len(unseen):
            name = self.class_names[unseen[0]]
            raise InputError(f"{self.source}: class {name!r} has no training {self.level}")
        return found

    def _as_batch(self, graph: Any) -> GraphBatch:
        """One graph without its targets."""
        from torch_geometric.utils import to_undirected

        edge_index = graph.edge_index.long()
        weight, attributes = getattr(graph, "edge_weight", None), _attributes(graph)
        if not self.directed and not self._is_csv and weight is None and attributes is None:
            edge_index = to_undirected(edge_index, num_nodes=len(graph.x))
        empty = torch.empty(0, dtype=torch.long)
        dtype = torch.get_default_dtype()
        return GraphBatch(
            x=graph.x.to(dtype),
            edge_index=edge_index,
            edge_weight=None if weight is None else weight.to(dtype),
            y=empty,
            mask=empty.bool(),
            edge_attr=None if attributes is None else attributes.to(dtype),
        )

    def _scaled(self, x: Tensor) -> Tensor:
        if self.scaling == "row":
            if bool((x < 0).any()):
                raise InputError(f"{self.source}: scaling=row needs features that are not negative")
            sums = x.sum(1, keepdim=True)
            return x / torch.where(sums > 0, sums, torch.ones_like(sums))
        if self.scaling == "standard":
            std = x.std(0, correction=0)
            return (x - x.mean(0)) / torch.where(std > 0, std, torch.ones_like(std))
        return x

    @cached_property
    def _whole(self) -> GraphBatch:
        """The one graph, every node scored."""
        graph = self._as_batch(self._graphs[0])
        x = self._scaled(graph.x)
        if x.count_nonzero() < _SPARSE_BELOW * x.numel():
            x = x.to_sparse_csr()
        return graph._replace(x=x, y=self._y, mask=torch.ones(len(self._y), dtype=torch.bool))

    @cached_property
    def _every(self) -> list[GraphBatch]:
        """All of several graphs, each with its class."""
        graphs = [self._as_batch(graph) for graph in self._graphs]
        x = self._scaled(torch.cat([graph.x for graph in graphs]))
        parts = torch.split(x, [len(graph.x) for graph in graphs])
        scored = torch.ones(1, dtype=torch.bool)
        return [
            graph._replace(x=part, y=y.view(1), mask=scored)
            for graph, part, y in zip(graphs, parts, self._y, strict=True)
        ]

    def make_split(self, split: Split) -> GraphBatch:
        """The graphs of one split, or the one graph with the split's nodes scored."""
        if self.level == "graph":
            return block_diagonal([self._every[row] for row in self._targets[split]])
        if split == "predict":
            return self._whole
        rows = torch.from_numpy(self._targets[split])
        mask = torch.zeros_like(self._whole.mask).index_fill(0, rows, True)
        return self._whole._replace(mask=mask)

    @property
    def predict_split(self) -> Split:
        """Every node of the one graph; the test graphs of several."""
        return "predict" if self.level == "node" else "test"

    @property
    def baseline(self) -> dict[str, Reference]:
        """Most frequent class of the training targets."""
        train, test = (self._y[torch.from_numpy(self._targets[s])] for s in ("train", "test"))
        counts = torch.bincount(train, minlength=self.num_classes)
        accuracy = (test == counts.argmax()).float().mean().item()
        loss = -(counts / counts.sum())[test].log().mean().item()
        return {
            "test/accuracy": Reference(accuracy, "most frequent training class"),
            "test/cross_entropy": Reference(loss, "class shares of the training targets"),
        }

    def prediction_frame(self, outputs: Mapping[str, Tensor]) -> pd.DataFrame:
        """A row per node, or test graph, with the file's own names."""
        names = np.array([*self.class_names, ""])
        target = np.where(outputs["target"] < 0, len(names) - 1, outputs["target"])
        frame = pd.DataFrame({"class": names[outputs["class"]], "target": names[target]})
        for k, name in enumerate(self.class_names):
            frame[f"probability_{name}"] = outputs["probability"][:, k].float().numpy()
        if self.level == "graph":
            frame.insert(0, "graph", self._targets["test"])
            return frame
        frame.insert(0, "node", self._ids if self._is_csv else np.arange(len(frame)))
        splits = np.full(len(frame), "", dtype=object)
        for split, rows in self._targets.items():
            splits[rows] = split
        frame.insert(1, "split", splits)
        return frame


def _attributes(graph: Any) -> Tensor | None:
    """Edge features of a ``Data``, ``(E, A)``."""
    attributes: Tensor | None = getattr(graph, "edge_attr", None)
    return None if attributes is None else attributes.reshape(len(attributes), -1)
