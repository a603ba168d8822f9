"""TensorBoard and MLflow get what W&B gets: metrics, figures, the configuration, a kept run."""

from pathlib import Path

import pytest

import callbacks.figures.base
from lit_models.__main__ import main

CONFIG = str(Path(__file__).parent.parent / "tiny.yaml")
FIT = ["fit", "--config", CONFIG, "--runs_dir", "runs", "--model.lr_scheduler.total_steps", "24"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.fixture
def drawn(monkeypatch):
    """Names of the figures that were drawn, one entry each time."""
    names = []
    save = callbacks.figures.base.send_figure
    monkeypatch.setattr(
        callbacks.figures.base,
        "send_figure",
        lambda logger, name, *args: (
            names.append((type(logger).__name__, name)),
            save(logger, name, *args),
        ),
    )
    return names


def fit_twice(option):
    """A fit, and its continuation, whose config.yaml knows the tracker."""
    assert main([*FIT, option, "true", "--run_id", "a", "--trainer.max_epochs", "2"]) == 0
    assert main([*FIT, "--ckpt_path", "last", "--trainer.max_epochs", "4"]) == 0


def test_tensorboard(folder, drawn):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit_twice("--tensorboard")
    events = EventAccumulator(str(folder / "runs" / "tiny" / "a" / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert {"train/loss", "val/loss", "test/mse"} <= set(tags["scalars"])
    steps = [event.step for event in events.Scalars("val/loss")]
    assert steps == sorted(set(steps))
    assert len(steps) == 4
    assert {"figures/loss_curves"} <= set(tags["images"])
    assert "config/text_summary" in tags["tensors"]
    text = events.Tensors("config/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert "class_path: tiny.LitTiny" in text
    assert "max_epochs: 4" in text
    assert len([name for kind, name in drawn if name == "loss_curves" and "Tensor" in kind]) == 2


def test_mlflow(folder):
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    from mlflow.tracking import MlflowClient

    fit_twice("--mlflow")
    client = MlflowClient(f"sqlite:///{folder / 'runs' / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert run.info.run_name == "a"
    assert {"train/loss", "val/loss", "test/mse"} <= set(run.data.metrics)
    assert len(client.get_metric_history(run.info.run_id, "val/loss")) == 4
    assert run.data.params["model.class_path"] == "tiny.LitTiny"
    files = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert files == {"config.yaml", "figures"}
    figures = {item.path for item in client.list_artifacts(run.info.run_id, "figures")}
    assert "figures/loss_curves.png" in figures


@pytest.mark.parametrize("package", ["tensorboard", "mlflow"])
def test_a_missing_package_is_one_line(folder, monkeypatch, capsys, package):
    monkeypatch.setattr("lit_models.command.loggers.find_spec", lambda name: None)
    assert main([*FIT, f"--{package}", "true", "--run_id", "a"]) == 2
    error = capsys.readouterr().err
    assert f"pip install 'lit-models[{package}]'" in error
    assert error.count("\n") == 1
    assert not (folder / "runs").exists()
