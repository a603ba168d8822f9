"""Features of nodes as a model reads them: scaled, or the degree where there are none."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from datamodules.batches import GraphBatch
from datamodules.errors import InputError
from datamodules.files.graph_files import Edges

Scaling = Literal["standard", "row", "none"]
Scale = tuple[Tensor, Tensor]
_MAX_DEGREE = 64
DEGREE_FEATURES = _MAX_DEGREE + 1


def degree_features(edge_index: Tensor, num_nodes: int) -> Tensor:
    """An indicator of each node's incoming edges, ``(N, 65)``; 64 stands for more too."""
    degree = torch.bincount(edge_index[1], minlength=num_nodes).clamp(max=_MAX_DEGREE)
    indicator = torch.nn.functional.one_hot(degree, DEGREE_FEATURES)
    return indicator.to(torch.get_default_dtype())


def scale_of(parts: Sequence[Tensor]) -> Scale:
    """Mean and deviation of each feature, ``(F,)`` float64; 1 for one that is constant."""
    x = torch.cat([part.double() for part in parts])
    std = x.std(0, correction=0)
    return x.mean(0), torch.where(std > 0, std, torch.ones_like(std))


def plain_scale(scale: Scale | None) -> list[list[float]] | None:
    """A scale as plain data, for a checkpoint."""
    return None if scale is None else [part.tolist() for part in scale]


def scale_from(plain: Any) -> Scale | None:
    """A scale, float64, from plain data."""
    if plain is None:
        return None
    mean, std = (torch.tensor(part, dtype=torch.float64) for part in plain)
    return mean, std


class EdgeScale(NamedTuple):
    """Units of the numbers of edges.

    Attributes:
        weight: Mean weight, 1 without any.
        attributes: Mean and deviation of each feature; None where they stay as they are.
    """

    weight: float = 1.0
    attributes: Scale | None = None


def edge_scale_of(graphs: Sequence[Edges], standard: bool) -> EdgeScale:
    """The mean weight, and the scale of the features where they are to be standardised."""
    weights = [edges.weight for edges in graphs if edges.weight is not None]
    mean = torch.cat(weights).double().mean().item() if weights else 1.0
    features = [edges.attributes for edges in graphs if edges.attributes is not None]
    attributes = scale_of(features) if standard and features else None
    return EdgeScale(mean if mean > 0 else 1.0, attributes)


def scaled_edges(edges: Edges, scale: EdgeScale) -> Edges:
    """Edges whose weights are in units of the mean, and whose features are standardised."""
    weight, attributes = edges.weight, edges.attributes
    if weight is not None:
        weight = weight.double() / scale.weight
    if attributes is not None and scale.attributes is not None:
        attributes = (attributes.double() - scale.attributes[0]) / scale.attributes[1]
    return edges._replace(weight=weight, attributes=attributes)


def scaled(x: Tensor, scaling: Scaling, scale: Scale | None, where: str) -> Tensor:
    """Features ``(N, F)`` as a model reads them.

    Raises:
        InputError: If rows of negative numbers would be divided by their sum.
    """
    if scaling == "row":
        if bool((x < 0).any()):
            raise InputError(f"{where}: scaling=row needs features that are not negative")
        sums = x.sum(1, keepdim=True)
        x = x / torch.where(sums > 0, sums, torch.ones_like(sums))
    elif scale is not None:
        x = (x.double() - scale[0]) / scale[1]
    return x.to(torch.get_default_dtype())


def as_batch(x: Tensor, edges: Edges) -> GraphBatch:
    """A graph without targets."""
    empty, dtype = torch.empty(0, dtype=torch.long), torch.get_default_dtype()
    weight, attributes = edges.weight, edges.attributes
    return GraphBatch(
        x=x,
        edge_index=edges.ends,
        edge_weight=None if weight is None else weight.to(dtype),
        y=empty,
        mask=empty.bool(),
        edge_attr=None if attributes is None else attributes.to(dtype),
    )
