"""The noise that is learned: its fixed point, its carrying over, and runs that had it otherwise."""

from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from datamodules import NoisySineRegressionDataModule
from datamodules.batches import SupervisedBatch
from lit_models import (
    LitBayesianMLP,
    LitDeepEnsemble,
    LitLaplaceMLP,
    LitMCDropoutMLP,
    WarmupCosine,
)

N = 60
LEARNERS = [
    (LitBayesianMLP, (3, 2, N), {"num_draws": 7}),
    (LitMCDropoutMLP, (3, 2, N), {"num_draws": 7}),
    (LitDeepEnsemble, (3, 2), {"noise": "constant", "leave_out": False}),
]


def data(noise=0.2):
    x = torch.randn(N, 3, dtype=torch.float64)
    y = torch.stack([x[:, 0], 100 * x[:, 1]], 1) + noise * torch.randn(N, 2).double()
    return SupervisedBatch(x, y)


def made(kind, sizes, options, batch):
    model = kind(*sizes, hidden_sizes=[5], **options)
    for scaler, values in ((model.x_scaler, batch.x), (model.y_scaler, batch.y)):
        scaler.fit(values.mean(0), values.std(0))
    return model


@pytest.mark.parametrize(("kind", "sizes", "options"), LEARNERS)
def test_noise_moves_to_what_the_prediction_leaves(kind, sizes, options):
    batch = data()
    model = made(kind, sizes, options, batch)
    mixture = model.predictive(batch.x)
    predicted = mixture.means if kind is LitDeepEnsemble else mixture.mean
    expected = (batch.y - predicted).square().reshape(-1, N, 2).mean((0, 1)).sqrt()
    for _ in range(60):
        model.refresh(SupervisedBatch(batch.x[n::7], batch.y[n::7]) for n in range(7))
    torch.testing.assert_close(model.noise_stds(), expected, check_dtype=False)
    stds = model.predictive(batch.x).stds.expand(1, 1, 2)[0, 0]
    torch.testing.assert_close(stds, expected, check_dtype=False)
    assert expected[1] > 10 * expected[0]  # a noise for each target, in its units


@pytest.mark.parametrize(
    ("kind", "options"), [(LitBayesianMLP, {"noise_std": 0.3}), (LitMCDropoutMLP, {"tau": 4.0})]
)
def test_a_given_noise_stays(kind, options):
    batch = data()
    model = made(kind, (3, 2, N), options, batch)
    model.refresh(iter([batch]))
    expected = torch.full((2,), 0.3 if kind is LitBayesianMLP else 0.5).double()
    torch.testing.assert_close(model.noise_stds(), expected)


def test_the_noise_that_the_data_state():
    task = NoisySineRegressionDataModule(num_samples=20, noise_std=0.3)
    model = LitBayesianMLP(1, 1, 20, noise_std="data")
    model.take_scale(task)
    expected = torch.full((1,), 0.3)
    torch.testing.assert_close(model.noise_stds(), expected, check_dtype=False)
    model.refresh(iter([task.split("train")]))
    torch.testing.assert_close(model.noise_stds(), expected, check_dtype=False)
    # A prediction needs no data that state it.
    loaded = LitBayesianMLP(1, 1, 20, noise_std="data")
    loaded.load_state_dict(model.state_dict())
    torch.testing.assert_close(loaded.noise_stds(), expected, check_dtype=False)


def test_a_noise_that_the_data_do_not_state_is_learned(monkeypatch):
    said = []
    monkeypatch.setattr("lit_models.families.refreshed.rank_zero_info", said.append)
    batch = data()
    model = made(LitBayesianMLP, (3, 2, N), {"noise_std": "data"}, batch)
    model.take_scale(SimpleNamespace(standardization={}))
    assert said == ["SimpleNamespace states no noise: it is learned"]
    before = model.noise_stds()
    model.refresh(iter([batch]))
    assert (model.noise_stds() != before).all()


@pytest.mark.parametrize("scale", [1.0, 1e5])
def test_noise_does_not_hang_on_the_rate(scale):
    """A linear truth, at a rate that moves no parameter by itself as far as the noise must go."""
    batch = data(noise=0.2)
    batch = batch._replace(y=scale * (batch.y[:, :1] + 3))
    model = made(LitMCDropoutMLP, (3, 1, N), {"dropout": 0.01, "activation": "silu"}, batch)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for step in range(600):
        optimizer.zero_grad()
        model.step(batch).loss.backward()
        optimizer.step()
        if step % 50 == 49:
            model.refresh(iter([batch]))
    assert 0.13 * scale < model.noise_stds().item() < 0.25 * scale


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [(LitBayesianMLP, "log_noise_std", -1.0), (LitMCDropoutMLP, "log_tau", 2.0)],
)
def test_runs_in_which_the_noise_was_a_parameter(kind, name, value):
    model = kind(3, 2, N, hidden_sizes=[5])
    state = model.state_dict()
    del state["noise_variance"], state["last_refresh"]
    state[name] = torch.full((2,), value)
    checkpoint = {"state_dict": state}
    model.on_load_checkpoint(checkpoint)
    model.load_state_dict(checkpoint["state_dict"])
    expected = torch.full((2,), torch.tensor(-1.0).exp().item()).double()
    torch.testing.assert_close(model.noise_stds(), expected)


def test_a_laplace_run_that_counted_by_another_name():
    model = LitLaplaceMLP(3, 2, N, hidden_sizes=[5])
    state = model.state_dict()
    state["last_evidence"] = state.pop("last_refresh") + 7
    checkpoint = {"state_dict": state}
    model.on_load_checkpoint(checkpoint)
    model.load_state_dict(checkpoint["state_dict"])
    assert model.last_refresh == 7


def test_the_trainer_refreshes_on_time(tmp_path):
    batch = data()
    model = made(*LEARNERS[1], batch)
    calls = []

    def refresh(batches):
        calls.append((model.trainer.global_step, sum(len(b.x) for b in batches)))

    model.refresh = refresh
    loader = DataLoader(TensorDataset(*batch[:2]), batch_size=20)
    trainer = L.Trainer(
        max_epochs=40,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(model, loader)
    # 120 steps: every third of them, which an epoch has, after a tenth of the run.
    assert calls[0] == (12, N)
    assert calls[-1] == (120, N)
    assert len(calls) == 37


def test_intervals_of_a_table_in_large_units_are_as_wide_as_its_noise():
    """Prices of 3e5 with a noise of 2e4: a variational fit once said 1.7 times as much."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(544, 2, generator=generator, dtype=torch.float64)
    clean = torch.sin(2 * x[:, :1]) + 0.5 * x[:, 1:]
    noise = torch.randn(544, 1, generator=generator, dtype=torch.float64)
    y = 3e5 + 1e5 * clean + 2e4 * noise
    batch, test = (SupervisedBatch(x[part], y[part]) for part in (slice(272), slice(272, 544)))
    model = LitBayesianMLP(2, 1, 272, num_train_draws=4)
    for scaler, values in ((model.x_scaler, batch.x), (model.y_scaler, batch.y)):
        scaler.fit(values.mean(0), values.std(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    schedule = WarmupCosine(optimizer, total_steps=900)
    for step in range(900):
        optimizer.zero_grad()
        model.step(batch).loss.backward()
        optimizer.step()
        schedule.step()
        if step > 270 and step % 50 == 49:
            model.refresh(iter([batch]))
    assert 1.8e4 < model.noise_stds().item() < 2.6e4
    with torch.no_grad():
        lower, upper = model.predictive(test.x).interval()
    inside = ((test.y >= lower) & (test.y <= upper)).double().mean().item()
    assert 0.9 < inside < 0.995
    assert (upper - lower).mean() < 1.45 * 2 * 1.96 * 2e4
