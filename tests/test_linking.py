"""Sizes go from the data to the model, into arguments without a default and no others."""

import pytest
from tiny import LitTiny

import lit_models
from datamodules import SineDataModule
from datamodules.errors import InputError
from lit_models import LitGPT, LitGraphNetwork, LitRecurrentForecaster
from lit_models.command.classes import arguments_of
from lit_models.command.cli import build
from lit_models.command.linking import SIZES, linked_sizes, size_of

SINE = ["--data", "SineDataModule", "--data.num_samples", "200", "--data.window", "6"]


class LitOwn(LitTiny):
    """A model of a user's own, to which a window of 3 means something.

    Args:
        in_features: Size of each input.
        window: A number of its own.
        **kwargs: Arguments of the base.
    """

    def __init__(self, in_features: int, window: int = 3, **kwargs) -> None:
        super().__init__(in_features, **kwargs)
        self.window = window

    def step(self, batch):
        return super().step(batch)


class LitBare(LitTiny):
    """Hands every argument on."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)


class LitOwnGPT(LitGPT):
    """With groups of its own."""

    def __init__(self, vocab_size: int, group_names: tuple[str, ...] = ("a", "b")) -> None:
        super().__init__(vocab_size, 8, group_names=group_names)


class LitMoreGPT(LitGPT):
    """With one argument more."""

    def __init__(self, more: int = 1, **kwargs) -> None:
        super().__init__(**kwargs)


@pytest.mark.parametrize(
    ("model", "sizes"),
    [
        (LitTiny, {"in_features"}),
        (LitOwn, {"in_features"}),
        (LitBare, {"in_features"}),
        (LitGPT, {"vocab_size", "context_length", "group_names"}),
        (LitOwnGPT, {"vocab_size"}),
        (LitMoreGPT, {"vocab_size", "context_length", "group_names"}),
    ],
)
def test_arguments_without_a_default_are_linked(model, sizes):
    assert set(linked_sizes(model)) == sizes


def test_arguments_left_to_the_data_are_linked():
    sizes = {"in_features", "horizon", "window", "num_auxiliary"}
    assert sizes <= set(linked_sizes(LitRecurrentForecaster))


def test_no_size_of_our_models_has_a_default():
    for name in lit_models.__all__:
        model = getattr(lit_models, name)
        if isinstance(model, type) and issubclass(model, lit_models.LitModule):
            assert set(SIZES) & set(arguments_of(model)) <= set(linked_sizes(model)), name


def test_a_number_of_ones_own_stays_on_any_data():
    assert build(["--model", "test_linking.LitOwn", *SINE]).model.window == 3
    assert build(["--model", "test_linking.LitOwn", "--model.window", "5", *SINE]).model.window == 5


def test_a_size_that_agrees_with_the_data_may_be_given():
    forecaster = ["--model", "LitRecurrentForecaster", *SINE]
    assert build([*forecaster, "--model.window", "6"]).model.hparams["window"] == 6
    pooled = build([*forecaster, "--data.num_auxiliary", "2"])
    assert pooled.model.hparams["num_auxiliary"] == 2


def test_what_nobody_says_keeps_its_default():
    """As in the configuration of a run, which does not hold what was left to the data."""
    data = SineDataModule(num_samples=20)
    assert size_of(data, "num_series", LitRecurrentForecaster, None) == 0
    assert size_of(data, "target_power", LitRecurrentForecaster, None) is None
    with pytest.raises(InputError, match="needs level, which SineDataModule does not have"):
        size_of(data, "level", LitGraphNetwork, None)


def test_a_size_that_contradicts_the_data_is_refused(tmp_path):
    (tmp_path / "own.yaml").write_text("model: {init_args: {window: 7}}\n")
    given = (["--model.window", "7"], ["--config", str(tmp_path / "own.yaml")])
    for options in given:
        with pytest.raises(InputError, match=r"--model.window 7: the data say window=6; leave"):
            build(["--config", "lstm", "--data.window", "6", *options])


def test_shapes_are_compared_as_yaml_has_them():
    cli = build(["--config", "ddpm_digits", "--model.sample_shape", "[1, 8, 8]"])
    assert tuple(cli.model.hparams["sample_shape"]) == (1, 8, 8)
