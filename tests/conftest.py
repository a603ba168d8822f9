"""One thread, no tracker, no display: set before torch is imported."""

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MPLBACKEND"] = "Agg"
os.environ["WANDB_MODE"] = "disabled"

import pytest
import torch
from forked import free_port

torch.set_num_threads(1)
gc.disable()  # until all tests are imported, see below


# Files of tests that start several processes: what a worker has begun no other can help with.
_LONG = ("test_sharded.py", "test_tensor_parallel.py", "test_distributed.py", "test_launchers.py")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in _LONG)


def pytest_collection_finish():
    """Leaves the modules out of garbage collection, which would walk over them at every test."""
    gc.enable()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _port(monkeypatch):
    """Gives the processes of one test a port of their own."""
    monkeypatch.setenv("MASTER_PORT", free_port())
