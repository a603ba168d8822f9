"""A device without float64, such as Apple's, played by the CPU."""

import sys

import pytest
import torch
from test_contract import NAMES, small
from torch.utils._python_dispatch import TorchDispatchMode

from lit_models.command.cli import build
from lit_models.families.linear_share import LinearShare
from lit_models.training.batches import narrow as narrowed
from lit_models.training.batches import narrow_buffers


class NoFloat64(TorchDispatchMode):
    """Refuses every float64 tensor."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(value, torch.Tensor) and value.dtype == torch.float64:
                raise TypeError(f"{func} made a float64 tensor")
        return out


@pytest.fixture
def narrow(monkeypatch):
    for name, module in list(sys.modules.items()):
        if name.startswith("lit_models") and hasattr(module, "widest_float"):
            monkeypatch.setattr(module, "widest_float", lambda device: torch.float32)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_and_an_evaluation(name, narrow):
    cli = build(["--config", name, *small(name), "--wandb.mode", "disabled"])
    cli.datamodule.setup("fit")
    model = cli.model
    narrow_buffers(model)
    model.on_validation_epoch_start()
    batch = narrowed(next(iter(cli.datamodule.train_dataloader())))
    evaluated = narrowed(next(iter(cli.datamodule.val_dataloader())))
    with NoFloat64():
        output = model.step(batch)
        output.total.backward()
        model._accumulate("train", output)
        output = model.eval().eval_step(evaluated)
        model._accumulate("val", output)
        model.update_metrics(model.val_metrics, output)
        model.val_metrics.compute()


def test_the_share_of_a_linear_model(narrow):
    share = LinearShare(2, 1)
    target = torch.tensor([[1.0], [2.0]])

    def loss_of(scores, target):
        return (scores - target).square().mean(), len(target)

    with NoFloat64():
        share.choose([(torch.zeros(2, 1), target, target)], loss_of, lambda sums: sums)
    assert share.share == 1
