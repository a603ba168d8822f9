"""What is shipped or published in another form than tables, written as a user would have it."""

import json
from pathlib import Path

import pandas as pd
from sklearn import datasets

_SHIPPED = ("breast_cancer", "wine", "digits", "diabetes")


def write_made(data: Path) -> None:
    """Writes each file once into ``made/``; what is there is left alone.

    Args:
        data: Folder of the files.
    """
    folder = data / "made"
    folder.mkdir(parents=True, exist_ok=True)
    _write_tables(folder)
    source = data / "chickenpox" / "chickenpox.json"
    if source.is_file() and not (folder / "chickenpox.csv").exists():
        _write_chickenpox(source, folder)
    source = data / "planetoid"
    if (source / "ind.cora.graph").is_file() and not (folder / "cora.csv").exists():
        _write_cora(source, folder)


def _write_tables(folder: Path) -> None:
    """scikit-learn's tables, their targets in the column ``target``."""
    for name in _SHIPPED:
        path = folder / f"{name}.csv"
        if not path.exists():
            getattr(datasets, f"load_{name}")(as_frame=True).frame.to_csv(path, index=False)
    path = folder / "friedman1.csv"
    if not path.exists():
        x, y = datasets.make_friedman1(20_000, noise=1.0, random_state=0)
        frame = pd.DataFrame(x, columns=[f"x{i}" for i in range(x.shape[1])])
        frame.assign(target=y).to_csv(path, index=False)


def _write_chickenpox(source: Path, folder: Path) -> None:
    """Weekly cases, a column per county, and which counties are neighbours."""
    found = json.loads(source.read_text(encoding="utf-8"))
    names = sorted(found["node_ids"], key=found["node_ids"].get)
    pd.DataFrame(found["FX"], columns=names).to_csv(folder / "chickenpox.csv", index=False)
    edges = [(names[a], names[b]) for a, b in found["edges"]]
    frame = pd.DataFrame(edges, columns=["source", "target"])
    frame.to_csv(folder / "chickenpox_edges.csv", index=False)


def _write_cora(source: Path, folder: Path) -> None:
    """Words of each paper with its class in the column ``y``, and which papers are cited."""
    from torch_geometric.io import read_planetoid_data

    graph = read_planetoid_data(str(source), "cora")
    frame = pd.DataFrame(graph.x.long().numpy()).add_prefix("word_")
    frame.assign(y=graph.y.numpy()).rename_axis("paper").reset_index().to_csv(
        folder / "cora.csv", index=False
    )
    edges = pd.DataFrame(graph.edge_index.T.numpy(), columns=["source", "target"])
    edges.to_csv(folder / "cora_edges.csv", index=False)
