"""Variational Bayes against closed forms: KL, moments, evidence and the mean-field optimum."""

import math

import pytest
import torch
from torch import distributions as D
from torch.nn import functional as F

from datamodules.batches import SupervisedBatch
from lit_models import LitBayesianMLP, LitBayesianMLPClassifier
from lit_models.bayesian_mlp import BayesianLinear, BayesianMLP, kl_weight
from lit_models.layers.network_draws import draw_generator


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def scrambled(module):
    """Posterior means and standard deviations away from their initial values."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("log_std"):
                parameter.uniform_(-2, 0)
    return module


def posteriors(net):
    for layer in net.layers:
        yield D.Normal(layer.weight_mean, layer.weight_log_std.exp())
        yield D.Normal(layer.bias_mean, layer.bias_log_std.exp())


def test_kl_is_the_sum_over_all_weights():
    net = scrambled(BayesianMLP(3, [7, 5], 2, prior_std=0.7))
    prior = D.Normal(0.0, 0.7)
    expected = sum(D.kl_divergence(q, prior).sum() for q in posteriors(net))
    torch.testing.assert_close(net.kl(), expected, rtol=1e-12, atol=0)


def test_draws_follow_the_posterior():
    layer = scrambled(BayesianLinear(3, 2))
    weight, bias = layer.draw(200_000)
    std = layer.weight_log_std.exp()
    assert ((weight.mean(0) - layer.weight_mean).abs() < 0.012 * std).all()
    torch.testing.assert_close(weight.std(0), std, rtol=0.012, atol=0)
    torch.testing.assert_close(bias.std(0), layer.bias_log_std.exp(), rtol=0.012, atol=0)


def test_local_sampling_has_the_moments_of_drawn_weights():
    layer, x = scrambled(BayesianLinear(3, 2)), torch.randn(5, 3)
    local = layer(x.expand(200_000, 5, 3))
    mean = F.linear(x, layer.weight_mean, layer.bias_mean)
    variance = x.square() @ (2 * layer.weight_log_std).exp().T + (2 * layer.bias_log_std).exp()
    weight, bias = layer.draw(200_000)
    drawn = torch.einsum("skd,bd->sbk", weight, bias.new_tensor(x.numpy())) + bias.unsqueeze(1)
    for sample in (local, drawn):
        assert ((sample.mean(0) - mean).abs() < 0.012 * variance.sqrt()).all()
        torch.testing.assert_close(sample.var(0), variance, rtol=0.025, atol=0)
    # Rows share drawn weights; local noise is independent.
    assert torch.corrcoef(local[:, :2, 0].T)[0, 1].abs() < 0.01
    assert torch.corrcoef(drawn[:, :2, 0].T)[0, 1].abs() > 0.05


def test_batched_draws_equal_a_loop_under_the_same_noise():
    sizes = {"hidden_sizes": [7, 5], "activation": "relu", "num_draws": 11}
    model = scrambled(LitBayesianMLP(3, 2, 13, noise_std=0.3, **sizes))
    x = torch.randn(13, 3)
    mixture = model.predictive(x)
    generator, layers = draw_generator(x), []
    for layer in model.net.layers:  # the order in which the noise is used
        noise = torch.randn(11, *layer.weight_mean.shape, generator=generator)
        bias_noise = torch.randn(11, *layer.bias_mean.shape, generator=generator)
        layers.append((layer, noise, bias_noise))
    for s in range(11):
        h = x
        for depth, (layer, noise, bias_noise) in enumerate(layers):
            weight = layer.weight_mean + layer.weight_log_std.exp() * noise[s]
            bias = layer.bias_mean + layer.bias_log_std.exp() * bias_noise[s]
            h = F.linear(F.relu(h) if depth else h, weight, bias)
        torch.testing.assert_close(mixture.means[s], h, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("sampling", ["local", "weights"])
def test_loss_is_minus_the_elbo_per_row(sampling):
    """With no hidden layer the expectation over the posterior has a closed form."""
    num_train, noise_std = 101, 0.4
    model = scrambled(
        LitBayesianMLP(
            3,
            2,
            num_train,
            hidden_sizes=[],
            noise_std=noise_std,
            num_train_draws=20_000,
            sampling=sampling,
        )
    )
    batch = SupervisedBatch(torch.randn(7, 3), torch.randn(7, 2))
    layer = model.net.layers[0]
    mean = F.linear(batch.x, layer.weight_mean, layer.bias_mean)
    variance = batch.x.square() @ (2 * layer.weight_log_std).exp().T
    variance = variance + (2 * layer.bias_log_std).exp()
    log_prob = D.Normal(mean, noise_std).log_prob(batch.y) - variance / (2 * noise_std**2)
    expected = -log_prob.sum(1).mean() + model.net.kl() / num_train
    output = model.step(batch)
    assert output.loss.item() == pytest.approx(expected.item(), rel=0.01)
    assert output.scalars["kl"].item() == pytest.approx(model.net.kl().item())


@pytest.mark.parametrize("noise_std", [0.5, 1.5])  # the truth is 0.5
def test_mean_field_optimum_and_evidence_of_linear_regression(noise_std):
    """Trained to the end, the posterior is the best mean field, below the evidence by its gap."""
    num_train, prior_std = 29, 0.8
    x = torch.randn(num_train, 2) + torch.tensor([1.0, 0.0])
    y = x @ torch.tensor([[1.0], [-0.5]]) + 0.3 + 0.5 * torch.randn(num_train, 1)
    design = torch.cat([x, torch.ones(num_train, 1)], dim=1)
    precision = design.T @ design / noise_std**2 + torch.eye(3) / prior_std**2
    posterior_mean = torch.linalg.solve(precision, design.T @ y / noise_std**2)[:, 0]
    marginal = noise_std**2 * torch.eye(num_train) + prior_std**2 * design @ design.T
    evidence = D.MultivariateNormal(torch.zeros(num_train), marginal).log_prob(y[:, 0])
    gap = 0.5 * (precision.diag().log().sum() - torch.logdet(precision))
    model = LitBayesianMLP(
        2,
        1,
        num_train,
        hidden_sizes=[],
        noise_std=noise_std,
        prior_std=prior_std,
        num_train_draws=64,
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1500)
    for _ in range(1500):
        optimizer.zero_grad()
        model.step(SupervisedBatch(x, y)).loss.backward()
        optimizer.step()
        schedule.step()
    layer = model.net.layers[0]
    mean = torch.cat([layer.weight_mean[0], layer.bias_mean])
    std = torch.cat([layer.weight_log_std[0], layer.bias_log_std]).exp()
    assert ((mean - posterior_mean).abs() < 0.02 * std).all()
    torch.testing.assert_close(std, precision.diag().rsqrt(), rtol=0.02, atol=0)
    spread = design.square() @ std.square()
    fit = D.Normal(design @ mean, noise_std).log_prob(y[:, 0]) - spread / (2 * noise_std**2)
    elbo = fit.sum() - model.net.kl()
    assert elbo < evidence
    assert gap > 0.02
    assert elbo.item() == pytest.approx((evidence - gap).item(), abs=3e-3)


def test_scores_are_in_the_units_of_the_data():
    """Scaling the data and its scalers moves the log density by the log of the scale alone."""
    model = scrambled(LitBayesianMLP(3, 1, 13, hidden_sizes=[5], num_draws=3))
    x, y = torch.randn(7, 3), torch.randn(7, 1)
    before = model.predictive(x).log_prob(y)
    model.x_scaler.std.fill_(10.0)
    model.y_scaler.mean.fill_(4.0)
    model.y_scaler.std.fill_(100.0)
    after = model.predictive(10 * x).log_prob(4 + 100 * y)
    torch.testing.assert_close(after, before - math.log(100))


def test_predictions_do_not_depend_on_the_batch_or_the_call():
    model = LitBayesianMLPClassifier(3, 4, 13, hidden_sizes=[5], num_draws=7)
    x = torch.randn(11, 3)
    whole = model.predictive(x).logits
    torch.testing.assert_close(model.predictive(x[3:5]).logits, whole[:, 3:5])
    other = model.predictive(x, torch.Generator().manual_seed(1)).logits
    assert not torch.allclose(other, whole)


def test_classifier_step_is_the_expected_cross_entropy():
    model = LitBayesianMLPClassifier(
        3, 4, 13, hidden_sizes=[5], initial_std=1e-9, num_train_draws=2
    )
    batch = SupervisedBatch(torch.randn(7, 3), torch.randint(4, (7,)))
    layers = model.net.layers
    hidden = F.relu(F.linear(batch.x, layers[0].weight_mean, layers[0].bias_mean))
    logits = F.linear(hidden, layers[1].weight_mean, layers[1].bias_mean)
    expected = F.cross_entropy(logits, batch.y) + model.net.kl() / 13
    assert model.step(batch).loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_kl_warm_up():
    assert [kl_weight(step, 4) for step in (0, 1, 3, 4, 100)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    assert kl_weight(0, 0) == 1.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"noise_std": 0.0},
        {"prior_std": 0.0},
        {"initial_std": -1.0},
        {"num_draws": 0},
        {"num_train_draws": 0},
        {"kl_warmup_steps": -1},
        {"hidden_sizes": [0]},
    ],
)
def test_wrong_arguments_are_named(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        LitBayesianMLP(3, 1, 10, **wrong)
