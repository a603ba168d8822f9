"""What datamodules of a user's graphs share: how the graphs were read is kept with the run."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from datamodules.base import Split
from datamodules.errors import InputError
from datamodules.files.graph_files import Edges
from datamodules.graph_base import GraphsDataModule
from datamodules.own.graph_features import (
    EdgeScale,
    Scale,
    plain_scale,
    scale_from,
    scaled_edges,
)
from datamodules.own.graph_source import GraphSource

Array = np.ndarray[Any, Any]


class OwnGraphsDataModule(GraphsDataModule):
    """Graphs of a user, read once; new ones are read by what the training ones decided.

    A subclass reads them in :attr:`_source` and writes :meth:`_decided`, :meth:`_found_scale`,
    :meth:`_found_edge_scale` and :meth:`_hashed`. A weight of an edge is read in units of the mean
    weight, so that the unit of the file decides nothing.

    Args:
        batch_size: What a batch counts, per optimizer step over all ranks.
        seed: Seed of the splits.
    """

    def __init__(self, batch_size: int, seed: int) -> None:
        super().__init__(batch_size, seed)
        self._known: dict[str, Any] | None = None
        self._hashes: dict[Split, Array] = {}  # every checkpoint asks for them

    @cached_property
    def _source(self) -> GraphSource:
        """The graphs to train on."""
        raise NotImplementedError(f"{type(self).__name__} must define _source")

    def _decided(self) -> dict[str, Any]:
        """What the training graphs decide beside plans and scale, plain data."""
        raise NotImplementedError(f"{type(self).__name__} must define _decided()")

    def _found_scale(self) -> Scale | None:
        """Mean and deviation of the features, as the training graphs have them."""
        raise NotImplementedError(f"{type(self).__name__} must define _found_scale()")

    def _hashed(self, split: Split) -> Array:
        """A hash of each target of a split."""
        raise NotImplementedError(f"{type(self).__name__} must define _hashed()")

    def knowledge(self) -> dict[str, Any]:
        """Plans and scale of the features, and all else that the training graphs decided."""
        if self._known is not None:
            return self._known
        source = self._source
        return {
            **source.plans,
            "edge_features": source.edge_features,
            "has_x": source.has_x,
            "scale": plain_scale(self._scale),
            "edge_weight": self._edge_scale.weight,
            "edge_scale": plain_scale(self._edge_scale.attributes),
            **self._decided(),
        }

    def adopt(self, knowledge: Mapping[str, Any]) -> None:
        """Takes what a run knows: new graphs are read by it."""
        if knowledge:
            self._known = dict(knowledge)

    @cached_property
    def _knows(self) -> dict[str, Any]:
        return self.knowledge()

    @cached_property
    def _scale(self) -> Scale | None:
        """Mean and deviation that scaling divides the features by."""
        return self._found_scale() if self._known is None else scale_from(self._known["scale"])

    def _found_edge_scale(self) -> EdgeScale:
        """Scale of the edges' numbers, as the training graphs have them."""
        raise NotImplementedError(f"{type(self).__name__} must define _found_edge_scale()")

    @cached_property
    def _edge_scale(self) -> EdgeScale:
        """Scale that the edges' numbers are divided by; none in a run that knows of none."""
        if self._known is None:
            return self._found_edge_scale()
        weight: float = self._known.get("edge_weight", 1.0)
        return EdgeScale(weight, scale_from(self._known.get("edge_scale")))

    def _scaled(self, edges: Edges) -> Edges:
        return scaled_edges(edges, self._edge_scale)

    @property
    def in_features(self) -> int:
        """Number of node features."""
        return int(self._knows["in_features"])

    @property
    def edge_features(self) -> int:
        """Number of features of an edge beside its weight."""
        return int(self._knows["edge_features"])

    def _checked(self, new: GraphSource) -> GraphSource:
        """New graphs, whose features are as wide as the training ones'.

        Raises:
            InputError: If they are not.
        """
        widths = {"edge_features": ("edge_attr", new.edge_features)}
        if self._knows["has_x"]:
            widths["in_features"] = ("x", new.x[0].shape[1])
        for name, (what, width) in widths.items():
            if width != self._knows[name]:
                raise InputError(
                    f"{new.where}: {what} has {width} columns, the training graphs have "
                    f"{self._knows[name]}"
                )
        return new

    def row_hashes(self, split: Split) -> Array | None:
        """A hash of each target of a split; None for what is predicted."""
        if split == "predict":
            return None
        if split not in self._hashes:
            self._hashes[split] = self._hashed(split)
        return self._hashes[split]
