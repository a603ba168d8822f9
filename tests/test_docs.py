"""Every command of the READMEs and the pages runs, on small files and for a few batches."""

import argparse
import importlib.util
import json
import re
import runpy
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits, load_iris
from torch_geometric.data import Data

from lit_models.__main__ import main
from lit_models.command.arguments import prepare
from lit_models.command.classes import class_arguments
from lit_models.command.cli import build

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").glob("*.md"))]
DEEPER = [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs" / "decisions").glob("*.md"))]
LIMITS = [
    *("--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"),
    *("--trainer.limit_train_batches", "1", "--trainer.limit_val_batches", "1"),
    *("--trainer.check_val_every_n_epoch", "1", "--trainer.val_check_interval", "1.0"),
    *("--test_after_fit", "false"),
]
NEEDS_A_DOWNLOAD = {"GPT2_FOLDER", "BERT_FOLDER", "--data.root"}
# Arguments of data that make a run short, by option; a page's own value stays.
FEWER = {"--data.num_samples": "640", "--data.num_test": "200"}
FEWER_STEPS = ["--model.num_steps", "60"]  # of a diffusion, which a sampler takes one by one


def commands(page: Path) -> list[list[str]]:
    """Commands of the code blocks, continued lines joined, comments left out."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = [shlex.split(line, comments=True) for line in lines if line.startswith("lit-models ")]
    return [words[1:] for words in found]


def write_files(folder: Path) -> None:
    """The files that the pages name."""
    rng = np.random.default_rng(0)
    iris = load_iris(as_frame=True)
    flowers = iris.data.assign(species=iris.target_names[iris.target])
    flowers.to_csv(folder / "flowers.csv", index=False)
    flowers.drop(columns="species").head(5).to_csv(folder / "new_flowers.csv", index=False)
    load_digits(as_frame=True).frame.to_csv(folder / "digits.csv", index=False)
    houses = pd.DataFrame({"area": rng.uniform(40, 200, 80), "town": rng.choice(["A", "B"], 80)})
    for name in ("houses.csv", "prices.csv"):
        houses.assign(price=houses["area"] * 3).to_csv(folder / name, index=False)
    houses.head(5).to_csv(folder / "new_houses.csv", index=False)
    hours = pd.date_range("2024-01-01", periods=700, freq="h").astype(str)
    energy = pd.DataFrame({"date": hours, "load": rng.normal(9, 1, 700)})
    energy = energy.assign(temperature=rng.normal(9, 1, 700))
    energy.to_csv(folder / "energy.csv", index=False)
    energy.head(120).to_csv(folder / "new.csv", index=False)
    write_shops(folder, rng)
    write_pictures(folder, rng)
    np.save(folder / "samples.npy", rng.normal(size=(300, 1)).astype(np.float32))
    np.save(folder / "images.npy", rng.uniform(size=(400, 1, 8, 8)).astype(np.float32))
    np.save(folder / "classes.npy", rng.integers(10, size=400))
    words = ["a", "dog", "runs", "home", "now", "fast"]
    text = [" ".join(rng.choice(words, 6)) for _ in range(900)]
    for name in ("book.txt", "input.txt"):
        (folder / name).write_text("\n".join(text))
    reviews = pd.DataFrame({"text": text[:80], "label": ["good", "bad"] * 40})
    reviews.to_csv(folder / "reviews.csv", index=False)
    (folder / "prompts.txt").write_text("a dog\nruns\n")
    pairs = "".join(f"{line}\t{line[::-1]}\n" for line in text[:120])
    for name in ("train.tsv", "val.tsv", "test.tsv"):
        (folder / name).write_text(pairs)
    (folder / "new.txt").write_text("a dog runs\n")
    write_graph(folder)


def write_shops(folder: Path, rng: np.random.Generator) -> None:
    days = pd.date_range("2024-01-01", periods=250, freq="D").astype(str)
    parts = [
        pd.DataFrame(
            {
                "shop": shop,
                "date": days,
                "sales": rng.normal(level, 1, 250),
                "price": rng.normal(5, 1, 250),
                "holiday": rng.integers(2, size=250),
            }
        )
        for shop, level in (("north", 10), ("south", 1000))
    ]
    pd.concat(parts).to_csv(folder / "shops.csv", index=False)


def write_pictures(folder: Path, rng: np.random.Generator) -> None:
    for name in ("3", "7"):
        (folder / "pictures" / name).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(256, size=(32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "pictures" / name / f"{number}.png")


def write_graph(folder: Path) -> None:
    rng = np.random.default_rng(1)
    nodes = pd.DataFrame({"id": range(40), "x": rng.normal(size=40), "z": rng.normal(size=40)})
    nodes["class"] = [f"c{k % 2}" for k in range(40)]
    nodes.to_csv(folder / "nodes.csv", index=False)
    ring = [(k, (k + step) % 40) for k in range(40) for step in (1, 3)]
    pd.DataFrame(ring, columns=["source", "target"]).to_csv(folder / "edges.csv", index=False)
    series = pd.DataFrame(rng.normal(size=(300, 40)), columns=[str(k) for k in range(40)])
    series.to_csv(folder / "series.csv", index=False)
    split = torch.arange(40) % 3
    masks = {f"{name}_mask": split == k for k, name in enumerate(("train", "val", "test"))}
    graph = Data(torch.randn(40, 2), torch.tensor(ring).T, y=torch.arange(40) % 2, **masks)
    torch.save(graph, folder / "graph.pt")


# The Chinese README has the same commands, which its own test says.
RUN = [page for page in PAGES if page.name != "README.zh-CN.md"]


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_commands(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    for words in commands(page):
        if page.name == "tables.md":
            words = ["new_flowers.csv" if word == "new.csv" else word for word in words]
        if "--data.num_generated" in words:
            words[words.index("--data.num_generated") + 1] = "20"
        run(words, tmp_path)


def run(words: list[str], folder: Path) -> None:
    """One command, shortened; what needs more machines or a download is built or parsed alone."""
    words = [newest(word, folder) for word in words]
    line = " ".join(words)
    if words[0] == "list":
        assert main(["list"]) == 0
    elif "--help" in words:
        assert main(words) == 0
    elif NEEDS_A_DOWNLOAD & set(words):
        assert prepare(words).classes["model"], line
    elif {"ddp", "fsdp", "slurm", "tensor_parallel"} & set(words):
        build([*words[1:], "--config", "cpu", "--wandb.mode", "disabled"])
    elif words[0] == "fit" and "--print_config" not in words:
        fewer = [word for key, value in FEWER.items() if key not in words for word in (key, value)]
        own_data = "--data" in words or "--data.path" in words
        if any(word.startswith("ddpm") for word in words):
            words = [*words, *FEWER_STEPS]
        assert main([*words, *([] if own_data else known(words, fewer)), *LIMITS]) == 0, line
    else:
        assert main(words) == 0, line


def known(words: list[str], options: list[str]) -> list[str]:
    """The options that the experiment's data have."""
    if "--ckpt_path" in words:
        at = words.index("--ckpt_path")
        words = words[:at] + words[at + 2 :]
    arguments = class_arguments(prepare(words).classes["data"])
    pairs = zip(options[::2], options[1::2], strict=True)
    return [w for key, value in pairs if key[7:] in arguments for w in (key, value)]


def newest(word: str, folder: Path) -> str:
    """A path with the run id ID, with the id of the newest run."""
    if "/ID/" not in word:
        return word
    before, after = word.split("/ID/")
    found = sorted((folder / before).glob(f"*/{after}"), key=lambda path: path.stat().st_mtime_ns)
    return str(found[-1])


def test_both_readmes_have_the_same_commands():
    english, chinese = (commands(ROOT / name) for name in ("README.md", "README.zh-CN.md"))
    assert english == chinese


def test_python_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = list(re.finditer(r"^```python\n(.*?)^```", text, re.M | re.S))
    assert blocks
    namespace: dict[str, object] = {"__name__": "python_page"}
    for block in blocks:
        # Lines as in the page, for the traceback.
        padded = "\n" * text.count("\n", 0, block.start(1)) + block[1]
        exec(compile(padded, "docs/python.md", "exec"), namespace)


NOTEBOOKS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(notebook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    namespace: dict[str, object] = {"__name__": notebook.stem}
    for number, cell in enumerate(cells):
        assert not cell.get("outputs"), f"cell {number}: clear the outputs, the docs build runs it"
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{notebook.name}[{number}]", "exec"), namespace)


def prose(page: Path) -> str:
    """Text of a page, or of a notebook's own words."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return text


def anchors(page: Path) -> set[str]:
    """Ends of links to the headings of a page, as GitHub and Sphinx make them."""
    text = re.sub(r"^```.*?^```", "", prose(page), flags=re.M | re.S)
    titles = re.findall(r"^#+ +(.*)$", text, re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def broken(page: Path) -> list[str]:
    """Links of a page that lead to no file, or to no heading of one."""
    text = re.sub(r"^```.*?^```", "", prose(page), flags=re.M | re.S)
    found = []
    for link, heading in re.findall(r"\]\(([^)\s#]*)(?:#([\w-]+))?\)", text):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        target = page.parent / link if link else page
        if not target.exists() or (heading and heading not in anchors(target)):
            found.append(f"{link}#{heading}")
    return found


@pytest.mark.parametrize("page", [*PAGES, *DEEPER, *NOTEBOOKS], ids=lambda page: page.name)
def test_links_lead_to_files(page):
    assert broken(page) == []


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "b.md").write_text("# A heading, here\n")
    links = ["gone.md", "b.md#elsewhere", "b.md#a-heading-here", "b.md", "#own", "https://x.org/y"]
    page = tmp_path / "a.md"
    page.write_text("# Own\n" + " ".join(f"[x]({link})" for link in links))
    assert broken(page) == ["gone.md#", "b.md#elsewhere"]


def mentioned(page: Path, start: str) -> list[list[str]]:
    """Commands in a page's blocks and in its sentences, without what stands for a path."""
    text = prose(page)
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    lines += re.findall(r"`([^`\n]*)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    words = [
        shlex.split(line.removeprefix("$ "), comments=True)
        for line in lines
        if line.removeprefix("$ ").startswith(start)
    ]
    return [[word.removesuffix("...") for word in line if word != "..."] for line in words]


EVERY = [*PAGES, *DEEPER, *NOTEBOOKS]


@pytest.mark.parametrize("page", EVERY, ids=lambda page: page.name)
def test_targets_of_make_are_there(page):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    for words in mentioned(page, "make "):
        assert words[1] in targets, words
    for words in mentioned(page, "scripts/"):
        assert (ROOT / words[0]).exists(), words


class ParsedError(Exception):
    """The arguments of a script have been read."""


SCRIPTS = sorted(
    {tuple(words[2:]) for page in EVERY for words in mentioned(page, "python -m scripts")}
)


@pytest.mark.parametrize("words", SCRIPTS, ids=" ".join)
def test_scripts_take_the_arguments_of_the_pages(words, monkeypatch):
    module, *args = words
    source = importlib.util.find_spec(module)
    assert source is not None, module
    if source.submodule_search_locations:
        source = importlib.util.find_spec(f"{module}.__main__")
    text = Path(source.origin).read_text(encoding="utf-8")
    if not args or "ArgumentParser(" not in text:
        assert not [arg for arg in args if arg.startswith("-")]
        return
    parse = argparse.ArgumentParser.parse_args

    def stop(parser, given=None, namespace=None):
        parse(parser, given, namespace)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr("sys.argv", [module, *args])
    with pytest.raises(ParsedError):
        runpy.run_path(source.origin, run_name="__main__")


def test_commands_in_sentences_are_understood(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    seen = 0
    for page in EVERY:
        sentences = re.sub(r"^```.*?^```", "", prose(page), flags=re.M | re.S)
        for line in re.findall(r"`lit-models fit( [^`\n]*)`", sentences):
            words = shlex.split(line)
            if "--config" in words and "..." not in words:
                build([*words, "--wandb.mode", "disabled"])
                seen += 1
    assert seen >= 4
