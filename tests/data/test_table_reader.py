"""The one reader of tables: exact cells, and types that are decided once."""

import bz2
import csv
import gzip
import io
import lzma
import re
import zipfile
from contextlib import suppress

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules import InputError
from datamodules.files import notes
from datamodules.files.tables import number_of, read_table


def table_of(tmp_path, text, name="table.csv", **options):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_table(path, **options)


def column(tmp_path, cells, name="a"):
    rows = "".join(f"{cell},{index}\n" for index, cell in enumerate(cells))
    return table_of(tmp_path, f"{name},other\n{rows}")[name]


CELLS = st.one_of(
    st.text(
        st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]) | st.sampled_from("\t\n")
    ),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(10**20), 10**20).map(str),
    st.from_regex(r"0[0-9]{1,6}", fullmatch=True),
    st.sampled_from(["NA", "null", "None", "nan", "?", "", " ", "1.0", "1", "True", "=1+1", "2,5"]),
)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    st.integers(2, 4).flatmap(
        lambda width: st.lists(st.lists(CELLS, min_size=width, max_size=width), min_size=1)
    ),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_no_reader_alters_a_cell(tmp_path_factory, rows, separator, encoding):
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, quoting=csv.QUOTE_ALL, lineterminator="\n")
    names = [f"c{i}" for i in range(len(rows[0]))]
    writer.writerows([names, *rows])
    path = tmp_path_factory.mktemp("odd") / "odd.csv"
    path.write_bytes(text.getvalue().encode(encoding))
    table = read_table(path, sep=separator)
    for index, name in enumerate(names):
        cells = [row[index] for row in rows]
        assert list(table[name].text()) == cells
        np.testing.assert_array_equal(table[name].missing, [cell == "" for cell in cells])
        if table[name].is_numeric and table[name].decimal == ".":
            numbers = np.array([float(cell) if cell else np.nan for cell in cells])
            with suppress(InputError):  # too large, or alike in double precision: refused
                np.testing.assert_array_equal(table[name].numbers(), numbers)


def test_long_columns_keep_their_cells_in_little_memory(tmp_path):
    rng = np.random.default_rng(0)
    names, values = rng.choice(["NA", "DE", "é"], 70_000), rng.normal(size=70_000)
    pd.DataFrame({"a": names, "b": values}).to_csv(tmp_path / "long.csv", index=False)
    table = read_table(tmp_path / "long.csv")
    assert list(table["a"].text()) == list(names)
    np.testing.assert_array_equal(table["b"].numbers(), values)
    assert sum(len(piece.cells) for piece in table["a"].pieces) < 100


@pytest.mark.parametrize("cell", ["?", "N/A", "-", "None", "NULL", "NA", "nan", "  "])
def test_what_looks_missing_among_numbers_is_named(tmp_path, cell):
    found = column(tmp_path, [*map(str, range(30)), cell, "7", cell])
    with pytest.raises(InputError, match=re.escape(f"row 32: 'a' is {cell!r} (2 of 33 cells")):
        found.kind()
    assert found.kind(look_missing=True) == "number"
    values = found.numbers(look_missing=True)
    assert np.flatnonzero(np.isnan(values)).tolist() == [30, 32]
    with pytest.raises(InputError, match="row 32"):
        found.numbers(complete=True)


NAMED = {
    "dollars": (["$3.50", "$4", "$5.25"], "a number with a unit (3 of 3 cells)"),
    "per cent": (["7%", "8", "9%"], "'7%', a number with a unit (2 of 3 cells)"),
    "thousands": (['"1,234"', '"2,345"', "12"], "write numbers without commas"),
    "one slip": ([*map(str, range(99)), "12O"], "is '12O', while 99 of 100 cells are numbers"),
    "infinite": (["1", "2", "inf"], "row 4: 'a' is 'inf', not a finite number"),
    "beyond squares": (["1", "2", "1e200"], "row 4: 'a' is '1e200', not a finite number"),
    "below squares": (
        ["1e-160", "2e-160", "0"],
        "'a' is at most 2e-160, whose square is no number",
    ),
    "beyond resolution": (
        ["100000000000000000001", "100000000000000000002", "100000000000000000003"],
        "varies less than double precision can tell",
    ),
}


@pytest.mark.parametrize("name", NAMED)
def test_odd_cells_are_named_and_never_categories(tmp_path, name):
    cells, message = NAMED[name]
    found = column(tmp_path, cells)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        found.numbers() if found.kind() == "number" else None
    assert "\n" not in str(caught.value)


KINDS = {
    "text that looks missing": (["NA", "DE", "null"], "category"),
    "zip codes": (["01001", "94016", "10001"], "category"),
    "codes": (["01", "02", "A4"], "category"),
    "yes and no": (["No", "Yes", "No"], "category"),
    "integers": (["1", "2", "-3"], "number"),
    "large": (["1e22", "3e22", "2e22"], "number"),
    "tiny": (["1e-25", "3e-25", "2e-25"], "number"),
    "years": (["1999", "2000", "2001"], "number"),
    "iso": (["2020-01-31", "2020-02-01", "2020-02-02"], "date"),
    "tickets": (["A/5 21171", "113803", "PC 17599"], "category"),
    "empty": (["", "", ""], "number"),
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds(tmp_path, name):
    cells, kind = KINDS[name]
    assert column(tmp_path, cells).kind() == kind


DATES = {
    "day first": (["31/01/2020", "01/02/2020", "02/03/2020"], "%d/%m/%Y", "2020-02-01"),
    "month first": (["01/31/2020", "02/01/2020", "03/02/2020"], "%m/%d/%Y", "2020-02-01"),
    "iso": (["2020-01-31", "2020-02-01"], "ISO8601", "2020-02-01"),
    "with a clock": (
        ["31.12.2020 10:00", "31.12.2020 11:00"],
        "%d.%m.%Y %H:%M",
        "2020-12-31 11:00",
    ),
    "year": (["1700", "1701"], "%Y", "1701-01-01"),
    "one number": (["20210203", "20210204"], "%Y%m%d", "2021-02-04"),
    "months": (["Jan 2020", "Feb 2020"], "%b %Y", "2020-02-01"),
}


@pytest.mark.parametrize("name", DATES)
def test_a_column_has_one_date_format(tmp_path, name):
    cells, form, second = DATES[name]
    found = column(tmp_path, cells, "day")
    assert found.date_format(integers=True) == form
    assert found.dates().iloc[1] == pd.Timestamp(second)
    assert found.dates(form).iloc[1] == pd.Timestamp(second)
    assert column(tmp_path, ["20210203", "20210204"], "day").kind() == "date"


def test_a_date_that_may_be_two_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"'a' '02/01/2020' may be %d/%m/%Y or %m/%d/%Y; write"):
        column(tmp_path, ["01/01/2020", "02/01/2020", "03/01/2020"]).kind()
    found = column(tmp_path, ["2020-01-01", "2020-01-02", "2020-02-31"])
    with pytest.raises(InputError, match="row 4: 'a' is '2020-02-31', not a date"):
        found.dates()


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, "zip"])
def test_packed_files(tmp_path, pack, capsys):
    notes._SAID.clear()
    text = b"a,b\n1,x\n2,y\n"
    if pack == "zip":
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("inner.csv", text)
        content = packed.getvalue()
    else:
        content = pack(text)
    table = table_of(tmp_path, content, "table.csv.packed")
    assert list(table["b"].text()) == ["x", "y"]
    assert "unpacked from" in capsys.readouterr().err
    with pytest.raises(InputError) as caught:
        table_of(tmp_path, content[: len(content) - 6], "cut")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("encoding", "said"), [("cp1252", "cp1252"), ("latin-1", "cp1252")])
def test_encodings_are_said(tmp_path, capsys, encoding, said):
    notes._SAID.clear()
    table = table_of(tmp_path, "stadt,b\nKöln,1\nMünchen,2\n".encode(encoding))
    assert list(table["stadt"].text()) == ["Köln", "München"]
    assert f"read as {said}" in capsys.readouterr().err


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_separators_and_decimal_commas(tmp_path, separator, capsys):
    notes._SAID.clear()
    rows = [["größe", "name"], ["1,5", "a,b"], ["2", "c"], ["-0,25", ""]]
    table = table_of(tmp_path, "\n".join(separator.join(row) for row in rows))
    np.testing.assert_array_equal(table["größe"].numbers(), [1.5, 2, -0.25])
    assert list(table["name"].text()) == ["a,b", "c", ""]
    assert "decimal commas" in capsys.readouterr().err


def test_a_file_without_a_header_is_noticed(tmp_path):
    rows = "5.1,3.5,a\n4.9,3.0,b\n4.7,3.2,a\n"
    with pytest.raises(InputError, match=r"use --data\.header none if it is data"):
        table_of(tmp_path, rows)
    table = table_of(tmp_path, rows, header="none")
    assert list(table.columns) == ["column_1", "column_2", "column_3"]
    assert len(table) == 3
    assert table.row(0) == 1
    assert len(table_of(tmp_path, rows, header="first")) == 2
    with pytest.raises(InputError, match=r"2 columns named '1'.*--data\.header none"):
        table_of(tmp_path, "1,1,2\n3,4,5\n")
    assert len(table_of(tmp_path, "0,1,2\n5,6,7\n8,9,1\n")) == 2
    assert len(table_of(tmp_path, "country,2001,2002\nNA,1,2\nDE,2,3\n")) == 2


def test_rows_are_counted_as_editors_do(tmp_path):
    text = 'a,b\n"two\nlines",1\n\nx,2\ny\n'
    with pytest.raises(InputError, match="row 6 has 1 cells and the header 2"):
        table_of(tmp_path, text)
    table = table_of(tmp_path, text.replace("y\n", "y,\n"))
    with pytest.raises(InputError, match="row 6: no value in column 'b'"):
        table["b"].check_complete()
    lone = table_of(tmp_path, "y\n1\n\n3\n\n\n")
    np.testing.assert_array_equal(lone["y"].numbers(), [1, np.nan, 3])


def test_rows_keep_their_numbers_over_blocks(tmp_path):
    rng = np.random.default_rng(0)
    kinds = ["x", '"two\nlines"', '"a\r\nb\rc"', '""', '"q""q"']
    lines, expected, number = ["a,b"], [], 2
    for index in range(1500):
        if rng.random() < 0.05:
            lines.append("")
            number += 1
        cell = kinds[rng.integers(5)] if index % 9 == 0 else "x"
        lines.append(f"{cell},{index}")
        expected.append(number)
        number += {1: 2, 2: 3}.get(kinds.index(cell), 1)
    table = table_of(tmp_path, "\n".join(lines).encode())
    cells = [row[0] for row in csv.reader(io.StringIO("\n".join(lines), newline="")) if row]
    assert list(table["a"].text()) == cells[1:]
    assert [table.row(index) for index in range(1500)] == expected
    np.testing.assert_array_equal(table["b"].numbers(), np.arange(1500))
    lone = table_of(tmp_path, "y\n" + "1\n" * 511 + "\n\n" + "2\n" * 600 + "\n\n")
    missing = np.flatnonzero(np.isnan(lone["y"].numbers()))
    assert (len(lone), list(missing), lone.row(1112)) == (1113, [511, 512], 1114)


def test_frames_and_arrays_are_tables(tmp_path):
    frame = pd.DataFrame(
        {
            "a": [0.1, np.nan, 1e22],
            "b": ["NA", None, "01"],
            "c": [True, False, True],
            "d": pd.to_datetime(["2020-01-01", None, "2020-01-03"]),
            "e": [2**62 + 1, 0, 1],
        }
    )
    table = read_table(frame)
    np.testing.assert_array_equal(table["a"].numbers(), frame["a"])
    assert list(table["b"].text()) == ["NA", "", "01"]
    assert list(table["c"].text()) == ["True", "False", "True"]
    assert table["d"].kind() == "date"
    assert table["e"].text()[0] == str(2**62 + 1)
    pair = read_table((np.eye(3), np.array(["u", "v", "u"])))
    assert list(pair.columns) == ["column_1", "column_2", "column_3", "target"]
    with pytest.raises(InputError, match="a table is a path, a DataFrame"):
        read_table(3)


def test_parquet_holds_the_same(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"a": ["01", "NA", None], "b": [0.1, 0.2, None], "c": [1, 2, 3]})
    frame.to_parquet(tmp_path / "table.parquet")
    table = read_table(tmp_path / "table.parquet")
    assert list(table["a"].text()) == ["01", "NA", ""]
    np.testing.assert_array_equal(table["b"].numbers(), frame["b"])


def test_columns_of_text_are_exact_and_complete(tmp_path):
    path = tmp_path / "nodes.csv"
    path.write_text("id,x,y\n007,1.50,01\n7,,02\n")
    table = read_table(path)
    texts = table.texts(["id", "y"])
    assert (list(texts["id"]), list(texts["y"])) == (["007", "7"], ["01", "02"])
    with pytest.raises(InputError, match="row 3: no value in column 'x'"):
        table.texts(["id", "x"])
    with pytest.raises(InputError, match="'z'"):
        table.texts(["z"])


@pytest.mark.parametrize(
    ("cell", "value"),
    [("1_000", None), ("٣", None), ("nan", None), ("0x1", None), (" 1 ", 1.0), ("1e", None)],
)
def test_numbers_are_written_in_digits(cell, value):
    assert number_of(cell) == value
