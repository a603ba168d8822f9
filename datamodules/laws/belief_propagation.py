r"""Exact belief propagation for the block model with features.

Node i has a class :math:`z_i`, evidence :math:`\phi_i(z)` of its own, and each edge (i, j) the
likelihood :math:`c(z_i, z_j)`. Messages and posterior are

.. math::
    m_{i \to j}(z) &\propto \phi_i(z) \prod_{k \in N(i) \setminus j}
        \sum_{z'} c(z, z') m_{k \to i}(z') \\
    b_i(z) &\propto \phi_i(z) \prod_{k \in N(i)} \sum_{z'} c(z, z') m_{k \to i}(z')

(Decelle, Krzakala, Moore and Zdeborova, 2011). Without the pairs that have *no* edge,
:math:`b_i` after t sweeps is the exact posterior given the tree of walks of length t around i: what
a network of t layers can know. The missing edges of a graph of n nodes say that its classes are
balanced. Each says O(1/n); together they are the field :math:`-\frac{1}{n} \sum_k \sum_{z'}
c(z, z') b_k(z')` on each node, taken from the sweep before. With it the fixed point on a sparse
graph, locally a tree, is the posterior given everything; without it the classes of a graph with
loops drift to a single one.
"""

from collections.abc import Iterator

import torch
from torch import Tensor


def reversed_edges(edge_index: Tensor, num_nodes: int) -> Tensor:
    """Number of the edge (j, i) for each edge (i, j) of an undirected graph, ``(E,)``."""
    source, target = edge_index
    keys, wanted = source * num_nodes + target, target * num_nodes + source
    order = keys.argsort()
    found: Tensor = order[torch.searchsorted(keys[order], wanted)]
    return found


def sweeps(
    edge_index: Tensor, log_evidence: Tensor, affinity: Tensor, graph: Tensor | None = None
) -> Iterator[Tensor]:
    """Posteriors after 0, 1, 2, ... sweeps, without end.

    Args:
        edge_index: Both directions of each edge, ``(2, E)``.
        log_evidence: Prior and own evidence of each node, up to a constant, ``(N, K)``; minus
            infinity at every class but one for a node of known class.
        affinity: n times the probability of an edge between two classes, ``(K, K)``.
        graph: Graph each node belongs to, ``(N,)``, to count the pairs without an edge; None leaves
            them out.

    Yields:
        Posterior of each node, ``(N, K)``.
    """
    source, target = edge_index
    back = reversed_edges(edge_index, len(log_evidence))
    belief = log_evidence.softmax(1)
    message = belief[source]
    while True:
        yield belief
        said = (message @ affinity).log()
        log_belief = log_evidence.index_add(0, target, said)
        if graph is not None:
            log_belief = log_belief - (_graph_means(belief, graph) @ affinity)[graph]
        belief = log_belief.softmax(1)
        message = (log_belief[source] - said[back]).softmax(1)


def _graph_means(values: Tensor, graph: Tensor) -> Tensor:
    sizes = torch.bincount(graph).unsqueeze(1)
    return values.new_zeros(len(sizes), values.shape[1]).index_add(0, graph, values) / sizes


def fixed_point(
    beliefs: Iterator[Tensor], tolerance: float = 1e-3, max_sweeps: int = 100
) -> Iterator[Tensor]:
    """The sweeps up to the one that changes no probability by more than a tolerance.

    Args:
        beliefs: Posteriors of :func:`sweeps`.
        tolerance: Largest change of a probability at the fixed point.
        max_sweeps: Sweeps after which the last one is taken for it.

    Yields:
        Posterior of each node after each sweep, ``(N, K)``.
    """
    before: Tensor | None = None
    for count, belief in enumerate(beliefs):
        yield belief
        still = before is not None and bool((belief - before).abs().max() < tolerance)
        if still or count == max_sweeps:
            return
        before = belief
