"""A configuration makes classes and calls nothing; one that is found names only known packages."""

import sys

import pytest
import yaml
from refusals import CONFIG, FIT

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


@pytest.fixture
def handed_on(folder, capsys):
    """A run folder, and a module that leaves a mark where it is imported."""
    options = ["--model", "LitLinearRegression", "--data", "LinearDataModule"]
    options += ["--data.num_samples", "50", "--trainer.max_epochs", "1", "--run_id", "x"]
    options += ["--experiment", "mine", "--trainer.enable_progress_bar", "false"]
    assert main(["fit", *options]) == 0
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


def test_a_found_function_is_refused(handed_on, capsys):
    path = handed_on / "config.yaml"
    config = yaml.safe_load(path.read_text())
    schedule = {"class_path": "torch.optim.lr_scheduler.LambdaLR"}
    schedule["init_args"] = {"lr_lambda": "os.system"}
    path.write_text(yaml.safe_dump(put(config, PLACES["schedule"], schedule)))
    checkpoint = handed_on / "checkpoints" / "last.ckpt"
    assert main(["test", "--ckpt_path", str(checkpoint)]) == 2
    assert "config.yaml names the function system" in capsys.readouterr().err


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
