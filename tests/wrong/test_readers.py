"""Whatever bytes a file holds, a reader loads them or says in one line what is wrong."""

import csv
import io
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules import (
    CSVSeriesDataModule,
    CSVTabularDataModule,
    GraphDataModule,
    InputError,
    LabelledTextDataModule,
    NodeSeriesDataModule,
    TextFileDataModule,
    TextPairsDataModule,
)

# Cells that parsers of numbers, dates and text have stumbled over.
NASTY = [
    *("", " ", "NA", "nan", "inf", "-inf", "1e999", "1e300", "-0", "0x1", "1_000", "1,5", "1.5.2"),
    *("True", "x", "9" * 25, "é", "\x00", '"', 'a"b', "a\nb", "\ufeff", "\u2028", "=1+1"),
    *("2024-13-45", "9999-12-31", "0001-01-01", "12:00", "now", "2024-01-03T00:00+02:00", "NaT"),
]
CELLS = st.sampled_from(NASTY) | st.integers(-9, 9).map(str) | st.text(max_size=4)


def rows_of(kind: str) -> list[list[str]]:
    """A file that the reader of this kind accepts."""
    days = [f"2024-01-{day:02}" for day in range(1, 25)]
    numbers = [(str(i % 7), str(i % 3)) for i in range(24)]
    return {
        "table": [["a", "b", "y"], *([a, b, "uv"[i % 2]] for i, (a, b) in enumerate(numbers))],
        "regression": [["a", "y"], *([a, str(i)] for i, (a, _) in enumerate(numbers))],
        "series": [["day", "y"], *([day, a] for day, (a, _) in zip(days, numbers, strict=True))],
        "dated": [["y", "day"], *([a, day] for day, (a, _) in zip(days, numbers, strict=True))],
        "nodes": [["day", "a", "b"], *([d, *n] for d, n in zip(days, numbers, strict=True))],
        "edges": [["from", "to", "weight"], ["a", "b", "1"], ["b", "a", "2"]],
        "graph": [
            ["id", "x", "y"],
            *([f"n{i}", a, "uv"[i % 2]] for i, (a, _) in enumerate(numbers)),
        ],
        "links": [["from", "to"], *([f"n{i}", f"n{i + 1}"] for i in range(23))],
        "labelled": [
            ["text", "label"],
            *([f"word {a}", "uv"[i % 2]] for i, (a, _) in enumerate(numbers)),
        ],
    }[kind]


@st.composite
def tables(draw: st.DrawFn, kind: str) -> bytes:
    """A good file with cells changed, left out or added, and sometimes bytes."""
    rows = rows_of(kind)
    for _ in range(draw(st.integers(0, 3))):
        row = rows[draw(st.integers(0, len(rows) - 1) | st.just(0))]
        place = draw(st.integers(0, len(row)))
        row[place : place + draw(st.integers(0, 1))] = draw(st.lists(CELLS, max_size=2))
    del rows[draw(st.integers(0, len(rows)) | st.just(len(rows))) :]
    text = io.StringIO()
    ends = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    csv.writer(text, lineterminator=ends).writerows(rows)
    return draw(spoilt(text.getvalue().encode("utf-8", "surrogatepass")))


@st.composite
def spoilt(draw: st.DrawFn, raw: bytes) -> bytes:
    """Bytes as they are, or one place overwritten, or cut off."""
    place = draw(st.integers(0, len(raw)))
    how = draw(st.sampled_from(["whole", "whole", "overwritten", "cut"]))
    if how == "cut":
        return raw[:place]
    return raw[:place] + draw(st.binary(max_size=3)) + raw[place:] if how != "whole" else raw


CSV_READERS = {
    "table": lambda path: CSVTabularDataModule(path, "y"),
    "regression": lambda path: CSVTabularDataModule(path, "y", task="regression"),
    "series": lambda path: CSVSeriesDataModule(path, "y", window=2),
    "dated": lambda path: CSVSeriesDataModule(path, "y", window=2, date="day"),
    "nodes": lambda path: NodeSeriesDataModule(path, partner(path, "edges"), window=2),
    "edges": lambda path: NodeSeriesDataModule(partner(path, "nodes"), path, window=2),
    "graph": lambda path: GraphDataModule(path, partner(path, "links")),
    "links": lambda path: GraphDataModule(partner(path, "graph"), path),
    "labelled": lambda path: LabelledTextDataModule(path, tokenizer="char"),
}


def partner(path: str, kind: str) -> str:
    """The good file that stands beside."""
    other = Path(path).with_name(f"{kind}.csv")
    with other.open("w", newline="") as file:
        csv.writer(file).writerows(rows_of(kind))
    return str(other)


def check(data) -> bool:
    """Whether the data load; else the reason is one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            data.setup("fit")
            data.setup("test")
            _ = next(iter(data.train_dataloader())), data.baseline
        except InputError as error:
            message = str(error)
        else:
            return True
    assert message.strip()
    assert "\n" not in message
    return False


@pytest.mark.parametrize("kind", CSV_READERS)
def test_tables(tmp_path_factory, kind):
    folder = tmp_path_factory.mktemp(kind)
    path = folder / "file.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows_of(kind))
    assert check(CSV_READERS[kind](str(path)))

    @settings(max_examples=60, derandomize=True, deadline=None, database=None)
    @given(tables(kind) | st.binary(max_size=99))
    def read(raw):
        path.write_bytes(raw)
        check(CSV_READERS[kind](str(path)))

    read()


PAIRS = "".join(f"word {i % 5}\tWort {i % 5}\n" for i in range(30))
LINES = st.lists(CELLS, max_size=3).map("\t".join) | st.sampled_from(["a\tb", "a\tb\tc", "a", "\t"])


@pytest.mark.parametrize("tokenizer", ["char", "word", "bpe", "wordpiece"])
def test_text(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp(tokenizer)
    path = folder / "file.txt"

    @settings(max_examples=15, derandomize=True, deadline=None, database=None)
    @given(
        st.lists(LINES, max_size=4)
        .map(lambda lines: (PAIRS + "\n".join(lines)).encode("utf-8", "surrogatepass"))
        .flatmap(spoilt)
        | st.binary(max_size=99)
        | st.text(max_size=99).map(lambda text: text.encode("utf-8", "surrogatepass"))
    )
    def read(raw):
        path.write_bytes(raw)
        if tokenizer != "wordpiece":  # refused: no target could be written back
            check(TextPairsDataModule(str(path), tokenizer=tokenizer, vocab_size=300))
        options = {"tokenizer": tokenizer, "seq_len": 2, "max_vocab_size": 300}
        check(TextFileDataModule(str(path), cache_dir=str(folder / "cache"), **options))

    read()
    path.write_text(PAIRS)
    if tokenizer != "wordpiece":
        assert check(TextPairsDataModule(str(path), tokenizer=tokenizer, vocab_size=300))
