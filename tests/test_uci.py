"""The batched run over given splits: stacked training against training alone."""

import dataclasses

import numpy as np
import pytest
import torch

from datamodules.batches import SupervisedBatch
from lit_models import LitDeepEnsemble
from scripts import uci, uci_alone


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("table")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    y = 10 * x[:, 0] + 5 * np.sin(2 * x[:, 1]) + rng.normal(size=60)
    rows = [",".join(f"{v:.6f}" for v in (*row, target)) for row, target in zip(x, y, strict=True)]
    (path / "data.csv").write_text("a,b,c,target\n" + "\n".join(rows) + "\n")
    splits = [" ".join(map(str, rng.permutation(60)[:10])) for _ in range(3)]
    (path / "test_rows.txt").write_text("\n".join(splits) + "\n")
    return path


def test_parts_of_a_split_are_disjoint_and_whole(folder):
    parts = uci.load(folder)
    assert [parts[name].x.shape[1] for name in ("train", "val", "all", "test")] == [40, 10, 50, 10]
    for split in range(3):
        rows = torch.cat([parts["all"].y[split], parts["test"].y[split]])
        assert len(rows.unique()) == 60
    assert not torch.equal(parts["test"].y[0], parts["test"].y[1])


def test_stacked_training_equals_training_alone(folder):
    part = uci.load(folder)["all"]
    method = dataclasses.replace(
        uci.METHODS["deep_ensemble"],
        make=lambda features, rows, setting: LitDeepEnsemble(features, 1),  # no noise that moves
        num_epochs=5,
        batch_size=50,
        lr=0.0,
    )
    settings = [{"weight_decay": 0.0}] * 3
    initial = uci.train(method, settings, part, seed=0)
    trained = uci.train(dataclasses.replace(method, lr=0.01), settings, part, seed=0)
    for split in range(3):
        model = initial[split]
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)
        for _ in range(5):  # whole batches: their order does not matter
            optimizer.zero_grad()
            model.step(SupervisedBatch(part.x[split], part.y[split])).loss.backward()
            optimizer.step()
            schedule.step()
        x = part.x[split]
        torch.testing.assert_close(trained[split](x), model(x), rtol=1e-4, atol=1e-3)


def test_settings_differ_within_a_batch(folder):
    part = uci.load(folder)["all"]
    method = dataclasses.replace(uci.METHODS["mc_dropout"], num_epochs=1)
    models = uci.train(method, [{"dropout": 0.0}, {"dropout": 0.5}, {"dropout": 0.01}], part, 0)
    spreads = [m.epistemic_variance.mean().item() for m in uci.predict(models, part)]
    assert spreads[0] < 1e-6 < spreads[2] < spreads[1]


@pytest.mark.parametrize("name", list(uci.METHODS))
def test_every_method_beats_the_mean(folder, name):
    method = uci.METHODS[name]
    settings = {key: values[:2] for key, values in method.grid.items()}
    method = dataclasses.replace(method, num_epochs=60, lr=0.02, grid=settings)
    parts = uci.load(folder)
    result = uci.evaluate(method, parts, seed=0)
    assert result["rmse"].shape == result["log_prob"].shape == (3,)
    assert sum(count for _, count in result["chosen"]) == 3
    assert result["rmse"].mean() < 0.7 * parts["test"].y.std(1).mean()


@pytest.mark.parametrize("name", list(uci_alone.METHODS))
def test_methods_of_one_split_beat_the_mean(folder, name):
    parts = uci.load(folder)
    rows = uci_alone.of_split(parts, 1)
    if name == "laplace_mlp":
        mixture = uci_alone.laplace(rows, num_steps=300)
    else:
        mixture = uci_alone.METHODS[name](rows)
    y = rows["test"][1]
    assert (mixture.mean - y).square().mean().sqrt() < 0.9 * y.std()
    assert mixture.log_prob(y).isfinite().all()
