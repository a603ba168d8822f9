"""One thread, no tracker, no display: set before torch is imported."""

import os
import random
import socket

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MPLBACKEND"] = "Agg"
os.environ["WANDB_MODE"] = "disabled"

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _port(monkeypatch):
    """Gives the processes of one test a port of their own.

    Lightning asks the system for a free one, which anyone may be given before rank 0 listens;
    the system never hands out those below 32,768 by itself.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_768)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                break
    monkeypatch.setenv("MASTER_PORT", str(port))
