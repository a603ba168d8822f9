"""Batches of similar length: each row once, within the budget, on any number of ranks."""

import pytest
import torch

from datamodules.batches import SequencePairBatch
from datamodules.errors import InputError
from datamodules.loading.bucket_loader import BucketLoader

NUM_ROWS, WIDTH, BUDGET = 211, 23, 97


def pairs():
    generator = torch.Generator().manual_seed(3)
    src_mask = torch.arange(WIDTH) < torch.randint(1, WIDTH + 1, (NUM_ROWS, 1), generator=generator)
    tgt_mask = torch.arange(WIDTH) < torch.randint(3, WIDTH + 1, (NUM_ROWS, 1), generator=generator)
    row = torch.arange(1, NUM_ROWS + 1).unsqueeze(1)
    return SequencePairBatch(row * src_mask, row * tgt_mask, src_mask, tgt_mask)


def loader(rank=0, world_size=1, **kwargs):
    return BucketLoader(pairs(), BUDGET, seed=5, rank=rank, world_size=world_size, **kwargs)


def ids(batch):
    return (batch.src[:, 0] - 1).tolist()


@pytest.mark.parametrize("shuffle", [True, False])
def test_every_row_once_within_the_budget(shuffle):
    batches = list(loader(shuffle=shuffle))
    assert len(batches) == len(loader(shuffle=shuffle))
    assert sorted(row for batch in batches for row in ids(batch)) == list(range(NUM_ROWS))
    over = 0
    for batch in batches:
        widest = max(batch.src.shape[1], batch.tgt.shape[1] - 1)
        over += len(batch.src) * widest > BUDGET
        assert batch.src_mask.any(0).all()  # no column of padding alone
        assert batch.tgt_mask.any(0).all()
    assert over <= 1  # the remainder may join one batch


def test_epochs_differ_and_repeat():
    first, second = loader(shuffle=True), loader(shuffle=True)
    orders = []
    for epoch in (0, 1, 0):
        first.sampler.set_epoch(epoch)
        orders.append([ids(batch) for batch in first])
    assert orders[0] == orders[2] != orders[1]
    assert [len(rows) for rows in orders[0]] != sorted(len(rows) for rows in orders[0])
    assert orders[0] == [ids(batch) for batch in second]
    assert len(orders[0]) == len(orders[1])


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_same_batches(shuffle, world_size):
    whole = [ids(batch) for batch in loader(shuffle=shuffle)]
    parts = [[ids(b) for b in loader(r, world_size, shuffle=shuffle)] for r in range(world_size)]
    for number, rows in enumerate(whole):
        found = [part[number] for part in parts if number < len(part)]
        assert sorted(row for part in found for row in part) == sorted(rows)
    assert [len(part) for part in parts] == [len(loader(r, world_size)) for r in range(world_size)]


def test_state_continues_with_the_batch_that_was_due():
    whole = [ids(batch) for batch in loader(shuffle=True)]
    first = loader(shuffle=True)
    iterator = iter(first)
    for _ in range(7):
        next(iterator)
    second = loader(shuffle=True)
    second.load_state_dict(first.state_dict())
    assert [ids(batch) for batch in second] == whole[7:]
    following = [ids(batch) for batch in second]  # whole, in an order of its own
    assert following != whole
    assert sorted(i for batch in following for i in batch) == sorted(i for b in whole for i in b)


def test_rows_name_what_a_batch_holds():
    ordered = loader(1, 2)
    for number, batch in enumerate(ordered):
        assert ordered.rows(number).tolist() == ids(batch)


def test_a_batch_must_feed_every_rank():
    with pytest.raises(InputError, match=r"rows of 23 tokens cannot feed 5 devices; raise"):
        loader(0, 5, shuffle=True)
