"""Wrong checkpoints: damaged, of other models, of no model, and hostile."""

import os
import pickle
import zipfile
from pathlib import Path

import lightning as L
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import CONFIG, FIT, snapshot

from datamodules.errors import InputError
from datamodules.files.graph_objects import load_graphs
from datamodules.files.tokenization import load_tokenizer
from lit_models.weights.checkpoints import check_compatible, read_checkpoint

TEST = ["test", "--config", CONFIG, "--ckpt_path", "x.ckpt"]


class Hostile:
    """An object whose unpickling makes a folder."""

    def __reduce__(self):
        return os.mkdir, ("made",)


def weights(hidden: int = 7) -> dict[str, torch.Tensor]:
    sizes = {"net.0.weight": (hidden, 3), "net.0.bias": (hidden,), "net.3.weight": (1, hidden)}
    return {name: torch.zeros(size) for name, size in {**sizes, "net.3.bias": (1,)}.items()}


def saved(**entries):
    return lambda path: torch.save(entries, path)


def legacy(path):
    torch.save({"state_dict": weights()}, path, _use_new_zipfile_serialization=False)


def truncated(path):
    torch.save({"state_dict": weights()}, path)
    path.write_bytes(path.read_bytes()[:-200])


def damaged(path):
    torch.save({"state_dict": weights()}, path)
    raw = bytearray(path.read_bytes())
    place = raw.index(b"state_dict")
    raw[place] ^= 255
    path.write_bytes(raw)


def archive(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "no checkpoint")


FILES = {
    "empty": (lambda path: path.write_bytes(b""), "(truncated, or no file of torch.save)"),
    "text": (lambda path: path.write_text("weights"), "x.ckpt is no readable checkpoint"),
    "truncated": (truncated, "(truncated, or no file of torch.save); give an earlier one"),
    "damaged": (damaged, "x.ckpt is no readable checkpoint"),
    "another archive": (archive, "x.ckpt is no readable checkpoint"),
    "old format": (legacy, "no file of torch.save"),
    "bare pickle": (lambda path: path.write_bytes(pickle.dumps({})), "no readable checkpoint"),
    "hostile": (
        saved(state_dict=weights(), x=Hostile()),
        "(it holds more than plain data); give an earlier one",
    ),
    "hostile pickle": (lambda path: path.write_bytes(pickle.dumps(Hostile())), "no readable"),
    "a tensor": (lambda path: torch.save(torch.zeros(3), path), "is no Lightning checkpoint"),
    "a list": (lambda path: torch.save([1], path), "is no Lightning checkpoint"),
    "no weights": (saved(epoch=3), "no state_dict of tensors"),
    "weights of a number": (saved(state_dict=5), "no state_dict of tensors"),
    "numbers for tensors": (saved(state_dict={"net.0.weight": 5}), "no state_dict of tensors"),
    "missing weight": (
        saved(state_dict={k: v for k, v in weights().items() if k != "net.3.bias"}),
        "x.ckpt lacks the weight 'net.3.bias' of LitTiny; use the options of the run",
    ),
    "surplus weight": (
        saved(state_dict={**weights(), "net.9.bias": torch.zeros(1)}),
        "x.ckpt holds the weight 'net.9.bias', unknown to the model",
    ),
    "other shape": (saved(state_dict=weights(9)), "has shape (9, 3), the model has (7, 3)"),
}


@pytest.mark.parametrize("name", FILES)
def test_is_refused(refused, folder, name):
    make, message = FILES[name]
    make(folder / "x.ckpt")
    refused(TEST, message)
    assert not (folder / "made").exists()


def test_weights_alone_cannot_be_continued(refused, folder):
    torch.save({"state_dict": weights()}, folder / "x.ckpt")
    refused([*FIT, "--ckpt_path", "x.ckpt"], "x.ckpt holds weights alone, without 'global_step'")


def test_a_failed_resume_leaves_its_run_as_it_was(refused, fitted):
    last = fitted / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-99])
    refused([*FIT, "--ckpt_path", "last"], "truncated, or no file of torch.save")
    refused([*FIT, "--ckpt_path", str(last)], "truncated, or no file of torch.save")
    options = ["--model.optimizer.lr", "-1"]
    refused([*FIT, "--ckpt_path", str(fitted / "checkpoints" / "best.ckpt"), *options], "learning")
    refused(["test", "--config", "rnn", "--ckpt_path", "best"], "no best checkpoint of 'rnn'")


def test_a_finished_run_is_not_overwritten(refused, fitted):
    refused([*FIT, "--run_id", "first"], "runs/tiny/first holds a run already; choose another")


@pytest.mark.parametrize("read", [read_checkpoint, load_graphs, load_tokenizer])
def test_nothing_in_a_file_is_executed(folder, read):
    path = folder / "x.ckpt"
    for content in ({"state_dict": Hostile()}, Hostile(), {"tokenizer": Hostile()}):
        torch.save(content, path)
        with pytest.raises(InputError, match=r"no readable .* \(it holds more than plain data\)"):
            read(Path(path) if read is not load_tokenizer else str(path))
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(InputError, match="no readable"):
            read(Path(path) if read is not load_tokenizer else str(path))
    assert not (folder / "made").exists()


def test_a_vocabulary_of_another_kind_is_refused(folder):
    for content in ([1], {"a": 5}, {"a": {"tokenizer": 5}}):
        torch.save(content, folder / "x.ckpt")
        with pytest.raises(InputError, match="holds no vocabulary"):
            load_tokenizer("x.ckpt")
    torch.save({"a": {"tokenizer": "{}"}}, folder / "x.ckpt")
    with pytest.raises(InputError, match="no readable vocabulary"):
        load_tokenizer("x.ckpt")


def test_any_bytes(tmp_path_factory):
    path = tmp_path_factory.mktemp("bytes") / "x.ckpt"
    torch.save({"state_dict": weights()}, path)
    good = path.read_bytes()

    @settings(max_examples=60, derandomize=True, deadline=None, database=None)
    @given(st.integers(0, len(good) - 1), st.binary(min_size=1, max_size=40), st.booleans())
    def read(place, other, cut):
        path.write_bytes(good[:place] + other + (b"" if cut else good[place + len(other) :]))
        for reader in (read_checkpoint, load_graphs):
            try:
                reader(path)
            except InputError as error:
                message = str(error)
            else:
                continue  # bytes that nobody reads
            assert "\n" not in message

    read()
    assert snapshot(path.parent).keys() == {path}


def test_a_model_may_know_the_weights_of_an_earlier_version():
    class Renamed(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.new = torch.nn.Linear(2, 1, bias=False)

        def on_load_checkpoint(self, checkpoint):
            weights = checkpoint["state_dict"]
            weights["new.weight"] = weights.pop("old.weight")

    checkpoint = {"state_dict": {"old.weight": torch.zeros(1, 2)}}
    check_compatible(Path("x.ckpt"), checkpoint, Renamed())
    assert list(checkpoint["state_dict"]) == ["old.weight"]  # the fit renames them once more
    checkpoint = {"state_dict": {"old.weight": torch.zeros(1, 3)}}
    with pytest.raises(
        InputError, match=r"'new.weight' has shape \(1, 3\), the model has \(1, 2\)"
    ):
        check_compatible(Path("x.ckpt"), checkpoint, Renamed())
