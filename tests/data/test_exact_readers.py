"""No reader of graphs or texts alters a value; tables and series have such tests beside theirs."""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data

from datamodules import TextFileDataModule
from datamodules.files.graph_files import column_plan, encode
from datamodules.files.table_encoding import Encoding
from datamodules.files.tables import read_table
from datamodules.own.graph_source import SavedGraphs
from datamodules.own.graph_tables import NodeTable

SETTINGS = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
)
NUMBERS = st.floats(-1e15, 1e15).filter(lambda value: value == 0 or abs(value) > 1e-100)
NAMES = st.one_of(
    st.from_regex(r"0[0-9]{1,4}", fullmatch=True),
    st.sampled_from(["NA", "null", "None", "1.0", "1", "True", "é", "=1+1", "a b", "n/a", "1e3"]),
    st.text("abcXYZ äß中", min_size=1, max_size=4).filter(lambda text: text == text.strip()),
)


@st.composite
def graphs(draw):
    ids = draw(st.lists(NAMES, min_size=6, max_size=12, unique=True))
    ids.append("a node")  # an identifier of text: else they are numbers, as their file says
    ends = st.integers(0, len(ids) - 1)
    pairs = draw(st.lists(st.tuples(ends, ends), min_size=1, unique_by=frozenset))
    weights = draw(st.lists(st.floats(1e-6, 1e9), min_size=len(pairs), max_size=len(pairs)))
    values = draw(st.lists(NUMBERS, min_size=len(ids), max_size=len(ids), unique=True))
    return ids, pairs, weights, values, [draw(NAMES), "a class"], draw(st.booleans())


def weighted(edges):
    ends = map(tuple, edges.ends.T.tolist())
    return dict(zip(ends, edges.weight.tolist(), strict=True))


def reversed_too(pairs, weights, directed):
    given = dict(zip(pairs, weights, strict=True))
    return given if directed else {(b, a): w for (a, b), w in given.items()} | given


@SETTINGS
@given(graphs())
def test_tables_of_a_graph(drawn):
    ids, pairs, weights, values, classes, directed = drawn
    labels = [classes[i % len(classes)] for i in range(len(ids))]
    with tempfile.TemporaryDirectory() as folder:
        nodes, edges = (str(Path(folder) / name) for name in ("nodes.csv", "edges.csv"))
        pd.DataFrame({"id": ids, "x": values, "y": labels}).to_csv(nodes, index=False)
        ends = {"a": [ids[a] for a, _ in pairs], "b": [ids[b] for _, b in pairs]}
        pd.DataFrame(ends | {"weight": weights}).to_csv(edges, index=False)
        source = NodeTable(nodes, edges, ["y"], "id", directed)
        assert source.ids == ids
        assert source.x[0].dtype == torch.float64
        assert source.x[0][:, 0].tolist() == values
        assert weighted(source.edges[0]) == reversed_too(pairs, weights, directed)
        targets = source.targets("node", "classification", None)
    names = targets.names
    assert sorted(names) == sorted(classes)
    assert [names[number] for number in targets.y.flatten().tolist()] == labels


@SETTINGS
@given(graphs(), st.sampled_from([torch.float64, torch.float32, torch.int64, torch.uint8]))
def test_saved_graphs(drawn, dtype):
    ids, pairs, weights, values, _, directed = drawn
    x = torch.from_numpy(np.asarray(values)).clamp(0, 255).to(dtype).reshape(-1, 1)
    graph = Data(
        x=x.clone(),
        edge_index=torch.tensor(pairs).T.contiguous(),
        edge_weight=torch.tensor(weights, dtype=torch.float64),
        y=torch.arange(len(ids)) % 2,
    )
    source = SavedGraphs(graph, None, None, directed)
    assert torch.equal(source.x[0].double(), x.double())
    assert weighted(source.edges[0]) == reversed_too(pairs, weights, directed)


@SETTINGS
@given(
    st.text(
        st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\r"),
        min_size=30,
    ),
    st.sampled_from(["char", "bpe"]),
)
def test_texts(text, kind):
    text = "a" + text  # a byte-order mark at the start of a file is no character of the text
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        path.write_text(text, encoding="utf-8", newline="")
        data = TextFileDataModule(
            str(path),
            tokenizer=kind,
            seq_len=1,
            max_vocab_size=300,
            cache_dir=folder,
        )
        tokens = torch.tensor(np.asarray(data._corpus.tokens).astype(int))
        if kind == "bpe" or data.tokenizer.token_to_id("[UNK]") not in tokens.tolist():
            assert data.decode(tokens) == text


def test_columns_of_a_graph_are_encoded_as_those_of_a_table(capsys):
    """By the plan of a run, also of one that was written before the two were one."""
    table = read_table(pd.DataFrame({"size": [1.5, 2.5], "kind": ["b", "a"]}))
    plan = column_plan(table, ["size", "kind"])
    assert [Encoding(**entry).plain() for entry in plan] == plan
    older = [{"name": "size", "kind": "number"}, {"name": "kind", "kind": "category"}]
    older[1]["levels"] = ["a", "b"]
    new = read_table(pd.DataFrame({"size": [3.0, 4.0], "kind": ["a", "c"]}))
    for known in (plan, older):
        assert encode(table, known).tolist() == [[1.5, 0, 1], [2.5, 1, 0]]
        assert encode(new, known).tolist() == [[3.0, 1, 0], [4.0, 0, 0]]
    assert "'kind' has new values ('c'); read as no known one" in capsys.readouterr().err
