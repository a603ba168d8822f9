"""Windows of a validation within a fit, and documents that see nothing of each other."""

import json

import lightning as L
import numpy as np
import pytest
import torch

from datamodules import InputError, TextFileDataModule
from datamodules.loading.text_windows import WindowLoader
from lit_models import LitGPT
from lit_models.layers.attention import apart

POEMS = ["a rose is a rose", "to be or not", "so much depends upon a red wheel barrow", "go"] * 30


@pytest.fixture
def poems(tmp_path):
    path = tmp_path / "poems.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in POEMS))
    return str(path)


def make(path, tmp_path, **options):
    return TextFileDataModule(path, "char", 24, cache_dir=str(tmp_path / "cache"), **options)


def test_a_document_gets_the_logits_that_it_has_alone(poems, tmp_path):
    data = make(poems, tmp_path, documents="apart")
    batch = next(iter(data.val_dataloader()))
    end = data.end_token
    torch.manual_seed(0)
    model = LitGPT(data.vocab_size, 24, 16, 2, 2).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    with torch.no_grad():
        logits = model(batch.tokens, batch.segments)
        for row in range(4):
            places = (batch.tokens[row] == end).nonzero().flatten().tolist()
            starts = sorted({0, *places})
            assert len(starts) > 1, "a window holds more than one document"
            for first, last in zip(starts, [*starts[1:], 24], strict=True):
                alone = model(batch.tokens[row : row + 1, first:last])[0]
                torch.testing.assert_close(logits[row, first:last], alone, rtol=1e-9, atol=1e-9)
        joined = model(batch.tokens)
    assert not torch.allclose(joined, logits)
    torch.testing.assert_close(model.step(batch).preds, logits.flatten(0, 1))
    same = make(poems, tmp_path).val_dataloader()
    assert torch.equal(next(iter(same)).tokens, batch.tokens)
    assert next(iter(same)).segments is None


def test_positions_and_mask_by_hand():
    positions, mask = apart(torch.tensor([[0, 0, 1, 2, 2]]))
    assert positions.tolist() == [[0, 1, 0, 0, 1]]
    seen = [[0], [0, 1], [2], [3], [3, 4]]
    for query, keys in enumerate(seen):
        assert mask[0, 0, query].nonzero().flatten().tolist() == keys


def test_a_text_without_documents_cannot_be_kept_apart(tmp_path):
    path = tmp_path / "one.txt"
    path.write_text(" ".join(POEMS))
    with pytest.raises(InputError, match=r"has no <\|endoftext\|> to tell documents apart"):
        make(str(path), tmp_path, documents="apart").train_dataloader()
    with pytest.raises(InputError, match="num_val_windows must be at least 1, got 0"):
        make(str(path), tmp_path, num_val_windows=0)


class Count(L.Callback):
    def __init__(self):
        self.tokens = {"val": 0, "test": 0}

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, *args):
        self.tokens["val"] += batch.labels.numel()

    def on_test_batch_end(self, trainer, pl_module, outputs, batch, *args):
        self.tokens["test"] += batch.labels.numel()


def test_a_fit_validates_some_windows_and_the_test_all(poems, tmp_path):
    data = make(poems, tmp_path, num_val_windows=3, test_fraction=0.0)
    count = Count()
    trainer = L.Trainer(
        max_steps=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        callbacks=[count],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_train_batches=1,
    )
    model = LitGPT(data.vocab_size, 24, 8, 1, 2)
    trainer.fit(model, data)
    assert count.tokens["val"] == 3 * 24
    trainer.test(model, data, verbose=False)
    whole = (len(data.split("val")[0]) - 1) // 24 * 24
    assert count.tokens["test"] == whole > 3 * 24
    count.tokens["val"] = 0
    trainer.validate(model, data, verbose=False)
    assert count.tokens["val"] == whole


def test_the_windows_are_spread_over_the_text():
    text = np.arange(101, dtype=np.uint16)
    loader = WindowLoader((text,), 8, 10, num_windows=4)
    assert next(iter(loader)).tokens[:, 0].tolist() == [0, 30, 60, 90]
    assert len(next(iter(WindowLoader((text,), 16, 10, num_windows=99))).tokens) == 10


class Recorded:
    """Tokens that note which of them are read."""

    def __init__(self, tokens):
        self.tokens, self.read = tokens, set()

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, places):
        self.read |= set(np.asarray(places).flatten().tolist())
        return self.tokens[places]


def test_a_rank_reads_its_own_windows_alone():
    """Two ranks share every batch out; a resumed rank goes on with what was due."""

    def loader(rank, ranks, seed=7):
        text = Recorded(np.arange(500, dtype=np.uint16))
        options = {"shuffle": True, "seed": seed, "rank": rank, "world_size": ranks}
        return text, WindowLoader((text,), 7, 10, **options)

    (text, one), *two = loader(0, 1), loader(0, 2), loader(1, 2)
    assert text.read == set()  # nothing before it is asked for
    epochs = []
    for _ in range(2):
        whole = [batch.tokens for batch in one]
        shares = [[batch.tokens for batch in each] for _, each in two]
        for batch, first, second in zip(whole, *shares, strict=True):
            assert torch.equal(batch[0::2], first)
            assert torch.equal(batch[1::2], second)
        starts = [{int(start) for part in share for start in part[:, 0]} for share in shares]
        assert not starts[0] & starts[1]
        for (tokens, _), own in zip(two, starts, strict=True):
            assert tokens.read == {start + place for start in own for place in range(11)}
            tokens.read.clear()
        epochs.append(torch.cat(whole))
    assert not torch.equal(*epochs)
    assert torch.equal(epochs[0], torch.cat([batch.tokens for batch in loader(0, 1)[1]]))
    assert not torch.equal(epochs[0], torch.cat([b.tokens for b in loader(0, 1, seed=8)[1]]))
    text, resumed = loader(1, 2)
    resumed.load_state_dict({"epoch": 0, "position": 5})
    rest = [batch.tokens for batch in resumed]
    expected = [batch.tokens for batch in loader(1, 2)[1]][5:]
    assert len(rest) == len(expected) > 0
    assert all(map(torch.equal, rest, expected))
    assert len(text.read) <= sum(part.shape[0] for part in rest) * 11
