"""``fit --help``: the options that matter, those of the chosen classes, and all on request."""

import pytest

from lit_models.__main__ import main
from lit_models.command.classes import arguments_of, named_class
from lit_models.command.help import OPTIONS, documented_arguments, short_help
from lit_models.command.linking import linked_sizes


def test_the_short_help_fits_a_terminal():
    lines = short_help(["fit", "--help"]).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) < 60
    assert 20 <= sum(len(options) for options in OPTIONS.values()) <= 30
    assert "--trainer.max_epochs" not in short_help(["predict", "--help"])


def test_every_option_of_the_short_help_is_one(capsys, tmp_path):
    """The parser knows each of them: `--help all` lists it, but for those of a model's own."""
    assert main(["fit", "--config=linear_regression", "--help", "all"]) == 0
    known = capsys.readouterr().out
    for options in OPTIONS.values():
        for option in options:
            name = option.name.split()[0]
            assert name in known or name.startswith("--model."), name
    assert "--trainer.limit_train_batches" in known


@pytest.mark.parametrize("experiment", ["lstm", "ddpm_digits", "bert"])
def test_options_of_the_model_and_the_data(experiment):
    text = short_help(["fit", "--config", experiment, "--help"])
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    for start, group in (("model Lit", "model"), ("data ", "data")):
        first = next(line for line in lines if line.startswith(start))
        package = "lit_models" if group == "model" else "datamodules"
        named = named_class(f"{package}.{first.split()[1].rstrip(':')}")
        linked = set(linked_sizes(named)) if group == "model" else set()
        for name in set(arguments_of(named)) - linked - {"optimizer", "lr_scheduler"}:
            assert f"  --{group}.{name}" in text
            assert documented_arguments(named)[name], name
        assert not any(f"  --{group}.{name} " in text for name in linked)


def test_values_of_the_configurations_stand_beside_them():
    row = "--model.guidance_weight"
    for configs, value in ((["ddpm_digits"], "0.5"), (["ddpm_digits", "pictures"], "2.0")):
        options = [f"--config={name}" for name in configs]
        text = short_help(["fit", *options, "-h"])
        assert f"({value})" in text[text.index(row) :].partition("--model.pretrained")[0]


def test_a_wrong_name_is_one_line(capsys):
    assert main(["fit", "--config", "lstn", "--help"]) == 2
    assert "did you mean lstm" in capsys.readouterr().err
