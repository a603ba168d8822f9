"""Mixtures of predictive densities against torch.distributions, quadrature and Monte Carlo."""

import math

import pytest
import torch
from torch import distributions as D

from datamodules.batches import SupervisedBatch
from lit_models import LitBayesianMLP, LitMCDropoutMLP
from lit_models.families.predictive import PredictiveClassifier, PredictiveRegressor
from lit_models.layers.densities import CategoricalMixture, GaussianMixture
from lit_models.metrics.predictive import (
    IntervalCoverage,
    IntervalWidth,
    MixtureCRPS,
    MixtureNLL,
    MixtureRMSE,
    QuantileCalibration,
    classification_metrics,
    regression_metrics,
)

S, B, K = 7, 5, 3


def answering(mixture):
    """A model whose predictive density is known."""
    if isinstance(mixture, GaussianMixture):
        model = PredictiveRegressor(1, mixture.means.shape[-1], torch.optim.Adam, None)
    else:
        model = PredictiveClassifier(1, mixture.logits.shape[-1], torch.optim.Adam, None)
    model.predictive = lambda x, generator=None: mixture
    return model


@pytest.fixture
def mixture():
    means = 2 * torch.randn(S, B, K, dtype=torch.float64)
    return GaussianMixture(means, 0.2 + torch.rand(S, B, K, dtype=torch.float64))


def reference(mixture):
    """The same densities, one per row and target."""
    weights = D.Categorical(torch.ones(B, K, S, dtype=torch.float64))
    means, stds = (field.expand(S, B, K).permute(1, 2, 0) for field in mixture[:2])
    return D.MixtureSameFamily(weights, D.Normal(means, stds))


def test_moments_and_cdf(mixture):
    expected = reference(mixture)
    torch.testing.assert_close(mixture.mean, expected.mean)
    torch.testing.assert_close(mixture.variance, expected.variance)
    y = torch.randn(B, K, dtype=torch.float64)
    torch.testing.assert_close(mixture.cdf(y), expected.cdf(y))


def test_total_variance_splits_as_monte_carlo_says(mixture):
    component = torch.randint(S, (400_000,))
    rows = (mixture.means[component, 0, 0], mixture.stds[component, 0, 0])
    values = torch.normal(*rows)
    assert values.var().item() == pytest.approx(mixture.variance[0, 0].item(), rel=0.01)
    epistemic = mixture.epistemic_variance[0, 0].item()
    assert rows[0].var().item() == pytest.approx(epistemic, rel=0.01)
    noise = (values - rows[0]).var().item()
    assert noise == pytest.approx(mixture.aleatoric_variance[0, 0].item(), rel=0.01)


def test_log_prob_is_joint_over_targets(mixture):
    y = torch.randn(B, K, dtype=torch.float64)
    single = GaussianMixture(mixture.means[..., :1], mixture.stds[..., :1])
    expected = reference(mixture).log_prob(y)[:, 0]
    torch.testing.assert_close(single.log_prob(y[:, :1]), expected)
    weights = D.Categorical(torch.ones(B, S, dtype=torch.float64))
    components = D.Normal(mixture.means.transpose(0, 1), mixture.stds.transpose(0, 1))
    joint = D.MixtureSameFamily(weights, D.Independent(components, 1))
    torch.testing.assert_close(mixture.log_prob(y), joint.log_prob(y))


def test_log_prob_survives_a_distant_target():
    mixture = GaussianMixture(torch.zeros(S, 1, 1), torch.tensor(0.01))
    expected = -0.5 * 1e8 - math.log(0.01 * math.sqrt(2 * math.pi))
    assert mixture.log_prob(torch.tensor([[100.0]])).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("level", [1e-4, 0.025, 0.5, 0.975, 0.9999])
def test_quantiles_invert_the_cdf(mixture, level):
    cumulative = mixture.cdf(mixture.quantile(level))
    torch.testing.assert_close(cumulative, torch.full_like(cumulative, level), rtol=0, atol=1e-10)


def test_quantiles_of_far_apart_components():
    means = torch.tensor([-1e3, 0.0, 1e3], dtype=torch.float64).reshape(3, 1, 1)
    mixture = GaussianMixture(means, torch.tensor([1e-3, 1.0, 1e-3]).double().reshape(3, 1, 1))
    for level in (0.2, 0.4, 0.9):
        value = mixture.quantile(level, max_steps=200)
        assert mixture.cdf(value).item() == pytest.approx(level, abs=1e-6)


def test_one_component_gives_the_normal_interval():
    mixture = GaussianMixture(torch.full((1, 2, 1), 3.0), torch.full((1, 2, 1), 0.5))
    lower, upper = mixture.interval(0.95)
    assert lower[0, 0].item() == pytest.approx(3 - 1.959964 * 0.5, abs=1e-5)
    assert upper[0, 0].item() == pytest.approx(3 + 1.959964 * 0.5, abs=1e-5)


def test_crps_equals_its_integral(mixture):
    y = torch.randn(B, K, dtype=torch.float64)
    grid = torch.linspace(-20, 20, 400_001, dtype=torch.float64)
    for row, column in ((0, 0), (B - 1, K - 1)):
        single = GaussianMixture(
            mixture.means[:, row, column].reshape(S, 1, 1),
            mixture.stds[:, row, column].reshape(S, 1, 1),
        )
        cumulative = single.cdf(grid.reshape(1, -1))[0]
        step = (grid >= y[row, column]).double()
        integral = torch.trapezoid((cumulative - step).square(), grid)
        assert mixture.crps(y)[row, column].item() == pytest.approx(integral.item(), abs=1e-4)


def test_entropies(mixture):
    logits = 2 * torch.randn(S, B, K, dtype=torch.float64)
    mixture = CategoricalMixture(logits)
    average = logits.softmax(-1).mean(0)
    torch.testing.assert_close(mixture.probs, average)
    torch.testing.assert_close(mixture.entropy, D.Categorical(average).entropy())
    parts = D.Categorical(logits=logits)
    torch.testing.assert_close(mixture.expected_entropy, parts.entropy().mean(0))
    divergence = D.kl_divergence(parts, D.Categorical(average.expand(S, -1, -1))).mean(0)
    torch.testing.assert_close(mixture.mutual_information, divergence)
    y = torch.randint(K, (B,))
    torch.testing.assert_close(mixture.log_prob(y), D.Categorical(average).log_prob(y))


def test_networks_that_agree_carry_no_information():
    mixture = CategoricalMixture(torch.randn(1, B, K).expand(S, -1, -1))
    torch.testing.assert_close(mixture.mutual_information, torch.zeros(B), rtol=0, atol=1e-6)


def truth(num_rows):
    """Targets and the mixture they were drawn from."""
    means = torch.randn(S, num_rows, 1, dtype=torch.float64)
    stds = 0.1 + torch.rand(S, num_rows, 1, dtype=torch.float64)
    component = torch.randint(S, (1, num_rows, 1))
    y = torch.normal(means.gather(0, component)[0], stds.gather(0, component)[0])
    return GaussianMixture(means, stds), y


def test_the_true_density_is_calibrated():
    mixture, y = truth(40_000)
    coverage, calibration = IntervalCoverage(0.9), QuantileCalibration()
    coverage.update(mixture, y)
    calibration.update(mixture, y)
    assert coverage.compute().item() == pytest.approx(0.9, abs=0.006)
    assert calibration.compute().item() < 0.006
    nominal, observed = calibration.curve()
    assert nominal.tolist() == pytest.approx([k / 20 for k in range(1, 20)])
    assert observed.diff().min() > 0.03


def test_coverage_counts_targets_between_the_quantiles():
    mixture, y = truth(503)
    metric = IntervalCoverage(0.8)
    metric.update(mixture, y)
    lower, upper = mixture.interval(0.8)
    share = ((y >= lower) & (y <= upper)).double().mean().item()
    assert metric.compute().item() == pytest.approx(share, abs=1e-6)


def test_calibration_error_of_a_shifted_density():
    mixture, y = truth(20_000)
    metric = QuantileCalibration(9)
    metric.update(mixture, y)
    wide = QuantileCalibration(9)
    wide.update(GaussianMixture(mixture.means, 50 * mixture.stds), y)
    assert metric.compute() < 0.01
    # Every cumulative probability is near 1/2: the distances average 20/90.
    assert wide.compute().item() == pytest.approx(20 / 90, abs=0.03)


@pytest.mark.parametrize(
    "metric",
    [MixtureNLL, MixtureCRPS, MixtureRMSE, IntervalWidth, IntervalCoverage, QuantileCalibration],
)
def test_metrics_do_not_depend_on_the_batches(metric):
    mixture, y = truth(101)
    whole, parts = metric(), metric()
    whole.update(mixture, y)
    for rows in (slice(0, 60), slice(60, 61), slice(61, 101)):
        parts.update(GaussianMixture(mixture.means[:, rows], mixture.stds[:, rows]), y[rows])
    assert parts.compute().item() == pytest.approx(whole.compute().item(), rel=1e-6)


def test_the_named_metrics():
    mixture, y = truth(37)
    for name, metric in regression_metrics().items():
        metric.update(mixture, y)
        assert metric.compute().isfinite(), name
    output = answering(mixture).eval_step(SupervisedBatch(torch.zeros(37, 1), y))
    assert output.loss.item() == pytest.approx(-mixture.log_prob(y).mean().item())
    log_probs = CategoricalMixture(torch.randn(S, 41, K)).log_probs
    target = torch.randint(K, (41,))
    for name, metric in classification_metrics(K).items():
        metric.update(log_probs, target)
        assert metric.compute().isfinite(), name


def test_columns_hold_what_they_say(mixture):
    batch = SupervisedBatch(torch.zeros(B, 1), torch.zeros(B, K))
    columns = answering(mixture).predict_step(batch)
    inside = mixture.cdf(columns["upper_95"]) - mixture.cdf(columns["lower_95"])
    torch.testing.assert_close(inside, torch.full_like(inside, 0.95))
    total = columns["epistemic_std"].square() + columns["aleatoric_std"].square()
    torch.testing.assert_close(total, mixture.variance)
    model = answering(CategoricalMixture(torch.randn(S, B, K)))
    classes = model.predict_step(batch._replace(y=torch.zeros(B)))
    torch.testing.assert_close(classes["probability"].sum(1), torch.ones(B))
    assert (classes["mutual_information"] <= classes["predictive_entropy"]).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_intervals_of_half_precision(dtype):
    means, stds = torch.tensor([[[0.0]], [[2.0]]]), torch.tensor([[[1.0]], [[0.5]]])
    low, high = GaussianMixture(means.to(dtype), stds.to(dtype)).interval()
    exact = GaussianMixture(means.double(), stds.double()).interval()
    assert low.item() == pytest.approx(exact[0].item(), abs=0.03)
    assert high.item() == pytest.approx(exact[1].item(), abs=0.03)


@pytest.mark.parametrize("model", [LitBayesianMLP, LitMCDropoutMLP])
@pytest.mark.parametrize("name", ["num_train", "num_draws"])
def test_counts_are_at_least_one(model, name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        model(**{"in_features": 1, "out_features": 1, "num_train": 9, name: 0})
