"""From pressing return to an answer, and to the first optimizer step."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from scripts.benchmark.ratio import Ratio, compare, compare_seconds, print_cases, timed

_PLAIN = """
import torch
from torch.utils.data import DataLoader, TensorDataset
net, head = torch.nn.LSTM(1, 64, batch_first=True), torch.nn.Linear(64, 1)
optimizer = torch.optim.Adam([*net.parameters(), *head.parameters()], lr=5e-3)
data = TensorDataset(torch.randn(64000, 20, 1), torch.randn(64000, 1))
x, y = next(iter(DataLoader(data, batch_size=128, shuffle=True)))
(head(net(x)[0][:, -1]) - y).square().mean().backward()
optimizer.step()
"""

# The same by a LightningModule with nothing around it: what no command of Lightning's is below.
_BARE = """
import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset

class Bare(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net, self.head = torch.nn.LSTM(1, 64, batch_first=True), torch.nn.Linear(64, 1)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return (self.head(self.net(x)[0][:, -1]) - y).square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=5e-3)

data = TensorDataset(torch.randn(64000, 20, 1), torch.randn(64000, 1))
off = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
trainer = L.Trainer(max_steps=1, accelerator="cpu", enable_model_summary=False, **off)
trainer.fit(Bare(), DataLoader(data, batch_size=128, shuffle=True))
"""

# What a command does before it fits, one after the other; each row holds those above it.
_COMMAND = """
from lit_models.training.startup import light_lightning
with light_lightning():
    from lit_models.command.run import run
"""
_STAGES = {
    "import lightning.pytorch": ("-c", "import lightning.pytorch"),
    "import of the command": ("-c", _COMMAND),
    "fit --print_config": ("-m", "lit_models", "fit", "--config", "lstm", "--print_config"),
}


def _environment() -> dict[str, str]:
    # An installed package is compiled already; a checkout may be forbidden to keep its modules.
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}


def _run(*args: str) -> None:
    command = [sys.executable, *args]
    subprocess.run(command, check=True, capture_output=True, env=_environment())


def _command(name: str) -> Ratio:
    """Against an interpreter that does nothing."""
    return compare(lambda: _run("-m", "lit_models", name), lambda: _run("-c", "pass"), num_pairs=5)


def _against_torch(*args: str) -> Ratio:
    """Against loading torch alone."""
    return compare(lambda: _run(*args), lambda: _run("-c", "import torch"), num_pairs=3)


def _first_step_seconds() -> float:
    """Until a fit with everything on has written the checkpoint of its first step."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--config", "lstm", "--config", "cpu", "--runs_dir", folder, "--run_id", "run"]
        options += ["--last_checkpoint.every_n_train_steps", "1", "--trainer.max_steps", "1"]
        options += ["--test_after_fit", "false"]
        command = [sys.executable, "-m", "lit_models", "fit", *options]
        first = Path(folder) / "lstm" / "run" / "checkpoints" / "last.ckpt"
        start = time.perf_counter()
        pipe, env = subprocess.DEVNULL, _environment()
        with subprocess.Popen(command, stdout=pipe, stderr=pipe, env=env) as fit:
            while not first.exists() and fit.poll() is None:
                time.sleep(0.01)
            return time.perf_counter() - start


def _on_a_checkpoint(name: str, *options: str) -> Ratio:
    """A whole command on one batch of a fitted model, against loading torch alone."""
    with tempfile.TemporaryDirectory() as folder:
        common = ["--config", "lstm", "--config", "cpu", "--runs_dir", folder]
        short = ["--trainer.max_steps", "1", "--test_after_fit", "false", "--run_id", "run"]
        _run("-m", "lit_models", "fit", *common, *short)
        command = ["-m", "lit_models", name, *common, "--ckpt_path", "last", *options]
        return _against_torch(*command)


def _plain_seconds() -> float:
    return timed(lambda: _run("-c", _PLAIN))


CASES: dict[str, Callable[[], Ratio]] = {
    "lit-models --help / python -c pass": lambda: _command("--help"),
    "lit-models list / python -c pass": lambda: _command("list"),
    "first step of lstm / plain script": lambda: compare_seconds(
        _first_step_seconds, _plain_seconds, num_pairs=5
    ),
    "first step, bare LightningModule / plain script": lambda: compare_seconds(
        lambda: timed(lambda: _run("-c", _BARE)), _plain_seconds, num_pairs=5
    ),
    **{f"{name} / import torch": partial(_against_torch, *args) for name, args in _STAGES.items()},
    **{
        f"lit-models {name}, one batch / import torch": partial(
            _on_a_checkpoint, name, f"--trainer.limit_{kind}_batches", "1"
        )
        for name, kind in (("validate", "val"), ("test", "test"), ("predict", "predict"))
    },
    "lit-models export / import torch": lambda: _on_a_checkpoint("export"),
}

if __name__ == "__main__":
    print_cases(CASES)
