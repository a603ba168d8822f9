"""Checked reading of graphs: CSV files, saved torch-geometric ``Data``, datasets by name."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from datamodules.errors import InputError
from datamodules.files.csv_files import check_complete, numeric_column, read_csv
from datamodules.files.torch_file import load_plain

_PLANETOID = ("Cora", "CiteSeer", "PubMed")
_FIRST_ROW = 2


def read_edges(
    path: str, ids: Sequence[str], nodes_path: str, directed: bool
) -> tuple[Tensor, Tensor | None]:
    """Edges of a CSV file whose first two columns name nodes.

    Args:
        path: CSV file; a column ``weight`` is optional.
        ids: Identifiers of the nodes, in order.
        nodes_path: Where the identifiers come from, for messages.
        directed: Whether an edge leads one way; else its reverse is added.

    Returns:
        Edges ``(2, E)``, sorted and each once, and their weights ``(E,)`` where there are any; an
        edge named twice has the mean weight.

    Raises:
        InputError: Naming the row of an edge to a missing node or of a wrong weight.
    """
    from torch_geometric.utils import coalesce, to_undirected

    frame = read_csv(path)
    if frame.shape[1] < 2:
        raise InputError(f"{path} has one column; an edge needs two, its source and its target")
    if len(frame) == 0:
        raise InputError(f"{path} has no edges; without any, use a table model")
    number = {name: index for index, name in enumerate(ids)}
    ends = []
    for column in map(str, frame.columns[:2]):
        check_complete(frame, path, column)
        names = frame[column].astype(str)
        found = names.map(number)
        missing = np.flatnonzero(found.isna())
        if len(missing):
            row = int(missing[0])
            raise InputError(
                f"{path}, row {row + _FIRST_ROW}: {column!r} is {names.iloc[row]!r}, "
                f"no node of {nodes_path}"
            )
        ends.append(torch.tensor(found.to_numpy(dtype=np.int64)))
    weight = None
    if "weight" in frame:
        values = numeric_column(frame, path, "weight")
        wrong = np.flatnonzero(values < 0)
        if len(wrong):
            raise InputError(
                f"{path}, row {wrong[0] + _FIRST_ROW}: weight {values[wrong[0]]:g} is negative"
            )
        weight = torch.tensor(values, dtype=torch.get_default_dtype())
    merge = coalesce if directed else to_undirected
    edge_index, weight = merge(torch.stack(ends), weight, num_nodes=len(ids), reduce="mean")
    return edge_index, weight


def node_ids(frame: pd.DataFrame, path: str, column: str) -> list[str]:
    """Identifiers of the nodes, one per row.

    Raises:
        InputError: If one is missing or appears twice.
    """
    check_complete(frame, path, column)
    ids = frame[column].astype(str)
    twice = np.flatnonzero(ids.duplicated())
    if len(twice):
        row = int(twice[0])
        raise InputError(f"{path}, row {row + _FIRST_ROW}: node {ids.iloc[row]!r} appears twice")
    return list(ids)


def load_saved(path: Path) -> list[Any]:
    """Graphs of a file written by ``torch.save``: a ``Data`` or a list of them.

    Raises:
        InputError: If there is no such file, or it holds anything else.
    """
    from torch_geometric.data.data import Data, DataEdgeAttr, DataTensorAttr
    from torch_geometric.data.storage import EdgeStorage, GlobalStorage, NodeStorage

    if not path.is_file():
        raise InputError(f"no file {str(path)!r}; give a Data saved with torch.save")
    parts = [Data, DataEdgeAttr, DataTensorAttr, EdgeStorage, GlobalStorage, NodeStorage]
    what = "file of torch_geometric.data.Data"
    loaded = load_plain(path, what, "save one with torch.save", parts)
    return list(loaded) if isinstance(loaded, (list, tuple)) else [loaded]


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


def check_graph(graph: Any, where: str) -> None:
    """Checks features and edges of a ``Data``.

    Raises:
        InputError: Naming what is missing or out of range.
    """
    x, edge_index = getattr(graph, "x", None), getattr(graph, "edge_index", None)
    if not isinstance(x, Tensor) or x.dim() != 2:
        raise InputError(f"{where} has no node features x of shape (nodes, features)")
    if len(x) == 0:
        raise InputError(f"{where} has no nodes")
    if not isinstance(edge_index, Tensor) or edge_index.dim() != 2 or len(edge_index) != 2:
        raise InputError(f"{where} has no edge_index of shape (2, edges)")
    if edge_index.dtype not in (torch.int64, torch.int32):
        kind = str(edge_index.dtype).removeprefix("torch.")
        raise InputError(f"{where}: edge_index is {kind}; node numbers must be integers (.long())")
    bad = ((edge_index < 0) | (edge_index >= len(x))).any(0).nonzero()
    if len(bad):
        edge = int(bad[0])
        source, target = edge_index[:, edge].tolist()
        raise InputError(
            f"{where}: edge {edge} is ({source}, {target}), but nodes are 0 to {len(x) - 1}"
        )
    if not bool(torch.isfinite(x.to_dense() if x.layout != torch.strided else x).all()):
        node, feature = (~torch.isfinite(x)).nonzero()[0].tolist()
        raise InputError(f"{where}: feature {feature} of node {node} is {x[node, feature].item()}")
