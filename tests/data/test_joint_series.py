"""Several targets forecast together: their windows, ridge, rows in the model, and predictions."""

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import torch
from sklearn.linear_model import Ridge

from datamodules import CSVSeriesDataModule
from datamodules.own.series_rivals import PENALTIES, fit_ridge, linear_forecast
from lit_models import LitRecurrentForecaster
from lit_models.layers.series_units import from_rows, target_rows

T, H, M = 5, 3, 2
SPLIT = {"window": T, "horizon": H, "val_rows": 20, "test_rows": 20}


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(120, 3)).cumsum(0)
    steps[1:, 1] += 2 * steps[:-1, 0]  # b follows a
    frame = pd.DataFrame(steps * [1, 1000, 1], columns=["a", "b", "c"])
    frame["b"] += 1e6
    return frame


def data_of(frame, tmp_path, **options):
    path = tmp_path / "wide.csv"
    frame.to_csv(path, index=False)
    return CSVSeriesDataModule(str(path), ["a", "b"], ["c"], joint=True, **(SPLIT | options))


def test_a_window_holds_all_targets(frame, tmp_path):
    data = data_of(frame, tmp_path)
    batch = data.windows("train")
    assert (data.in_features, data.num_targets, data.num_series) == (3, M, 1)
    np.testing.assert_array_equal(batch.x[7], frame.iloc[7 : 7 + T])
    np.testing.assert_array_equal(batch.y[7], frame[["a", "b"]].iloc[7 + T : 7 + T + H])
    train = frame.iloc[:80]
    np.testing.assert_allclose(batch.center[0], train.mean(), rtol=1e-12)
    naive = train[["a", "b"]].diff().abs().mean()
    np.testing.assert_allclose(batch.naive_error[0], naive, rtol=1e-12)


def test_missing_targets_are_masked_each_by_itself(frame, tmp_path):
    frame.loc[30, "b"] = np.nan
    data = data_of(frame, tmp_path, gaps="mask")
    batch = data.windows("train")
    assert data.in_features == 5
    assert batch.mask[28 - T].tolist() == [[True, True], [True, True], [True, False]]
    assert batch.mask.sum() == batch.mask.numel() - H
    np.testing.assert_array_equal(batch.x[30, :, 3:], [[1, 0], *[[1, 1]] * (T - 1)])


def test_the_ridge_reads_all_targets_and_is_scikit_learns(frame, tmp_path):
    data = data_of(frame, tmp_path)
    x, y = {}, {}
    for split in ("train", "val", "test"):
        batch = data.windows(split)
        inputs, last = data.scaler.inputs(batch)
        targets = data.scaler.targets(batch) - last.unsqueeze(1)
        x[split], y[split] = inputs.numpy(), targets.flatten(1).numpy()
    fits = [Ridge(alpha=alpha).fit(x["train"], y["train"]) for alpha in PENALTIES]
    best = min(fits, key=lambda fit: ((fit.predict(x["val"]) - y["val"]) ** 2).mean())
    ridge = fit_ridge(data.rows, data.origins("train"), data.origins("val"), data.scaler)
    np.testing.assert_allclose(ridge.weight, best.coef_, atol=1e-9)
    batch = data.windows("test")
    expected = best.predict(x["test"]).reshape(-1, H, M)
    expected += data.scaler.inputs(batch)[1].numpy()[:, None]
    expected = expected * batch.scale[:, None, :M].numpy() + batch.center[:, None, :M].numpy()
    found = linear_forecast(ridge, batch, data.scaler)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    error = ((found - batch.y) ** 2).mean().item()
    assert data.rivals["test/mse"]["ridge regression"] == pytest.approx(error, rel=1e-9)
    alone = CSVSeriesDataModule(data.path, ["a", "b"], ["c"], **SPLIT)
    assert error < alone.rivals["test/mse"]["ridge regression"]


def test_smooth_weights_are_a_ridge_on_sums_over_time(tmp_path):
    """Of two channels and one known ahead, against sums that are written out."""
    rng, window = np.random.default_rng(0), 30
    values = [*rng.normal(size=window)]
    for _ in range(270):
        values.append(0.98 * np.mean(values[-window:]) + rng.normal())
    path = tmp_path / "file.csv"
    pd.DataFrame({"y": values, "z": rng.normal(size=300)}).to_csv(path, index=False)
    data = CSVSeriesDataModule(str(path), "y", known="z", window=window, horizon=2)
    x, y = {}, {}
    for split in ("train", "val"):
        batch = data.windows(split)
        inputs, last = data.scaler.inputs(batch)
        x[split], y[split] = inputs.numpy(), (data.scaler.targets(batch)[..., 0] - last).numpy()
    sums = np.tril(np.ones((window, window)))
    basis = scipy.linalg.block_diag(sums, sums, np.eye(2))
    fits = [Ridge(alpha=10.0**k).fit(x["train"] @ basis, y["train"]) for k in range(-3, 8)]
    errors = [((fit.predict(x["val"] @ basis) - y["val"]) ** 2).mean() for fit in fits]
    best, start = fits[int(np.argmin(errors))], data.linear_start
    np.testing.assert_allclose(start.weight, best.coef_ @ basis.T, atol=1e-7)
    np.testing.assert_allclose(start.bias, best.intercept_, atol=1e-7)
    ridge = fit_ridge(data.rows, data.origins("train"), data.origins("val"), data.scaler)
    error = ((x["val"] @ ridge.weight.numpy().T + ridge.bias.numpy() - y["val"]) ** 2).mean()
    assert min(errors) < 0.995 * error
    test = data.windows("test")
    rival = ((linear_forecast(ridge, test, data.scaler) - test.y) ** 2).mean().item()
    assert data.rivals["test/mse"]["ridge regression"] == pytest.approx(rival, rel=1e-9)


def test_weights_that_are_not_smooth_stay_as_they_are(tmp_path):
    rng = np.random.default_rng(0)
    values = [*rng.normal(size=7)]
    for _ in range(593):
        values.append(0.9 * values[-7] + 0.3 * rng.normal())
    data = CSVSeriesDataModule(pd.DataFrame({"y": values}), "y", window=14, horizon=1)
    ridge = fit_ridge(data.rows, data.origins("train"), data.origins("val"), data.scaler)
    assert torch.equal(data.linear_start.weight, ridge.weight)


@pytest.mark.parametrize("head", ["point", "quantile", "mixture"])
def test_the_model_starts_at_the_linear_forecast(frame, tmp_path, head):
    data = data_of(frame, tmp_path)
    model = LitRecurrentForecaster(
        3, H, T, hidden_size=4, num_series=1, num_targets=M, ridge_start=True, linear_skip=True,
        residual=True, head=head,
    ).double().eval()  # fmt: skip
    model.take_scale(data)
    batch = data.windows("test")
    columns = model.predict_step(batch)
    expected = linear_forecast(data.linear_start, batch, data.scaler)
    torch.testing.assert_close(columns["prediction"], expected, rtol=1e-6, atol=1e-6)
    forward = model(batch.x, center=batch.center, scale=batch.scale)
    torch.testing.assert_close(forward, columns["prediction"])
    output = model.step(batch)
    model.update_metrics(model.test_metrics, output)
    mse = (expected - batch.y).square().mean()
    torch.testing.assert_close(model.test_metrics.compute()["test/mse"], mse, rtol=1e-6, atol=0)
    assert columns["lower_95"].shape == columns["target"].shape == batch.y.shape
    assert model.state_gradients(batch).shape == (T,)
    empty = data.windows("test", torch.arange(0))  # a rank's share of a small last batch
    assert model.predict_step(empty)["upper_80"].shape == (0, H, M)


def test_rows_and_back():
    from datamodules.batches import SeriesBatch

    y = torch.arange(24.0).view(4, H, M)
    batch = SeriesBatch(torch.randn(4, T, 3), y, series=torch.arange(4), time=torch.arange(4))
    rows = target_rows(batch, M, torch.tensor([1.0, 2, 3]), torch.ones(3))
    torch.testing.assert_close(from_rows(rows.y, M), y)
    torch.testing.assert_close(rows.y[3], y[1, :, 1])
    assert rows.series.tolist() == list(range(8))
    assert rows.center[:, 0].tolist() == [1, 2] * 4


def test_predictions_name_each_target(frame, tmp_path):
    data = data_of(frame, tmp_path)
    data.setup("predict")
    outputs = {"prediction": torch.arange(float(H * M)).view(1, H, M)}
    table = data.prediction_frame(outputs)
    assert table["series"].tolist() == ["a"] * H + ["b"] * H
    assert table["prediction"].tolist() == [0, 2, 4, 1, 3, 5]
    assert table["row"].tolist() == [120, 121, 122] * M
