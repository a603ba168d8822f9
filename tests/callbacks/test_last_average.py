"""The mean of the last validations' weights, also across a resume."""

import lightning as L
import pytest
import torch

from callbacks import LastAverage
from datamodules import LinearDataModule
from lit_models import LitLinearRegression


class Witness(L.Callback):
    """The weights at every validation."""

    def __init__(self):
        self.seen = []

    def on_validation_end(self, trainer, pl_module):
        self.seen.append({k: v.clone() for k, v in pl_module.state_dict().items()})


def run(tmp_path, epochs, ckpt_path=None):
    average, witness = LastAverage(3), Witness()
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        callbacks=[average, witness],
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    torch.manual_seed(0)
    model = LitLinearRegression(3)
    data = LinearDataModule(num_samples=96, in_features=3)
    trainer.fit(model, data, ckpt_path=ckpt_path, weights_only=True)
    return trainer, model, witness.seen


def test_it_is_the_mean_of_the_last_three(tmp_path):
    trainer, model, seen = run(tmp_path, 5)
    path = tmp_path / "checkpoints" / "average.ckpt"
    found = torch.load(path, weights_only=True)["state_dict"]
    for name, value in found.items():
        expected = torch.stack([weights[name] for weights in seen[-3:]]).double().mean(0)
        torch.testing.assert_close(value.double(), expected.double(), rtol=1e-6, atol=1e-7)
    assert not torch.equal(found["linear.weight"], seen[-1]["linear.weight"])
    assert torch.equal(model.state_dict()["linear.weight"], seen[-1]["linear.weight"])
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    _, _, later = run(tmp_path / "again", 6, tmp_path / "half.ckpt")
    assert len(later) == 1, "one epoch alone was left"
    resumed = torch.load(tmp_path / "again/checkpoints/average.ckpt", weights_only=True)
    weights = [w["linear.weight"] for w in (*seen[-2:], *later)]
    expected = torch.stack(weights).mean(0)
    torch.testing.assert_close(resumed["state_dict"]["linear.weight"], expected)


def test_one_checkpoint_is_no_average():
    with pytest.raises(ValueError, match="num_checkpoints must be at least 2, got 1"):
        LastAverage(1)
