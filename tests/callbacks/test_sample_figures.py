"""Figures of samples: what the axis hides is said; pictures need no training file."""

import re
from types import SimpleNamespace

import pytest
import torch

from callbacks import ImageGrid, SampleFigures
from callbacks.figures.samples import _histogram, _scatter
from datamodules import GaussianMixtureDataModule
from lit_models import LitDDPM


@pytest.mark.parametrize("bad", [300.0, -300.0, float("nan")])
def test_samples_outside_the_axis_are_counted(bad):
    data = GaussianMixtureDataModule()
    grid = torch.linspace(-3, 3, 400, dtype=torch.float64)
    samples = torch.cat([torch.full((150,), bad), torch.zeros(50)])
    figure = _histogram(samples, torch.zeros(10), data.law, grid)
    assert "200 samples, 150 outside" in figure.axes[0].get_title()
    area = sum(patch.get_height() * patch.get_width() for patch in figure.axes[0].patches)
    assert area == pytest.approx(50 / 200)
    good = _histogram(samples[150:], torch.zeros(10), data.law, grid)
    assert good.axes[0].get_title() == "50 samples"


def test_points_outside_the_plane_are_counted():
    samples = torch.cat([torch.randn(40, 2), torch.tensor([[0.0, 1e4]])])
    figure = _scatter(samples.clamp(-2, 1e4), 2 * torch.randn(4000, 2))
    assert "1 outside" in figure.axes[0].get_title()
    assert figure.axes[0].get_ylim()[1] < 100


def test_laws_of_the_samplers():
    data = GaussianMixtureDataModule(num_samples=10, num_test=100)
    model = LitDDPM((1,), 0, num_steps=60)
    with torch.no_grad():
        drawn = SampleFigures(num_samples=50).draw(SimpleNamespace(datamodule=data), model)
    lines = {line.get_label(): line.get_ydata() for line in drawn["sampler_laws"].axes[0].lines}
    assert set(lines) == {"ancestral", "DDIM", "DPM-Solver++ (2M)"}
    assert all(len(line) == 4 for line in lines.values())  # 5, 10, 20 and 50 of 60 steps
    assert all(line[-1] < line[0] for line in lines.values())


def test_pictures_by_class_and_their_way_out_of_the_noise():
    model = LitDDPM((1, 6, 6), 3, denoiser="unet", hidden_size=8, num_steps=12)
    known = SimpleNamespace(value_range=(0.0, 255.0), class_names=["cat", "dog", "ox"])
    figure = ImageGrid(num_rows=2, num_paths=2)
    drawn = figure.draw(SimpleNamespace(datamodule=known), model)
    titles = [axes.get_title() for axes in drawn["image_grid"].axes]
    assert titles == ["cat", "dog", "ox", "", "", ""]
    times = [axes.get_title() for axes in drawn["image_process"].axes if axes.get_title()]
    numbers = [int(re.fullmatch(r"t = (\d+)", time)[1]) for time in times]
    assert numbers == sorted(numbers, reverse=True)
    assert (numbers[0], numbers[-1]) == (12, 0)
    assert len(drawn["image_process"].axes) == 2 * len(numbers)
