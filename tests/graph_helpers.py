"""Small graphs for the tests of the graph family: random ones, and files of a user."""

import numpy as np
import pandas as pd
import torch
from torch_geometric.data import Data

from datamodules.batches import GraphBatch

NUM_NODES = 40


def random_edges(num_nodes, num_edges, directed=False, isolated=True):
    """Edges among all nodes but the last, which has none."""
    last = num_nodes - 1 if isolated else num_nodes
    source = torch.randint(last, (num_edges,))
    target = (source + torch.randint(1, last, (num_edges,))) % last
    edges = torch.stack([source, target])
    if not directed:
        edges = torch.cat([edges, edges.flip(0)], dim=1)
    return torch.unique(edges, dim=1)


def random_graph(num_nodes, num_edges, in_features, num_classes=3, edge_features=0):
    edges = random_edges(num_nodes, num_edges)
    attributes = torch.randn(edges.shape[1], edge_features) if edge_features else None
    return GraphBatch(
        torch.randn(num_nodes, in_features),
        edges,
        torch.rand(edges.shape[1]),
        torch.randint(num_classes, (num_nodes,)),
        torch.ones(num_nodes, dtype=torch.bool),
        edge_attr=attributes,
    )


def permuted(batch, order):
    """The graph whose node i is the old node order[i]."""
    number = torch.argsort(order)
    return batch._replace(
        x=batch.x[order],
        edge_index=number[batch.edge_index],
        y=batch.y[order],
        mask=batch.mask[order],
    )


def dense_adjacency(edge_index, weight, num_nodes, self_loops):
    """D^-1/2 (A + I) D^-1/2, or D_in^-1/2 A D_out^-1/2, as written; row = receiver."""
    matrix = torch.zeros(num_nodes, num_nodes, dtype=weight.dtype)
    for (source, target), value in zip(edge_index.T.tolist(), weight.tolist(), strict=True):
        matrix[target, source] += value
    if self_loops:
        matrix = matrix + torch.eye(num_nodes, dtype=weight.dtype)
    degrees = (matrix.sum(1), matrix.sum(1) if self_loops else matrix.sum(0))
    tiny = torch.finfo(weight.dtype).tiny
    into, out = (
        torch.where(d > 0, d.clamp(min=tiny).rsqrt(), torch.zeros_like(d)) for d in degrees
    )
    return into[:, None] * matrix * out[None, :]


def write_csv(folder, nodes=None, edges=None):
    """A path graph of two classes told by one feature."""
    y = np.arange(NUM_NODES) % 2
    table = pd.DataFrame(
        {
            "name": [f"n{i}" for i in range(NUM_NODES)],
            "size": 3.0 * y + np.linspace(0, 1, NUM_NODES) + 1.5,
            "kind": np.where(np.arange(NUM_NODES) % 3 == 0, "red", "blue"),
            "y": np.where(y == 0, "cat", "dog"),
        }
    )
    links = pd.DataFrame({"a": table["name"][:-2], "b": table["name"][2:].to_numpy()})
    table, links = (nodes or (lambda t: t))(table), (edges or (lambda t: t))(links)
    table.to_csv(folder / "nodes.csv", index=False)
    links.to_csv(folder / "edges.csv", index=False)
    return {"path": str(folder / "nodes.csv"), "edges_path": str(folder / "edges.csv")}


def saved(folder, **changes):
    """The same as a saved Data."""
    edges = torch.stack([torch.arange(NUM_NODES - 2), torch.arange(2, NUM_NODES)])
    y = torch.arange(NUM_NODES) % 2
    fields = {"x": torch.randn(NUM_NODES, 3), "edge_index": edges, "y": y} | changes
    torch.save(Data(**fields), folder / "graph.pt")
    return {"path": str(folder / "graph.pt")}


def several(folder, *changes):
    """Saved graphs of three nodes each with a class of its own, changed one by one."""
    edges = torch.tensor([[0, 1, 2], [1, 2, 0]])
    graphs = [
        Data(**({"x": torch.randn(3, 2), "edge_index": edges, "y": torch.tensor([k % 2])} | change))
        for k, change in enumerate(changes)
    ]
    torch.save(graphs, folder / "graphs.pt")
    return {"path": str(folder / "graphs.pt")}
