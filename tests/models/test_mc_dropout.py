"""MC dropout: folded masks against dropout applied to activations, and the prior's penalty."""

import pytest
import torch
from torch.nn import functional as F

from datamodules.batches import SupervisedBatch
from lit_models import LitMCDropoutMLP, LitMCDropoutMLPClassifier
from lit_models.layers.network_draws import draw_generator, evaluate_draws, stratified_uniform
from lit_models.mc_dropout import MCDropoutMLP


def masked_loop(net, x, masks, s):
    """Forward pass of mask s, applied to the activations; norms in evaluation mode."""
    h = x * masks[0][s]
    for depth, layer in enumerate(net.layers[:-1]):
        h = layer(h)
        if net.norms:
            h = net.norms[depth](h)
        h = F.relu(h) * masks[depth + 1][s]
    return net.layers[-1](h)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_folded_masks_equal_masked_activations(batch_norm):
    net = MCDropoutMLP(3, [7, 5], 2, dropout=0.4, input_dropout=0.2, batch_norm=batch_norm).double()
    x = torch.randn(13, 3, dtype=torch.float64)
    if batch_norm:
        for norm in net.norms:
            norm.weight.data.uniform_(0.5, 2)
            norm.bias.data.normal_()
        for _ in range(5):
            net(3 * x + 1)  # running statistics away from their start
    net.eval()
    before = {name: value.clone() for name, value in net.named_buffers()}
    outputs = evaluate_draws(x, net.draw(11, draw_generator(x)))
    generator = draw_generator(x)
    masks = [
        (stratified_uniform(11, width, x.device, generator) >= rate).double() / (1 - rate)
        for width, rate in zip((3, 7, 5), net.rates.tolist(), strict=True)
    ]
    for s in range(11):
        expected = masked_loop(net, x, masks, s)
        torch.testing.assert_close(outputs[s], expected, rtol=1e-11, atol=1e-11)
    for name, value in net.named_buffers():
        assert torch.equal(value, before[name]), name


def test_masks_have_the_moments_of_training_dropout():
    net = MCDropoutMLP(3, [7], 1, dropout=0.3).double()
    x = torch.randn(2, 3, dtype=torch.float64)
    drawn = evaluate_draws(x, net.draw(100_000))[..., 0]
    trained = net(x.repeat_interleave(100_000, 0)).reshape(2, -1).T
    torch.testing.assert_close(drawn.mean(0), trained.mean(0), rtol=0, atol=0.01)
    torch.testing.assert_close(drawn.std(0), trained.std(0), rtol=0.02, atol=0)


def test_a_unit_that_alone_carries_the_output_is_dropped_in_its_share_of_the_networks():
    """Of independent masks, 13 in 100 sets of 100 would leave the output without any spread."""
    rate, width = 0.02, 200
    net = MCDropoutMLP(1, [width], width, dropout=rate).double()
    with torch.no_grad():
        net.layers[1].weight.copy_(torch.eye(width))
        net.layers[1].bias.zero_()
    x = torch.tensor([[2.0], [-3.0]]).double()
    hidden = F.relu(net.layers[0](x))
    std = evaluate_draws(x, net.draw(100)).std(0, correction=0)
    torch.testing.assert_close(std, (rate / (1 - rate)) ** 0.5 * hidden)


def test_stratified_numbers_are_uniform_and_independent():
    uniform = stratified_uniform(1000, 50, torch.device("cpu")).double()
    assert torch.equal((1000 * uniform.sort(0).values).long()[:, 0], torch.arange(1000))
    correlation = torch.corrcoef(uniform.T) - torch.eye(50)
    assert correlation.abs().max() < 0.16  # five standard deviations of independent columns
    # Position within a stratum, and whether neighbouring draws are near each other.
    assert abs((1000 * uniform).frac().mean() - 0.5) < 0.01
    assert (
        abs(torch.corrcoef(torch.stack([uniform[1:].flatten(), uniform[:-1].flatten()]))[0, 1])
        < 0.03
    )


def test_no_dropout_no_spread():
    model = LitMCDropoutMLP(3, 1, 10, hidden_sizes=[7], dropout=0.0, tau=4.0, num_draws=5)
    mixture = model.predictive(torch.randn(11, 3))
    assert mixture.epistemic_variance.max() < 1e-12
    torch.testing.assert_close(mixture.variance, torch.full((11, 1), 0.25).double())
    spread = LitMCDropoutMLP(3, 1, 10, hidden_sizes=[7], dropout=0.2, tau=4.0)
    assert spread.predictive(torch.randn(11, 3)).epistemic_variance.min() > 0


def test_loss_is_gal_and_ghahramani_s():
    """Equation 7 of the paper times tau, with the masks left out by a rate of nearly 0."""
    num_train, tau, length_scale, rate = 17, 3.0, 0.7, 0.25
    model = LitMCDropoutMLP(
        3, 2, num_train, hidden_sizes=[7], dropout=rate, tau=tau, length_scale=length_scale
    ).double()
    batch = SupervisedBatch(torch.randn(7, 3).double(), torch.randn(7, 2).double())
    torch.manual_seed(0)
    outputs = model.net(batch.x)
    torch.manual_seed(0)
    loss = model.step(batch).loss
    first, last = model.net.layers
    unscaled = last.weight / (1 - rate)  # M, where the paper keeps units unscaled
    penalty = first.weight.square().sum() + first.bias.square().sum()
    penalty = penalty + (1 - rate) * unscaled.square().sum() + last.bias.square().sum()
    constant = torch.log(torch.tensor(2 * torch.pi / tau, dtype=torch.float64))  # two targets
    expected = 0.5 * tau * (outputs - batch.y).square().sum(1).mean() + constant
    expected = expected + length_scale**2 / (2 * num_train) * penalty
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("tau", [4.0, 0.25])  # the truth is 4
def test_linear_regression_under_masks_is_a_ridge_regression(tau):
    r"""Expected over the masks, a weight pays :math:`p/(1-p) \sum_n x_n^2` beside its prior."""
    num_train, rate, length_scale = 29, 0.2, 0.6
    x = torch.randn(num_train, 2, dtype=torch.float64) + torch.tensor([1.0, 0.0])
    y = x @ torch.tensor([[1.0], [-0.5]]).double() + 0.3 + 0.5 * torch.randn(num_train, 1).double()
    design = torch.cat([x, torch.ones(num_train, 1)], dim=1)
    masked = torch.cat([rate / (1 - rate) * x.square().sum(0), torch.zeros(1)])
    prior = length_scale**2 * torch.tensor([1 / (1 - rate), 1 / (1 - rate), 1.0])
    precision = tau * (design.T @ design + masked.diag()) + prior.diag()
    expected = torch.linalg.solve(precision, tau * design.T @ y)[:, 0]
    model = LitMCDropoutMLP(
        2,
        1,
        num_train,
        hidden_sizes=[],
        input_dropout=rate,
        tau=tau,
        length_scale=length_scale,
        num_draws=20_000,
    ).double()
    layer = model.net.layers[0]
    with torch.no_grad():
        layer.weight.copy_(expected[:2])
        layer.bias.copy_(expected[2])
    repeats = 20_000
    model.step(SupervisedBatch(x.repeat(repeats, 1), y.repeat(repeats, 1))).loss.backward()
    slope = num_train * torch.cat([layer.weight.grad[0], layer.bias.grad])
    step = torch.linalg.solve(precision, slope)  # Newton's, from here to the minimum
    assert step.abs().max() < 0.005
    assert (expected - torch.linalg.lstsq(design, y).solution[:, 0]).abs().max() > 0.02
    spread = model.predictive(x).epistemic_variance[:, 0]
    exact = rate / (1 - rate) * x.square() @ expected[:2].square()
    torch.testing.assert_close(spread, exact, rtol=0.05, atol=0)


def test_predictions_do_not_depend_on_mode_batch_or_call():
    model = LitMCDropoutMLPClassifier(3, 4, 13, hidden_sizes=[5], dropout=0.5, num_draws=7)
    x = torch.randn(11, 3)
    whole = model.eval().predictive(x).logits
    torch.testing.assert_close(model.train().predictive(x[3:5]).logits, whole[:, 3:5])
    assert whole.std(0).max() > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"tau": 0.0},
        {"length_scale": -1.0},
        {"dropout": 1.0},
        {"input_dropout": -0.1},
        {"num_draws": 0},
        {"hidden_sizes": [0]},
    ],
)
def test_wrong_arguments_are_named(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        LitMCDropoutMLP(3, 1, 10, **wrong)
