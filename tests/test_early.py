"""Names and options that stand for nothing are refused before torch is imported."""

import inspect
import subprocess
import sys
import textwrap

import lightning as L
import pytest

import datamodules
import lit_models
from lit_models.__main__ import main
from lit_models.command.classes import arguments_of
from lit_models.command.early import refusal
from lit_models.command.signatures import source_arguments, trainer_arguments

CLASSES = [
    f"{package.__name__}.{name}"
    for package in (lit_models, datamodules)
    for name in dir(package)
    if name.startswith("Lit") or name.endswith("DataModule")
]


@pytest.mark.parametrize("class_path", CLASSES)
def test_the_source_says_what_the_class_says(class_path):
    package, _, name = class_path.rpartition(".")
    known = arguments_of(getattr(sys.modules[package], name))
    found = source_arguments(class_path)
    assert found is None or sorted(found) == sorted(known)


def test_the_source_says_of_nearly_all_classes():
    assert sum(source_arguments(class_path) is not None for class_path in CLASSES) > 50
    assert sorted(source_arguments("lit_models.LitLaplaceMLP")) == sorted(
        arguments_of(lit_models.LitLaplaceMLP)
    )


def test_the_source_says_what_the_trainer_says():
    assert trainer_arguments() == list(inspect.signature(L.Trainer).parameters)


@pytest.mark.parametrize(
    "class_path", ["lit_models.LitNothing", "torch.nn.Linear", "reader.LitMine", "LitGPT", ""]
)
def test_what_the_source_does_not_say_is_left_to_the_parser(class_path):
    assert source_arguments(class_path) is None


REFUSED = {
    "configuration": (["--config", "lstmm"], "packaged name 'lstmm'; did you mean lstm?"),
    "model": (["--model", "LitGPTT"], "no class 'LitGPTT' in lit_models; did you mean LitGPT"),
    "data": (["--config", "lstm", "--data", "SineDataModul"], "did you mean SineDataModule"),
    "checkpoint": (["--config", "lstm", "--ckpt_path", "x.ckpt"], "no checkpoint 'x.ckpt'"),
    "option of the model": (
        ["--config", "lstm", "--model.hiden_size", "3"],
        "model: Option 'hiden_size' is not accepted; did you mean hidden_size",
    ),
    "option of the data": (
        ["--config", "lstm", "--data.init_args.windw=3"],
        "data: Option 'windw' is not accepted; did you mean window",
    ),
    "option of the other part": (
        ["--config", "gpt", "--data.num_new_tokens", "3"],
        "data: Option 'num_new_tokens' is not accepted; did you mean --model.num_new_tokens?",
    ),
    "option of the trainer": (
        ["--config", "lstm", "--trainer.max_epoch", "3"],
        "trainer: Option 'max_epoch' is not accepted; did you mean max_epochs",
    ),
}


def test_torch_is_not_imported_for_what_stands_for_nothing(tmp_path):
    lines = [["fit", *argv] for argv, _ in REFUSED.values()]
    code = """
        import sys
        from lit_models.__main__ import main
        for line in {lines!r}:
            assert main(line) == 2
        assert "torch" not in sys.modules and "lightning" not in sys.modules
    """
    command = [sys.executable, "-c", textwrap.dedent(code).format(lines=lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    said = done.stderr.splitlines()
    for line, (_, message) in zip(said, REFUSED.values(), strict=True):
        assert line.startswith("lit-models: error: ")
        assert message in line


@pytest.mark.parametrize(
    "line",
    [
        ["--config", "lstm", "--model.hidden_size", "3", "--data.window=9"],
        ["--config", "lstm", "--model.optimizer.lr", "3", "--trainer.callbacks+", "LossCurves"],
        ["--config", "lstm", "--model.hidden_size", "3", "--model", "LitLinearRegression"],
        ["--config", "lstm", "--model", "reader.LitMine", "--model.mine", "3"],
        ["--config", "lstm", "--model.class_path", "LitGPT", "--model.init_args.d_model=3"],
        ["--config", "lstm", "--wandb.mode", "disabled", "--print_config", "--epochs", "3"],
    ],
)
def test_what_the_parser_may_take_is_left_to_it(line):
    assert refusal(["fit", *line]) is None


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lit-models {lit_models.__version__}\n"
