"""Block-diagonal batches against torch-geometric's, and shares of several ranks."""

import pytest
import torch
from graph_helpers import random_graph
from torch_geometric.data import Batch, Data

from datamodules.errors import InputError
from datamodules.graph_base import GraphLoader, block_diagonal


def graphs(level="node", sizes=(7, 5, 11, 3, 13)):
    made = []
    for number, size in enumerate(sizes):
        graph = random_graph(size, 2 * size, 3, edge_features=2)
        if level == "edge":
            count = graph.edge_index.shape[1]
            graph = graph._replace(y=torch.rand(count, 1), mask=torch.rand(count) < 0.5)
        elif level == "graph":
            graph = graph._replace(y=torch.tensor([number]), mask=torch.tensor([True]))
        made.append(graph)
    return made


def as_geometric(parts):
    return Batch.from_data_list(
        [
            Data(x=g.x, edge_index=g.edge_index, edge_attr=g.edge_attr, w=g.edge_weight, y=g.y)
            for g in parts
        ]
    )


@pytest.mark.parametrize("level", ["node", "edge", "graph"])
def test_any_choice_of_graphs_is_torch_geometrics_batch(level):
    parts = graphs(level)
    loader = GraphLoader(block_diagonal(parts), level, 3)
    for choice in ([0, 1, 2, 3, 4], [3, 1], [4], [2, 2]):
        ours, theirs = loader.take(torch.tensor(choice)), as_geometric([parts[i] for i in choice])
        assert torch.equal(ours.x, theirs.x)
        assert torch.equal(ours.edge_index, theirs.edge_index)
        assert torch.equal(ours.edge_attr, theirs.edge_attr)
        assert torch.equal(ours.edge_weight, theirs.w)
        assert torch.equal(ours.graph, theirs.batch)
        assert torch.equal(ours.y, theirs.y)
        assert torch.equal(ours.mask, torch.cat([parts[i].mask for i in choice]))
        assert ours.num_graphs == len(choice)


@pytest.mark.parametrize("level", ["node", "edge", "graph"])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_every_target_once(level, world_size):
    data = block_diagonal(graphs(level))
    scored = []
    for rank in range(world_size):
        loader = GraphLoader(data, level, 3, rank=rank, world_size=world_size)
        for index, batch in enumerate(loader):
            rows = loader.rows(index)
            assert torch.equal(batch.y[batch.mask], data.y[rows])
            scored.append(rows)
        assert index + 1 == len(loader)
    assert sorted(torch.cat(scored).tolist()) == data.mask.nonzero()[:, 0].tolist()


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_the_targets_of_one_graph(world_size):
    (data,) = graphs(sizes=(17,))
    data = data._replace(mask=torch.rand(17) < 0.6)
    scored = []
    for rank in range(world_size):
        loader = GraphLoader(data, "node", rank=rank, world_size=world_size)
        (batch,) = loader
        assert batch.x is data.x
        assert batch.edge_index is data.edge_index
        assert torch.equal(loader.rows(0), batch.mask.nonzero()[:, 0])
        scored.append(loader.rows(0))
    assert sorted(torch.cat(scored).tolist()) == data.mask.nonzero()[:, 0].tolist()


def test_shuffled_order_is_the_epochs_and_resumes():
    data = block_diagonal(graphs())
    whole, part = (GraphLoader(data, "node", 2, shuffle=True, seed=3) for _ in range(2))
    orders = []
    for epoch in (0, 1):
        whole.sampler.set_epoch(epoch)
        orders.append([batch.x for batch in whole])
    assert not torch.equal(torch.cat(orders[0]), torch.cat(orders[1]))
    part.sampler.set_epoch(1)
    part.load_state_dict({"epoch": 1, "position": 1})
    rest = [batch.x for batch in part]
    assert len(rest) == 2
    for ours, expected in zip(rest, orders[1][1:], strict=True):
        assert torch.equal(ours, expected)


def test_too_few_targets_for_the_ranks_are_named():
    (data,) = graphs(sizes=(5,))
    mask = torch.zeros(5, dtype=torch.bool)
    mask[0] = True
    with pytest.raises(InputError, match="1 scored targets cannot feed 2 devices"):
        GraphLoader(data._replace(mask=mask), "node", world_size=2)
    with pytest.raises(InputError, match="5 training graphs cannot feed 6 devices"):
        GraphLoader(block_diagonal(graphs()), "node", shuffle=True, world_size=6)
