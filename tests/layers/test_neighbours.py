"""Votes of near rows: their means, what a training row may not see, and far rows."""

import pytest
import torch
from sklearn.linear_model import LinearRegression

from lit_models.layers import neighbours
from lit_models.layers.neighbours import NeighbourVotes


def rows(n=300, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 2, generator=rng) * 4 - 2
    return x, torch.sin(2 * x[:, :1]) + 0.1 * torch.randn(n, 1, generator=rng)


def test_means_are_those_of_the_formula():
    x, y = rows(40)
    votes = NeighbourVotes(1, is_log=False)
    weight = torch.rand(40)
    votes.fit(x, y, weight)
    at = torch.tensor([[0.3, -0.7], [90.0, 90.0]])
    prior = (weight @ y) / weight.sum()
    for k, ratio in enumerate((4, 1, 0.25)):
        kernel = (-(at[:1] - x).abs().sum(1) / (ratio * votes.width)).exp() * weight
        expected = (kernel @ y + 0.01 * prior) / (kernel.sum() + 0.01) - prior
        torch.testing.assert_close(votes(at)[0, k], expected[0], rtol=1e-4, atol=1e-5)
    assert votes(at)[1].abs().max() < 1e-6


def test_shares_of_classes_are_logarithms():
    x, _ = rows()
    target = torch.nn.functional.one_hot((x[:, 0] > 0).long(), 2)
    votes = NeighbourVotes(2, is_log=True)
    votes.fit(x, target)
    shares = (votes(torch.tensor([[1.5, 0.0]]))[0] + votes.prior.log().repeat(3)).exp()
    torch.testing.assert_close(shares.view(3, 2).sum(1), torch.ones(3))
    assert shares[3] > 0.95


def test_a_training_row_tells_nothing_of_its_own_target():
    x, _ = rows()
    noise = torch.randn(300, 1, generator=torch.Generator().manual_seed(1))
    votes = NeighbourVotes(1, is_log=False)
    votes.fit(x, noise)
    seen, blind = votes(x), votes.whole(x, noise)
    fit = [LinearRegression().fit(v.numpy(), noise.numpy()).score(v, noise) for v in (seen, blind)]
    assert fit[0] > 0.5
    assert fit[1] < 0.05
    torch.testing.assert_close(votes(x[:7], noise[:7]), blind[:7])


def test_a_copy_votes_and_an_unknown_row_is_judged_by_all():
    x, y = rows()
    doubled = torch.cat([x, x]), torch.cat([y, y])
    votes = NeighbourVotes(1, is_log=False)
    votes.fit(*doubled)
    error = (votes(x, y)[:, 2:] + votes.prior - y).abs()
    assert (error < 0.1).double().mean() > 0.8
    new = torch.tensor([[0.123, 0.456]])
    torch.testing.assert_close(votes(new, torch.zeros(1, 1)), votes(new))


@pytest.mark.parametrize("x", [torch.zeros(20, 2), torch.zeros(1, 2)])
def test_equal_rows_have_no_vote(x):
    votes = NeighbourVotes(1, is_log=False)
    votes.fit(x, torch.arange(float(len(x))).unsqueeze(1))
    assert len(votes.rows) == 0
    assert votes(torch.ones(3, 2)).shape == (3, 3)
    assert not votes(torch.ones(3, 2)).any()


def test_many_rows_are_left_to_the_network(monkeypatch):
    monkeypatch.setattr(neighbours, "_MAX_ROWS", 100)
    votes = NeighbourVotes(1, is_log=False)
    votes.fit(*rows(101))
    assert len(votes.rows) == 0
    votes.fit(*rows(100))
    assert sorted(votes.rows[:, 0].tolist()) == sorted(rows(100)[0][:, 0].tolist())
    assert votes.width > 0


def test_an_exported_graph_knows_the_rows():
    votes = NeighbourVotes(1, is_log=False)
    votes.fit(*rows(50))
    x = rows(8, seed=1)[0]
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(votes, (x,), dynamic_shapes=({0: batch},))
    torch.testing.assert_close(program.module()(x[:5]), votes(x[:5]))
    assert "cdist" not in str(program.graph)
