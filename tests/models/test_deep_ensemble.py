"""Members trained in one pass against members trained alone."""

import pytest
import torch
from torch.nn import functional as F

from datamodules.batches import SupervisedBatch
from lit_models import LitDeepEnsemble, LitDeepEnsembleClassifier
from lit_models.deep_ensemble import Ensemble, row_shares
from lit_models.mlp import MLP

NUM_MEMBERS = 3


def alone(net, s, *sizes):
    """Member s as a perceptron of its own."""
    member = MLP(*sizes).double()
    weights = dict(zip(net.names, net.members, strict=True))
    member.load_state_dict({name: value[s].detach().clone() for name, value in weights.items()})
    return member


def test_one_pass_equals_the_loop():
    net = Ensemble(NUM_MEMBERS, 3, [7, 5], 2).double()
    x = torch.randn(13, 3, dtype=torch.float64)
    outputs = net(x)
    for s in range(NUM_MEMBERS):
        member = alone(net, s, 3, [7, 5], 2)
        torch.testing.assert_close(outputs[s], member(x), rtol=1e-12, atol=1e-12)
    assert (outputs[0] - outputs[1]).abs().min() > 0
    assert sum(p.numel() for p in net.parameters()) == 3 * sum(
        p.numel() for p in member.parameters()
    )


def test_training_together_is_training_alone():
    model = LitDeepEnsemble(3, 1, NUM_MEMBERS, hidden_sizes=[7]).double()
    batch = SupervisedBatch(torch.randn(13, 3).double(), torch.randn(13, 1).double())
    members = [alone(model.net, s, 3, [7], 2) for s in range(NUM_MEMBERS)]
    # The loss is a mean over members, so that each learns at a share of the rate.
    together = torch.optim.SGD(model.parameters(), lr=0.05 * NUM_MEMBERS)
    for _ in range(20):
        together.zero_grad()
        model.step(batch).loss.backward()
        together.step()
    for s, member in enumerate(members):
        optimizer = torch.optim.SGD(member.parameters(), lr=0.05)
        for _ in range(20):
            optimizer.zero_grad()
            mean, raw = member(batch.x).chunk(2, dim=-1)
            variance = F.softplus(raw) + 1e-6
            F.gaussian_nll_loss(mean, batch.y, variance, eps=1e-12).backward()
            optimizer.step()
        for name, stacked in zip(model.net.names, model.net.members, strict=True):
            expected = member.get_parameter(name)
            torch.testing.assert_close(stacked[s], expected, rtol=1e-10, atol=1e-12)


def fitted_lines(leave_out):
    """Linear members at the minimum of their loss, their rows, and the noise they say."""
    x = torch.randn(29, 2, dtype=torch.float64)
    y = x @ torch.tensor([[1.0], [-0.5]]).double() + 0.3 + 0.5 * torch.randn(29, 1).double()
    batch = SupervisedBatch(x, y)
    options = {"hidden_sizes": [], "noise": "constant", "leave_out": leave_out}
    model = LitDeepEnsemble(2, 1, NUM_MEMBERS, **options).double()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = model.step(batch).loss
        loss.backward()
        return loss

    optimizer.step(closure)
    for _ in range(60):
        model.refresh(SupervisedBatch(x[n::4], y[n::4]) for n in range(4))
    return model.predictive(x), x, y


def least_squares(x, y, rows):
    design = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    return design @ torch.linalg.lstsq(design[rows], y[rows]).solution


def test_linear_members_agree_on_least_squares():
    """One optimum for all: they say what was left of the rows, and nothing of the weights."""
    mixture, x, y = fitted_lines(leave_out=False)
    fitted = least_squares(x, y, slice(None))
    expected = fitted.expand(NUM_MEMBERS, -1, -1)
    torch.testing.assert_close(mixture.means, expected, rtol=0, atol=1e-3)
    assert mixture.epistemic_variance.max() < 1e-6
    noise = mixture.aleatoric_variance[0, 0]
    torch.testing.assert_close(noise, (y - fitted).square().mean(), rtol=1e-4, atol=0)


def test_each_member_fits_the_rows_it_sees_and_the_others_tell_the_noise():
    mixture, x, y = fitted_lines(leave_out=True)
    share = row_shares(x, NUM_MEMBERS)
    seen, unseen = [], []
    for s in range(NUM_MEMBERS):
        line = least_squares(x, y, share != s)
        torch.testing.assert_close(mixture.means[s], line, rtol=0, atol=1e-3)
        seen.append((y - line)[share != s].square())
        unseen.append((y - line)[share == s].square())
    expected = (torch.cat(seen).mean() * torch.cat(unseen).mean()).sqrt()
    assert torch.cat(unseen).mean() > torch.cat(seen).mean()
    torch.testing.assert_close(mixture.aleatoric_variance[0, 0], expected, rtol=1e-3, atol=0)


def test_a_row_belongs_to_one_share_by_its_values():
    x = torch.cat([torch.linspace(-3, 3, 2000)[:, None], torch.ones(2000, 1)], dim=1)
    share = row_shares(x, 10)
    assert torch.equal(row_shares(x[700:900], 10), share[700:900])
    counts = torch.bincount(share, minlength=10)
    assert counts.min() > 140  # 200 ± 13 of independent shares
    assert counts.max() < 260


def test_variance_is_positive_and_in_the_units_of_the_data():
    model = LitDeepEnsemble(3, 2, NUM_MEMBERS, hidden_sizes=[7], min_std=0.01)
    model.y_scaler.std.copy_(torch.tensor([1.0, 100.0]))
    with torch.no_grad():
        model.net.members[-1][:, 2:] = -100.0  # raw variances far below 0
    stds = model.predictive(torch.randn(11, 3)).stds
    expected = torch.tensor([0.01, 1.0]).to(stds).expand_as(stds)
    torch.testing.assert_close(stds, expected, rtol=1e-4, atol=0)


def test_classifier_mixes_probabilities():
    model = LitDeepEnsembleClassifier(3, 4, NUM_MEMBERS, hidden_sizes=[5])
    batch = SupervisedBatch(torch.randn(11, 3), torch.randint(4, (11,)))
    logits = model.net(batch.x)
    expected = sum(F.cross_entropy(logits[s], batch.y) for s in range(NUM_MEMBERS)) / NUM_MEMBERS
    torch.testing.assert_close(model.step(batch).loss, expected)
    torch.testing.assert_close(model(batch.x).exp(), logits.softmax(-1).mean(0))


def test_members_keep_no_weights_outside_the_state():
    net = Ensemble(NUM_MEMBERS, 3, [7], 2)
    other = Ensemble(NUM_MEMBERS, 3, [7], 2)
    other.load_state_dict(net.state_dict())
    x = torch.randn(5, 3)
    assert torch.equal(net(x), other(x))


@pytest.mark.parametrize("wrong", [{"num_members": 0}, {"min_std": 0.0}, {"hidden_sizes": [0]}])
def test_wrong_arguments_are_named(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        LitDeepEnsemble(3, 1, **wrong)
