"""The Laplace posterior against autograd, exact Bayesian linear regression and its evidence."""

import math

import pytest
import torch
from jsonargparse import ArgumentParser
from torch.func import functional_call, jacrev
from torch.nn import functional as F

from datamodules.batches import SupervisedBatch
from lit_models import LitLaplaceMLP, LitLaplaceMLPClassifier
from lit_models.layers.laplace import factors, make_posterior
from lit_models.mlp import MLP

D, K, N = 3, 2, 13


def whole(value):
    return value


def jacobian_of(net, x):
    """(B, K, P) by autograd, the weights in the order of the posterior: each with its bias."""
    parameters = {name: p.detach() for name, p in net.named_parameters()}
    found = jacrev(lambda p: functional_call(net, p, (x,)))(parameters)
    names = [name.removesuffix(".weight") for name in parameters if name.endswith("weight")]
    parts = []
    for name in names:
        weight, bias = found[f"{name}.weight"], found[f"{name}.bias"].unsqueeze(-1)
        parts.append(torch.cat([weight, bias], dim=-1).flatten(2))
    return torch.cat(parts, dim=2)


@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_factors_are_the_jacobian(activation):
    net = MLP(D, [5, 7], K, activation).double()
    x = torch.randn(N, D, dtype=torch.float64)
    out, parts = factors(net, x)
    torch.testing.assert_close(out, net(x))
    ours = torch.cat([part.jacobian() for part in parts], dim=2)
    torch.testing.assert_close(ours, jacobian_of(net, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("structure", "first"), [("full", 0), ("last_layer", 5 * (D + 1))])
def test_covariance_is_that_of_the_formula(structure, first):
    net = MLP(D, [5], K, "tanh").double()
    x, new = torch.randn(2, N, D, dtype=torch.float64)
    deltas = torch.tensor([0.7, 1.9], dtype=torch.float64)
    posterior = make_posterior(net, structure)
    posterior.reset()
    for rows in x.split(5):  # in any number of batches
        posterior.add(factors(net, rows)[1])
    posterior.finish(deltas, whole)
    jacobian = jacobian_of(net, x)[..., first:].flatten(0, 1)
    prior = deltas.repeat_interleave(torch.tensor(posterior.sizes))[first:]
    sigma = (jacobian.T @ jacobian + prior.diag()).inverse()
    wanted = jacobian_of(net, new)[..., first:]
    expected = wanted @ sigma @ wanted.mT
    torch.testing.assert_close(posterior.covariance(factors(net, new)[1]), expected)
    assert posterior.traces()[-1].item() == pytest.approx(sigma.diagonal()[-K * 6 :].sum().item())


def test_kronecker_form_is_exact_where_it_is_a_product():
    """One row, one affine layer: the curvature is one Kronecker product."""
    net = MLP(D, [], K).double()
    x, new = torch.randn(1, D, dtype=torch.float64), torch.randn(N, D, dtype=torch.float64)
    found = []
    for structure in ("full", "kron"):
        posterior = make_posterior(net, structure)
        posterior.reset()
        posterior.add(factors(net, x)[1])
        posterior.finish(torch.tensor([0.3], dtype=torch.float64), whole)
        found.append((posterior.covariance(factors(net, new)[1]), posterior.traces()))
    torch.testing.assert_close(found[0], found[1])


def linear_data():
    x = torch.randn(40, D, dtype=torch.float64)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]]).double() + 0.3 * torch.randn(40, 1).double()
    return SupervisedBatch(x, y)


def minimise(model, batch):
    """The exact minimum of a linear model's loss."""
    a = torch.cat([batch.x, torch.ones(len(batch.x), 1).double()], dim=1)
    precision = a.T @ a / model.noise_variance + model.laplace.deltas * torch.eye(D + 1).double()
    weights = torch.linalg.solve(precision, a.T @ batch.y / model.noise_variance)
    with torch.no_grad():
        model.laplace.net[0].weight.copy_(weights[:D].T)
        model.laplace.net[0].bias.copy_(weights[D])
    return a, precision


@pytest.mark.parametrize("noise", [0.01, 0.1, 2.0])  # the truth is 0.09
def test_a_linear_model_has_the_exact_posterior(noise):
    batch = linear_data()
    model = LitLaplaceMLP(D, 1, 40, hidden_sizes=[], structure="full").double()
    model.noise_variance.fill_(noise)
    a, precision = minimise(model, batch)
    model.step(batch).loss.backward()
    assert max(p.grad.abs().max().item() for p in model.parameters()) < 1e-10
    model.fit_posterior(iter([batch]))
    mixture = model.predictive(batch.x)
    expected = ((a @ precision.inverse()) * a).sum(1, keepdim=True)
    torch.testing.assert_close(mixture.epistemic_variance, expected)
    noise = model.noise_variance.expand_as(expected)
    torch.testing.assert_close(mixture.aleatoric_variance, noise)
    density = torch.distributions.Normal(mixture.mean, (expected + noise).sqrt())
    torch.testing.assert_close(mixture.log_prob(batch.y), density.log_prob(batch.y)[:, 0])


def test_the_fixed_point_maximises_the_evidence():
    batch = linear_data()
    model = LitLaplaceMLP(D, 1, 40, hidden_sizes=[], structure="full").double()
    for _ in range(200):
        minimise(model, batch)
        model.maximise_evidence(iter([batch]))

    def evidence(log_delta, log_noise):
        a = torch.cat([batch.x, torch.ones(40, 1).double()], dim=1)
        covariance = a @ a.T / math.exp(log_delta) + math.exp(log_noise) * torch.eye(40).double()
        normal = torch.distributions.MultivariateNormal(torch.zeros(40).double(), covariance)
        return normal.log_prob(batch.y[:, 0]).item()

    at = (model.laplace.deltas.log().item(), model.noise_variance.log().item())
    best = evidence(*at)
    for step in ((0.02, 0.0), (-0.02, 0.0), (0.0, 0.02), (0.0, -0.02)):
        assert evidence(at[0] + step[0], at[1] + step[1]) < best


def test_curvature_of_classes_is_the_hessian():
    model = LitLaplaceMLPClassifier(D, 3, N, hidden_sizes=[], structure="full").double()
    batch = SupervisedBatch(torch.randn(N, D).double(), torch.randint(3, (N,)))
    model.fit_posterior(iter([batch]))
    net = model.laplace.net
    weight = torch.cat([net[0].weight, net[0].bias.unsqueeze(1)], dim=1).detach()

    def loss(flat):
        matrix = flat.view(3, D + 1)
        logits = batch.x @ matrix[:, :D].T + matrix[:, D]
        prior = 0.5 * (model.laplace.deltas * flat.square()).sum()
        return F.cross_entropy(logits, batch.y, reduction="sum") + prior

    hessian = torch.func.hessian(loss)(weight.flatten())
    root = model.laplace.posterior.root
    torch.testing.assert_close(root @ root.T, hessian)
    probs = model.predictive(batch.x).probs
    torch.testing.assert_close(probs.sum(1), torch.ones(N).double())
    assert model.predictive(batch.x).mutual_information.min() > 0


def test_predictions_do_not_depend_on_the_batch():
    model = LitLaplaceMLPClassifier(D, 3, N, hidden_sizes=[5])
    batch = SupervisedBatch(torch.randn(N, D), torch.randint(3, (N,)))
    model.fit_posterior(iter([batch]))
    whole_batch = model.predictive(batch.x).log_probs
    torch.testing.assert_close(model.predictive(batch.x[4:6]).log_probs, whole_batch[4:6])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"noise_std": 0.0}, r"noise_std must be positive, got 0.0"),
        ({"prior_precision": -1.0}, r"prior_precision must be positive, got -1.0"),
        ({"evidence_every": 0}, r"evidence_every must be at least 1, got 0"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        LitLaplaceMLP(D, K, N, **arguments)


@pytest.mark.parametrize("model", [LitLaplaceMLP, LitLaplaceMLPClassifier])
def test_the_command_knows_the_shared_arguments(model):
    """One base holds them; they reach the options, the hyperparameters and their texts."""
    parser = ArgumentParser()
    parser.add_class_arguments(model, "model")
    helped = parser.format_help()
    for name in ("hidden_sizes", "activation", "structure", "prior_precision", "evidence_every"):
        assert f"--model.{name}" in helped
    assert "Optimizer steps between two steps of the evidence" in helped
    made = model(D, K, N, hidden_sizes=[4], evidence_every=7)
    again = model(**made.hparams)
    assert again.refresh_every == 7
    assert again.laplace.net[0].out_features == 4
