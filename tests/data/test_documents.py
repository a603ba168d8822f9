"""Where texts are found, and what of them is read, said or refused."""

import gzip
import io
import json
import lzma
import zipfile

import pytest

from datamodules import InputError
from datamodules.files import notes
from datamodules.files.documents import find_documents
from datamodules.own.prompts import read_prompts


def whole(path, field="text"):
    return "".join(text for text, _ in find_documents(str(path), field).pieces())


def zipped(content, names=("inside.txt",)):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in names:
            archive.writestr(name, content)
    return packed.getvalue()


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("xz", lzma.compress)])
def test_packed_texts_are_read_as_what_they_hold(tmp_path, suffix, pack, capsys):
    notes._SAID.clear()
    rows = "".join(json.dumps({"text": f"grün {i}"}) + "\n" for i in range(3))
    (tmp_path / f"a.jsonl.{suffix}").write_bytes(pack(rows.encode()))
    (tmp_path / "b.txt").write_bytes(pack(b"one\r\ntwo"))
    assert whole(tmp_path) == "grün 0grün 1grün 2one\ntwo"
    said = capsys.readouterr().err
    assert said.count("unpacked from") == 2
    assert "left out" not in said


def test_broken_packings_are_refused(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"hello " * 100)[:-9])
    with pytest.raises(InputError, match=r"a\.txt\.gz cannot be unpacked"):
        whole(path)
    path.write_bytes(zipped("text"))
    assert whole(path) == "text"
    path.write_bytes(zipped("text", ("a.txt", "b.txt")))
    with pytest.raises(InputError, match="holds 2 files; unpack"):
        whole(path)


@pytest.mark.parametrize(
    ("content", "byte"), [("ab" * 9, "byte 1 is NUL"), ("aé", "byte 1 is NUL")]
)
def test_sixteen_bit_text_is_refused(tmp_path, content, byte):
    path = tmp_path / "wide.txt"
    path.write_bytes(content.encode("utf-16-le"))
    with pytest.raises(InputError, match=f"is not UTF-8 text \\({byte}"):
        whole(path)


def test_what_a_folder_leaves_out_is_said(tmp_path, capsys):
    notes._SAID.clear()
    (tmp_path / "more").mkdir()
    for name in ("a.txt", "more/b.md", "more/c.log", "d.png", ".hidden.txt"):
        (tmp_path / name).write_text(name)
    assert whole(tmp_path) == "a.txtmore/b.md"
    said = capsys.readouterr().err
    assert f"{tmp_path}: 2 of 4 files are no .txt, .md, .jsonl and are left out, such as d" in said
    assert whole(tmp_path / "**" / "*.log") == "more/c.log"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": None}, "the field 'text' is null, not a text"),
        ({"text": 3}, "the field 'text' is 3, not a text"),
        ({"text": "a\ud800"}, "the field 'text' holds half a character"),
        ({"body": "x"}, "no text in the field 'text'; it has 'body'"),
        ([], "no text in the field 'text'; it has no fields"),
    ],
)
def test_rows_without_a_text_are_named(tmp_path, row, said):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "a"}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(InputError, match=f"line 2: {said}"):
        whole(path)


@pytest.mark.parametrize("name", ["p.txt", "p.csv", "p.tsv", "p.jsonl"])
def test_prompts_of_every_kind_of_file(tmp_path, name):
    prompts, path = ["Who, then?", "Where"], tmp_path / name
    if name == "p.txt":
        path.write_text("\n".join(prompts))
    elif name == "p.jsonl":
        path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    else:
        sep = "," if name == "p.csv" else "\t"
        rows = [f'{number}{sep}"{prompt}"' for number, prompt in enumerate(prompts)]
        path.write_text("\n".join([f"id{sep}prompt", *rows]))
    assert read_prompts(str(path)) == prompts
    if name != "p.txt":
        path.write_text(path.read_text().replace("prompt", "question"))
        with pytest.raises(InputError, match="prompt"):
            read_prompts(str(path))


def test_lists_without_end_are_named(tmp_path):
    path = tmp_path / "deep.jsonl"
    path.write_text('{"text": ' + "[" * 99_999 + "\n")
    with pytest.raises(InputError, match="line 1: lists within lists without end"):
        whole(path)
