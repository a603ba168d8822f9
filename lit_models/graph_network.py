r"""Graph network: edges, nodes and a global state, updated in turn.

.. math::
    e_{ij}' = \phi^e(e_{ij}, v_i, v_j, u), \qquad
    v_i' = \phi^v\Big(\operatorname*{agg}_{j \to i} e_{ji}', v_i, u\Big), \qquad
    u' = \phi^u\Big(\operatorname*{agg}_{ij} e_{ij}', \operatorname*{agg}_i v_i', u\Big)

Battaglia et al., "Relational inductive biases, deep learning, and graph networks" (2018). Each
:math:`\phi` is a perceptron of one hidden layer; agg is a sum, a mean or a maximum. These are not
interchangeable: a sum tells multisets apart, a mean only their proportions, a maximum only which
elements occur (Xu et al., "How Powerful are Graph Neural Networks?", 2019, section 5). Deviations:

* Updates are added to the states before (residual), all of one width.
* The two aggregations into the global state may differ from the one into the nodes
  (``global_aggr``): a sum over a large graph is large. A sum into it is taken in units of the root
  of the mean number of edges, or nodes, of a training graph, in which it is of the size of a state.
* ``shared`` applies one and the same block ``num_layers`` times, as message passing to a fixed
  point does.

Shape letters: N nodes, E edges, G graphs, F node features, A edge features, W width, K outputs.
"""

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.utils import scatter

from datamodules.batches import GraphBatch
from datamodules.errors import InputError
from lit_models.families.graph_task import NO_STATE, Level, LitGraphModel, Task, task_metrics
from lit_models.families.linear_share import LinearShare
from lit_models.layers.graph import FeatureLinear
from lit_models.layers.standardize import Standardize

Aggregation = Literal["sum", "mean", "max"]
_STRETCH = 1 << 18  # edges that are updated at a time where nothing is learned


class Update(nn.Module):
    r"""A perceptron :math:`\phi` of one hidden layer over several inputs.

    Its first layer maps each input on its own, which is the same as mapping their concatenation: a
    node's state is mapped once and not once for each of its edges.

    Args:
        num_inputs: Number of inputs, all of the same width.
        size: Width W of inputs, hidden layer and output.
    """

    def __init__(self, num_inputs: int, size: int) -> None:
        super().__init__()
        self.inputs = nn.ModuleList(
            nn.Linear(size, size, bias=index == 0) for index in range(num_inputs)
        )
        self.output = nn.Linear(size, size)

    def forward(self, *inputs: tuple[Tensor, Tensor | None]) -> Tensor:
        """Output for inputs given with the row each element reads, None for its own."""
        hidden = [
            linear(x) if rows is None else linear(x).index_select(0, rows)
            for linear, (x, rows) in zip(self.inputs, inputs, strict=True)
        ]
        out: Tensor = self.output(F.relu(sum(hidden[1:], hidden[0])))
        return out


class States(NamedTuple):
    """States of a graph's parts.

    Attributes:
        edges: :math:`e`, ``(E, W)``.
        nodes: :math:`v`, ``(N, W)``.
        globals: :math:`u`, ``(G, W)``.
    """

    edges: Tensor
    nodes: Tensor
    globals: Tensor


class GraphNetworkBlock(nn.Module):
    """Updates edges, then nodes, then the global state.

    Arguments as for :class:`LitGraphNetwork`; ``size`` is the width W of all states.
    """

    sum_units: Tensor

    def __init__(self, size: int, aggr: Aggregation, global_aggr: Aggregation) -> None:
        super().__init__()
        self.aggr, self.global_aggr = aggr, global_aggr
        self.edge_update = Update(4, size)
        self.node_update = Update(3, size)
        self.global_update = Update(3, size)
        self.register_buffer("sum_units", torch.ones(2))  # of sums of edges and of nodes

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Reads also a block that knows no units."""
        state_dict.setdefault(f"{prefix}sum_units", torch.ones(2))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(
        self,
        states: States,
        edge_index: Tensor,
        graph: Tensor,
        multiplicity: Tensor | None = None,
        global_state: bool = True,
    ) -> States:
        """States after one round."""
        (source, target), (e, v, u) = edge_index, states
        edge_graph = graph[source]
        e = self._updated(e, (v, source), (v, target), (u, edge_graph))
        incoming = gathered(e, target, v.shape[0], self.aggr, multiplicity)
        v = v + self.node_update((incoming, None), (v, None), (u, graph))
        if not global_state:
            return States(e, v, u)
        edges = gathered(e, edge_graph, u.shape[0], self.global_aggr, multiplicity)
        nodes = scatter(v, graph, 0, u.shape[0], self.global_aggr)
        if self.global_aggr == "sum":
            of_edges, of_nodes = self.sum_units.to(edges.dtype).unbind()
            edges, nodes = edges / of_edges, nodes / of_nodes
        u = u + self.global_update((edges, None), (nodes, None), (u, None))
        return States(e, v, u)

    def _updated(self, e: Tensor, *reads: tuple[Tensor, Tensor]) -> Tensor:
        """New states of the edges, a stretch at a time where no gradient needs them all."""
        if torch.compiler.is_exporting() or torch.is_grad_enabled() or len(e) <= _STRETCH:
            every: Tensor = e + self.edge_update((e, None), *reads)
            return every
        found = torch.empty_like(e)
        for low in range(0, len(e), _STRETCH):
            part = slice(low, low + _STRETCH)
            rows = [(x, index[part]) for x, index in reads]
            found[part] = e[part] + self.edge_update((e[part], None), *rows)
        return found


def gathered(
    e: Tensor, index: Tensor, size: int, aggr: Aggregation, multiplicity: Tensor | None
) -> Tensor:
    """Edges ``(E, W)`` gathered by node or graph, each as many times as it stands for."""
    found: Tensor
    if multiplicity is None:
        found = scatter(e, index, 0, size, aggr)
    elif aggr == "max":
        carries = multiplicity > 0
        found = scatter(e[carries], index[carries], 0, size, aggr)
    else:
        times = multiplicity.to(e.dtype).unsqueeze(1)
        found = scatter(e * times, index, 0, size, "sum")
        if aggr == "mean":
            found = found / scatter(times, index, 0, size, "sum").clamp(min=1.0)
    return found


class GraphNetwork(nn.Module):
    """Encoders, blocks, and a head that reads the part of the graph that has targets.

    Arguments as for :class:`LitGraphNetwork`.

    Shape:
        A batch to ``(N, K)``, ``(E, K)`` or ``(G, K)``, by level, and the states.

    Example:
        >>> x, edges, y = torch.zeros(3, 4), torch.tensor([[0, 1], [1, 2]]), torch.zeros(3, 1)
        >>> batch = GraphBatch(x, edges, None, y, torch.ones(3).bool())
        >>> GraphNetwork(4, 0, 8, out_features=1, level="edge")(batch)[0].shape
        torch.Size([2, 1])
    """

    def __init__(
        self,
        in_features: int,
        edge_features: int,
        hidden_size: int,
        out_features: int,
        level: Level,
        num_layers: int = 2,
        aggr: Aggregation = "sum",
        global_aggr: Aggregation | None = None,
        shared: bool = False,
        global_state: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.global_state = global_state
        self.dropout = nn.Dropout(dropout)
        if hidden_size < 1 or num_layers < 1:
            raise ValueError(
                f"hidden_size and num_layers must be positive, got {hidden_size} and {num_layers}"
            )
        self.level, self.num_layers = level, num_layers
        self.node_encoder = FeatureLinear(in_features, hidden_size, bias=True)
        self.edge_encoder = nn.Linear(1 + edge_features, hidden_size)
        self.globals = nn.Parameter(torch.zeros(1, hidden_size))
        self.blocks = nn.ModuleList(
            GraphNetworkBlock(hidden_size, aggr, global_aggr or aggr)
            for _ in range(1 if shared else num_layers)
        )
        self.read = Update({"node": 2, "edge": 4, "graph": 1}[level], hidden_size)
        self.head = nn.Linear(hidden_size, out_features)

    def forward(self, batch: GraphBatch) -> tuple[Tensor, States]:
        """Outputs and states.

        Raises:
            InputError: If neighbours were sampled and the graph has a state, which needs them all.
        """
        if self.global_state and batch.degree is not None:
            raise InputError(NO_STATE)
        graph = batch.graph
        if graph is None:
            graph = batch.edge_index.new_zeros(batch.x.shape[0])
        nodes = self.dropout(F.relu(self.node_encoder(batch.x)))
        states = States(
            self.edge_encoder(_edge_inputs(batch, nodes)),
            nodes,
            self.globals.expand(batch.num_graphs, -1),
        )
        for index in range(self.num_layers):
            block = self.blocks[index % len(self.blocks)]
            states = block(states, batch.edge_index, graph, batch.multiplicity, self.global_state)
        source, target = batch.edge_index
        e, v, u = states
        if self.level == "graph":
            read = self.read((u, None))
        elif self.level == "node":
            read = self.read((v, None), (u, graph))
        else:
            read = self.read((e, None), (v, source), (v, target), (u, graph[source]))
        return self.head(self.dropout(F.relu(read))), states

    @torch.no_grad()
    def take_sizes(self, batches: Iterable[GraphBatch]) -> None:
        """Takes the units of sums over a graph from training batches."""
        counts = torch.tensor(
            [[batch.edge_index.shape[1], len(batch.x), batch.num_graphs] for batch in batches]
        )
        edges, nodes, graphs = counts.sum(0).tolist()
        units = torch.tensor([edges / graphs, nodes / graphs]).clamp(min=1).sqrt()
        for block in self.blocks:
            assert isinstance(block, GraphNetworkBlock)
            block.sum_units.copy_(units)


def _edge_inputs(batch: GraphBatch, like: Tensor) -> Tensor:
    """Weight and features of each edge, ``(E, 1 + A)``."""
    weight = batch.edge_weight
    if weight is None:
        weight = like.new_ones(batch.edge_index.shape[1])
    columns = weight.to(like.dtype).unsqueeze(1)
    if batch.edge_attr is None:
        return columns
    return torch.cat([columns, batch.edge_attr.to(like.dtype)], dim=1)


class LitGraphNetwork(LitGraphModel):
    """Classes or numbers of nodes, edges or whole graphs with a graph network.

    Args:
        in_features: Number F of node features.
        out_features: Number of classes, labels or numbers of a target.
        level: Whether a target belongs to a node, an edge or a graph.
        task: Whether a target is a class, several labels at once, or one or more numbers.
        edge_features: Number A of edge features beside the weight.
        hidden_size: Width W of all states.
        num_layers: Number of blocks: how far a node sees, its graph's global state aside.
        aggr: Aggregation of a node's incoming edges.
        global_aggr: Aggregation into the global state; None for the same.
        shared: Whether all rounds use one block.
        global_state: Whether a graph has a state of its own; without one its neighbours can be
            sampled.
        dropout: Probability of dropping a unit of the first states and before the last layer; not
            used for numbers of whole graphs, since a sum through dropout is mostly noise.
        linear_model: Whether a linear model of a target's own features has a share of the scores,
            chosen on the validation targets.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer.

    Raises:
        ValueError: If a size is not positive.

    Shape:
        A batch of graphs to logits ``(N, K)``, ``(E, K)`` or ``(G, K)``, by level; numbers
        ``(., 1)`` are in the units of the data and their loss in units of the training variance.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        level: Level,
        task: Task,
        edge_features: int,
        hidden_size: int = 32,
        num_layers: int = 2,
        aggr: Aggregation = "sum",
        global_aggr: Aggregation | None = None,
        shared: bool = False,
        global_state: bool = True,
        dropout: float = 0.0,
        linear_model: bool = False,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(task_metrics(task, out_features, level), optimizer, lr_scheduler)
        self.task = task
        self.net = GraphNetwork(
            in_features=in_features,
            edge_features=edge_features,
            hidden_size=hidden_size,
            out_features=out_features,
            level=level,
            num_layers=num_layers,
            aggr=aggr,
            global_aggr=global_aggr,
            shared=shared,
            global_state=global_state,
            dropout=0.0 if (level, task) == ("graph", "regression") else dropout,
        )
        self.y_scaler = Standardize(out_features if task == "regression" else 1)
        if linear_model:
            self.linear = LinearShare(in_features, out_features, level, edge_features)

    def take_scale(self, datamodule: Any) -> None:
        """As every model, and takes the units of sums over a graph."""
        super().take_scale(datamodule)
        sums = (self.hparams["global_aggr"] or self.hparams["aggr"]) == "sum"
        if sums and self.hparams["global_state"] and hasattr(datamodule, "fitting_batches"):
            self.net.take_sizes(datamodule.fitting_batches())

    def forward(self, batch: GraphBatch) -> Tensor:
        """Logits, or numbers in the units of the data."""
        out = self.mixed(batch)
        return self.y_scaler.inverse(out) if self.task == "regression" else out

    def outputs(self, batch: GraphBatch) -> Tensor:
        """Logits, or standardised numbers, of all targets."""
        out: Tensor = self.net(batch)[0]
        return out

    def embeddings(self, batch: GraphBatch) -> Tensor:
        """States of the nodes, ``(N, W)``."""
        states: States = self.net(batch)[1]
        return states.nodes
