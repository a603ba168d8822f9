"""The targets of a user's graphs: their splits, and the batches that hold them."""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.base import Split
from datamodules.batches import GraphBatch
from datamodules.errors import InputError
from datamodules.graph_base import Level, block_diagonal
from datamodules.own.graph_answers import hash_bytes
from datamodules.own.graph_contract import Array, OwnGraphsDataModule
from datamodules.own.graph_features import (
    EdgeScale,
    Scale,
    Scaling,
    as_batch,
    edge_scale_of,
    scale_of,
    scaled,
)
from datamodules.own.graph_source import GraphSource
from datamodules.own.graph_splits import Shares, split_targets
from datamodules.own.graph_targets import Targets, unknown_targets
from datamodules.own.known_labels import KnownLabelLoader, LabelSpread, affordable, beside

# Below this share of non-zeros a sparse product is faster than a dense one.
_SPARSE_BELOW = 0.1
NODES_PER_STEP = 1024  # where neighbours are sampled


class SplitGraphs(OwnGraphsDataModule):
    """Graphs of a user with targets of nodes or graphs, which are split.

    A subclass reads graphs and targets, and says how they are split and scaled.

    Args:
        batch_size: Graphs, or sampled nodes, per optimizer step; None for what the data decide.
        seed: Seed of the splits.
    """

    shares: Shares
    scaling: Scaling
    predict_path: Any
    _label_inputs: bool | None

    def __init__(self, batch_size: int | None, seed: int) -> None:
        super().__init__(NODES_PER_STEP if batch_size is None else batch_size, seed)
        self._few_graphs = batch_size is None

    @property
    def out_features(self) -> int:
        """Number of scores per target."""
        raise NotImplementedError(f"{type(self).__name__} must define out_features")

    @cached_property
    def _new(self) -> GraphSource:
        """The graphs to predict, read as the training ones were."""
        raise NotImplementedError(f"{type(self).__name__} must define _new")

    @cached_property
    def _found_level(self) -> Level:
        raise NotImplementedError(f"{type(self).__name__} must define _found_level")

    @cached_property
    def _all_targets(self) -> Targets:
        raise NotImplementedError(f"{type(self).__name__} must define _all_targets")

    def setup(self, stage: str) -> None:
        """Makes the splits of a stage, and the size of a batch where the graphs decide it."""
        if self._few_graphs and self.num_neighbors is None and stage == "fit":
            self.batch_size = min(max(len(self._training_graphs) // 16, 4), 32)
        super().setup(stage)

    def _reads_labels(self, targets: Targets) -> bool:
        """Whether labels are inputs.

        Raises:
            InputError: If they are asked for where they cannot be.
        """
        can = (
            self._found_level == "node"
            and targets.task == "classification"
            and len(self._source.sizes) == 1
            and self.num_neighbors is None
        )
        if self._label_inputs and not can:
            raise InputError(
                "label_inputs needs classes of the nodes of one graph that is not sampled; leave "
                "it out"
            )
        if self._label_inputs is not None:
            return self._label_inputs
        return can and affordable(self._source.edges[0].ends.shape[1], len(targets.names))

    @property
    def label_inputs(self) -> bool:
        """Whether the classes of training nodes are inputs."""
        return bool(self._knows.get("label_inputs", False))

    @property
    def in_features(self) -> int:
        """Number of inputs of a node: its features, and a column per class where they are read."""
        return super().in_features + (self.out_features if self.label_inputs else 0)

    # -- splits ----------------------------------------------------------------------------------

    @cached_property
    def _masks(self) -> list[dict[str, Tensor]] | None:
        """Given splits of the nodes of each graph."""
        if self._found_level == "graph":
            return None
        return self._source.masks(self._all_targets.known)

    @property
    def _by_graph(self) -> bool:
        """Whether whole graphs are split, and not the nodes of each."""
        return self._masks is None and len(self._source.sizes) > 1

    @cached_property
    def _targets(self) -> dict[Split, Array]:
        """Numbers of each split's targets."""
        return split_targets(
            self._all_targets,
            self._graph_of_target,
            self._found_level,
            self._masks,
            self.shares,
            self._source.where,
        )

    @cached_property
    def _graph_of_target(self) -> Array:
        numbers = np.arange(len(self._source.sizes))
        return numbers if self._found_level == "graph" else np.repeat(numbers, self._source.sizes)

    @cached_property
    def _training_graphs(self) -> Array:
        """Numbers of the graphs with a training target."""
        return np.unique(self._graph_of_target[self._targets["train"]])

    # -- tensors ---------------------------------------------------------------------------------

    def _found_scale(self) -> Scale | None:
        if self.scaling != "standard":
            return None
        parts = self._source.x
        if self._by_graph:
            parts = [parts[k] for k in self._training_graphs]
        return scale_of(parts)

    def _found_edge_scale(self) -> EdgeScale:
        graphs = self._source.edges
        if self._by_graph:
            graphs = [graphs[k] for k in self._training_graphs]
        return edge_scale_of(graphs, self.scaling == "standard")

    def _batches(self, source: GraphSource) -> list[GraphBatch]:
        """The graphs of a source, without targets."""
        return [
            as_batch(scaled(x, self.scaling, self._scale, source.where), self._scaled(edges))
            for x, edges in zip(source.x, source.edges, strict=True)
        ]

    @cached_property
    def _every(self) -> list[GraphBatch]:
        return self._batches(self._source)

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
            return self._to_predict() if self.predict_path is None else self._new_batch()
        y, rows = self._all_targets.y, self._targets[split]
        mask = torch.zeros(len(y), dtype=torch.bool)
        mask[torch.from_numpy(rows)] = True
        if len(self._source.sizes) == 1:
            return self._shown(self._whole)._replace(y=y, mask=mask)
        chosen = np.unique(self._graph_of_target[rows])
        mine = torch.from_numpy(np.isin(self._graph_of_target, chosen))
        batch = block_diagonal([self._every[k] for k in chosen])
        return batch._replace(y=y[mine], mask=mask[mine])

    def _to_predict(self) -> GraphBatch:
        """Every node of the training graphs."""
        y = self._all_targets.y
        one = len(self._source.sizes) == 1
        batch = self._shown(self._whole) if one else block_diagonal(self._every)
        return batch._replace(y=y, mask=torch.ones(len(y), dtype=torch.bool))

    def _new_batch(self) -> GraphBatch:
        """New nodes or graphs."""
        new = self._checked(self._new)
        batches = self._batches(new)
        count = len(batches) if self.level == "graph" else sum(new.sizes)
        if new.has_targets():
            y = new.targets(self.level, self.task, self._knows).y
        else:
            y = unknown_targets(self.task, count, self.out_features)
        batch = batches[0] if len(batches) == 1 else block_diagonal(batches)
        if self.label_inputs:  # of new graphs no label is known
            batch = batch._replace(x=beside(batch.x, torch.zeros(count, self.out_features)))
        mask = torch.ones(count, dtype=torch.bool)
        return batch._replace(y=y, mask=mask, num_graphs=len(batches))

    def _shown(self, graph: GraphBatch) -> GraphBatch:
        """The one graph with the labels of all training nodes, where they are inputs."""
        if not self.label_inputs:
            return graph
        shown = torch.from_numpy(self._targets["train"])
        return graph._replace(x=beside(graph.x, self._spread.inputs(shown)))

    @cached_property
    def _spread(self) -> LabelSpread:
        return LabelSpread(self._whole, self._all_targets.y, self.out_features)

    def _make_loader(self, data: GraphBatch, batch_size: int, **options: Any) -> Any:
        if not (self.label_inputs and options["shuffle"]):
            return super()._make_loader(data, batch_size, **options)
        bare = data._replace(x=self._whole.x)
        return KnownLabelLoader(bare, self._spread, self.passes, **options)

    @property
    def predict_split(self) -> Split:
        """New data, or every node of the one graph, or the test graphs of several."""
        if self.predict_path is not None or (self.level == "node" and not self._by_graph):
            return "predict"
        return "test"

    def _hashed(self, split: Split) -> Array:
        y, rows, x = self._all_targets.y, self._targets[split], self._source.x
        if self._found_level == "graph":
            keys = [hash_bytes(x[k], self._source.edges[k].ends, y[k]) for k in rows]
        else:
            flat = torch.cat(x)
            names = self._source.ids or list(map(str, range(len(flat))))
            keys = [hash_bytes(flat[k], y[k], name=names[k]) for k in rows]
        return np.array(keys, dtype=np.uint64)
