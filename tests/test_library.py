"""From Python: a run read back, predictions as a table, what data print."""

import copy
import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from helpers import fit
from torch import nn

import datamodules
import lit_models
from datamodules import CSVTabularDataModule, InputError, LitDataModule, SineDataModule
from lit_models.__main__ import main

TINY = str(Path(__file__).parent / "tiny.yaml")
PAIR = ["tiny.LitTiny", "tiny.TinyDataModule"]


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return Path(fit(TINY, "--model.hidden_size", "5", tmp_path=folder)["run_dir"])


@pytest.fixture
def handed_on(tiny_run, tmp_path):
    """A copy of the run, and a way to change its configuration."""
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)

    def change(edit):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        edit(config)
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        return folder

    return change


def test_a_run_gives_its_model_and_data_back(tiny_run):
    model, data = lit_models.load(tiny_run, allow=PAIR)
    state = torch.load(tiny_run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert model.hparams["hidden_size"] == 5
    assert not model.training
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())
    assert data.num_samples == 53
    assert not data._splits
    assert model.optimizer(model.parameters()).defaults["lr"] == 0.01


def test_a_loaded_run_predicts_a_frame(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame({"a": range(60), "b": [3, 1] * 30, "y": np.arange(60.0) / 7})
    frame.to_csv("rows.csv", index=False)
    options = ["--config", "cpu", "--data.path", "rows.csv", "--data.target", "y"]
    results = fit("table", *options, "--trainer.max_epochs", "1", tmp_path=tmp_path)
    Path("rows.csv").unlink()
    new = frame.drop(columns="y").head(4)
    new.to_csv("new.csv", index=False)
    of_frame, of_file = (
        lit_models.predict_frame(*lit_models.load(results["run_dir"], data={"predict_path": rows}))
        for rows in (new, "new.csv")
    )
    pd.testing.assert_frame_equal(of_frame, of_file)
    assert len(of_frame) == 4


def test_the_table_is_what_the_command_writes(tiny_run):
    best = str(tiny_run / "checkpoints" / "best.ckpt")
    assert main(["predict", "--config", TINY, "--ckpt_path", best]) == 0
    written = pd.read_csv(tiny_run / "predictions.csv")
    frame = lit_models.predict_frame(*lit_models.load(tiny_run, allow=PAIR))
    pd.testing.assert_frame_equal(frame, written, check_dtype=False, rtol=1e-6)


def test_other_arguments_of_the_data(tiny_run):
    model, data = lit_models.load(tiny_run, data={"num_samples": 11}, allow=PAIR)
    assert len(lit_models.predict_frame(model, data)) == 11
    with pytest.raises(InputError, match=r"(?s)num_smaples.*takes num_samples"):
        lit_models.load(tiny_run, data={"num_smaples": 11}, allow=PAIR)


def test_classes_of_others_are_named_first(tiny_run):
    with pytest.raises(InputError, match=r"tiny\.LitTiny.*allow=\['tiny.LitTiny'\]"):
        lit_models.load(tiny_run)
    with pytest.raises(InputError, match=r"tiny\.TinyDataModule"):
        lit_models.load(tiny_run, allow=PAIR[:1])


def test_a_configuration_calls_no_function(handed_on):
    folder = handed_on(
        lambda c: c["model"]["init_args"]["optimizer"].update(class_path="os.system", init_args={})
    )
    with pytest.raises(InputError, match=r"os\.system"):
        lit_models.load(folder, allow=PAIR)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda c: c.pop("data"), "names no class of the data"),
        (lambda c: c["model"].update(class_path="lit_models.LitNone"), "no class .*LitNone"),
        (lambda c: c["model"]["init_args"].update(hidden_size=6), "has shape"),
    ],
)
def test_a_folder_that_does_not_fit(handed_on, edit, reason):
    with pytest.raises(InputError, match=reason):
        lit_models.load(handed_on(edit), allow=PAIR)


def test_a_folder_that_is_none(tiny_run, tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        lit_models.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match=rf"its newest run is .*{tiny_run.name}"):
        lit_models.load(tiny_run.parent)
    with pytest.raises(InputError, match=r"no config\.yaml; give runs/"):
        lit_models.load(tmp_path)
    with pytest.raises(InputError, match="no checkpoint 'first'"):
        lit_models.load(tiny_run, "first")


def test_a_packaged_run_needs_no_permission(tmp_path):
    few = ["--trainer.max_epochs", "1", "--trainer.check_val_every_n_epoch", "1"]
    few += ["--config", "cpu", "--data.num_samples=64"]
    results = fit("linear_regression", *few, tmp_path=tmp_path)
    model, data = lit_models.load(results["run_dir"])
    assert isinstance(model, lit_models.LitLinearRegression)
    assert isinstance(data, datamodules.LinearDataModule)
    assert data.num_samples == 64


def test_predictions_are_in_the_order_of_the_rows():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=90), "y": rng.normal(size=90)})
    model = lit_models.LitMLPRegressor(in_features=1, out_features=1)

    class Table(LitDataModule):
        def make_split(self, split):
            x = torch.tensor(frame[["a"]].to_numpy())
            return datamodules.batches.SupervisedBatch(x, torch.tensor(frame[["y"]].to_numpy()))

    data = Table(eval_batch_size=7)
    model.take_scale(data)
    found = lit_models.predict_frame(model, data)
    np.testing.assert_allclose(found["target"], frame["y"])
    assert model.training  # as it was


def test_data_print_what_they_hold():
    assert repr(SineDataModule()) == "SineDataModule()"
    data = SineDataModule(noise_std=0.3, window=12)
    for copied in (data, copy.deepcopy(data), pickle.loads(pickle.dumps(data))):
        assert str(copied) == repr(copied) == "SineDataModule(noise_std=0.3, window=12)"
    # A file that is not there is not looked for.
    table = CSVTabularDataModule("none.csv", "y", batch_size=8)
    assert repr(table) == "CSVTabularDataModule(path='none.csv', target='y', batch_size=8)"


def test_arguments_of_a_base_and_arrays_are_shown():
    class Own(LitDataModule):
        def __init__(self, values, **kwargs):
            super().__init__(**kwargs)

    assert repr(Own(np.zeros((3, 2)), seed=4)) == "Own(values=<ndarray (3, 2)>, seed=4)"


@pytest.mark.parametrize("package", [lit_models, datamodules])
def test_every_public_name_is_there(package):
    for name in package.__all__:
        assert getattr(package, name) is not None


def test_every_architecture_is_a_plain_module_too():
    plain = {
        *("MLP", "RecurrentForecaster", "GPT", "BERT", "Transformer", "Seq2Seq", "UNet", "GCN"),
        *("GAT", "GraphNetwork", "DDPM", "BayesianMLP", "SpatioTemporalForecaster"),
    }
    for name in plain:
        module = getattr(lit_models, name)
        assert issubclass(module, nn.Module)
        assert not issubclass(module, lit_models.LitModule)
