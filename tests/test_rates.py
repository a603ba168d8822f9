"""torch's schedules advance as they are meant to, and know the length of the run."""

from functools import partial

import lightning as L
import pytest
import torch
from tiny import LitTiny, TinyDataModule
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, TensorDataset

from datamodules import LinearDataModule
from datamodules.batches import ExamplesBatch, SampleBatch, SeriesBatch, SupervisedBatch, TokenBatch
from datamodules.errors import InputError
from lit_models import (
    AdamWMatrixDecay,
    LitBayesianMLP,
    LitDeepEnsemble,
    LitGPT,
    LitGPTClassifier,
    LitLaplaceMLP,
    LitMLPRegressor,
    WarmupCosine,
)
from lit_models.layers.ranges import check_ranges
from lit_models.training.batches import as_batch


def trainer(**options):
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    options = {"max_epochs": 4, **dict.fromkeys(quiet, False), **options}
    return L.Trainer(accelerator="cpu", **options)


def fit(schedule, interval=None, **options):
    """Steps of the schedule and of the optimizer (6 an epoch), and the schedule."""
    sgd = partial(torch.optim.SGD, lr=0.1)
    model = LitTiny(in_features=3, optimizer=sgd, lr_scheduler=schedule)
    model.lr_scheduler_interval = interval
    run = trainer(**options)
    run.fit(model, TinyDataModule())
    scheduler = run.lr_scheduler_configs[0].scheduler
    return scheduler.last_epoch, run.global_step, scheduler


def test_one_cycle_spans_the_run():
    moves, steps, scheduler = fit(partial(OneCycleLR, max_lr=0.5), max_epochs=3)
    assert moves == steps == scheduler.total_steps == 18


@pytest.mark.parametrize(("interval", "moves"), [(None, 4), ("epoch", 4), ("step", 24)])
def test_an_interval_is_obeyed(interval, moves):
    assert fit(partial(CosineAnnealingLR, T_max=24), interval)[0] == moves


def test_a_plateau_is_looked_for_after_validations():
    assert fit(ReduceLROnPlateau, check_val_every_n_epoch=2)[0] == 2


def test_a_plateau_without_validation_is_refused():
    with pytest.raises(InputError, match="watches val/loss"):
        fit(ReduceLROnPlateau, limit_val_batches=0)


def test_a_run_without_a_length(capsys):
    seconds = {"max_epochs": -1, "max_time": {"seconds": 1}}
    assert fit(WarmupCosine, **seconds)[2].get_last_lr() == [0.1]
    assert "the run has no length" in capsys.readouterr().err
    with pytest.raises(InputError, match="OneCycleLR needs the length"):
        fit(partial(OneCycleLR, max_lr=0.5), **seconds)


def rate_after(tmp_path, schedules, epochs):
    """Last rate of a run that is continued under each of the schedules in turn."""
    path = tmp_path / "run.ckpt"
    for schedule, end in zip(schedules, epochs, strict=True):
        sgd = partial(torch.optim.SGD, lr=0.1)
        model = LitTiny(in_features=3, optimizer=sgd, lr_scheduler=schedule)
        run = trainer(max_epochs=end)
        run.fit(model, TinyDataModule(), ckpt_path=path if path.exists() else None)
        run.save_checkpoint(path)
    path.unlink()
    return run.optimizers[0].param_groups[0]["lr"]


COSINE = partial(CosineAnnealingLR, T_max=8)
STEPS_DOWN = partial(StepLR, step_size=1, gamma=0.9)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (WarmupCosine, partial(WarmupCosine, num_warmup_steps=9, min_ratio=0.5)),
        (WarmupCosine, partial(WarmupCosine, total_steps=99)),
        (partial(WarmupCosine, total_steps=30), WarmupCosine),
        (STEPS_DOWN, partial(StepLR, step_size=2, gamma=0.5)),
        (WarmupCosine, COSINE),
        (COSINE, WarmupCosine),
        (COSINE, partial(OneCycleLR, max_lr=0.5)),
        (partial(OneCycleLR, max_lr=0.5), partial(OneCycleLR, max_lr=0.5, pct_start=0.8)),
        (COSINE, None),
        (None, STEPS_DOWN),
    ],
)
def test_a_continued_run_has_the_rate_of_its_new_schedule(tmp_path, capsys, before, after):
    """As if it had been the run's from the start."""
    rate = rate_after(tmp_path, [before, after], [2, 4])
    assert "continued with lr_scheduler" in capsys.readouterr().err
    assert rate == pytest.approx(rate_after(tmp_path, [after], [4]), rel=1e-12)


@pytest.mark.parametrize("schedule", [None, WarmupCosine, COSINE, partial(OneCycleLR, max_lr=0.5)])
def test_an_unchanged_schedule_is_left_alone(tmp_path, capsys, schedule):
    rate_after(tmp_path, [schedule, schedule], [2, 4])
    assert "continued with" not in capsys.readouterr().err


def test_a_longer_run_has_its_own_rate_at_once(tmp_path):
    path = tmp_path / "run.ckpt"
    rates = []

    class Looks(L.Callback):
        def on_train_batch_start(self, trainer, *rest):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    for end, start in ((2, None), (4, path), (4, None)):
        sgd = partial(torch.optim.SGD, lr=0.1)
        model = LitTiny(in_features=3, optimizer=sgd, lr_scheduler=WarmupCosine)
        run = trainer(max_epochs=end, callbacks=[Looks()])
        run.fit(model, TinyDataModule(), ckpt_path=start)
        run.save_checkpoint(path)
    first, continued, whole = rates[:12], rates[12:24], rates[24:]
    assert continued == pytest.approx(whole[12:], rel=1e-12)
    assert first[-1] < whole[11]


def test_a_plateau_keeps_what_it_knows(tmp_path):
    flat = partial(ReduceLROnPlateau, patience=0, threshold=10, threshold_mode="abs")
    changed = partial(flat, factor=0.5)
    # Reduced once by a tenth (the first epoch is the best), then once by a half; Lightning leaves
    # out the first epoch of a continued run.
    assert rate_after(tmp_path, [flat, changed], [2, 4]) == pytest.approx(0.1 * 0.1 * 0.5)


@pytest.mark.parametrize("wrong", [{"num_warmup_steps": -5}, {"min_ratio": -3}, {"total_steps": 0}])
def test_nonsense_is_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        fit(partial(WarmupCosine, **wrong))


@pytest.mark.parametrize("name", ["dropout", "label_smoothing"])
@pytest.mark.parametrize("value", [-0.1, 1.0, 2.0, float("nan")])
def test_shares_have_a_range(name, value):
    with pytest.raises(InputError, match=rf"{name} must be in \[0, 1\)"):
        check_ranges({name: value})


def test_stacked_biases_and_log_stds_do_not_decay():
    decay = partial(AdamWMatrixDecay, weight_decay=0.5)
    models = [
        LitDeepEnsemble(in_features=2, out_features=1, optimizer=decay),
        LitBayesianMLP(in_features=2, out_features=1, num_train=9, optimizer=decay),
    ]
    for model in models:
        optimizer = model.configure_optimizers()
        decaying, spared = ({id(p) for p in g["params"]} for g in optimizer.param_groups)
        assert len(decaying | spared) == len(list(model.parameters()))
        assert decaying
        for name, parameter in model.named_parameters():
            stacked = parameter.dim() == 2 and isinstance(model, LitDeepEnsemble)
            if stacked or name.endswith("log_std"):
                assert id(parameter) in spared, name


def test_plain_tuples_are_batches():
    x, y = torch.randn(24, 3), torch.randn(24, 1)
    model = LitTiny(in_features=3)
    trainer(max_epochs=1).fit(model, DataLoader(TensorDataset(x, y), batch_size=8))
    many = TensorDataset(x, *[y] * len(SupervisedBatch._fields))
    with pytest.raises(InputError, match="parts; the model takes SupervisedBatch"):
        trainer(max_epochs=1).fit(model, DataLoader(many, batch_size=8))
    with pytest.raises(InputError, match=r"y.reshape\(len\(y\), -1\)"):
        trainer(max_epochs=1).fit(model, DataLoader(TensorDataset(x, y[:, 0]), batch_size=8))


@pytest.mark.parametrize(
    ("kind", "parts", "message"),
    [
        (SeriesBatch, [(8, 5), (8, 1)], r"x of shape \(8, 5\), torch.float32; .* x \(B, T, D\)"),
        (SeriesBatch, [(8, 5, 1), (8,)], r"takes y \(B, H\) or \(B, H, M\)"),
        (ExamplesBatch, [(8, 5, 1), (8, 5, 1)], r"takes y \(B, T\)"),
        (TokenBatch, [(8, 5), (8, 5)], r"takes tokens \(B, T\), integers"),
        (SupervisedBatch, [(8,), (8, 1)], r"takes x \(B, D\)"),
        (SupervisedBatch, [(8, 3), (8,)], r"y.reshape\(len\(y\), -1\), and classes as integers"),
    ],
)
def test_a_plain_batch_of_other_shapes_is_named(kind, parts, message):
    with pytest.raises(InputError, match=message):
        as_batch(tuple(torch.zeros(*shape) for shape in parts), kind)


def test_plain_classes_fit_no_model_of_numbers():
    batch = (torch.zeros(8, 3), torch.zeros(8).long())
    assert as_batch(batch, SupervisedBatch).y is batch[1]
    with pytest.raises(InputError, match="the targets have shape"):
        as_batch(batch, SupervisedBatch, numbers=True)
    model = LitMLPRegressor(3, 1)
    model.take_scale(None)
    with pytest.raises(InputError, match="the targets have shape"):
        trainer(max_epochs=1).fit(model, DataLoader(TensorDataset(*batch), batch_size=4))


def test_classes_of_samples_are_integers():
    with pytest.raises(InputError, match=r"classes y of torch.float32; give integers: y.long\(\)"):
        as_batch((torch.zeros(8, 3), torch.zeros(8)), SampleBatch)


def test_plain_tokens_have_no_groups():
    tokens = torch.randint(0, 9, (8, 5))
    loader = DataLoader(TensorDataset(tokens, tokens), batch_size=4)
    model = LitGPT(9, 5, d_model=8, num_layers=1, num_heads=1, group_names=["known"])
    scores = trainer().test(model, loader, verbose=False)[0]
    assert "test/cross_entropy" in scores
    assert "test/known_cross_entropy" not in scores


def test_texts_without_classes_are_named():
    tokens = torch.randint(0, 9, (8, 5))
    loader = DataLoader(TensorDataset(tokens, tokens), batch_size=4)
    model = LitGPTClassifier(9, 5, 2, d_model=8, num_layers=1, num_heads=1)
    for run in (trainer(max_epochs=1).fit, trainer().test, trainer().predict):
        with pytest.raises(InputError, match="needs the class of each text: give TokenBatch"):
            run(model, loader)


def test_parts_of_a_users_own():
    x, y = torch.randn(24, 3), torch.randn(24, 1)
    loader = DataLoader(TensorDataset(x, y), batch_size=8)
    with pytest.raises(InputError, match=r"x_scaler has no scale.*take_scale\(datamodule\)"):
        trainer(max_epochs=1).fit(LitMLPRegressor(3, 1), loader)
    for model in (LitMLPRegressor(3, 1), LitLaplaceMLP(3, 1, num_train=24)):
        model.take_scale(None)
        trainer(max_epochs=1).fit(model, loader, loader)
    wide = LitMLPRegressor(5, 1)
    wide.take_scale(None)
    with pytest.raises(InputError, match="the data have 3 features and the model is made for 5"):
        trainer(max_epochs=1).fit(wide, loader)
    made = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    model = LitTiny(in_features=3, optimizer=made)
    with pytest.raises(InputError, match=r"functools.partial\(torch.optim.SGD"):
        trainer(max_epochs=1).fit(model, loader)


def test_a_plain_loop_reshuffles():
    datamodule = LinearDataModule(num_samples=64)
    orders = [torch.cat([b.y for b in datamodule.train_dataloader()]) for _ in range(3)]
    assert not torch.equal(orders[0], orders[1])
    loader = LinearDataModule(num_samples=64).train_dataloader()
    again = [torch.cat([b.y for b in loader]) for _ in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(orders, again, strict=True))


def test_overfitting_keeps_its_batch():
    seen = []

    class Sees(LitTiny):
        def step(self, batch):
            if self.training:
                seen.append(batch.y)
            return super().step(batch)

    trainer(max_epochs=3, overfit_batches=1).fit(Sees(in_features=3), TinyDataModule())
    assert len(seen) == 3
    assert all(torch.equal(seen[0], y) for y in seen)
