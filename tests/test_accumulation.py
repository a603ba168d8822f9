"""The step of accumulated micro-batches is the step of the whole batch, for every experiment."""

import lightning as L
import pytest
import torch
from test_contract import NAMES, small

from datamodules.batches import GraphBatch, TokenBatch
from datamodules.graph_base import GraphLoader, block_diagonal
from datamodules.loading.loader import take
from lit_models.command.cli import build
from lit_models.families.refreshed import Refreshed


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


def unmask(batch, rows):
    """The batch with no target in the given rows, where its kind can be without."""
    if isinstance(batch, TokenBatch):
        labels = batch.labels.clone()
        labels[rows] = -100
        return batch._replace(labels=labels)
    return batch


def parts_of(loader):
    """A batch of an experiment, and its parts by micro-batch and rank.

    The first part of the second rank has no targets, nor has anything of the last micro-batch,
    where batches can be without.
    """
    torch.manual_seed(0)
    if isinstance(loader, GraphLoader):
        data = loader.data._replace(x=loader.data.x.double())
        if data.edge_attr is not None:
            data = data._replace(edge_attr=data.edge_attr.double())
        owner = torch.repeat_interleave(torch.arange(data.num_graphs), loader._targets)
        loader.data = data._replace(mask=data.mask & (owner != 1))
        numbers = torch.arange(loader.data.num_graphs)
        assert len(numbers) == 4
        return loader.take(numbers), [
            [loader.take(numbers[:1]), loader.take(numbers[1:2])],
            [loader.take(numbers[2:3]), loader.take(numbers[3:])],
        ]
    batch = next(iter(loader))
    batch = type(batch)(*(f.double() if _wide(f) else f for f in batch))
    rows = torch.arange(len(batch[0]))
    batch = unmask(batch, torch.tensor([1, 3, *range(11, len(rows))]))
    return batch, [
        [take(batch, part[rank::2]) for rank in range(2)] for part in torch.split(rows, [4, 7, 5])
    ]


class Fitter:
    """Fits an experiment, in double precision, for one step from the same weights."""

    def __init__(self, name):
        cli = build(["--config", name, *small(name), "--wandb.mode", "disabled"])
        cli.datamodule.setup("fit")
        self.whole, self.parts = parts_of(cli.datamodule.train_dataloader())
        self.model = still(cli.model.double())
        self.model.take_scale(cli.datamodule)
        self.model.optimizer, self.model.lr_scheduler = lambda p: torch.optim.SGD(p, lr=0.1), None
        self.start = {k: v.clone() for k, v in self.model.state_dict().items()}

    def counts(self, batch):
        with torch.no_grad():
            parts = self.model.step(batch).parts
        return [torch.as_tensor(number, dtype=torch.float64) for _, number in parts.values()]

    def weights_after(self, batches, every=1, sums=()):
        """Weights after the step.

        Args:
            batches: Batches of one rank.
            every: Micro-batches of a window.
            sums: Numbers of targets over all ranks, where there are several.
        """
        sums, model = list(sums), self.model
        model.load_state_dict(self.start)
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
            if isinstance(model, Refreshed):  # from all rows after the step; and here is one rank
                patch.setattr(model, "refresh", lambda batches: None)
            if sums:
                patch.setattr(L.Trainer, "world_size", 2)
                patch.setattr(model, "_sum_over_ranks", lambda own: sums.pop(0) if sums else own)
            trainer.fit(model, Micro(batches))
        assert trainer.global_step == 1
        return {k: v.clone() for k, v in model.state_dict().items() if v.is_floating_point()}


def _wide(field):
    return isinstance(field, torch.Tensor) and field.is_floating_point()


def joined(fitter):
    """The parts of both ranks together, by micro-batch."""
    if isinstance(fitter.whole, GraphBatch):
        return [block_diagonal(ranks) for ranks in fitter.parts]
    rows = torch.arange(len(fitter.whole[0]))
    return [take(fitter.whole, part) for part in torch.split(rows, [4, 7, 5])]


@pytest.mark.parametrize("name", NAMES)
def test_accumulation_is_the_whole_batch(name):
    """Over micro-batches of one process, and over those of two, some of them without targets."""
    fitter = Fitter(name)
    whole = fitter.weights_after([fitter.whole])
    # A window that is full, and one that the end of the epoch cuts short.
    found = {every: fitter.weights_after(joined(fitter), every) for every in (3, 8)}
    counts = [[fitter.counts(batch) for batch in ranks] for ranks in fitter.parts]
    sums = [a + b for ranks in counts for a, b in zip(*ranks, strict=True)]
    ranks = [
        fitter.weights_after([ranks[rank] for ranks in fitter.parts], 3, sums) for rank in range(2)
    ]
    found["two ranks"] = {key: (ranks[0][key] + ranks[1][key]) / 2 for key in whole}
    for how, parts in found.items():
        for key, value in whole.items():
            torch.testing.assert_close(parts[key], value, rtol=0, atol=1e-12, msg=f"{key} {how}")
    moved = max((whole[key] - fitter.start[key]).abs().max() for key in whole)
    assert moved > 1e-6
