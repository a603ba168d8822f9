"""Guidance, predictions and training of the model, and networks of one's own."""

import math

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn

from callbacks.run.reproducible import StepSeed
from datamodules import ArrayDataModule, MixtureLaw, TensorLoader
from datamodules.batches import SampleBatch
from lit_models import DDPM, GaussianDiffusion, LitDDPM
from lit_models.layers.shared_noise import SharedNoise
from lit_models.layers.unet import UNet


def law(mean, std):
    parts = ([1.0], [[mean]], [[std]])
    return MixtureLaw(*(torch.tensor(v, dtype=torch.float64) for v in parts))


def draws(seed, num_rows):
    return SharedNoise(seed, num_rows, 0, 1, torch.device("cpu"))


def conditional(weight, **options):
    torch.manual_seed(1)
    model = LitDDPM((2,), 3, num_steps=29, hidden_size=13, guidance_weight=weight, **options)
    nn.init.normal_(model.denoiser.outer.weight, std=0.3)
    return model.double()


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 20, 20)])
def test_the_linear_denoiser_is_scored_on_the_rows_of_the_test(shape):
    """Also along waves, for pictures of more numbers than a covariance takes."""
    rows = np.random.default_rng(0).integers(0, 256, (400, *shape), dtype=np.uint8)
    data = ArrayDataModule(rows, channels="first", num_test_samples=2)
    sizes = {"hidden_size": 8, "num_blocks": 1, "num_steps": 30, "num_sample_steps": 2}
    sizes["beta_end"] = 0.3
    model = LitDDPM(shape, 0, denoiser="unet", **sizes)
    model.take_scale(data)
    trainer = L.Trainer(logger=False, enable_progress_bar=False, accelerator="cpu")
    (scores,) = trainer.test(model, datamodule=data, verbose=False)
    # Rows of white noise: of that in x_t, the share of the data's variance stays unknown.
    rival = model.rivals["test/eps_mse"]["linear denoiser"]
    unknown = model.ddpm.diffusion.alphas_cumprod.mean().item()
    assert rival == pytest.approx(unknown, abs=0.1)  # at eighty random steps
    assert scores["test/eps_mse"] == pytest.approx(1, abs=0.1)  # an untrained network says 0


def test_guidance_without_classes_is_left_out_with_a_word(capsys):
    """A recipe for pictures serves a folder without subfolders too."""
    model = LitDDPM((2,), 0, num_steps=5, guidance_weight=2.0)
    assert model.ddpm.guidance_weight == 0
    assert capsys.readouterr().err.count("guidance_weight 2 is left out") == 1
    assert model.sample(3).shape == (3, 2)


def test_guidance_of_weight_0_is_the_conditional_sampler():
    y = torch.tensor([0, 1, 2, 1, 0])
    model, guided = conditional(0.0), conditional(1e-12)
    torch.testing.assert_close(model.sample(5, y, seed=2), guided.sample(5, y, seed=2))
    assert not torch.allclose(model.sample(5, y, seed=2), conditional(2.0).sample(5, y, seed=2))


@pytest.mark.parametrize("prediction", ["noise", "x0", "v"])
def test_guidance_formula(prediction):
    y, t = torch.tensor([0, 1, 2, 1, 0]), torch.tensor([3, 7, 11, 20, 28])
    x = torch.randn(5, 2, dtype=torch.float64)
    guided, model = conditional(1.7, prediction=prediction), conditional(0, prediction=prediction)
    expected = 2.7 * model(x, t, y) - 1.7 * model(x, t)
    torch.testing.assert_close(guided(x, t, y), expected, rtol=1e-10, atol=1e-10)


def test_dropped_classes_train_the_unconditional_prediction():
    model = conditional(0.0, class_dropout=1.0)
    model.step(SampleBatch(torch.randn(8, 2).double(), torch.arange(8) % 3)).loss.backward()
    gradient = model.embedding.classes.weight.grad
    assert gradient[3].abs().sum() > 0
    assert gradient[:3].abs().sum() == 0


def test_sampling_is_seeded_and_leaves_the_generator_alone():
    model = conditional(0.0)
    state = torch.get_rng_state()
    first = model.sample(6, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, model.sample(6, seed=3))
    assert not torch.equal(first, model.sample(6, seed=4))


@pytest.mark.parametrize("guidance", [0.0, 1.7])
def test_rows_are_denoised_alike_in_blocks(guidance, monkeypatch):
    model, y = conditional(guidance), torch.arange(7) % 3
    whole = model.sample(7, y, seed=3)
    monkeypatch.setattr("lit_models.layers.ddpm._BLOCK", 3 * model.ddpm.num_hidden)
    assert [len(rows) for rows, *_ in model.ddpm._blocks(whole, whole, [])] == [3, 3, 1]
    torch.testing.assert_close(model.sample(7, y, seed=3), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("prediction", ["x0", "v"])
def test_predictions_agree_at_the_optimum(prediction):
    """With exact outputs every parametrisation takes the same steps."""
    model = LitDDPM((1,), 0, num_steps=31, prediction=prediction).double()
    steps, true = model.ddpm.sampler_steps, law(0.5, 0.7)
    outputs = model.ddpm.diffusion.for_output(steps, prediction)
    x = torch.linspace(-2, 2, 7, dtype=torch.float64)[:, None]
    for i, t in enumerate(steps.t):
        noise = true.noise(x, model.ddpm.diffusion.alphas_cumprod[t].expand(7))
        signal, std = model.ddpm.diffusion.levels(t.expand(7), x)
        x0 = (x - std * noise) / signal
        output = x0 if prediction == "x0" else signal * noise - std * x0
        torch.testing.assert_close(
            steps.x[i] * x + steps.noise[i] * noise,
            outputs.x[i] * x + outputs.noise[i] * output,
            rtol=1e-9,
            atol=1e-9,
        )


def test_importance_sampling_trains():
    torch.manual_seed(0)
    model = LitDDPM((1,), 0, num_steps=5, hidden_size=16, time_sampling="importance")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    batch = SampleBatch(torch.randn(64, 1))
    for _ in range(60):
        optimizer.zero_grad()
        model.step(batch).loss.backward()
        optimizer.step()
    assert model.step_sampler.count.min() > 10
    t, weights = model.step_sampler(torch.rand(64))
    assert weights is not None
    assert t.unique().numel() > 1


@pytest.mark.parametrize("side", [8, 7, 5])
def test_unet_shapes_and_conditioning(side):
    net = UNet(3, 8, num_blocks=2, channel_multipliers=(1, 2, 2)).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    x = torch.randn(2, 3, side, side, dtype=torch.float64)
    embeddings = torch.randn(2, 8, dtype=torch.float64)
    out = net(x, embeddings)
    assert out.shape == x.shape
    torch.testing.assert_close(out[1:], net(x[1:], embeddings[1:]))  # rows do not mix
    torch.testing.assert_close(net(x, embeddings[:1]), net(x, embeddings[:1].expand(2, -1)))
    far = x.clone()
    far[0, 0, 0, 0] += 1.0
    assert (net(far, embeddings)[0, :, -1, -1] - out[0, :, -1, -1]).abs().min() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"denoiser": "unet"}, "use denoiser mlp"),
        ({"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
        (
            {"guidance_weight": 1.0, "num_classes": 2, "class_dropout": 0.0},
            "guidance_weight=1 needs a class_dropout above 0",
        ),
        ({"class_dropout": 1.2}, "got 1.2"),
        ({"guidance_weight": -5.0, "num_classes": 2}, "guidance_weight must be at least 0, got -5"),
        ({"eta": 5.0}, r"eta must be in \[0, 1\], got 5"),
        ({"dropout": 1.0}, "dropout must be in"),
        ({"min_snr_gamma": 0.0}, "min_snr_gamma must be above 0"),
        (
            {"sample_shape": (1, 8, 8), "denoiser": "unet", "channel_multipliers": [0]},
            "multipliers",
        ),
        ({"num_time_features": 5}, "must be even"),
        ({"num_sample_steps": 0}, "got 0"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        LitDDPM(**{"sample_shape": (2,), "num_classes": 0, **options})


def test_a_network_of_ones_own_trains_in_a_plain_loop():
    """The library without Trainer, scale or command: any module of (x, t, y)."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(4, 32), nn.SiLU(), nn.Linear(32, 2))

        def forward(self, x, t, y):
            assert len(x) == len(t) == len(y)
            return self.layers(torch.cat([x, t[:, None] / 50, y[:, None] * 1.0], 1))

    torch.manual_seed(0)
    model = DDPM(Net(), GaussianDiffusion(50), (2,), num_classes=2, guidance_weight=0.3)
    assert len(list(model.parameters())) == 4
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(80):
        y = torch.arange(64) % 2
        x0 = 0.1 * torch.randn(64, 2) + 2.0 * y[:, None] - 1
        t, noise = torch.randint(50, (64,)), torch.randn(64, 2)
        _, output, target = model.denoise(x0, t, y, noise)
        losses.append((output - target).square().mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    samples = model.sample(6, torch.arange(6) % 2)
    assert samples.shape == (6, 2)
    assert not torch.equal(samples, model.sample(6, torch.arange(6) % 2))


def test_samples_after_a_fit_are_fresh():
    model = conditional(0.0)
    model.take_scale(None)
    trainer = L.Trainer(
        max_steps=2,
        logger=False,
        callbacks=[StepSeed(0)],
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    rows = SampleBatch(torch.randn(8, 2).double(), torch.arange(8) % 3)
    trainer.fit(model, TensorLoader(rows, 4))
    assert model.step_seed is not None
    assert not torch.equal(model.sample(5), model.sample(5))
    assert torch.equal(model.sample(5, seed=1), model.sample(5, seed=1))


class Affine(nn.Module):
    """A network of a user's own."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x, t, y):
        assert t.shape == (len(x),)
        return self.layer(torch.cat([x, t[:, None] / 29], 1))


def test_a_network_of_ones_own_in_the_lightning_module(tmp_path):
    model = LitDDPM((2,), 0, network=Affine(), num_steps=29)
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"denoiser"}
    model.step(SampleBatch(torch.randn(8, 2))).loss.backward()
    assert model.denoiser.layer.weight.grad.abs().sum() > 0
    assert model.sample(5).shape == (5, 2)
    assert "network" not in model.hparams


def test_min_snr_weighs_the_training_loss_alone():
    rows = SampleBatch(torch.randn(500, 2).double(), torch.arange(500) % 3)
    plain, weighted = conditional(0.0), conditional(0.0, min_snr_gamma=1e-3)
    # With so small a cut all weights are gamma / SNR.
    levels = plain.ddpm.diffusion.alphas_cumprod
    torch.testing.assert_close(weighted.loss_weights, 1e-3 * (1 - levels) / levels)
    plain.draws = weighted.draws = lambda num_rows: draws(3, num_rows)
    _, output, target, _ = plain._denoise(rows.x0, *_steps(plain, rows))
    losses = (output - target).square().mean(1)
    expected = (weighted.loss_weights[_steps(plain, rows)[0]] * losses).mean()
    torch.testing.assert_close(weighted.step(rows).loss, expected)
    torch.testing.assert_close(weighted.eval_step(rows).loss, plain.eval_step(rows).loss)


def _steps(model, rows):
    """Steps, classes and draws as a training step takes them."""
    source = draws(3, len(rows.x0))
    t, _ = model.step_sampler(source.uniform())
    y = torch.where(source.uniform() < model.class_dropout, model.num_classes, rows.y)
    return t, y, source


class Rows(L.LightningDataModule):
    """Eleven test rows in batches of four."""

    num_test_samples = 6

    def test_dataloader(self):
        return TensorLoader(SampleBatch(torch.randn(11, 2)), 4)


def test_a_test_draws_no_more_samples_than_asked_for():
    model = LitDDPM((2,), 0, num_steps=5)
    drawn = []
    sample = model.sample
    model.sample = lambda count, y=None: drawn.append(count) or sample(count, y)
    trainer = L.Trainer(
        logger=False,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    (scores,) = trainer.test(model, datamodule=Rows(), verbose=False)
    assert drawn == [4, 2, 0]
    assert math.isfinite(scores["test/sliced_wasserstein"])
    assert math.isfinite(scores["test/mmd"])
