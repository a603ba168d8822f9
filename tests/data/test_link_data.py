"""Links of a user's graph: nothing that is scored is seen, and no drawn pair is an edge."""

import pandas as pd
import pytest
import torch
from torch_geometric.data import Data

from datamodules import InputError, LinkDataModule
from lit_models import LitGraphNetwork
from lit_models.__main__ import main

NUM_NODES = 30


def write(folder, directed=False, features=True):
    """A random graph with names, weights and one feature of the edges."""
    generator = torch.Generator().manual_seed(3)
    first, second = torch.randint(NUM_NODES, (2, 150), generator=generator)
    edges = {(a, b) for a, b in zip(first.tolist(), second.tolist(), strict=True) if a != b}
    if not directed:
        edges = {(min(e), max(e)) for e in edges}
    edges = sorted(edges)
    table = pd.DataFrame([(f"n{a}", f"n{b}") for a, b in edges], columns=["from", "to"])
    table["weight"] = torch.rand(len(edges), generator=generator).numpy() + 0.1
    table["kind"] = ["road" if a % 2 else "rail" for a, _ in edges]
    table.to_csv(folder / "edges.csv", index=False)
    files = {"edges_path": str(folder / "edges.csv")}
    if features:
        x = torch.rand(NUM_NODES, generator=generator).numpy()
        ids = [f"n{k}" for k in range(NUM_NODES)]
        pd.DataFrame({"id": ids, "size": x}).to_csv(folder / "nodes.csv", index=False)
        files["path"] = str(folder / "nodes.csv")
    return files


def pairs_of(batch, chosen, directed):
    pairs = batch.edge_index[:, chosen].T.tolist()
    return {tuple(p) if directed else (min(p), max(p)) for p in pairs}


def batches(data):
    """Two epochs of training, validation and test."""
    data.setup("fit")
    data.setup("test")
    loader = data.train_dataloader()
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        yield from loader
    yield from data.val_dataloader()
    yield from data.test_dataloader()


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("features", [False, True])
def test_no_scored_edge_carries_a_message(tmp_path, directed, features):
    data = LinkDataModule(**write(tmp_path, directed, features), directed=directed)
    edges = {tuple(p) for p in data._links.ends.T.tolist()}
    hidden = {
        split: {tuple(p) for p in data._links.ends[:, rows].T.tolist()}
        for split, rows in data._edges.items()
    }
    assert set.union(*hidden.values()) == edges
    assert sum(map(len, hidden.values())) == len(edges)
    scored_in_training = []
    for batch in batches(data):
        messages = pairs_of(batch, batch.multiplicity > 0, directed)
        true = pairs_of(batch, batch.mask & (batch.y == 1), directed)
        absent = pairs_of(batch, batch.mask & (batch.y == 0), directed)
        assert messages <= edges
        assert not messages & true
        assert true <= edges
        assert len(absent) == len(true)
        assert not absent & edges
        assert all(a != b for a, b in absent)
        assert messages.isdisjoint(hidden["test"])
        if not true <= hidden["test"]:
            assert messages.isdisjoint(hidden["val"])
        if true <= hidden["train"]:
            scored_in_training.append(true)
    count = data.num_train // data.batch_size
    assert len(set().union(*scored_in_training[:count])) == count * data.batch_size


@pytest.mark.parametrize("features", [False, True])
def test_a_network_does_not_see_what_is_hidden(tmp_path, features):
    """The same candidates of a file in which the hidden edges never were have the same scores."""
    data = LinkDataModule(**write(tmp_path, features=features))
    test = data.split("test")
    model = LitGraphNetwork(
        data.in_features, 2, "edge", "classification", data.edge_features, hidden_size=8
    ).eval()
    scores = model.outputs(test)[test.mask]
    links = data._links
    seen = torch.cat([data._edges["train"], data._edges["val"]]).sort().values
    bare = links._replace(
        ends=links.ends[:, seen], weight=links.weight[seen], attributes=links.attributes[seen]
    )
    again = bare.batch(
        data._features,
        torch.ones(len(seen), dtype=torch.bool),
        test.edge_index[:, test.mask],
        test.y[test.mask],
        torch.ones(int(test.mask.sum()), dtype=torch.bool),
    )
    torch.testing.assert_close(model.outputs(again)[again.mask], scores, rtol=1e-5, atol=1e-6)
    leak = test._replace(multiplicity=torch.ones_like(test.multiplicity))
    assert (model.outputs(leak)[test.mask] - scores).abs().max() > 1e-3


def test_batches_are_the_epochs_and_the_same_on_any_number_of_ranks(tmp_path):
    data = LinkDataModule(**write(tmp_path), batch_size=20)
    data.setup("fit")
    options = {"shuffle": True, "seed": 5, "drop_last": True}
    whole = data._make_loader(None, 20, rank=0, world_size=1, **options)
    shares = [data._make_loader(None, 20, rank=r, world_size=2, **options) for r in (0, 1)]
    drawn = []
    for epoch in (0, 1):
        for loader in (whole, *shares):
            loader.sampler.set_epoch(epoch)
        for batch, *parts in zip(whole, *shares, strict=True):
            for part in parts:
                assert torch.equal(part.edge_index, batch.edge_index)
            assert torch.equal(parts[0].mask | parts[1].mask, batch.mask)
            assert not (parts[0].mask & parts[1].mask).any()
            drawn.append(pairs_of(batch, batch.mask & (batch.y == 0), False))
    assert len(set().union(*drawn)) > 3 * 20
    again = LinkDataModule(**write(tmp_path), batch_size=20)
    for split in ("val", "test"):
        assert torch.equal(again.split(split).edge_index, data.split(split).edge_index)


def test_candidates_know_their_common_neighbours(tmp_path):
    data = LinkDataModule(**write(tmp_path))
    test = data.split("test")
    near = {k: set() for k in range(NUM_NODES)}
    for a, b in pairs_of(test, test.multiplicity > 0, False):
        near[a].add(b)
        near[b].add(a)
    for k in test.mask.nonzero()[:, 0].tolist():
        a, b = test.edge_index[:, k].tolist()
        shared = near[a] & near[b]
        index = sum(1 / torch.tensor(float(len(near[c]))).log() for c in shared)
        degrees = torch.tensor(1.0 + len(near[a]) * len(near[b])).log()
        expected = torch.tensor([torch.tensor(1.0 + len(shared)).log(), index, degrees])
        torch.testing.assert_close(test.edge_attr[k, -3:], expected)
    assert (test.edge_attr[~test.mask, -3:] == 0).all()
    assert data.edge_features == 2 + 3
    rivals = data.rivals["test/auc"]
    assert set(rivals) == {
        "common neighbours",
        "Adamic-Adar",
        "preferential attachment",
        "logistic regression on the two nodes",
    }


def test_an_older_run_reads_the_two_numbers_it_was_trained_on(tmp_path):
    data = LinkDataModule(**write(tmp_path))
    knowledge = {k: v for k, v in data.knowledge().items() if k != "pair_features"}
    old = LinkDataModule(**write(tmp_path))
    old.adopt(knowledge)
    assert old.edge_features == 2 + 2
    batch, now = old.split("test"), data.split("test")
    assert torch.equal(batch.edge_attr, now.edge_attr[:, :-1])


def test_saved_graphs_and_a_graph_without_pairs(tmp_path):
    ends = torch.combinations(torch.arange(12)).T
    saved = Data(x=torch.rand(12, 3), edge_index=ends[:, ::2])
    assert LinkDataModule(path=saved, scaling="standard").split("train").x.shape == (12, 3)
    with pytest.raises(InputError, match="0 pairs without an edge, and 13 are needed"):
        LinkDataModule(path=Data(x=torch.rand(12, 3), edge_index=ends)).split("val")
    with pytest.raises(InputError, match="has 4 edges between two nodes; links need 10"):
        LinkDataModule(path=Data(x=torch.rand(12, 3), edge_index=ends[:, :4])).setup("fit")
    with pytest.raises(InputError, match="hides all of the 27 training edges"):
        LinkDataModule(path=saved, batch_size=64).setup("fit")
    with pytest.raises(InputError, match="give edges_path"):
        LinkDataModule(path="nodes.csv")


def test_links_are_fitted_and_pairs_of_another_graph_predicted(tmp_path, capsys):
    files = write(tmp_path)
    pairs = pd.DataFrame({"a": ["n3", "n7"], "b": ["n1", "n2"]})
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    (tmp_path / "new").mkdir()
    new = write(tmp_path / "new")
    options = ["--config", "graph_network_links", "--config", "links", "--config", "cpu"]
    options += ["--runs_dir", str(tmp_path / "runs"), "--trainer.enable_progress_bar", "false"]
    given = [f"--data.{key}={value}" for key, value in files.items()]
    fit = ["--run_id", "r", "--trainer.max_epochs", "1"]
    assert main(["fit", *options, *given, *fit]) == 0
    said = capsys.readouterr().out
    assert "rivals test/hits_at_50" in said
    asked = [f"--data.predict_{key}={value}" for key, value in new.items()]
    asked += ["--data.pairs_path", str(tmp_path / "pairs.csv"), "--ckpt_path", "best"]
    gone = [f"--data.{key}={tmp_path / 'gone.csv'}" for key in files]
    assert main(["predict", *options, *gone, *asked]) == 0
    folder = tmp_path / "runs" / "graph_network_links" / "r"
    table = pd.read_csv(folder / "predictions.csv")
    assert table["source"].tolist() == ["n3", "n7"]
    assert table["target"].tolist() == ["n1", "n2"]
    assert table["probability"].between(0, 1).all()


def test_a_model_of_nodes_is_refused(tmp_path, capsys):
    files = [f"--data.{key}={value}" for key, value in write(tmp_path).items()]
    assert main(["fit", "--config", "gcn", "--data", "LinkDataModule", *files]) == 2
    assert "use --config graph_network_links" in capsys.readouterr().err


def test_another_graph_is_read_by_the_scale_and_width_of_the_run(tmp_path):
    files = write(tmp_path)
    data = LinkDataModule(**files)
    x = data.split("test").x
    pairs = pd.DataFrame({"a": ["n0"], "b": ["n1"]})
    new = LinkDataModule(
        pairs_path=pairs,
        predict_path=files["path"],
        predict_edges_path=files["edges_path"],
        **files,
    )
    new.adopt(data.knowledge())
    assert new._scale[0].dtype is torch.float64
    assert torch.equal(new.split("predict").x, x)

    ring = torch.stack([torch.arange(12), (torch.arange(12) + 1) % 12])
    wide, narrow = (
        Data(x=torch.rand(12, width), edge_index=ring, num_nodes=12) for width in (3, 2)
    )
    run = LinkDataModule(path=wide, predict_path=narrow, pairs_path=pd.DataFrame([(0, 1)]))
    with pytest.raises(InputError, match="x has 2 columns, the training graphs have 3"):
        run.split("predict")
