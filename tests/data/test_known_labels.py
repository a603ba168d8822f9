import torch
from graph_helpers import write_csv

from datamodules import GraphDataModule
from datamodules.batches import GraphBatch
from datamodules.own.graph_rivals import label_propagation
from datamodules.own.known_labels import KnownLabelLoader, LabelSpread, beside
from lit_models.__main__ import main


def a_graph(tmp_path, **arguments):
    data = GraphDataModule(**write_csv(tmp_path), label_inputs=True, passes=9, **arguments)
    return data, data.split("train")


def steps(data, train, rank=0, world_size=1, epoch=0):
    options = {"shuffle": True, "seed": 3, "rank": rank, "world_size": world_size}
    bare = train._replace(x=data._whole.x)
    loader = KnownLabelLoader(bare, data._spread, 9, **options)
    loader.sampler.set_epoch(epoch)
    return list(loader)


def test_a_scored_label_is_not_read(tmp_path):
    data, train = a_graph(tmp_path)
    for step, batch in enumerate(steps(data, train)):
        other = GraphDataModule(**write_csv(tmp_path), label_inputs=True, passes=9)
        spread = other._spread
        spread.y = torch.where(batch.mask, 1 - spread.y, spread.y)  # what is scored is turned
        bare = train._replace(x=data._whole.x)
        again = KnownLabelLoader(bare, spread, 9, shuffle=True, seed=3)
        torch.testing.assert_close(list(again)[step].x, batch.x)
        assert batch.mask.any()
        assert not (batch.mask & ~train.mask).any()


def test_labels_of_validation_and_test_are_not_read(tmp_path):
    data, train = a_graph(tmp_path)
    spread = data._spread
    spread.y = torch.where(train.mask, spread.y, 1 - spread.y)
    torch.testing.assert_close(data._shown(data._whole).x, train.x)


def test_a_network_reads_what_label_propagation_knows(tmp_path):
    data, train = a_graph(tmp_path)
    test = data.split("test")
    shown, asked = (batch.mask.nonzero()[:, 0] for batch in (train, test))
    scores = label_propagation(data._whole, train.y, shown, asked, 2)
    prior = torch.bincount(train.y[shown], minlength=2) / len(shown)
    guess = (test.x[asked, -2:] + prior).argmax(1)
    accuracy = (guess == test.y[asked]).double().mean().item()
    assert accuracy == scores["test/accuracy"]["label propagation"]


def test_some_steps_show_nothing_and_each_its_own(tmp_path):
    data, train = a_graph(tmp_path)
    batches = steps(data, train)
    silent = [step for step, batch in enumerate(batches) if not batch.x[:, -2:].any()]
    assert silent == [0, 8]
    assert torch.equal(batches[0].mask, train.mask)
    assert len({tuple(batch.mask.tolist()) for batch in batches[1:8]}) > 5


def test_ranks_share_what_a_step_scores(tmp_path):
    data, train = a_graph(tmp_path)
    alone = steps(data, train, epoch=2)
    shared = [steps(data, train, rank, 2, epoch=2) for rank in range(2)]
    for whole, *parts in zip(alone, *shared, strict=True):
        assert all(torch.equal(part.x, whole.x) for part in parts)
        assert torch.equal(parts[0].mask | parts[1].mask, whole.mask)
        assert not (parts[0].mask & parts[1].mask).any()


def test_columns_stand_beside_sparse_features():
    x, columns = torch.eye(4)[[0, 2, 2, 3]], torch.arange(8.0).view(4, 2)
    found = beside(x.to_sparse_csr(), columns)
    assert torch.equal(found.to_dense(), torch.cat([x, columns], 1))


def test_nothing_near_is_zero():
    edges = torch.tensor([[0, 1], [1, 0]])
    y = torch.tensor([0, 1, 1])
    mask = torch.ones(3, dtype=torch.bool)
    spread = LabelSpread(GraphBatch(torch.zeros(3, 1), edges, None, y, mask), y, 2)
    found = spread.inputs(torch.tensor([0]))
    assert torch.equal(found[2], torch.zeros(2))
    assert found[1].abs().sum() == 0  # one class alone: its share is its prior
    assert spread.inputs(torch.tensor([0, 1]))[0, 0] > 0


def test_the_command_reads_labels_and_predicts_new_nodes_without(tmp_path):
    files = write_csv(tmp_path)
    options = [f"--data.{key}={value}" for key, value in files.items()]
    options += ["--config", "graph", "--config", "cpu", "--trainer.enable_progress_bar", "false"]
    options = ["--config", "gcn", *options, "--runs_dir", str(tmp_path / "runs")]
    assert main(["fit", *options, "--trainer.max_epochs", "2", "--run_id", "r"]) == 0
    new = [f"--data.predict_{key}={value}" for key, value in files.items()]
    assert main(["predict", *options, *new, "--ckpt_path", "best"]) == 0
    assert (tmp_path / "runs" / "gcn" / "r" / "predictions.csv").exists()
