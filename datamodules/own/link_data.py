"""Links of a user's graph: hidden edges among pairs without one."""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from datamodules.base import Reference, Split
from datamodules.batches import GraphBatch
from datamodules.errors import InputError
from datamodules.files.graph_files import Missing, read_ends
from datamodules.files.tables import read_table
from datamodules.graph_base import Level
from datamodules.own.graph_answers import hash_bytes
from datamodules.own.graph_contract import Array, OwnGraphsDataModule
from datamodules.own.graph_features import (
    DEGREE_FEATURES,
    EdgeScale,
    Scale,
    Scaling,
    edge_scale_of,
    scale_of,
    scaled,
)
from datamodules.own.graph_source import GraphSource, SavedGraphs
from datamodules.own.graph_splits import Shares
from datamodules.own.graph_tables import EdgeTable, NodeTable, holds_table, reading_of
from datamodules.own.link_rivals import link_rivals
from datamodules.own.links import (
    OLD_PAIR_FEATURES,
    PAIR_FEATURES,
    LinkLoader,
    Links,
    as_links,
)
from datamodules.seeds import split_seed


class LinkDataModule(OwnGraphsDataModule):
    """Candidate edges of one graph: edges that are hidden, and as many pairs without one.

    The edges are split at random; an undirected edge is one edge. Training hides a part of its
    edges at a time and scores it among pairs drawn anew, in the graph of the other training edges;
    validation is scored in the graph of the training edges, the test in that of both. No scored
    edge carries a message, in either direction, and no pair that is drawn is an edge of any split.
    A candidate has three features of its own among the edges that carry messages: its common
    neighbours, their index of Adamic and Adar, and the product of the two degrees.

    Args:
        edges_path: Table of edges: two nodes per row in its first two columns, an optional column
            ``weight``; other columns are features of the messages.
        path: Table of nodes: an identifier in its first column or in ``id_column``, the others are
            features; or a ``.pt`` file of a ``Data``, or it itself, without ``edges_path``. None
            where nodes have no features: the degree stands in for them.
        id_column: Column of the nodes' identifiers; the first by default.
        exclude: Columns of the nodes that are no features.
        dataset: Dataset of torch-geometric in place of a path, as for :class:`GraphDataModule`.
        root: Folder of the dataset.
        directed: Whether an edge leads one way.
        scaling: ``standard`` centres each feature and divides by its deviation over all nodes,
            ``row`` divides each node's features by their sum, ``none`` leaves them; by default
            ``standard`` for a table and ``none`` otherwise.
        val_fraction: Share of the edges left after the test, for validation.
        test_fraction: Share of the edges for the test.
        pairs_path: Table of pairs to predict, in its first two columns; the test's candidates by
            default.
        predict_path: Nodes of another graph that the pairs belong to, as ``path``.
        predict_edges_path: Its edges, as ``edges_path``.
        batch_size: Edges hidden per optimizer step; None for a tenth of the training edges.
        missing: Whether a missing value of a feature is an ``error``, or ``fill`` puts the median
            of its column there, beside a column that tells; of text it is a value of its own.
        categorical: Columns of numbers that are names, beside all text columns.
        seed: Seed of the splits and of the pairs without an edge.

    Raises:
        InputError: If a file, column, node or value is missing or wrong; the message names it.
    """

    predicts_links = True

    def __init__(
        self,
        edges_path: Any = None,
        path: Any = None,
        id_column: str | None = None,
        exclude: list[str] | None = None,
        dataset: str | None = None,
        root: str | None = None,
        directed: bool = False,
        scaling: Scaling | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        pairs_path: Any = None,
        predict_path: Any = None,
        predict_edges_path: Any = None,
        batch_size: int | None = None,
        missing: Missing = "error",
        categorical: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(32 if batch_size is None else batch_size, seed)
        if dataset is not None and root is None:
            raise InputError(f"dataset {dataset!r} needs root, the folder it is kept in")
        if dataset is None and edges_path is None and (path is None or holds_table(path)):
            raise InputError("give edges_path, the table of edges")
        new = predict_path is not None or predict_edges_path is not None
        if new and pairs_path is None:
            raise InputError("give pairs_path, the pairs to predict in the graph of predict_path")
        self.edges_path, self.path, self.id_column = edges_path, path, id_column
        self.exclude, self.dataset, self.root = list(exclude or []), dataset, root
        self.directed, self.pairs_path = directed, pairs_path
        self.predict_path, self.predict_edges_path = predict_path, predict_edges_path
        tables = dataset is None and edges_path is not None
        self.reading = reading_of(missing, categorical, tables)
        self.scaling: Scaling = scaling or ("standard" if tables else "none")
        self.shares = Shares(val_fraction, test_fraction, None, 0, seed)
        self._a_tenth = batch_size is None

    def setup(self, stage: str) -> None:
        """Makes the splits of a stage, and the size of a batch where the edges decide it."""
        if stage == "fit":
            if self._a_tenth:
                self.batch_size = max(self.num_train // 10, 1)
            if self.batch_size >= self.num_train:
                raise InputError(
                    f"batch_size {self.batch_size} hides all of the {self.num_train} training "
                    "edges; give a smaller one"
                )
        super().setup(stage)

    def _read(self, path: Any, edges_path: Any, plans: Mapping[str, Any] | None) -> GraphSource:
        """A graph, by the plans of the training graph where there are any."""
        if self.dataset is not None and plans is None:
            return SavedGraphs(None, self.dataset, self.root, self.directed)
        if edges_path is None:
            return SavedGraphs(path, None, None, self.directed)
        if path is None:
            return EdgeTable(edges_path, self.directed, plans, self.reading)
        names = (self.exclude, self.id_column, self.directed)
        return NodeTable(path, edges_path, *names, plans, self.reading)

    @cached_property
    def _source(self) -> GraphSource:
        source = self._read(self.path, self.edges_path, None)
        if len(source.sizes) != 1:
            raise InputError(f"{source.where} holds {len(source.sizes)} graphs; links need one")
        return source

    @cached_property
    def _links(self) -> Links:
        source = self._source
        return self._linked(source)

    def _linked(self, source: GraphSource) -> Links:
        edges, size = self._scaled(source.edges[0]), source.sizes[0]
        return as_links(edges, size, self.directed, self._pair_features)

    def _decided(self) -> dict[str, Any]:
        source = self._source
        return {
            "in_features": source.x[0].shape[1] if source.has_x else DEGREE_FEATURES,
            "pair_features": PAIR_FEATURES,
        }

    @property
    def _pair_features(self) -> int:
        if self._known is None:
            return PAIR_FEATURES
        return int(self._known.get("pair_features", OLD_PAIR_FEATURES))

    @property
    def level(self) -> Level:
        """A target belongs to an edge."""
        return "edge"

    @property
    def edge_features(self) -> int:
        """Number of features of an edge beside its weight: the file's, and those of a pair."""
        return super().edge_features + self._pair_features

    @property
    def out_features(self) -> int:
        """No edge, or an edge."""
        return 2

    @property
    def num_classes(self) -> int:
        """Nothing that a model of nodes could tell.

        Raises:
            InputError: Always.
        """
        raise InputError("pairs of nodes are scored here; use --config graph_network_links")

    @property
    def num_train(self) -> int:
        """Number of training edges."""
        return len(self._edges["train"])

    @cached_property
    def _edges(self) -> dict[Split, Tensor]:
        """Numbers of each split's edges; a self-loop is in none."""
        ends, where = self._links.ends, self._source.where
        rows = (ends[0] != ends[1]).nonzero()[:, 0].numpy()
        if len(rows) < 10:
            raise InputError(f"{where} has {len(rows)} edges between two nodes; links need 10")
        parts = self.shares.split(rows, None)
        return {split: torch.from_numpy(np.asarray(part)) for split, part in parts.items()}

    @cached_property
    def _judged(self) -> dict[Split, Tensor]:
        """Pairs without an edge for validation and test, none for both."""
        sizes = [len(self._edges[split]) for split in ("val", "test")]
        generator = torch.Generator().manual_seed(split_seed(self.seed, "absent"))
        pairs = self._links.absent(sum(sizes), generator, self._source.where)
        return {"val": pairs[:, : sizes[0]], "test": pairs[:, sizes[0] :]}

    def _found_scale(self) -> Scale | None:
        if self.scaling != "standard" or not self._source.has_x:
            return None
        return scale_of(self._source.x)

    def _found_edge_scale(self) -> EdgeScale:
        return edge_scale_of(self._source.edges, self.scaling == "standard")

    def _x(self, source: GraphSource) -> Tensor | None:
        """Features of the nodes; None where the degree among the messages stands in."""
        if not self._knows["has_x"]:
            return None
        return scaled(source.x[0], self.scaling, self._scale, source.where)

    @cached_property
    def _features(self) -> Tensor | None:
        return self._x(self._source)

    def make_split(self, split: Split) -> GraphBatch:
        """Candidates in the graph of the edges that the split may see."""
        if split == "predict":
            return self._to_predict()
        kept = torch.zeros(self._links.ends.shape[1], dtype=torch.bool)
        kept[self._edges["train"]] = True
        if split == "test":
            kept[self._edges["val"]] = True
        kept |= self._links.ends[0] == self._links.ends[1]
        hidden = self._edges[split][: self.batch_size if split == "train" else None]
        if split == "train":
            where = self._source.where
            absent = self._links.absent(len(hidden), self.generator("train"), where)
        else:
            absent = self._judged[split]
        pairs = torch.cat([self._links.ends[:, hidden], absent], dim=1)
        y = (torch.arange(pairs.shape[1]) < len(hidden)).long()
        return self._links.batch(self._features, kept, pairs, y, torch.ones_like(y).bool())

    def _make_loader(self, data: GraphBatch, batch_size: int, **options: Any) -> Any:
        if not options["shuffle"]:
            return super()._make_loader(data, batch_size, **options)
        train, where = self._edges["train"], self._source.where
        return LinkLoader(self._links, train, self._features, where, batch_size, **options)

    @cached_property
    def _new(self) -> GraphSource:
        """The graph that the pairs to predict belong to."""
        if self.predict_path is None and self.predict_edges_path is None:
            return self._source
        return self._checked(self._read(self.predict_path, self.predict_edges_path, self._knows))

    @cached_property
    def _pairs(self) -> Tensor:
        """The pairs to predict, as written."""
        new = self._new
        ids = new.ids or [str(number) for number in range(new.sizes[0])]
        return read_ends(read_table(self.pairs_path, header="first"), ids, new.where)

    def _to_predict(self) -> GraphBatch:
        new = self._new
        links = self._linked(new)
        pairs = self._pairs if self.directed else self._pairs.sort(0).values
        y = torch.isin(links.keys(pairs), links.keys(links.ends)).long()
        kept = torch.ones(links.ends.shape[1], dtype=torch.bool)
        return links.batch(self._x(new), kept, pairs, y, torch.ones_like(y).bool())

    @property
    def predict_split(self) -> Split:
        """The pairs of ``pairs_path``, or the candidates of the test."""
        return "test" if self.pairs_path is None else "predict"

    def _hashed(self, split: Split) -> Array:
        ids = self._source.ids
        pairs = self._links.ends[:, self._edges[split]].T
        names = ["" if ids is None else "\0".join(ids[k] for k in pair) for pair in pairs.tolist()]
        keys = [hash_bytes(p, name=name) for p, name in zip(pairs, names, strict=True)]
        return np.array(keys, dtype=np.uint64)

    @property
    def baseline(self) -> dict[str, Reference]:
        """Even odds for every candidate."""
        return {
            "test/accuracy": Reference(0.5, "even odds"),
            "test/cross_entropy": Reference(math.log(2), "even odds"),
            "test/auc": Reference(0.5, "even odds"),
        }

    @cached_property
    def rivals(self) -> dict[str, dict[str, float]]:
        """Rankings of the test candidates by their neighbours, degrees and features."""
        train, test = self.split("train"), self.split("test")
        return link_rivals(train, test, self._features)

    def prediction_frame(self, outputs: Mapping[str, Tensor]) -> pd.DataFrame:
        """A row per candidate: its two nodes, the probability of an edge, and whether it is one."""
        predicting = self.pairs_path is not None
        test = None if predicting else self.split("test")
        pairs = self._pairs if test is None else test.edge_index[:, test.mask]
        ids = (self._new if predicting else self._source).ids
        names = np.arange(int(pairs.max()) + 1) if ids is None else np.array(ids, dtype=object)
        first, second = names[pairs.numpy()]
        columns = {
            "source": first,
            "target": second,
            "probability": outputs["probability"][:, 1].double().numpy(),
            "edge": outputs["target"].numpy(),
        }
        return pd.DataFrame(columns)
