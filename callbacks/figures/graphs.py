"""Figures of graphs: nodes with predicted and true class, attention on edges, embeddings."""

from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from callbacks.figures.base import FigureCallback, on_model
from callbacks.figures.style import part_of
from datamodules.batches import GraphBatch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Array = np.ndarray[Any, Any]


def ego_network(edge_index: Tensor, num_nodes: int, limit: int) -> Tensor:
    """Nodes reached first from the node of highest degree, at most ``limit``, ascending."""
    degree = torch.bincount(edge_index[1], minlength=num_nodes)
    reached = torch.zeros(num_nodes, dtype=torch.bool)
    reached[degree.argmax()] = True
    while True:
        found = torch.zeros_like(reached)
        found[edge_index[1][reached[edge_index[0]]]] = True
        new = (found & ~reached).nonzero()[:, 0]
        room = limit - int(reached.sum())
        if len(new) == 0 or room <= 0:
            return reached.nonzero()[:, 0]
        reached[new[:room]] = True


def spring_layout(edges: Tensor, num_nodes: int) -> Array:
    """Places of the nodes, ``(N, 2)``, the same at every call."""
    import networkx

    graph = networkx.Graph()
    graph.add_nodes_from(range(num_nodes))
    graph.add_edges_from(edges.T.tolist())
    places = networkx.spring_layout(graph, seed=0, iterations=100)
    return np.stack([places[node] for node in range(num_nodes)])


def _subgraph(edge_index: Tensor, nodes: Tensor, num_nodes: int) -> tuple[Tensor, Tensor]:
    """Edges among some nodes, renumbered, and their numbers in the whole graph."""
    number = torch.full((num_nodes,), -1)
    number[nodes] = torch.arange(len(nodes))
    renumbered = number[edge_index]
    kept = (renumbered >= 0).all(0) & (edge_index[0] != edge_index[1])
    return renumbered[:, kept], kept.nonzero()[:, 0]


def _first_graph(data: GraphBatch) -> GraphBatch:
    """The first of several graphs, with the targets of its nodes."""
    if data.graph is None:
        return data
    nodes, edges = data.graph == 0, data.graph[data.edge_index[0]] == 0
    weight = data.edge_weight
    return GraphBatch(
        data.x[nodes],
        data.edge_index[:, edges],
        None if weight is None else weight[edges],
        data.y[nodes],
        data.mask[nodes],
    )


class NodeClassFigure(FigureCallback):
    """Nodes of the first test graph: true and predicted classes, embeddings, and attention.

    Args:
        num_nodes: Nodes to draw, the nearest to the one of highest degree.
        embedding: Projection of the hidden states: ``pca`` or ``tsne``.
        num_embedded: Nodes to project, at most.
    """

    def __init__(
        self, num_nodes: int = 120, embedding: str = "pca", num_embedded: int = 3000
    ) -> None:
        if embedding not in ("pca", "tsne"):
            raise ValueError(f"embedding must be pca or tsne, got {embedding!r}")
        self.num_nodes, self.embedding, self.num_embedded = num_nodes, embedding, num_embedded

    def draw(self, trainer: L.Trainer, pl_module: L.LightningModule) -> "dict[str, Figure]":
        """The figures that the model and its data allow; none unless nodes have classes."""
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        if datamodule.level != "node" or datamodule.task != "classification":
            return {}
        data = _first_graph(datamodule.split("test"))
        module: Any = pl_module
        batch = on_model(data, pl_module)
        everything = batch._replace(mask=torch.ones_like(batch.mask))
        predicted = module.predict_step(everything, 0)["class"].cpu()
        names = getattr(datamodule, "class_names", None) or [str(k) for k in range(10)]
        nodes = ego_network(data.edge_index, len(predicted), self.num_nodes)
        edges, _ = _subgraph(data.edge_index, nodes, len(predicted))
        places = spring_layout(edges, len(nodes))
        figures = {"graph": _classes(places, edges, data.y[nodes], predicted[nodes], names)}
        shown = part_of(len(nodes), len(predicted), "nodes")
        figures["graph"].suptitle(f"{shown}, nearest to the one of most edges")
        if hasattr(module, "attention_weights"):
            figures["attention"] = _attention(
                module.attention_weights(batch), nodes, places, data.y, len(predicted)
            )
            figures["attention"].suptitle(shown)
        states = module.embeddings(batch).float().cpu()
        figures["embedding"] = self._embedding(states, data.y, data.mask, names)
        return figures

    def _embedding(self, states: Tensor, y: Tensor, mask: Tensor, names: "list[str]") -> "Figure":
        from matplotlib.figure import Figure
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE

        rows = mask.nonzero()[: self.num_embedded, 0]
        projection = PCA(2) if self.embedding == "pca" else TSNE(2, init="pca", random_state=0)
        points = projection.fit_transform(states[rows].numpy())
        figure = Figure(figsize=(5.4, 4.6), layout="constrained")
        axes = figure.subplots()
        for k in sorted(set(y[rows].tolist())):
            of_class = (y[rows] == k).numpy()
            axes.scatter(
                points[of_class, 0],
                points[of_class, 1],
                s=8,
                color=f"C{k % 10}",
                label=names[k],
                alpha=0.7,
            )
        kind = "principal components" if self.embedding == "pca" else "t-SNE"
        shown = part_of(len(rows), int(mask.sum()), "test nodes")
        axes.set(title=f"{kind} of the hidden states, {shown}", xticks=[], yticks=[])
        axes.legend(title="true class")
        return figure


def _draw_edges(axes: "Axes", places: Array, edges: Tensor, **style: Any) -> Any:
    from matplotlib.collections import LineCollection

    lines = LineCollection(list(places[edges.T.numpy()]), zorder=1, **style)
    axes.add_collection(lines)
    axes.set(xticks=[], yticks=[])
    return lines


def _classes(
    places: Array,
    edges: Tensor,
    true: Tensor,
    predicted: Tensor,
    names: "list[str]",
) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 5.2), layout="constrained")
    wrong = ((predicted != true) & (true >= 0)).numpy()
    titles = ("true class", f"predicted class ({wrong.sum()} of {len(wrong)} wrong, ringed)")
    for axes, classes, title in zip(figure.subplots(1, 2), (true, predicted), titles, strict=True):
        _draw_edges(axes, places, edges, color="lightgray", linewidth=0.6)
        for k in sorted(set(true.tolist()) | set(predicted.tolist())):
            of_class = (classes == k).numpy()
            color, label = (f"C{k % 10}", names[k]) if k >= 0 else ("white", "unknown")
            axes.scatter(
                places[of_class, 0], places[of_class, 1], s=30, color=color, label=label, zorder=2
            )
        axes.set_title(title)
    axes.scatter(
        places[wrong, 0],
        places[wrong, 1],
        s=70,
        facecolors="none",
        edgecolors="black",
        linewidths=1.2,
        zorder=3,
    )
    axes.legend()
    return figure


def _attention(
    layers: "list[tuple[Tensor, Tensor]]",
    nodes: Tensor,
    places: Array,
    y: Tensor,
    num_nodes: int,
) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(layers), 5.0), layout="constrained")
    panels = figure.subplots(1, len(layers), squeeze=False)[0]
    for index, (axes, (edge_index, weights)) in enumerate(zip(panels, layers, strict=True)):
        edges, kept = _subgraph(edge_index.cpu(), nodes, num_nodes)
        degree = torch.bincount(edge_index[1].cpu(), minlength=num_nodes)
        mean = weights.mean(1).float().cpu()[kept]
        relative = mean * degree[nodes[edges[1]]]
        order = relative.argsort()  # strong edges on top
        lines = _draw_edges(
            axes, places, edges[:, order], linewidths=0.4 + 1.6 * relative[order].clamp(max=4)
        )
        lines.set(array=relative[order].numpy(), cmap="viridis_r", clim=(0, 2))
        colors = [f"C{k % 10}" if k >= 0 else "white" for k in y[nodes].tolist()]
        axes.scatter(places[:, 0], places[:, 1], s=24, c=colors, zorder=2)
        num_heads = weights.shape[1]
        heads = "1 head" if num_heads == 1 else f"mean of {num_heads} heads"
        axes.set_title(f"layer {index + 1}: {heads}")
    figure.colorbar(lines, ax=list(panels), label="attention times the receiver's degree")
    return figure
