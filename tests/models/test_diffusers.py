"""The U-Net in diffusers' form: the same samples there, and the same model back."""

import diffusers
import pytest
import torch
from torch import nn

from lit_models import LitDDPM
from lit_models.weights.diffusers_unet import save_diffusers, scheduler_config

OPTIONS = {
    "sample_shape": (3, 12, 8),
    "denoiser": "unet",
    "hidden_size": 16,
    "num_blocks": 2,
    "channel_multipliers": [1, 2, 3],
    "num_steps": 60,
    "schedule": "cosine",
    "prediction": "v",
}


def trained(num_classes=0, **options):
    """A model none of whose weights is zero, and a scale."""
    torch.manual_seed(0)
    model = LitDDPM(num_classes=num_classes, **{**OPTIONS, **options}).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.08)
    model.x_scaler.fit([100.0] * len(model.x_scaler.mean), [50.0] * len(model.x_scaler.mean))
    return model


@pytest.mark.parametrize("num_classes", [0, 3])
@pytest.mark.parametrize("time_features", ["fourier", "sinusoidal"])
def test_outputs_agree(tmp_path, num_classes, time_features):
    model = trained(num_classes, time_features=time_features)
    save_diffusers(model, tmp_path)
    theirs = diffusers.UNet2DModel.from_pretrained(tmp_path / "unet").eval()
    x, t = torch.randn(5, 3, 12, 8), torch.tensor([0, 1, 30, 58, 59])
    y = torch.tensor([0, 1, 2, 3, 0]) if num_classes else None
    with torch.no_grad():
        ours = model._network(x, t, y)
        torch.testing.assert_close(theirs(x, t, y).sample, ours, rtol=1e-4, atol=1e-5)
    assert ours.std() > 0.05


@pytest.mark.parametrize(
    ("sampler", "count"), [("ancestral", None), ("ddim", None), ("dpm_solver", 20)]
)
def test_diffusers_draws_the_same_samples(tmp_path, sampler, count):
    model = trained(sampler=sampler, num_sample_steps=count)
    save_diffusers(model, tmp_path)
    net = diffusers.UNet2DModel.from_pretrained(tmp_path / "unet").eval()
    kind = getattr(diffusers, scheduler_config(model)["_class_name"])
    scheduler = kind.from_pretrained(tmp_path / "scheduler")
    steps = model.ddpm.sampler_steps
    given = {"timesteps": steps.t.tolist()} if sampler == "dpm_solver" else {}
    scheduler.set_timesteps(**given or {"num_inference_steps": len(steps.t)})
    assert scheduler.timesteps.tolist() == steps.t.tolist()
    ours, theirs = model.draws(3, 1, seed=5), model.draws(3, 1, seed=5)
    x = theirs.normal(model.sample_shape, torch.float32)
    with torch.no_grad():
        for t, std in zip(scheduler.timesteps, steps.std, strict=True):
            step = scheduler.step(net(x, t).sample, t, x)
            if sampler == "ancestral":  # the fresh noise is drawn by a generator of its own
                fresh = theirs.normal(model.sample_shape, torch.float32) if std > 0 else 0.0
                mean = _mean(scheduler, net, x, t)
                x = mean + std.float() * fresh
            else:
                x = step.prev_sample
    expected = model.ddpm.sample(3, None, ours)
    torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def _mean(scheduler, net, x, t):
    """What diffusers adds its noise to."""
    values = []
    for seed in (0, 0):
        generator = torch.Generator().manual_seed(seed)
        values.append(scheduler.step(net(x, t).sample, t, x, generator=generator).prev_sample)
    if t == 0:
        return values[0]
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return values[0] - scheduler._get_variance(int(t)) ** 0.5 * noise


@pytest.mark.parametrize("num_classes", [0, 3])
def test_and_back(tmp_path, num_classes):
    model = trained(num_classes)
    save_diffusers(model, tmp_path)
    again = LitDDPM(num_classes=num_classes, **OPTIONS, pretrained=str(tmp_path)).eval()
    for (name, value), other in zip(
        model.state_dict().items(), again.state_dict().values(), strict=True
    ):
        if not name.startswith("embedding.time.0"):  # what it says of each step is what counts
            torch.testing.assert_close(other, value, rtol=1e-6, atol=1e-6, msg=name)
    steps = torch.arange(60)
    torch.testing.assert_close(again.embedding(steps), model.embedding(steps), rtol=1e-4, atol=1e-5)
    y = torch.arange(4) % 3 if num_classes else None
    samples = (each.sample(4, y, seed=1) for each in (model, again))
    torch.testing.assert_close(*samples, rtol=1e-3, atol=0.05)
    other = {**OPTIONS, "hidden_size": 24}
    with pytest.raises(ValueError, match="use the options of the run"):
        LitDDPM(num_classes=num_classes, **other, pretrained=str(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_shape": (1, 10, 8)}, "10 x 8 do not halve 2 times"),
        ({"hidden_size": 12}, "a hidden_size that 8 divides"),
        ({"sample_shape": (4,), "denoiser": "mlp"}, "the U-Net alone"),
    ],
)
def test_what_diffusers_cannot_compute_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        save_diffusers(trained(**options), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no folder of"):
        LitDDPM(num_classes=0, **OPTIONS, pretrained=str(tmp_path))
