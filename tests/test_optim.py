"""The six update rules step by step against their formulas, and the schedules.

``g`` is the gradient of 0.5 c (w - w*)^2; every rule runs in float64 as its overlay configures it.
"""

import itertools
import math

import pytest
import torch
from helpers import fit

from lit_models.command.catalog import find_config, load_yaml
from lit_models.command.cli import build
from lit_models.optim import AdamWMatrixDecay, Noam, WarmupCosine

STEPS = 20
CURVATURE = torch.tensor([1.0, 7.0, 0.3], dtype=torch.float64)
TARGET = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
START = torch.tensor([1.5, 0.2, -0.4], dtype=torch.float64)


def gradient(w):
    return CURVATURE * (w - TARGET)


def options(overlay):
    config = load_yaml(find_config(overlay))["model"]["init_args"]["optimizer"]
    return config["class_path"], config["init_args"]


def by_torch(overlay, **changes):
    path, arguments = options(overlay)
    w = torch.nn.Parameter(START.clone())
    optimizer = getattr(torch.optim, path.rsplit(".", 1)[1])([w], **{**arguments, **changes})
    track = []
    for _ in range(STEPS):
        w.grad = gradient(w.detach())
        optimizer.step()
        track.append(w.detach().clone())
    return torch.stack(track)


def sgd(lr):
    w = START.clone()
    while True:
        w = w - lr * gradient(w)
        yield w


def momentum(lr, momentum):
    w, velocity = START.clone(), torch.zeros(3, dtype=torch.float64)
    while True:
        velocity = momentum * velocity + gradient(w)
        w = w - lr * velocity
        yield w


def adagrad(lr, eps=1e-10):
    w, total = START.clone(), torch.zeros(3, dtype=torch.float64)
    while True:
        g = gradient(w)
        total = total + g**2
        w = w - lr * g / (total.sqrt() + eps)
        yield w


def rmsprop(lr, alpha, eps=1e-8):
    w, mean = START.clone(), torch.zeros(3, dtype=torch.float64)
    while True:
        g = gradient(w)
        mean = alpha * mean + (1 - alpha) * g**2
        w = w - lr * g / (mean.sqrt() + eps)
        yield w


def adam(lr, weight_decay=0.0, betas=(0.9, 0.999), eps=1e-8):
    w, m, v, t = START.clone(), torch.zeros(3).double(), torch.zeros(3).double(), 0
    while True:
        g, t = gradient(w), t + 1
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        unbiased = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
        w = w - lr * weight_decay * w - lr * unbiased[0] / (unbiased[1].sqrt() + eps)
        yield w


RULES = {
    "sgd": sgd,
    "momentum": momentum,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "adam": adam,
    "adamw": adam,
}


@pytest.mark.parametrize("overlay", RULES)
def test_overlays_follow_their_formula(overlay):
    arguments = {k: v for k, v in options(overlay)[1].items() if k != "fused"}
    steps = RULES[overlay](**arguments)
    expected = torch.stack([next(steps) for _ in range(STEPS)])
    torch.testing.assert_close(by_torch(overlay), expected, rtol=1e-12, atol=1e-12)


def test_averaged_momentum_is_heavy_ball_at_a_smaller_rate():
    """v = b v + (1 - b) g at rate r moves as torch's v = b v + g at rate (1 - b) r."""
    w, velocity, track = START.clone(), torch.zeros(3, dtype=torch.float64), []
    for _ in range(STEPS):
        velocity = 0.9 * velocity + 0.1 * gradient(w)
        w = w - 0.05 * velocity
        track.append(w)
    torch.testing.assert_close(by_torch("momentum", lr=0.005), torch.stack(track))


def test_eps_inside_the_root_is_another_rule():
    """sqrt(G + eps) and sqrt(G) + eps agree where G >> eps, and differ ninefold at the first step
    for g = 1e-3 and eps = 1e-4."""
    g, eps = 1e-3, 1e-4
    inside, outside = g / math.sqrt(g**2 + eps), g / (g + eps)
    assert outside / inside == pytest.approx(9.14, abs=0.01)
    large = 10.0
    assert large / math.sqrt(large**2 + eps) == pytest.approx(large / (large + eps), rel=1e-4)


def rates(schedule, steps):
    found = []
    for _ in range(steps):
        found.append(schedule.get_last_lr()[0])
        schedule.optimizer.step()
        schedule.step()
    return found


def plain(lr):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def test_warmup_cosine():
    found = rates(WarmupCosine(plain(2.0), num_warmup_steps=4, total_steps=14, min_ratio=0.1), 15)
    assert found[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert found[9] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    assert found[14] == pytest.approx(0.2)
    assert all(a > b for a, b in itertools.pairwise(found[4:]))


def test_noam():
    found = rates(Noam(plain(1.0), d_model=16, num_warmup_steps=10), 40)
    for step, rate in enumerate(found, start=1):
        assert rate == pytest.approx(16**-0.5 * min(step**-0.5, step * 10**-1.5))
    assert max(range(40), key=found.__getitem__) == 9


def test_vectors_do_not_decay():
    layer = torch.nn.Linear(3, 2)
    optimizer = AdamWMatrixDecay(layer.parameters(), lr=0.1, weight_decay=0.5)
    layer.weight.grad, layer.bias.grad = torch.zeros(2, 3), torch.zeros(2)
    before = layer.weight.detach().clone(), layer.bias.detach().clone()
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), before[0] * (1 - 0.1 * 0.5))
    assert torch.equal(layer.bias.detach(), before[1])


@pytest.mark.parametrize("overlay", RULES)
def test_overlays_train_a_packaged_experiment(overlay):
    cli = build(["--config", "linear_regression", "--config", overlay, "--wandb.mode", "disabled"])
    optimizer = cli.model.optimizer(cli.model.parameters())
    assert type(optimizer).__name__ == options(overlay)[0].rsplit(".", 1)[1]
    assert optimizer.param_groups[0]["lr"] == options(overlay)[1]["lr"]


def test_a_fused_optimizer_clips_in_bfloat16(tmp_path):
    fit(
        "lstm",
        *("--config", "cpu", "--config", "bf16", "--trainer.gradient_clip_val", "0.5"),
        *("--data.num_samples", "256", "--data.num_test", "40", "--trainer.max_epochs", "1"),
        tmp_path=tmp_path,
    )
