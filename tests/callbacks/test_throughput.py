"""Tokens a second and model arithmetic, against what torch counts."""

import lightning as L
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import callbacks.run.throughput as module
from callbacks import Throughput
from datamodules import LinearDataModule, MarkovTextDataModule
from datamodules.batches import TokenBatch
from lit_models import LitBERT, LitGPT, LitLinearRegression


def fit(model, data, *callbacks):
    trainer = L.Trainer(
        max_steps=4,
        max_epochs=-1,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, data)


class Clock:
    """A clock that goes on by a second with every training step and by a hundred with others."""

    now = 0.0

    def perf_counter(self):
        return self.now


class Tick(L.Callback):
    def __init__(self, clock):
        self.clock = clock

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.clock.now += 1

    def on_validation_batch_end(self, *args, **kwargs):
        self.clock.now += 100


def test_training_tokens_alone_count_and_validation_takes_no_time(monkeypatch):
    clock, throughput = Clock(), Throughput()
    monkeypatch.setattr(module, "time", clock)
    data = MarkovTextDataModule(6, 1, 10, num_samples=64, num_test=8, batch_size=8)
    model = LitGPT(6, 10, 8, 1, 2)
    fit(model, data, throughput, Tick(clock))
    assert clock.now > 200, "there were validations"
    assert throughput.seconds == 4
    assert throughput.rates == {"tokens_per_second": 4 * 8 * 10 / 4}
    batch = next(iter(data.train_dataloader()))
    assert throughput.flops == 4 * model.training_flops(batch)
    throughput._peak = 1000 * int(throughput.flops)
    assert throughput.rates["mfu"] == pytest.approx(1 / 4000, abs=1e-4)


def test_data_without_tokens_have_no_rate():
    throughput = Throughput()
    fit(LitLinearRegression(3), LinearDataModule(num_samples=96, in_features=3), throughput)
    assert throughput.rates == {}


@pytest.mark.parametrize("kind", ["gpt", "bert"])
def test_the_arithmetic_is_what_torch_counts(kind):
    tokens = torch.randint(40, (3, 16))
    labels = tokens.clone()
    sizes = (32, 3, 4)
    model = LitGPT(40, 16, *sizes) if kind == "gpt" else LitBERT(40, 16, False, *sizes)
    batch = TokenBatch(tokens, labels)
    # The counter knows the products of attention's plain form alone.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.train().step(batch).loss.backward()
    head = 6 * 48 * 32 * 32 if kind == "bert" else 0  # a dense layer where tokens are hidden
    assert model.training_flops(batch) == counter.get_total_flops() - head


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("kind", [LitGPT, LitBERT])
def test_recomputed_activations_give_the_same_gradients(kind, norm_first):
    tokens = torch.randint(11, (2, 7))
    sizes = {"d_model": 8, "num_layers": 2, "num_heads": 2, "norm_first": norm_first}
    extra = {"next_sentence": False} if kind is LitBERT else {}
    grads, saved = [], []
    for again in (False, True):
        torch.manual_seed(0)
        model = kind(11, 7, **extra, **sizes, dropout=0.2, gradient_checkpointing=again).train()
        kept = 0

        def pack(tensor):
            nonlocal kept
            kept += tensor.numel()
            return tensor

        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model.step(TokenBatch(tokens, tokens)).loss
        loss.backward()
        grads.append([p.grad for p in model.parameters()])
        saved.append(kept)
    for one, two in zip(*grads, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)
    assert saved[1] < saved[0] / 2
