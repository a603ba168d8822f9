"""Every mistake in a user's graphs, in one line."""

import numpy as np
import pytest
import torch
from graph_helpers import NUM_NODES, saved, several, write_csv

from datamodules import GraphDataModule, InputError
from lit_models.__main__ import main


def drop_edges(folder):
    return saved(folder, edge_index=torch.empty(2, 0, dtype=torch.long))


def one_split(table):
    return table.assign(split=["train"] * 39 + ["future"])


def no_class_in_training(table):
    y = np.array(["cat", "dog"] * 20, dtype=object)
    y[35:] = "fox"
    split = np.repeat(["train", "train", "val", "test"], 10)
    return table.assign(y=y, split=split)


MISTAKES = {
    "missing node": (
        lambda f: write_csv(f, edges=lambda t: t.assign(b=["n1"] * 37 + ["n77"])),
        "edges.csv, row 39: 'b' is 'n77', no node of",
    ),
    "negative number in edges": (
        lambda f: write_csv(
            f, lambda t: t.assign(name=range(40)), lambda t: t.assign(a=-1, b=range(38))
        ),
        "'a' is '-1', no node of",
    ),
    "fractional number in edges": (
        lambda f: write_csv(
            f, lambda t: t.assign(name=range(40)), lambda t: t.assign(a=1.5, b=range(38))
        ),
        "'a' is '1.5', no node of",
    ),
    "negative index": (
        lambda f: saved(f, edge_index=torch.tensor([[0, -1], [1, 0]])),
        r"edge 1 is \(-1, 0\), but nodes are 0 to 39",
    ),
    "index too large": (
        lambda f: saved(f, edge_index=torch.tensor([[0, 40], [1, 0]])),
        r"edge 1 is \(40, 0\), but nodes are 0 to 39",
    ),
    "float index": (
        lambda f: saved(f, edge_index=torch.tensor([[0.0, 1.0], [1.0, 0.0]])),
        "edge_index is float32; node numbers must be integers",
    ),
    "NaN feature": (
        lambda f: saved(f, x=torch.full((NUM_NODES, 3), torch.nan)),
        "feature 0 of node 0 is nan",
    ),
    "feature beyond squares": (
        lambda f: saved(f, x=torch.full((NUM_NODES, 3), 1e200, dtype=torch.float64)),
        r"feature 0 of node 0 is 1e\+200, more than models compute with \(1e\+150\)",
    ),
    "weight beyond squares": (
        lambda f: saved(f, edge_weight=torch.full((38,), 1e160, dtype=torch.float64)),
        r"weight of edge 0 is 1e\+160, more than models",
    ),
    "target beyond squares": (
        lambda f: saved(f, y=torch.full((NUM_NODES,), 1.5e200, dtype=torch.float64)),
        r"has a value beyond 1e\+150; give it in a larger unit",
    ),
    "NaN cell": (
        lambda f: write_csv(f, lambda t: t.assign(size=[np.nan, *t["size"][1:]])),
        "nodes.csv, row 2: 'size' has no value .* use --data.missing fill",
    ),
    "cell that looks missing": (
        lambda f: write_csv(f, lambda t: t.assign(size=["?", *t["size"][1:]])),
        r"row 2: 'size' is '\?', which looks like a missing value .* --data.missing fill",
    ),
    "missing value of an edge": (
        lambda f: write_csv(f, edges=lambda t: t.assign(length=[np.nan, *range(37)])),
        "edges.csv, row 2: 'length' has no value",
    ),
    "infinite column": (
        lambda f: write_csv(f, lambda t: t.assign(size="inf")),
        "row 2: 'size' is 'inf', not a finite number",
    ),
    "no such categorical column": (
        lambda f: write_csv(f) | {"categorical": ["hue"]},
        "have no feature 'hue'; they have size, kind",
    ),
    "columns of a saved graph": (
        lambda f: saved(f) | {"missing": "fill"},
        "missing is about columns of a table",
    ),
    "infinite cell": (
        lambda f: write_csv(f, lambda t: t.assign(size=[np.inf, *t["size"][1:]])),
        "row 2: 'size' is .*inf.*, not a finite number",
    ),
    "class without training node": (
        lambda f: write_csv(f, no_class_in_training),
        "class 'fox' has no training node",
    ),
    "one class": (lambda f: write_csv(f, lambda t: t.assign(y="cat")), "at least two classes"),
    "names as classes": (
        lambda f: write_csv(f, lambda t: t.assign(y=[f"k{i}" for i in range(40)])),
        "40 classes in 40 targets; for a number add --data.task regression",
    ),
    "float classes": (
        lambda f: saved(f, y=torch.rand(40)) | {"task": "classification"},
        "y must hold one whole number",
    ),
    "mask of node numbers": (
        lambda f: saved(
            f,
            train_mask=torch.arange(20),
            val_mask=torch.arange(20, 30),
            test_mask=torch.arange(30, 40),
        ),
        "train_mask holds node numbers; give 40 booleans",
    ),
    "overlapping masks": (
        lambda f: saved(
            f, **{f"{s}_mask": torch.arange(40) % 4 < 2 for s in ("train", "val", "test")}
        ),
        "20 nodes are in both train_mask and val_mask",
    ),
    "weight that is no number": (
        lambda f: saved(f, edge_weight=torch.full((38,), float("nan"))),
        "weight of edge 0 is nan",
    ),
    "negative weight of a saved edge": (
        lambda f: saved(f, edge_weight=torch.linspace(1, -1, 38)),
        "weight of edge 19 is -.*, negative",
    ),
    "too few weights": (
        lambda f: saved(f, edge_weight=torch.ones(5)),
        "edge_weight has 5 entries for 38 edges",
    ),
    "attribute that is no number": (
        lambda f: saved(f, edge_attr=torch.full((38, 2), float("inf"))),
        "attribute of edge 0 is inf",
    ),
    "attributes in some graphs": (
        lambda f: several(f, {}, {"edge_attr": torch.ones(3, 1)}),
        "graph 1: edge_attr has 1 column, that of graph 0 nothing",
    ),
    "another width": (
        lambda f: several(f, {}, {"x": torch.ones(3, 7)}),
        "graph 1: x has 7 columns, that of graph 0 2 columns",
    ),
    "edges without a header": (
        lambda f: write_csv(f, edges=lambda t: t.rename(columns={"a": "n0", "b": "n1"})),
        "has no header: its first row names the nodes 'n0' and 'n1'",
    ),
    "no edges": (drop_edges, "has no edges; without any, use a table model"),
    "empty edges": (lambda f: write_csv(f, edges=lambda t: t.iloc[:0]), "has no edges"),
    "empty graph": (
        lambda f: saved(f, x=torch.empty(0, 3), y=torch.empty(0, dtype=torch.long)),
        "has no nodes",
    ),
    "empty nodes": (lambda f: write_csv(f, lambda t: t.iloc[:0]), "has no nodes"),
    "node twice": (lambda f: write_csv(f, lambda t: t.assign(name="n0")), "'n0' appears twice"),
    "wrong split": (lambda f: write_csv(f, one_split), "row 41: split is 'future'"),
    "no target": (lambda f: write_csv(f, lambda t: t.drop(columns="y")), "has no column 'y'"),
    "no feature": (lambda f: write_csv(f, lambda t: t[["name", "y"]]), "no feature column"),
    "negative weight": (
        lambda f: write_csv(f, edges=lambda t: t.assign(weight=-1.0)),
        "row 2: weight -1 is negative",
    ),
    "missing file": (lambda f: {"path": str(f / "no.pt")}, "no file"),
    "no edges_path": (lambda f: {"path": "nodes.csv"}, "give edges_path"),
    "no root": (lambda f: {"dataset": "Cora"}, "needs root"),
    "nothing": (lambda f: {}, "give either path, a file, or dataset, a name"),
    "no such dataset": (
        lambda f: {"dataset": "Corra", "root": str(f)},
        "torch_geometric.datasets has no 'Corra'",
    ),
}


def _not_a_graph(folder):
    (folder / "graph.pt").write_bytes(b"no file of torch")
    return {"path": str(folder / "graph.pt")}


MISTAKES["no graph file"] = (_not_a_graph, "no readable file of torch_geometric.data.Data")


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named(tmp_path, name):
    make, message = MISTAKES[name]
    arguments = make(tmp_path)
    with pytest.raises(InputError, match=message):
        GraphDataModule(**arguments).setup("fit")


def test_a_mistake_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    files = write_csv(tmp_path, edges=lambda t: t.assign(b=["n1"] * 37 + ["n77"]))
    options = [f"--data.{key}={value}" for key, value in files.items()]
    assert main(["fit", "--config", "gcn", "--data", "GraphDataModule", *options]) == 2
    error = capsys.readouterr().err.strip()
    assert "no node of" in error
    assert "\n" not in error
    assert not (tmp_path / "runs").exists()
