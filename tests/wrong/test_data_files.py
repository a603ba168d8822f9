"""Wrong files of a user's data; those that tests/data has are not here again."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from refusals import FIT

from datamodules import (
    ArrayDataModule,
    CSVSeriesDataModule,
    CSVTabularDataModule,
    GraphDataModule,
    InputError,
    LabelledTextDataModule,
    NodeSeriesDataModule,
    TextFileDataModule,
    TextPairsDataModule,
)
from datamodules.files.tables import read_table
from datamodules.own.prompts import PromptsDataModule

TABLE = "a,b,y\n" + "1,2,u\n2,3,v\n" * 20
SERIES = "day,y\n" + "".join(f"2024-01-{day:02},{day % 7}\n" for day in range(1, 29))
NODE_SERIES = SERIES.replace("day,y", "day,0")
EDGES = "a,b\n0,1\n1,0\n"
NODES = "id,x,y\n" + "".join(f"{i},{i % 3},{'uv'[i % 2]}\n" for i in range(20))
PAIRS = "".join(f"word {i}\tWort {i}\n" for i in range(20))
PROMPTS = "what is it\n"

READERS = {
    "table": (TABLE, lambda path: CSVTabularDataModule(path, "y")),
    "series": (SERIES, lambda path: CSVSeriesDataModule(path, "y", window=3)),
    "node series": (
        NODE_SERIES,
        lambda path: NodeSeriesDataModule(path, beside(path, EDGES), window=3),
    ),
    "edges": (EDGES, lambda path: GraphDataModule(beside(path, NODES), path)),
    "nodes": (NODES, lambda path: GraphDataModule(path, beside(path, EDGES))),
    "labelled text": (
        "text,label\n" + "one,u\ntwo,v\n" * 20,
        lambda path: LabelledTextDataModule(path, tokenizer="char"),
    ),
    "text pairs": (PAIRS, lambda path: TextPairsDataModule(path, tokenizer="char")),
    "text": (
        PAIRS * 4,
        lambda path: TextFileDataModule(
            path, seq_len=4, cache_dir=str(Path(path).parent / "cache")
        ),
    ),
    "prompts": (PROMPTS, lambda path: PromptsDataModule(path, beside(path, PROMPTS))),
}
TABLES = ["table", "series", "node series", "edges", "nodes", "labelled text"]


def beside(path: str, text: str) -> str:
    other = Path(path).with_name("other.csv")
    other.write_text(text)
    return str(other)


def stage(reader: str) -> str:
    return "predict" if reader == "prompts" else "fit"


def file_of(reader: str) -> str:
    """A name; prompts in a CSV are a table."""
    return "data.txt" if reader == "prompts" else "data.csv"


def complaint(make, path: Path, reader: str) -> str:
    with pytest.raises(InputError) as caught:
        make(str(path)).setup(stage(reader))
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    return message


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("what", ["folder", "no access", "binary", "UTF-16", "empty"])
def test_no_text(tmp_path, monkeypatch, reader, what):
    good, make = READERS[reader]
    path = tmp_path / file_of(reader)
    if what == "folder":
        path.mkdir()
        assert "give " in complaint(make, path, reader)
        return
    content = {"binary": b"\x89PNG\r\n\x1a\n\xff", "UTF-16": good.encode("utf-16"), "empty": b""}
    path.write_bytes(content.get(what, good.encode()))
    if what == "no access":
        forbid(monkeypatch, path)
        assert "Permission denied; ask for access" in complaint(make, path, reader)
    elif what == "empty":
        assert re.search(r"is empty|has no line", complaint(make, path, reader))
    elif what == "UTF-16" and reader in TABLES:
        assert len(read_table(path)) == good.count("\n") - 1  # its first bytes say what it is
    else:
        assert "is not UTF-8 text (byte " in complaint(make, path, reader)


def forbid(monkeypatch, path: Path) -> None:
    """As chmod 000, which does not stop root."""
    opened = Path.open

    def refuse(self, *args, **kwargs):
        if self == path:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "read_text", lambda self, **kw: refuse(self, **kw).read())


TABLE_FILES = {
    "a million columns": (
        ",".join(f"c{i}" for i in range(10**6)) + "\n",
        "has 1,000,000 columns; at most 20,000",
    ),
    "a repeated column": ("a,y,a\n1,2,3\n", "has 2 columns named 'a'; rename all but one"),
    "a nameless column": ("a,,y\n1,2,3\n", "column 2 has no name"),
    "more cells than names": ("a,y\n1,2,3\n4,5,6\n", "row 2 has 3 cells and the header 2"),
    "an open quote": ('a,y\n"1,2\n3,4\n', "is not a CSV table"),
    "a blank first line": ("\na,y\n1,2\n", "is empty; its first row must name the columns"),
}


@pytest.mark.parametrize("reader", TABLES)
@pytest.mark.parametrize("name", TABLE_FILES)
def test_no_table(tmp_path, reader, name):
    content, message = TABLE_FILES[name]
    path = tmp_path / "data.csv"
    path.write_text(content)
    assert message in complaint(READERS[reader][1], path, reader)


VALUES = {
    "number beyond single precision": (
        "table",
        TABLE + "1e300,1,u\n",
        "row 42: 'a' is '1e300', not",
    ),
    "date in another zone": (
        "series",
        SERIES + "2024-02-01T00:00+02:00,1\n",
        "not whole steps apart",
    ),
    "no date": ("series", SERIES + "2024-02-31,1\n", "row 30: 'day' is '2024-02-31', not a date"),
    "date before the last": (
        "node series",
        NODE_SERIES + "2023-01-01,1\n",
        "row 30: 'day' 2023-01-01 00:00:00 does not follow",
    ),
    "header alone": ("labelled text", "text,label\n", "has no rows"),
    "rows without nodes": ("node series", "day\n2024-01-01\n", "no column beside the dates"),
    "edge to nowhere": ("edges", "a,b\n0,99\n", "row 2: 'b' is '99', no node of"),
    "edge of one end": ("edges", "a\n0\n", "has one column; an edge needs two"),
    "edge of text weight": ("edges", "a,b,weight\n0,1,x\n", "row 2: 'weight' is 'x', not a finite"),
    "node twice": ("nodes", NODES + "0,1,u\n", "row 22: 'id': node '0' appears twice"),
    "no tab": ("text pairs", PAIRS + "alone\n", "line 21: 0 tabs"),
    "empty source": ("text pairs", PAIRS + "\tWort\n", "line 21: the source is empty"),
    "short text": ("text", "short", "give more text or a shorter --data.seq_len"),
    "blank lines": ("prompts", "\n\n", "has no line with text"),
    "blanks": ("text", " \n\t\n", "is empty; give a text"),
}


@pytest.mark.parametrize("name", VALUES)
def test_no_such_value(tmp_path, name):
    reader, content, message = VALUES[name]
    path = tmp_path / file_of(reader)
    path.write_text(content)
    assert message in complaint(READERS[reader][1], path, reader)


def zeros_of(shape: str) -> bytes:
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


ARRAYS = {
    "empty": (b"", "is no .npy array"),
    "cut off": (zeros_of("(9, 9)") + b"\0" * 8, "is no .npy array"),
    "more than memory": (zeros_of("(10**16,)".replace("10**16", "9" * 15)), "is no .npy array"),
    "another archive": (b"PK\x03\x04 no archive", "is no .npy array"),
    "pickle": (b"\x80\x04N.", "is no .npy array"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_no_array(tmp_path, name):
    content, message = ARRAYS[name]
    path = tmp_path / "data.npy"
    path.write_bytes(content)
    assert message in complaint(ArrayDataModule, path, "array")


def test_several_arrays(tmp_path):
    np.savez(tmp_path / "data.npz", a=np.zeros(3))
    assert "holds several arrays" in complaint(ArrayDataModule, tmp_path / "data.npz", "array")


@pytest.mark.parametrize("content", ["1 2\nx y\n", "1 99\n", "\n", "1 2 -1\n"])
def test_no_rows_of_a_split(tmp_path, content):
    (tmp_path / "data.csv").write_text(TABLE)
    rows = tmp_path / "rows.txt"
    rows.write_text(content)
    data = CSVTabularDataModule(
        str(tmp_path / "data.csv"), "y", test_rows=str(rows), split=1 if "x" in content else 0
    )
    with pytest.raises(InputError, match=r"rows\.txt, line \d"):
        data.setup("fit")
    rows.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"cannot read .*rows\.txt"):
        data.setup("fit")


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan"), float("inf")])
def test_no_share(tmp_path, share):
    (tmp_path / "data.csv").write_text(TABLE)
    with pytest.raises(InputError, match=r"must lie in \(0, 1\), got"):
        CSVTabularDataModule(str(tmp_path / "data.csv"), "y", val_fraction=share).setup("fit")


def test_a_truncated_graph(tmp_path):
    torch.save({"x": torch.zeros(99)}, tmp_path / "graph.pt")
    raw = (tmp_path / "graph.pt").read_bytes()
    (tmp_path / "graph.pt").write_bytes(raw[: len(raw) // 2])
    assert "truncated" in complaint(GraphDataModule, tmp_path / "graph.pt", "graph")


def test_the_command_says_the_same(refused, folder):
    (folder / "own.csv").write_text("a,a,y\n1,2,3\n")
    options = ["--data", "CSVTabularDataModule", "--data.path", "own.csv", "--data.target", "y"]
    refused([*FIT, *options], "own.csv has 2 columns named 'a'; rename all but one")
