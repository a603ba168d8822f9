"""Features of the diffusion step: diffusers and direct formulas as oracles."""

import math

import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch import nn

from lit_models.layers.step_embedding import StepEmbedding


def features(kind, t, num_steps=97, num_features=6):
    embedding = StepEmbedding(num_steps, 6, kind, num_features)
    embedding.time = nn.Identity()
    return embedding(t)


def test_sinusoidal_features_against_diffusers():
    t = torch.tensor([0, 3, 41, 96])
    expected = get_timestep_embedding(t, 6, flip_sin_to_cos=False, downscale_freq_shift=0)
    torch.testing.assert_close(features("sinusoidal", t), expected)


def test_fourier_features():
    (got,) = features("fourier", torch.tensor([41]))
    angles = [math.pi * k * 41 / 97 for k in (1, 2, 3)]
    expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    torch.testing.assert_close(got, torch.tensor(expected))


@pytest.mark.parametrize("kind", ["fourier", "sinusoidal"])
def test_every_step_has_features_of_its_own(kind):
    rows = features(kind, torch.arange(97), num_features=12)
    assert torch.pdist(rows).min() > 1e-3


def test_classes_add_a_vector():
    embedding = StepEmbedding(7, 5, num_classes=3)
    t, y = torch.tensor([2, 6]), torch.tensor([1, 3])
    torch.testing.assert_close(embedding(t, y), embedding(t) + embedding.classes.weight[y])
