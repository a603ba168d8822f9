"""Checked graphs of torch-geometric: saved ``Data``, datasets by name, what a graph must have."""

import importlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datamodules.errors import InputError
from datamodules.files.columns import LARGEST
from datamodules.files.torch_file import load_plain

_PLANETOID = ("Cora", "CiteSeer", "PubMed")
SPLIT_NAMES = ("train", "val", "test")


def load_graphs(source: Any) -> list[Any]:
    """Graphs of a file written by ``torch.save``, a ``Data``, or a list of them.

    Raises:
        InputError: If there is no such file, or it holds anything else.
    """
    from torch_geometric.data import Data
    from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
    from torch_geometric.data.storage import EdgeStorage, GlobalStorage, NodeStorage

    where = "the graphs"
    if isinstance(source, (str, Path)):
        where = str(source)
        if not Path(source).is_file():
            raise InputError(f"no file {where!r}; give a Data saved with torch.save")
        parts = [Data, DataEdgeAttr, DataTensorAttr, EdgeStorage, GlobalStorage, NodeStorage]
        what = "file of torch_geometric.data.Data"
        source = load_plain(Path(source), what, "save one with torch.save", parts)
    graphs = list(source) if isinstance(source, (list, tuple)) else [source]
    for graph in graphs:
        if not isinstance(graph, Data):
            raise InputError(
                f"{where} holds a {type(graph).__name__}; give a torch_geometric.data.Data or a "
                "list of them, with one kind of nodes and edges"
            )
    if not graphs:
        raise InputError(f"{where} holds no graph")
    return graphs


def load_dataset(name: str, root: str) -> list[Any]:
    """Graphs of a dataset of torch-geometric.

    Args:
        name: ``Cora``, ``CiteSeer`` or ``PubMed``; ``Class:name``; or ``Class``.
        root: Folder the dataset is kept in.

    Raises:
        InputError: If there is no such dataset, or it is neither there nor to be had.
    """
    datasets = importlib.import_module("torch_geometric.datasets")
    class_name, _, inner = (
        f"Planetoid:{name}".partition(":") if name in _PLANETOID else (name.partition(":"))
    )
    found = getattr(datasets, class_name, None)
    if not isinstance(found, type):
        raise InputError(
            f"torch_geometric.datasets has no {class_name!r}; give Cora, CiteSeer, PubMed, "
            "Class:name or Class"
        )
    try:
        return list(found(root, inner) if inner else found(root))
    except TypeError as error:
        raise InputError(f"dataset {name!r}: {error}; give Class:name or Class") from error
    except (OSError, RuntimeError) as error:
        raise InputError(f"dataset {name!r} is not in {root} and cannot be had: {error}") from error


def check_graphs(graphs: Sequence[Any], where: str) -> None:
    """Checks every graph, and that all of them have the same parts of the same widths.

    Raises:
        InputError: Naming the graph, and what is missing, out of range or unlike the others.
    """
    names = [where if len(graphs) == 1 else f"{where}, graph {k}" for k in range(len(graphs))]
    for graph, name in zip(graphs, names, strict=True):
        _check_edges(graph, name)
        _check_values(graph, name)
    widths = [
        {
            part: _width(getattr(graph, part, None))
            for part in ("x", "edge_attr", "edge_weight", "train_mask")
        }
        for graph in graphs
    ]
    for name, width in zip(names, widths, strict=True):
        for part, wanted in widths[0].items():
            if width[part] != wanted and not (part == "train_mask" and width[part] and wanted):
                raise InputError(
                    f"{name}: {part} has {_columns(width[part])}, that of graph 0 "
                    f"{_columns(wanted)}; all graphs need the same"
                )


def attributes_of(graph: Any) -> Tensor | None:
    """Edge features of a ``Data``, ``(E, A)``."""
    attributes: Tensor | None = getattr(graph, "edge_attr", None)
    return None if attributes is None else attributes.reshape(len(attributes), -1)


def _width(value: Tensor | None) -> int | None:
    if value is None:
        return None
    return 1 if value.dim() < 2 else int(value[0].numel() if len(value) else value.shape[1])


def _columns(width: int | None) -> str:
    return "nothing" if width is None else f"{width} column{'s' * (width != 1)}"


def num_nodes_of(graph: Any, where: str) -> int:
    """Number of nodes, also of a graph without features.

    Raises:
        InputError: If there are none, or x is no matrix.
    """
    x = getattr(graph, "x", None)
    if x is not None and (not isinstance(x, Tensor) or x.dim() not in (1, 2)):
        raise InputError(f"{where} has no node features x of shape (nodes, features)")
    count = len(x) if x is not None else int(graph.num_nodes or 0)
    if count == 0:
        raise InputError(f"{where} has no nodes")
    return count


def _check_edges(graph: Any, where: str) -> None:
    num_nodes, edge_index = num_nodes_of(graph, where), getattr(graph, "edge_index", None)
    if not isinstance(edge_index, Tensor) or edge_index.dim() != 2 or len(edge_index) != 2:
        raise InputError(f"{where} has no edge_index of shape (2, edges)")
    if edge_index.dtype not in (torch.int64, torch.int32):
        kind = str(edge_index.dtype).removeprefix("torch.")
        raise InputError(f"{where}: edge_index is {kind}; node numbers must be integers (.long())")
    bad = ((edge_index < 0) | (edge_index >= num_nodes)).any(0).nonzero()
    if len(bad):
        edge = int(bad[0])
        source, target = edge_index[:, edge].tolist()
        raise InputError(
            f"{where}: edge {edge} is ({source}, {target}), but nodes are 0 to {num_nodes - 1}"
        )


def _check_values(graph: Any, where: str) -> None:
    """Features, weights and attributes: as many as they belong to, and finite."""
    num_edges = graph.edge_index.shape[1]
    x = getattr(graph, "x", None)
    if x is not None:
        _check_finite(x, where, "feature {1} of node {0}")
    for part, one in (
        ("edge_weight", "weight of edge {0}"),
        ("edge_attr", "attribute of edge {0}"),
    ):
        values = getattr(graph, part, None)
        if values is None:
            continue
        size = len(values) if isinstance(values, Tensor) and values.dim() else 0
        if size != num_edges or (part == "edge_weight" and values.numel() != num_edges):
            raise InputError(f"{where}: {part} has {size} entries for {num_edges} edges")
        _check_finite(values, where, one)
    weight = getattr(graph, "edge_weight", None)
    if weight is not None and bool((weight < 0).any()):
        edge = int((weight.flatten() < 0).nonzero()[0])
        raise InputError(
            f"{where}: weight of edge {edge} is {weight.flatten()[edge].item():g}, negative; "
            "put signed numbers into edge_attr"
        )


def _check_finite(values: Tensor, where: str, what: str) -> None:
    dense = values.to_dense() if values.layout != torch.strided else values
    rows = dense.reshape(len(dense), -1)
    wrong = ~(rows.isfinite() & (rows.abs() <= LARGEST))  # float32 takes the bound for infinite
    if bool(wrong.any()):
        row, column = wrong.nonzero()[0].tolist()
        value = rows[row, column].item()
        limit = f", more than models compute with ({LARGEST:g})" if math.isfinite(value) else ""
        raise InputError(f"{where}: {what.format(row, column)} is {value:g}{limit}")


def split_masks(graph: Any, where: str, num_nodes: int) -> dict[str, Tensor] | None:
    """The masks of a ``Data``, each ``(N,)`` boolean; None where it has none.

    Raises:
        InputError: If one is missing, holds node numbers, has another length, or two overlap.
    """
    if getattr(graph, "train_mask", None) is None:
        return None
    found: dict[str, Tensor] = {}
    for split in SPLIT_NAMES:
        mask = getattr(graph, f"{split}_mask", None)
        if mask is None:
            raise InputError(f"{where} has train_mask but no {split}_mask")
        mask = mask if mask.dim() == 1 else mask[:, 0]
        if mask.dtype != torch.bool:
            flags = len(mask) == num_nodes and bool(((mask == 0) | (mask == 1)).all())
            if not flags:
                raise InputError(
                    f"{where}: {split}_mask holds node numbers; give {num_nodes} booleans "
                    "(torch_geometric.utils.index_to_mask)"
                )
        if len(mask) != num_nodes:
            raise InputError(f"{where}: {split}_mask has {len(mask)} entries for {num_nodes} nodes")
        found[split] = mask.bool()
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        both = int((found[first] & found[second]).sum())
        if both:
            raise InputError(
                f"{where}: {both} nodes are in both {first}_mask and {second}_mask; a node belongs "
                "to one split"
            )
    return found
