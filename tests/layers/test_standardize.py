import pytest
import torch
from torch import nn

from lit_models import LitMLPRegressor
from lit_models.layers.standardize import Standardize

# A minute of a log in milliseconds: all its values are one number in float32.
TIMES = 1.7e12 + 30.0 * torch.arange(2000, dtype=torch.float64).unsqueeze(1)


def fitted(values):
    scaler = Standardize(values.shape[1])
    scaler.fit(values.mean(0), values.std(0, correction=0))
    return scaler


def test_digits_that_vary_are_kept():
    scaler = fitted(TIMES)
    z = scaler(TIMES)
    assert z.dtype == torch.float32
    assert z.unique().numel() == len(TIMES)
    assert (scaler.inverse(z) - TIMES).abs().max() < 0.01


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_scale_is_no_narrower_than_float64_in_any_model(dtype):
    model = nn.Sequential(fitted(TIMES), nn.Linear(1, 1)).to(dtype)
    assert model[0].mean.dtype == model[0].std.dtype == torch.float64
    assert model(TIMES).dtype == dtype
    assert model[0].mean.item() == pytest.approx(TIMES.mean().item(), abs=1e-3)


def test_a_checkpoint_in_single_precision_loads():
    """As earlier versions wrote it."""
    scaler = Standardize(2)
    assert not scaler.is_fitted
    scaler.load_state_dict({"mean": torch.tensor([1.0, 2]), "std": torch.tensor([3.0, 4])})
    assert scaler.is_fitted
    assert scaler.mean.dtype == torch.float64
    assert set(scaler.state_dict()) == {"mean", "std"}


def test_numbers_of_a_file_need_a_scale():
    model = LitMLPRegressor(1, 1)
    with pytest.raises(ValueError, match="call model"):
        model(TIMES)
    model(TIMES.float())  # a user's own numbers, scaled beforehand


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.0], [1.0], "a scale of 2 features was expected, got 1 means and 1"),
        ([0.0, 1], [1.0, 0], "standard deviations positive"),
        ([0.0, float("nan")], [1.0, 1], "must be finite"),
    ],
)
def test_a_wrong_scale_is_refused(mean, std, message):
    with pytest.raises(ValueError, match=message):
        Standardize(2).fit(mean, std)
