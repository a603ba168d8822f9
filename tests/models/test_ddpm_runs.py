"""The diffusion experiments through the command: resume, samples as a file, own arrays."""

import json

import numpy as np
import pytest
import torch

from lit_models.__main__ import main

SMALL = [
    "--model.num_steps=20",
    "--data.num_samples=230",
    "--data.num_test=57",
    "--data.batch_size=33",
    "--trainer.max_epochs=4",
    "--config=cpu",
    "--trainer.enable_progress_bar=false",
]


def command(tmp_path, *args):
    return main([*args, *SMALL, "--runs_dir", str(tmp_path)])


# 230 rows in batches of 33: 6 steps an epoch.
@pytest.mark.parametrize(("time_sampling", "stop"), [("uniform", 12), ("importance", 9)])
def test_resume_equals_uninterrupted(tmp_path, time_sampling, stop):
    same = ["--config=ddpm", "--model.lr_scheduler.total_steps=24"]
    same += [f"--model.time_sampling={time_sampling}", "--model.num_steps=3"]
    fit = ["fit", *same]
    assert main([*fit, *SMALL[1:], "--runs_dir", str(tmp_path), "--run_id=whole"]) == 0
    part = [*fit, *SMALL[1:], "--runs_dir", str(tmp_path)]
    assert main([*part, "--run_id=part", f"--trainer.max_steps={stop}"]) == 0
    assert main([*part, "--ckpt_path=last", "--trainer.max_steps=-1"]) == 0
    folders = [tmp_path / "ddpm" / name for name in ("whole", "part")]
    whole, part = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in folders
    )
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, part["state_dict"][name]), name
    metrics = [json.loads((f / "results.json").read_text())["metrics"] for f in folders]
    assert metrics[0] == metrics[1]


def test_samples_as_a_file(tmp_path):
    assert command(tmp_path, "fit", "--config=ddpm", "--run_id=run") == 0
    predict = ["predict", "--config=ddpm", "--ckpt_path=best", "--data.num_generated=41"]
    samples = []
    for _ in range(2):
        assert command(tmp_path, *predict) == 0
        samples.append(np.load(tmp_path / "ddpm" / "run" / "samples.npy"))
    assert samples[0].shape == (41, 1)
    np.testing.assert_array_equal(*samples)
    assert command(tmp_path, *predict, "--seed_everything=1") == 0
    assert (np.load(tmp_path / "ddpm" / "run" / "samples.npy") != samples[0]).all()


def test_own_array_with_classes(tmp_path):
    rng = np.random.default_rng(0)
    classes = np.arange(97) % 3
    np.save(tmp_path / "x.npy", rng.normal(size=(97, 2)) + classes[:, None])
    np.save(tmp_path / "y.npy", classes)
    own = ["--config=ddpm", "--data=ArrayDataModule", f"--data.path={tmp_path / 'x.npy'}"]
    own += [f"--data.classes_path={tmp_path / 'y.npy'}", "--data.batch_size=33"]
    own += ["--model.num_steps=20", "--trainer.max_epochs=2", "--config=cpu"]
    own += ["--trainer.enable_progress_bar=false", "--runs_dir", str(tmp_path)]
    assert main(["fit", *own, "--run_id=run", "--model.guidance_weight=1.0"]) == 0
    results = json.loads((tmp_path / "ddpm" / "run" / "results.json").read_text())
    scores = {"test/loss", "test/eps_mse", "test/sliced_wasserstein", "test/mmd"}
    assert set(results["metrics"]) == scores
    # The network knows the class, and the noise of ten samples decides between the two.
    assert 0 < results["rivals"]["test/eps_mse"]["linear denoiser"] < 1
    assert main(["predict", *own, "--ckpt_path=best", "--data.num_generated=7"]) == 0
    folder = tmp_path / "ddpm" / "run"
    assert np.load(folder / "samples.npy").shape == (7, 2)
    assert np.load(folder / "classes.npy").tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_figures(tmp_path):
    assert command(tmp_path, "fit", "--config=ddpm_mixture", "--run_id=line") == 0
    drawn = {path.stem for path in (tmp_path / "ddpm_mixture" / "line" / "figures").iterdir()}
    assert {"samples", "reverse_process", "noise_prediction"} <= drawn
    plane = ["--data.means=[[0,1],[2,-1]]", "--run_id=plane"]
    assert command(tmp_path, "fit", "--config=ddpm_mixture", *plane) == 0
    drawn = {path.stem for path in (tmp_path / "ddpm_mixture" / "plane" / "figures").iterdir()}
    assert "samples" in drawn


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--data.std=-1"], "must be positive, got -1"),
        (["--model.denoiser=unet"], "use denoiser mlp"),
        (["--model.guidance_weight=-1"], "guidance_weight must be at least 0, got -1"),
        (["--model.num_sample_steps=21"], "num_sample_steps"),
        (["--data=ArrayDataModule", "--data.path=none.npy"], "no file 'none.npy'"),
    ],
)
def test_mistakes_get_one_line(tmp_path, capsys, args, message):
    limits = [option for option in SMALL if "num_samples" not in option or "Array" not in args[0]]
    limits = [option for option in limits if "num_test" not in option or "Array" not in args[0]]
    assert main(["fit", "--config=ddpm", *limits, *args, "--runs_dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not list(tmp_path.iterdir())
