"""No reader alters a value of a graph, a text, or node series; tables have a test of their own."""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data

from datamodules import LabelledTextDataModule, NodeSeriesDataModule, TextFileDataModule
from datamodules.files.graph_files import column_plan, encode
from datamodules.files.table_encoding import Encoding
from datamodules.files.tables import read_table
from datamodules.files.text_pairs import read_pairs
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
        st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\r\0"),
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


LETTERS = st.characters(
    codec="utf-8", exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff\u2028\u2029"
)
SIDES = st.one_of(NAMES, st.text(LETTERS, min_size=1, max_size=9).filter(lambda t: t == t.strip()))


@SETTINGS
@given(st.lists(st.tuples(SIDES, SIDES), min_size=20, max_size=30), st.booleans(), st.booleans())
def test_text_pairs(pairs, two_files, ends):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.tsv"
        last = "\n" * ends
        if two_files:
            names = [str(path.with_suffix(side)) for side in (".src", ".tgt")]
            for name, sides in zip(names, zip(*pairs, strict=True), strict=True):
                Path(name).write_text("\n".join(sides) + last, encoding="utf-8", newline="")
        else:
            names = str(path)
            text = "\n".join("\t".join(pair) for pair in pairs) + last
            path.write_text(text, encoding="utf-8", newline="")
        found = read_pairs(names)
    assert list(zip(found.src, found.tgt, strict=True)) == pairs


@SETTINGS
@given(
    st.lists(SIDES, min_size=30, max_size=40), st.lists(NAMES, min_size=2, max_size=2, unique=True)
)
def test_labelled_texts(texts, classes):
    labels = [classes[row % 2] for row in range(len(texts))]
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "texts.csv")
        pd.DataFrame({"text": texts, "label": labels}).to_csv(path, index=False)
        data = LabelledTextDataModule(path)
        rows = {split: data._split_texts(split) for split in ("train", "val", "test")}
        names, codes = data.class_names, data._labels
    read = pd.concat(rows.values()).sort_index()
    assert sorted(names) == sorted(classes)
    assert read["text"].tolist() == texts
    assert [names[code] for code in codes] == labels


@SETTINGS
@given(
    st.lists(NAMES, min_size=3, max_size=3, unique=True),
    st.lists(st.lists(NUMBERS, min_size=3, max_size=3), min_size=30, max_size=40),
    st.integers(0, 29),
)
def test_node_series(nodes, values, hole):
    values = np.array(values) + np.arange(3) * np.arange(len(values))[:, None]  # none is constant
    with tempfile.TemporaryDirectory() as folder:
        path, edges = (str(Path(folder) / name) for name in ("series.csv", "edges.csv"))
        table = pd.DataFrame(values, columns=nodes)
        table.insert(0, "a date", pd.date_range("2020-01-01", periods=len(values)).astype(str))
        cells = table.astype(str).to_numpy()
        cells[hole, 2] = ""
        pd.DataFrame(cells, columns=table.columns).to_csv(path, index=False)
        ends = {"from": nodes[:2], "to": nodes[1:]}
        pd.DataFrame(ends).to_csv(edges, index=False)
        data = NodeSeriesDataModule(path, edges, date="a date")
        read = data._series[0]
        assert data.nodes == nodes
    expected = values.copy()
    expected[hole, 1] = np.nan
    np.testing.assert_array_equal(read.reshape(values.shape), expected)
