"""The step of accumulated micro-batches is the step of the whole batch, for every experiment."""

import lightning as L
import pytest
import torch
from test_contract import NAMES, small

from datamodules.loading.loader import TensorLoader, take
from lit_models.command.cli import build


class Micro:
    """The rows of one batch, in parts of unequal size."""

    def __init__(self, parts):
        self.parts = parts

    def __iter__(self):
        return iter(self.parts)

    def __len__(self):
        return len(self.parts)


def without_chance(patch):
    """The same number for every draw: the rows of a batch and of its parts see the same noise."""

    def constant(value):
        def draw(*size, dtype=None, device=None, **rest):
            shape = size if not size or isinstance(size[0], int) else tuple(size[0])
            return torch.full(shape, value, dtype=dtype, device=device)

        return draw

    patch.setattr(torch, "rand", constant(0.5))
    patch.setattr(torch, "randn", constant(0.0))
    patch.setattr(torch, "rand_like", lambda like, **rest: torch.full_like(like, 0.5))
    patch.setattr(torch, "randn_like", lambda like, **rest: torch.zeros_like(like))


def still(model):
    """Without dropout, and with batch normalisation by its running statistics."""
    for module in model.modules():
        kind = type(module).__name__
        if kind.startswith("BatchNorm") or "Dropout" in kind:
            module.train = lambda mode=True: None
            module.training = False
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    return model


def weights_after(name, cut, every):
    torch.manual_seed(0)
    cli = build(["--config", name, *small(name), "--wandb.mode", "disabled"])
    cli.datamodule.setup("fit")
    loader = cli.datamodule.train_dataloader()
    if not isinstance(loader, TensorLoader):
        pytest.skip("batches of this experiment are not made of rows; its family tests it")
    model = still(cli.model.double())
    model.take_scale(cli.datamodule)
    model.optimizer, model.lr_scheduler = lambda p: torch.optim.SGD(p, lr=0.1), None
    torch.manual_seed(0)
    batch = next(iter(loader))
    batch = type(batch)(*(f.double() if _wide(f) else f for f in batch))
    rows = torch.arange(len(batch[0]))
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        precision="64-true",
        accumulate_grad_batches=every,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with pytest.MonkeyPatch.context() as patch:
        without_chance(patch)
        trainer.fit(model, Micro([take(batch, part) for part in torch.split(rows, cut)]))
    assert trainer.global_step == 1
    return {k: v.clone() for k, v in model.state_dict().items() if v.is_floating_point()}


def _wide(field):
    return isinstance(field, torch.Tensor) and field.is_floating_point()


@pytest.mark.parametrize("name", NAMES)
def test_accumulation_is_the_whole_batch(name):
    whole = weights_after(name, [16], 1)
    # A window that is full, and one that the end of the epoch cuts short.
    for every in (3, 8):
        parts = weights_after(name, [3, 8, 5], every)
        for key, value in whole.items():
            torch.testing.assert_close(parts[key], value, rtol=0, atol=1e-12, msg=f"{key} {every}")
