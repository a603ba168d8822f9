"""A configuration makes classes and calls nothing; one that is found names only known packages."""

import shutil
import sys

import pytest
import yaml
from refusals import CONFIG, FIT

import lit_models
from datamodules.errors import InputError
from lit_models.__main__ import main

CALL = {"class_path": "os.system", "init_args": {"command": "touch called"}}
PLACES = {
    "optimizer": ("model", "init_args", "optimizer"),
    "schedule": ("model", "init_args", "lr_scheduler"),
    "model": ("model",),
    "data": ("data",),
    "logger": ("trainer", "logger"),
    "profiler": ("trainer", "profiler"),
    "strategy": ("trainer", "strategy"),
    "plugin": ("trainer", "plugins"),
    "callback": ("trainer", "callbacks"),
}


def put(config: dict, place: tuple[str, ...], value) -> dict:
    *sections, name = place
    part = config
    for section in sections:
        part = part.setdefault(section, {})
    part[name] = [value] if name == "callbacks" else value
    return config


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("call", [CALL, {**CALL, "class_path": "subprocess.getoutput"}])
def test_a_configuration_calls_no_function(folder, capsys, name, call):
    (folder / "own.yaml").write_text(yaml.safe_dump(put({}, PLACES[name], call)))
    assert main([*FIT, "--config", "own.yaml"]) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert {path.name for path in folder.iterdir()} == {"own.yaml"}


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """A finished run."""
    folder = tmp_path_factory.mktemp("honest")
    options = ["--model", "LitLinearRegression", "--data", "LinearDataModule"]
    options += ["--data.num_samples", "50", "--trainer.max_epochs", "1", "--run_id", "x"]
    options += ["--experiment", "mine", "--trainer.enable_progress_bar", "false"]
    assert main(["fit", *options, "--runs_dir", str(folder)]) == 0
    return folder


@pytest.fixture
def handed_on(honest, folder, capsys):
    """A run folder, and a module that leaves a mark where it is imported."""
    shutil.copytree(honest, folder / "runs")
    capsys.readouterr()
    (folder / "stranger.py").write_text(
        "import pathlib, lightning, torch\n"
        "pathlib.Path('called').touch()\n"
        "class Evil(lightning.Callback, torch.optim.SGD): pass\n"
        "def call(*args): pass\n"
    )
    yield folder / "runs" / "mine" / "x"
    sys.modules.pop("stranger", None)


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("value", ["stranger.Evil", {"class_path": "stranger.Evil"}])
def test_a_found_configuration_names_known_packages_alone(handed_on, capsys, name, value):
    path = handed_on / "config.yaml"
    config = put(yaml.safe_load(path.read_text()), PLACES[name], value)
    path.write_text(yaml.safe_dump(config))
    for command in ("test", "fit"):
        checkpoint = handed_on / "checkpoints" / "last.ckpt"
        assert main([command, "--ckpt_path", str(checkpoint)]) == 2
        error = capsys.readouterr().err.strip()
        assert "\n" not in error
        assert "names stranger.Evil, which is neither of this project" in error
        assert f"--config {path}" in error
    assert not (handed_on.parents[2] / "called").exists()


RUN = {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "called"]}}
NODES = {"class_path": "datamodules.NodeSeriesDataModule"}
GRAPHS = {"class_path": "datamodules.GraphDataModule"}
DDP = "lightning.pytorch.strategies.DDPStrategy"
LAMBDA = {"class_path": "torch.optim.lr_scheduler.LambdaLR"}
HOOK = {"class_path": "lightning.pytorch.callbacks.LambdaCallback"}
CALLS = {
    "an argument of any type": ("data", NODES | {"init_args": {"path": RUN, "edges_path": "e"}}),
    "its text": ("data", NODES | {"init_args": {"path": yaml.safe_dump(RUN), "edges_path": "e"}}),
    "a list of any type": ("data", NODES | {"init_args": {"path": [RUN], "edges_path": "e"}}),
    "dict_kwargs": ("optimizer", {"class_path": "torch.optim.SGD", "dict_kwargs": {"lr": RUN}}),
    "a number": ("optimizer", {"class_path": "torch.optim.SGD", "init_args": {"lr": RUN}}),
    "a module of torch": ("optimizer", {**CALL, "class_path": "torch.os.system"}),
    "a function of torch": ("optimizer", {"class_path": "torch.hub.load"}),
    "a library's own call": (
        "optimizer",
        {"class_path": "lightning.pytorch.cli.instantiate_class"},
    ),
    "a partial call": ("schedule", {"class_path": "functools.partial"}),
    "another kind of class": ("logger", {"class_path": "lightning.pytorch.Trainer"}),
    "no model": ("model", {"class_path": "lightning.pytorch.Trainer"}),
    "a plain class": ("callback", {"class_path": "pathlib.Path"}),
    "a function of a schedule": ("schedule", LAMBDA | {"init_args": {"lr_lambda": "os.system"}}),
    "a function of a callback": ("callback", HOOK | {"init_args": {"on_fit_start": "os.system"}}),
    "code": ("profiler", {"class_path": "builtins.exec", "init_args": {"source": "1"}}),
}
FOUND = {
    "a function of its own": ("schedule", LAMBDA | {"init_args": {"lr_lambda": "stranger.call"}}),
    "a hook of its own": ("callback", HOOK | {"init_args": {"on_test_start": "stranger.call"}}),
    "a class below": (
        "strategy",
        {"class_path": DDP, "init_args": {"cluster_environment": "stranger.Evil"}},
    ),
    "a file of options": ("logger", "evil"),
    "a file of a model": ("model", "evil"),
    "a function below": (
        "strategy",
        {"class_path": DDP, "init_args": {"ddp_comm_hook": "stranger.call"}},
    ),
    "a folder of pickles": (
        "data",
        {
            "class_path": "datamodules.GraphDataModule",
            "init_args": {"dataset": "Cora", "root": "."},
        },
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_named_configuration_calls_nothing(folder, capsys, name):
    place, value = CALLS[name]
    own = {"model": {"class_path": "lit_models.LitLinearRegression"}}
    own["data"] = {"class_path": "datamodules.LinearDataModule"}
    (folder / "own.yaml").write_text(yaml.safe_dump(put(own, PLACES[place], value)))
    assert main(["fit", "--config", "own.yaml", "--trainer.max_epochs", "1"]) == 2
    assert "\n" not in capsys.readouterr().err.strip()
    assert {path.name for path in folder.iterdir()} == {"own.yaml"}


@pytest.mark.parametrize("name", CALLS | FOUND)
def test_a_found_configuration_calls_nothing(handed_on, capsys, name):
    place, value = (CALLS | FOUND)[name]
    folder, path = handed_on.parents[2], handed_on / "config.yaml"
    (folder / "evil").write_text("class_path: stranger.Evil\n")
    path.write_text(yaml.safe_dump(put(yaml.safe_load(path.read_text()), PLACES[place], value)))
    assert main(["test", "--ckpt_path", str(handed_on / "checkpoints" / "last.ckpt")]) == 2
    assert "\n" not in capsys.readouterr().err.strip()
    if place in ("model", "data", "optimizer", "schedule"):
        with pytest.raises(InputError):
            lit_models.load(handed_on)
    assert not (folder / "called").exists()


@pytest.mark.parametrize(
    "tag", ["object/apply:os.system", "object/new:os.system", "name:os.system"]
)
def test_yaml_makes_plain_data(handed_on, capsys, tag):
    path = handed_on / "config.yaml"
    path.write_text(f"{path.read_text()}\nexperiment2: !!python/{tag} ['touch called']\n")
    assert main(["test", "--ckpt_path", str(handed_on / "checkpoints" / "last.ckpt")]) == 2
    assert "mend the YAML" in capsys.readouterr().err
    assert not (handed_on.parents[2] / "called").exists()


def test_a_folder_of_pickles_that_the_user_names_is_read(handed_on, capsys):
    path = handed_on / "config.yaml"
    config = put(yaml.safe_load(path.read_text()), PLACES["data"], FOUND["a folder of pickles"][1])
    path.write_text(yaml.safe_dump(config))
    checkpoint = str(handed_on / "checkpoints" / "last.ckpt")
    assert main(["test", "--ckpt_path", checkpoint]) == 2
    assert "give --data.root ." in capsys.readouterr().err
    assert main(["test", "--ckpt_path", checkpoint, "--data.root", "."]) == 2
    assert "unpickles" not in capsys.readouterr().err  # it is no graph model's run


def test_what_the_user_names_is_trusted(folder, capsys):
    assert main([*FIT, "--run_id", "x", "--trainer.max_epochs", "1"]) == 0
    checkpoint = str(folder / "runs" / "tiny" / "x" / "checkpoints" / "last.ckpt")
    capsys.readouterr()
    assert main(["test", "--ckpt_path", checkpoint]) == 2
    assert "names tiny.LitTiny" in capsys.readouterr().err
    named = str(folder / "runs" / "tiny" / "x" / "config.yaml")
    assert main(["test", "--ckpt_path", checkpoint, "--config", named]) == 0
    classes = ["--model", "tiny.LitTiny", "--data", "tiny.TinyDataModule"]
    assert main(["test", "--ckpt_path", checkpoint, *classes, "--experiment", "tiny"]) == 0
    assert main(["test", "--ckpt_path", checkpoint, "--config", CONFIG]) == 0
