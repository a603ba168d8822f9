"""Exported files answer as the model does, for any number of rows, or are not written."""

import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch.cli import OptimizerCallable
from refusals import snapshot
from test_contract import small
from torch import nn

from datamodules import MarkovTextDataModule
from datamodules.batches import SupervisedBatch, TokenBatch
from datamodules.errors import InputError
from lit_models import LitBERTClassifier, LitGPT, LitModule, StepOutput
from lit_models.__main__ import main
from lit_models.command.cli import build
from lit_models.command.export_file import write
from lit_models.command.traced import example_of, tensors_of


def made(name: str):
    cli = build(["--config", name, *small(name), "--wandb.mode", "disabled"])
    cli.datamodule.setup("test")
    return cli.model.eval(), cli.datamodule


def check_torch(name: str, folder: Path, rows: tuple[int, ...] = (1, 2, 7)) -> None:
    model, datamodule = made(name)
    path = folder / "model.pt2"
    assert write(model, datamodule, "torch", path) < 1e-5
    program = torch.export.load(path).module()
    inputs = example_of(model, next(iter(datamodule.test_dataloader()))).inputs
    for count in rows:
        some = [torch.cat([t, t])[:count] for t in inputs]
        with torch.no_grad():
            torch.testing.assert_close(program(*some), model(*some), rtol=1e-4, atol=1e-5)
    assert [path] == list(folder.iterdir())


@pytest.mark.parametrize("name", ["multiclass_classification", "lstm", "gpt"])
def test_torch(tmp_path, name):
    check_torch(name, tmp_path)


def test_a_batch_without_a_middle_argument_and_other_lengths(tmp_path):
    model = LitBERTClassifier(20, 9, 3, d_model=8).eval()
    tokens = torch.randint(20, (6, 9))
    batch = TokenBatch(tokens, tokens, mask=torch.arange(9) < torch.arange(3, 9)[:, None])
    example = example_of(model, batch)
    assert example.names == ["tokens", "mask"]
    program = torch.export.export(
        example.module, example.inputs, dynamic_shapes=example.dynamic_shapes, strict=False
    ).module()
    for rows, length in ((1, 5), (6, 9)):
        some = tokens[:rows, :length], batch.mask[:rows, :length]
        expected = model(some[0], None, some[1])
        torch.testing.assert_close(program(*some), expected, rtol=1e-4, atol=1e-5)


def test_values_that_decide_are_said_in_words(tmp_path, capfd):
    class Deciding(LitGPT):
        def forward(self, tokens):
            return super().forward(tokens if bool((tokens > 2).any()) else tokens + 1)

    data = MarkovTextDataModule(num_samples=9, num_test=40)
    with pytest.raises(InputError, match="depends on the values of its inputs"):
        write(Deciding(12, 64, 8, 1, 2), data, "torch", tmp_path / "model.pt2")
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "transformer",
        "bert",
        "bert_finetune",
        "gpt_finetune",
        "gpt_in_context_regression",
        "ddpm_mixture",
        "ddpm_digits",
    ],
)
def test_torch_of_larger_families(tmp_path, name):
    check_torch(name, tmp_path)


@pytest.mark.parametrize("name", ["gcn", "graph_network_links", "stgnn"])
def test_torch_of_graphs(tmp_path, name):
    """Another number of edges, or of windows, than the file was written with."""
    model, datamodule = made(name)
    path = tmp_path / "model.pt2"
    assert write(model, datamodule, "torch", path) < 1e-5
    program = torch.export.load(path).module()
    example = example_of(model, next(iter(datamodule.test_dataloader())))
    more = example.with_more_rows()
    for answer, expected in zip(tensors_of(program(*more)), example.eager(*more), strict=True):
        torch.testing.assert_close(answer, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "multiclass_classification",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("lstm", "gpt", "transformer")),
    ],
)
def test_onnx(tmp_path, name):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, datamodule = made(name)
    path = tmp_path / "model.onnx"
    assert write(model, datamodule, "onnx", path) < 1e-5
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    example = example_of(model, next(iter(datamodule.test_dataloader())))
    assert [value.name for value in session.get_inputs()] == example.names
    for count in (1, 2, 7):
        some = [torch.cat([t, t])[:count] for t in example.inputs]
        feed = {name: t.numpy() for name, t in zip(example.names, some, strict=True)}
        answer = torch.from_numpy(session.run(None, feed)[0])
        with torch.no_grad():
            torch.testing.assert_close(answer, model(*some), rtol=1e-4, atol=1e-5)


class LitRandom(LitModule):
    """Noise; or, where asked, an answer that no graph can hold."""

    def __init__(self, branch: bool, optimizer: OptimizerCallable = torch.optim.Adam) -> None:
        super().__init__({}, optimizer)
        self.branch, self.net = branch, nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.branch:
            return self.net(x) + torch.rand(len(x), 1)
        return self.net(x) if float(x.sum()) > 0 else -self.net(x)

    def step(self, batch: SupervisedBatch) -> StepOutput:
        loss = self(batch.x).square().mean()
        return StepOutput(loss, len(batch.x), loss, batch.y)


@pytest.mark.parametrize(
    ("branch", "message"),
    [
        (False, "LitRandom cannot be exported: its output is random at every call"),
        (True, "LitRandom cannot be exported to torch: "),
    ],
)
def test_a_model_that_cannot_be_exported(tmp_path, branch, message):
    _, datamodule = made("linear_regression")
    datamodule.split("test")
    x = torch.randn(5, 3)
    datamodule._splits["test"] = SupervisedBatch(x, x[:, :1])
    with pytest.raises(
        InputError,
        match=message,
    ) as caught:
        write(LitRandom(branch), datamodule, "torch", tmp_path / "model.pt2")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--config", "linear_regression", "--config", "cpu"]
    once = ["--trainer.max_epochs", "1", "--trainer.check_val_every_n_epoch", "1"]
    fit = [*options, *once, "--trainer.enable_progress_bar", "false"]
    assert main(["fit", *fit, "--run_id", "r", "--data.num_samples", "64"]) == 0
    run = tmp_path / "runs" / "linear_regression" / "r"
    before = snapshot(run)
    capsys.readouterr()
    assert main(["export", *options, "--ckpt_path", "best"]) == 0
    assert capsys.readouterr().out.startswith("runs/linear_regression/r/model.pt2: torch, at most")
    assert json.loads((run / "results.json").read_text())["model"] == "LitLinearRegression"
    program = torch.export.load(run / "model.pt2").module()
    weights = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, weights[name]) for name, value in program.state_dict().items())
    (run / "model.pt2").unlink()
    assert snapshot(run).keys() == before.keys()

    def refuse(message: str, *line: str) -> None:
        assert main(["export", *line]) == 2
        error = capsys.readouterr().err.strip()
        assert message in error
        assert "\n" not in error
        assert snapshot(run).keys() == before.keys()

    best = [*options, "--ckpt_path", "best"]
    refuse("--format must be torch, onnx or diffusers, got 'tflite'", *best, "--format", "tflite")
    refuse("--format needs a value", *best, "--format")
    refuse("no folder 'nowhere' for --output; make it first", *best, "--output=nowhere/a.pt2")
    refuse("export needs --ckpt_path", *options)
    refuse("needs trained weights", *options, "--ckpt_path", "none")
    refuse("no checkpoint 'x.ckpt'", *options, "--ckpt_path", "x.ckpt")
    assert main(["export", "--help"]) == 0
    assert "usage: lit-models export" in capsys.readouterr().out
