"""A user's graphs: CSV files, saved Data and datasets."""

import numpy as np
import pandas as pd
import pytest
import torch
from graph_helpers import NUM_NODES, saved, several, write_csv
from torch_geometric.data import Data

from datamodules import GraphDataModule
from lit_models.__main__ import main


def test_csv_becomes_one_graph_with_three_masks(tmp_path):
    data = GraphDataModule(**write_csv(tmp_path))
    train, val, test = (data.split(s) for s in ("train", "val", "test"))
    assert data.class_names == ["cat", "dog"]
    assert (data.in_features, data.num_classes, data.level) == (3, 2, "node")
    torch.testing.assert_close(train.x.mean(0), torch.zeros(3), rtol=0, atol=1e-6)
    torch.testing.assert_close(train.x.std(0, correction=0), torch.ones(3))
    edges = set(map(tuple, train.edge_index.T.tolist()))
    assert edges == {(i, i + 2) for i in range(38)} | {(i + 2, i) for i in range(38)}
    assert train.y.tolist() == [0, 1] * 20
    assert (train.mask.int() + val.mask.int() + test.mask.int() == 1).all()
    assert data.num_train == int(train.mask.sum()) == 26
    assert val.x is train.x


def test_directed_edges_stay_directed(tmp_path):
    files = write_csv(tmp_path, edges=lambda t: t.assign(weight=np.arange(len(t)) + 0.5))
    train = GraphDataModule(**files, directed=True).split("train")
    assert set(map(tuple, train.edge_index.T.tolist())) == {(i, i + 2) for i in range(38)}
    weight = torch.arange(38) + 0.5
    torch.testing.assert_close(train.edge_weight, weight / weight.mean())


def test_an_edge_named_twice_counts_once(tmp_path):
    def twice(table):
        turned = table.rename(columns={"a": "b", "b": "a"})[["a", "b"]]
        both = pd.concat([table.assign(weight=1.0), turned.assign(weight=3.0)])
        return pd.concat([both, table.iloc[:1].assign(weight=7.0)])

    train = GraphDataModule(**write_csv(tmp_path, edges=twice)).split("train")
    assert train.edge_index.shape[1] == 76
    ratio = train.edge_weight / train.edge_weight.min()  # means of 1, 3 and 7, of 1 and 3
    assert ratio.max().item() == pytest.approx(11 / 6)


def test_named_splits_and_unlabelled_nodes(tmp_path):
    def split(table):
        names = np.array(["train", "train", "val", "test"] * 10, dtype=object)
        names[-4:] = ""
        labels = table["y"].to_numpy(dtype=object)
        labels[-4:] = ""
        return table.assign(split=names, y=labels)

    data = GraphDataModule(**write_csv(tmp_path, split))
    assert [int(data.split(s).mask.sum()) for s in ("train", "val", "test")] == [18, 9, 9]
    predicted = data.split("predict")
    assert predicted.mask.all()
    assert (predicted.y[-4:] < 0).all()


def test_numbered_nodes_need_no_names(tmp_path):
    def numbered(table):
        return table.assign(name=range(NUM_NODES))

    files = write_csv(
        tmp_path, numbered, lambda t: pd.DataFrame({"a": range(38), "b": range(2, 40)})
    )
    assert GraphDataModule(**files).split("train").edge_index.shape[1] == 76


def test_missing_values_are_filled_and_told(tmp_path, capsys):
    def worn(table):
        size = table["size"].where(table.index % 10 > 0)
        zone = 100 + table.index % 2  # names written as numbers
        return table.assign(size=size, kind=table["kind"].where(table.index != 4), zone=zone)

    files = write_csv(tmp_path, worn, lambda t: t.assign(length=[np.nan, *range(37)]))
    options = {"missing": "fill", "categorical": ["zone"], "scaling": "none"}
    data = GraphDataModule(**files, **options)
    data.setup("fit")
    x, size = data.split("train").x, pd.read_csv(files["path"])["size"]
    assert x.shape[1] == data.in_features == 2 + 3 + 2  # number and flag; blue, red, none; 100, 101
    np.testing.assert_allclose(x[:, 0], size.fillna(size.median()), rtol=1e-6)
    assert torch.equal(x[:, 1].bool(), torch.arange(40) % 10 == 0)
    assert x[4, 2:5].tolist() == [0, 0, 1]
    assert torch.equal(x[:, 6].long(), torch.arange(40) % 2)
    assert data.split("train").edge_attr.shape == (76, 2)
    assert "4 missing numbers in 1 columns filled" in capsys.readouterr().err
    new = GraphDataModule(
        **files, **options, predict_path=files["path"], predict_edges_path=files["edges_path"]
    )
    new.adopt(data.knowledge())
    assert torch.equal(new.split("predict").x, x)


def test_rows_are_scaled_by_their_sum(tmp_path):
    x = torch.rand(NUM_NODES, 3)
    x[3] = 0
    data = GraphDataModule(**saved(tmp_path, x=x), scaling="row")
    total = data.split("train").x.sum(1)
    assert total[3] == 0
    torch.testing.assert_close(total[:3], torch.ones(3))
    torch.testing.assert_close(GraphDataModule(**saved(tmp_path, x=x)).split("train").x, x)


def test_mostly_zero_features_become_sparse(tmp_path):
    x = torch.zeros(NUM_NODES, 50)
    x[torch.arange(NUM_NODES), torch.arange(NUM_NODES)] = 2.0
    data = GraphDataModule(**saved(tmp_path, x=x))
    assert data.split("train").x.layout == torch.sparse_csr
    assert torch.equal(data.split("train").x.to_dense(), x)


def test_masks_of_a_saved_graph_are_its_splits(tmp_path):
    masks = torch.rand(NUM_NODES).argsort()
    chosen = {f"{s}_mask": masks % 3 == k for k, s in enumerate(("train", "val", "test"))}
    data = GraphDataModule(**saved(tmp_path, **chosen))
    for split in ("train", "val", "test"):
        assert torch.equal(data.split(split).mask, chosen[f"{split}_mask"])


def test_several_saved_graphs_have_a_class_each(tmp_path):
    edges = torch.tensor([[0, 1, 2], [1, 2, 0]])
    graphs = [
        Data(x=torch.randn(3, 2), edge_index=edges, edge_attr=torch.ones(3, 4), y=torch.tensor([k]))
        for k in [0, 1] * 15
    ]
    torch.save(graphs, tmp_path / "graphs.pt")
    data = GraphDataModule(path=str(tmp_path / "graphs.pt"))
    assert (data.level, data.edge_features, data.out_features) == ("graph", 4, 2)
    assert [data.split(s).num_graphs for s in ("train", "val", "test")] == [19, 5, 6]
    assert data.baseline["test/accuracy"].value == 0.5


def test_datasets_are_found_by_name(tmp_path, monkeypatch):
    import torch_geometric.datasets

    graph = torch.load(saved(tmp_path)["path"], weights_only=False)

    class KarateClub:
        def __init__(self, root, name=None):
            self.seen = (root, name)

        def __iter__(self):
            return iter([graph])

    monkeypatch.setattr(torch_geometric.datasets, "KarateClub", KarateClub)
    for name in ("KarateClub", "KarateClub:any"):
        assert GraphDataModule(dataset=name, root=str(tmp_path)).num_classes == 2


def test_disconnected_graph_and_isolated_nodes_are_fine(tmp_path):
    files = write_csv(tmp_path, edges=lambda t: t.iloc[5:9])
    data = GraphDataModule(**files)
    assert data.split("train").edge_index.shape[1] == 8


@pytest.mark.parametrize("experiment", ["gcn", "gat", "graph_network"])
def test_own_nodes_are_fitted_and_predicted_by_name(tmp_path, experiment):
    files = write_csv(tmp_path, lambda t: t.assign(y=[*t["y"][:-1], ""]))
    options = [f"--data.{key}={value}" for key, value in files.items()]
    options = ["--data", "GraphDataModule", *options, "--runs_dir", str(tmp_path / "runs")]
    options += ["--config", "cpu", "--trainer.enable_progress_bar", "false"]
    assert main(["fit", "--config", experiment, *options, "--run_id", "r"]) == 0
    assert main(["predict", "--config", experiment, *options, "--ckpt_path", "best"]) == 0
    table = pd.read_csv(tmp_path / "runs" / experiment / "r" / "predictions.csv")
    assert table["node"].tolist() == [f"n{i}" for i in range(NUM_NODES)]
    assert set(table["split"].dropna()) == {"train", "val", "test"}
    assert pd.isna(table["target"].iloc[-1])
    assert pd.isna(table["split"].iloc[-1])
    known = table.iloc[:-1]
    assert (known["class"] == known["target"]).mean() > 0.9
    total = table["probability_cat"] + table["probability_dog"]
    np.testing.assert_allclose(total, 1, rtol=1e-5)


def test_reverses_keep_weights_and_attributes(tmp_path):
    weight, attributes = torch.arange(38) + 0.5, torch.randn(38, 2)
    files = saved(tmp_path, edge_weight=weight, edge_attr=attributes)
    train = GraphDataModule(**files).split("train")
    found = {
        (s, t): (w, *a)
        for (s, t), w, a in zip(
            train.edge_index.T.tolist(),
            train.edge_weight.tolist(),
            train.edge_attr.tolist(),
            strict=True,
        )
    }
    assert len(found) == 76
    for k in range(38):
        expected = ((weight[k] / weight.mean()).item(), *attributes[k].tolist())
        assert found[k, k + 2] == found[k + 2, k] == pytest.approx(expected)
    assert GraphDataModule(**files, directed=True).split("train").edge_index.shape[1] == 38


def test_names_keep_their_zeros_and_na_is_a_name(tmp_path):
    names = [f"{i:05d}" for i in range(NUM_NODES - 1)] + ["NA"]
    labels = np.where(np.arange(NUM_NODES) % 2 == 0, "NA", "01")
    files = write_csv(
        tmp_path,
        lambda t: t.assign(name=names, y=labels),
        lambda t: pd.DataFrame({"a": names[:-1], "b": names[1:]}),
    )
    data = GraphDataModule(**files)
    assert data.class_names == ["01", "NA"]
    assert (data.split("predict").y >= 0).all()
    outputs = {
        "class": torch.zeros(NUM_NODES, dtype=torch.long),
        "probability": torch.full((NUM_NODES, 2), 0.5),
        "target": data.split("predict").y,
    }
    frame = data.prediction_frame(outputs)
    assert frame["node"].tolist() == names
    assert frame["target"].tolist() == labels.tolist()


TARGETS = {
    "a number": ({"y": torch.rand(NUM_NODES)}, "regression", (NUM_NODES, 1)),
    "a column of numbers": ({"y": torch.rand(NUM_NODES, 1)}, "regression", (NUM_NODES, 1)),
    "several numbers": ({"y": torch.rand(NUM_NODES, 3)}, "regression", (NUM_NODES, 3)),
    "labels": ({"y": (torch.rand(NUM_NODES, 4) < 0.5).float()}, "multilabel", (NUM_NODES, 4)),
    "classes as 0. and 1.": (
        {"y": (torch.arange(NUM_NODES) % 2).float()},
        "classification",
        (NUM_NODES,),
    ),
    "a column of classes": (
        {"y": (torch.arange(NUM_NODES) % 2).view(-1, 1)},
        "classification",
        (NUM_NODES,),
    ),
}


@pytest.mark.parametrize("name", TARGETS)
def test_targets_of_nodes_come_in_many_forms(tmp_path, name):
    changes, task, shape = TARGETS[name]
    data = GraphDataModule(**saved(tmp_path, **changes))
    batch = data.split("train")
    assert data.task == task
    assert batch.y.shape == shape
    torch.testing.assert_close(batch.y.double().flatten(), changes["y"].double().flatten())
    from lit_models import LitGCN

    model = LitGCN(3, data.num_classes, task=task)
    model.take_scale(data)
    output = model.step(batch)
    assert torch.isfinite(output.loss)
    assert output.num_targets == batch.y[batch.mask].numel()
    assert set(data.baseline) <= {f"test/{m}" for m in model.test_metrics.keys(keep_base=True)}


@pytest.mark.parametrize("y", [1, 1.5, [0.5, 2.0]])
def test_targets_of_graphs_come_in_many_forms(tmp_path, y):
    changes = [{"y": torch.as_tensor(y) * (k % 2) if k else y} for k in range(30)]
    data = GraphDataModule(**several(tmp_path, *changes))
    batch = data.split("train")
    assert data.level == "graph"
    assert len(batch.y) == batch.num_graphs
    assert data.task == ("classification" if y == 1 else "regression")


def test_nodes_of_many_graphs_are_split_by_graph(tmp_path):
    changes = [{"y": torch.tensor([0, 1, k % 2])} for k in range(20)]
    data = GraphDataModule(**several(tmp_path, *changes))
    assert data.level == "node"
    splits = [data.split(s) for s in ("train", "val", "test")]
    assert [s.num_graphs for s in splits] == [13, 3, 4]
    assert all(s.mask.all() and len(s.y) == 3 * s.num_graphs for s in splits)


def test_graphs_without_features_get_degrees(tmp_path):
    changes = [
        {"x": None, "num_nodes": 3, "edge_index": torch.tensor([[0], [1 + k % 2]])}
        for k in range(30)
    ]
    data = GraphDataModule(**several(tmp_path, *changes))
    batch = data.split("train")
    assert (batch.x.argmax(1) == torch.bincount(batch.edge_index[1], minlength=len(batch.x))).all()


def test_folds_partition_the_graphs(tmp_path):
    files = several(tmp_path, *[{} for _ in range(40)])
    tests = []
    for fold in range(5):
        data = GraphDataModule(**files, folds=5, fold=fold)
        rows = data._targets
        assert len(set(rows["train"]) | set(rows["val"]) | set(rows["test"])) == 40
        assert [len(rows[s]) for s in ("train", "val", "test")] == [24, 8, 8]
        assert data._all_targets.y[torch.from_numpy(rows["test"])].sum() == 4
        tests += rows["test"].tolist()
    assert sorted(tests) == list(range(40))


def test_new_nodes_are_read_as_the_run_knows_them(tmp_path):
    data = GraphDataModule(**write_csv(tmp_path))
    known, x = data.knowledge(), data.split("train").x
    (tmp_path / "new").mkdir()
    new = write_csv(tmp_path / "new", lambda t: t.drop(columns="y").iloc[5:], lambda t: t.iloc[5:])
    fresh = GraphDataModule(
        path=str(tmp_path / "gone.csv"),
        edges_path="gone.csv",
        predict_path=new["path"],
        predict_edges_path=new["edges_path"],
    )
    fresh.adopt(known)
    assert (fresh.in_features, fresh.num_classes, fresh.predict_split) == (3, 2, "predict")
    batch = fresh.split("predict")
    torch.testing.assert_close(batch.x, x[5:])
    assert (batch.y < 0).all()


def test_scale_of_several_graphs_is_the_training_graphs(tmp_path):
    changes = [{"x": torch.full((3, 1), float(k)) + torch.rand(3, 1)} for k in range(30)]
    data = GraphDataModule(**several(tmp_path, *changes), scaling="standard")
    torch.testing.assert_close(data.split("train").x.mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    rows = data._targets["train"]
    x = torch.cat([changes[k]["x"] for k in rows]).double()
    assert data.knowledge()["scale"][0] == pytest.approx([x.mean().item()])


def test_rivals_see_the_targets_of_the_run(tmp_path):
    rivals = GraphDataModule(**write_csv(tmp_path)).rivals
    assert set(rivals["test/accuracy"]) == {
        "logistic regression on the features",
        "label propagation",
    }
    assert rivals["test/accuracy"]["logistic regression on the features"] == 1
    numbers = GraphDataModule(**saved(tmp_path, y=torch.rand(NUM_NODES))).rivals
    assert set(numbers["test/mse"]) == {"ridge regression on the features"}


def test_changed_rows_are_noticed(tmp_path):
    first = GraphDataModule(**write_csv(tmp_path))
    state = first.state_dict()
    same, other = (GraphDataModule(**write_csv(tmp_path), seed=seed) for seed in (0, 1))
    for data in (same, other):
        data.load_state_dict(state)
    assert same.other_rows("test") is None
    assert "it was trained on" in other.other_rows("test")


def test_edges_named_again_are_said_once_of_all_graphs(tmp_path, capsys):
    edges = torch.tensor([[0, 0, 1, 2], [1, 1, 2, 0]])
    changes = [{"edge_index": edges, "edge_attr": torch.rand(4, 1)} for _ in range(30)]
    batch = GraphDataModule(**several(tmp_path, *changes)).split("train")
    assert batch.edge_index.shape[1] == 6 * batch.num_graphs
    said = [line for line in capsys.readouterr().err.splitlines() if "named again" in line]
    assert len(said) == 1
    assert "30 edges are named again with other numbers" in said[0]
