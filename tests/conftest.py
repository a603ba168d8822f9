"""One thread, no tracker, no display: set before torch is imported."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MPLBACKEND"] = "Agg"
os.environ["WANDB_MODE"] = "disabled"

import pytest
import torch
from forked import free_port

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _port(monkeypatch):
    """Gives the processes of one test a port of their own."""
    monkeypatch.setenv("MASTER_PORT", free_port())
