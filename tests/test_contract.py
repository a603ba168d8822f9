"""The rules every packaged experiment obeys; a new YAML in configs/ is tested by being there."""

import copy
import inspect
import json
import math
from pathlib import Path

import pytest
import torch
from helpers import fit

import lit_models
from datamodules.loading.loader import TensorLoader, take
from lit_models.command.catalog import describe, experiments, load_yaml
from lit_models.command.classes import class_arguments
from lit_models.command.cli import build

# Arguments of datamodules that shrink their data, where they have them.
SMALL = {
    "num_samples": 120,
    "num_train": 96,
    "num_val": 48,
    "num_test": 120,
    "num_sequences": 96,
    "num_documents": 96,
    "num_graphs": 4,
    "num_train_graphs": 4,
    "num_val_graphs": 2,
    "num_test_graphs": 2,
    "num_nodes": 60,
    "batch_size": 16,
}
NAMES = sorted(experiments())
FIRST_LOSSES: dict[str, float] = {}


def small(name: str) -> list[str]:
    known = class_arguments(load_yaml(experiments()[name])["data"]["class_path"])
    options = [f"--data.{key}={value}" for key, value in SMALL.items() if key in known]
    return ["--config", "cpu", *options, "--trainer.enable_progress_bar", "false"]


@pytest.fixture(scope="module", params=NAMES)
def built(request):
    """Model, datamodule and one training batch of an experiment."""
    cli = build(["--config", request.param, *small(request.param), "--wandb.mode", "disabled"])
    cli.datamodule.setup("fit")
    batch = next(iter(cli.datamodule.train_dataloader()))
    FIRST_LOSSES[request.param] = loss_of(cli.model.train(), batch).item()
    return request.param, cli.model, cli.datamodule, batch


@pytest.fixture(scope="module")
def again(built):
    """The same once more: model and training batch."""
    cli = build(["--config", built[0], *small(built[0]), "--wandb.mode", "disabled"])
    cli.datamodule.setup("fit")
    return cli.model.train(), next(iter(cli.datamodule.train_dataloader()))


def loss_of(model, batch):
    torch.manual_seed(0)
    return model.step(batch).total


def test_loss_is_a_finite_scalar(built):
    _, model, _, batch = built
    loss = loss_of(model.train(), batch)
    assert loss.shape == ()
    assert math.isfinite(loss.item())


def test_every_parameter_gets_a_gradient(built):
    """Also where a last layer starts at zero, which hides what stands before it for a step."""
    _, model, _, batch = built
    start = {name: value.clone() for name, value in model.train().state_dict().items()}
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    idle = set(learned)
    for _ in range(3):
        model.zero_grad()
        loss_of(model, batch).backward()
        for name, parameter in learned.items():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            if parameter.grad.abs().sum() > 0:
                idle.discard(name)
            parameter.data -= 0.01 * parameter.grad.sign()
    model.zero_grad()
    model.load_state_dict(start)
    assert not idle


def test_one_batch_can_be_overfitted(built, again):
    model, batch = copy.deepcopy(again[0]), again[1]
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    first = best = loss_of(model, batch).item()
    for _ in range(200):
        optimizer.zero_grad()
        loss = loss_of(model, batch)  # the same noise and dropout at every step
        loss.backward()
        optimizer.step()
        best = min(best, loss.item())
        if best < first - 0.5 * abs(first):
            return
    pytest.fail(f"{built[0]}: one batch went from {first:.4f} to {best:.4f} in 200 steps")


def test_an_output_depends_on_its_own_sample_alone(built):
    _, model, datamodule, _ = built
    loader = datamodule.val_dataloader()
    if not isinstance(loader, TensorLoader):
        pytest.skip("batches of this experiment are not made of rows; its family tests it")
    model.eval()
    outputs = []
    for rows in ([0, 1, 2, 3], [0, 4, 5, 6]):
        torch.manual_seed(0)
        with torch.no_grad():
            columns = model.predict_step(take(loader.data, torch.tensor(rows)), 0)
        outputs.append({name: value[0] for name, value in columns.items()})
    for name, value in outputs[0].items():
        torch.testing.assert_close(value, outputs[1][name], rtol=1e-4, atol=1e-5)


def test_a_classifier_says_class_probability_and_truth(built):
    _, model, _, batch = built
    if hasattr(model, "attention_weights"):
        assert list(inspect.signature(model.attention_weights).parameters) == ["batch"]
    known = model.hparams
    of_classes = "num_classes" in known or known.get("task") == "classification"
    if not of_classes or "sample_shape" in known:
        return
    with torch.no_grad():
        columns = model.eval().predict_step(batch, 0)
    assert {"class", "probability", "target"} <= set(columns)
    assert torch.equal(columns["class"], columns["probability"].argmax(1))


def test_the_same_seed_gives_the_same_loss(built, again):
    assert loss_of(*again).item() == FIRST_LOSSES[built[0]]


@pytest.mark.parametrize("name", NAMES)
def test_fit_through_the_command(name, tmp_path):
    limits = [f"--trainer.limit_{split}_batches=2" for split in ("train", "val", "test")]
    once = ["--trainer.max_epochs=1", "--trainer.max_steps=-1"]
    once += ["--trainer.check_val_every_n_epoch=1"]
    config = load_yaml(experiments()[name])
    if "num_steps" in config["model"]["init_args"]:  # a sampler takes all of them for each figure
        once += ["--model.num_steps=60"]
    results = fit(name, *small(name), *limits, *once, tmp_path=tmp_path)
    assert set(config["test_metrics"]) <= set(results["metrics"])
    assert all(math.isfinite(value) for value in results["metrics"].values())
    for kind in ("optimum", "baseline", "excess"):
        assert set(results[kind]) <= set(results["metrics"])
    assert results["experiment"] == name
    assert results["optimizer_steps"] > 0
    json.dumps(results, allow_nan=False)
    _assert_round_trip(results)


def _assert_round_trip(results):
    """A checkpoint loads as plain data, into a model with the same weights."""
    path = Path(results["run_dir"]) / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    model_class = getattr(lit_models, results["model"])
    model = model_class.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    for key, value in model.state_dict().items():
        assert torch.equal(value, checkpoint["state_dict"][key]), key


def test_list_names_every_experiment():
    listed = describe()
    for name in NAMES:
        assert name in listed
