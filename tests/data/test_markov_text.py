"""Chains against enumeration of every sequence, entropy rates against simulation, corruption."""

import itertools
import math

import pytest
import torch

from datamodules import InputError, MarkovTextDataModule, TopicDocumentsDataModule
from datamodules.laws.markov_chain import MarkovChain
from datamodules.loading.masking import Corruption

V, T = 3, 5


def chain_of(order):
    return MarkovChain(V, order, 0.5, torch.Generator().manual_seed(order))


def probability(chain, sequence):
    """Of a whole sequence: stationary start, then one factor per token."""
    k = chain.order
    state = 0
    for token in sequence[:k]:
        state = state * V + token
    value = chain.stationary[state].item()
    for t in range(k, len(sequence)):
        value *= chain.transition[state, sequence[t]].item()
        state = (state * V + sequence[t]) % chain.num_states
    return value


@pytest.mark.parametrize("order", [1, 2, 3])
def test_probabilities_by_enumeration(order):
    chain = chain_of(order)
    sequences = torch.tensor(list(itertools.product(range(V), repeat=T)))
    weights = [probability(chain, s) for s in sequences.tolist()]
    weights = torch.tensor(weights, dtype=torch.float64)
    assert weights.sum().item() == pytest.approx(1, abs=1e-12)
    predicted = chain.next_probabilities(sequences)
    for t in range(T):
        for start in itertools.product(range(V), repeat=t):
            same = (sequences[:, :t] == torch.tensor(start)).all(1)
            expected = torch.stack([weights[same & (sequences[:, t] == v)].sum() for v in range(V)])
            expected = expected / expected.sum()
            row = same.nonzero()[0, 0]
            torch.testing.assert_close(predicted[row, t], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_smoothing_by_enumeration(order):
    chain = chain_of(order)
    emissions = torch.rand(2, T, V, dtype=torch.float64) + 0.05
    sequences = list(itertools.product(range(V), repeat=T))
    log_likelihood, others = chain.smooth(emissions)
    for n in range(2):
        joint = torch.tensor(
            [
                probability(chain, s) * math.prod(emissions[n, t, s[t]].item() for t in range(T))
                for s in sequences
            ],
            dtype=torch.float64,
        )
        assert log_likelihood[n].item() == pytest.approx(joint.sum().log().item(), abs=1e-9)
        for t in range(T):
            for v in range(V):
                posterior = joint[torch.tensor([s[t] == v for s in sequences])].sum() / joint.sum()
                expected = posterior / emissions[n, t, v]
                assert others[n, t, v].item() == pytest.approx(expected.item(), abs=1e-9)


@pytest.mark.parametrize("order", [1, 2])
def test_entropies_by_simulation(order):
    chain = chain_of(order)
    tokens = chain.sample(20_000, 30, torch.Generator().manual_seed(1))
    losses = -chain.next_probabilities(tokens).gather(2, tokens.unsqueeze(2)).squeeze(2).log()
    known = losses[:, order:]
    error = known.mean(1).std() / math.sqrt(len(known))
    assert abs(known.mean() - chain.entropy_rate) < 5 * error
    assert chain.conditional_entropy(order) == pytest.approx(chain.entropy_rate, abs=1e-12)
    assert losses[:, 0].mean().item() == pytest.approx(chain.conditional_entropy(0), abs=0.02)
    frequency = torch.bincount(tokens[:, -1], minlength=V) / len(tokens)
    torch.testing.assert_close(frequency.double(), chain.unigram, rtol=0, atol=0.02)
    assert chain.entropy_rate < chain.conditional_entropy(order - 1)


def test_corruption_frequencies():
    corruption = Corruption(mask_token=14, first_token=3, end_token=14, probability=0.15)
    tokens = torch.randint(0, 15, (2000, 60))
    shown, labels = corruption(tokens, torch.Generator().manual_seed(0))
    ordinary = (tokens >= 3) & (tokens < 14)
    chosen = labels != -100
    assert not (chosen & ~ordinary).any()
    assert torch.equal(shown[~chosen], tokens[~chosen])
    assert torch.equal(labels[chosen], tokens[chosen])

    def share(event, of):
        count = int(of.sum())
        return (event & of).sum().item() / count, math.sqrt(0.25 / count)

    same, masked = shown == tokens, shown == 14
    for event, of, expected in (
        (chosen, ordinary, 0.15),
        (masked, chosen, 0.8),
        (~masked & ~same, chosen, 0.1 * 10 / 11),
        (same, chosen, 0.1 + 0.1 / 11),
    ):
        found, error = share(event, of)
        assert abs(found - expected) < 5 * error
    random = shown[chosen & ~masked & ~same]
    counts = torch.bincount(random - 3, minlength=11)
    assert (counts > 0).all()
    assert counts.max() < 1.5 * counts.min()


def test_masked_optimum_by_enumeration():
    """The posterior of a chosen token, from every true text and every way to corrupt it."""
    data = MarkovTextDataModule(
        vocab_size=V, order=1, seq_len=3, objective="masked", num_test=8, mask_probability=0.3
    )
    chain, p = data.chain, 0.3
    any_token, chosen = data.corruption.emissions(torch.tensor([[V, 1, 0]]))
    found = chain.smooth(any_token)[1] * chosen
    found = found / found.sum(-1, keepdim=True)

    def channel(true, shown, is_chosen):
        if shown == V:
            return p * 0.8 if is_chosen else 0.0
        kept = p * (0.1 / V + 0.1 * (true == shown))
        return kept if is_chosen else (1 - p) * (true == shown)

    for t in range(3):
        scores = torch.zeros(V, dtype=torch.float64)
        for text in itertools.product(range(V), repeat=3):
            for pattern in itertools.product((False, True), repeat=3):
                if pattern[t]:
                    weight = probability(chain, text)
                    for i, shown in enumerate((V, 1, 0)):
                        weight *= channel(text[i], shown, pattern[i])
                    scores[text[t]] += weight
        torch.testing.assert_close(found[0, t], scores / scores.sum(), rtol=1e-9, atol=1e-12)


def test_causal_rows_and_optimum():
    data = MarkovTextDataModule(num_samples=30, num_test=40, seq_len=7, vocab_size=5)
    batch = next(iter(data.train_dataloader()))
    assert torch.equal(batch.tokens[:, 1:], batch.labels[:, :-1])
    assert data.vocab_size == 5
    assert data.context_length == 7
    expected = data.optimum["test/cross_entropy"].value
    test = data.split("test")
    tokens = torch.cat([test.tokens, test.labels[:, -1:]], dim=1)
    losses = [
        -math.log(row[token])
        for rows, text in zip(data.chain.next_probabilities(tokens), tokens, strict=True)
        for row, token in zip(rows[1:].tolist(), text[1:].tolist(), strict=True)
    ]
    assert expected == pytest.approx(sum(losses) / len(losses))
    other = MarkovTextDataModule(num_samples=30, num_test=40, seq_len=7, vocab_size=5, seed=1)
    assert not torch.equal(other.split("test").tokens, test.tokens)


def test_masking_is_fresh_in_every_epoch_and_the_same_on_every_rank():
    data = MarkovTextDataModule(5, 1, 11, "masked", num_samples=17, num_test=8, batch_size=5)
    loader = data.train_dataloader()

    def epoch(loader, number):
        loader.sampler.set_epoch(number)
        return list(loader)

    first, again, second = epoch(loader, 0), epoch(loader, 0), epoch(loader, 1)
    assert torch.equal(first[1].tokens, again[1].tokens)
    texts = [torch.where(b.labels >= 0, b.labels, b.tokens) for b in (first[0], second[0])]
    assert all((text < 5).all() for text in texts)
    assert not torch.equal(first[0].labels, second[0].labels)
    loader.sampler.set_epoch(1)
    iterator = iter(loader)
    next(iterator)
    resumed = data.train_dataloader()
    resumed.sampler.set_epoch(1)
    resumed.load_state_dict(loader.state_dict())
    for ours, expected in zip(resumed, iterator, strict=True):
        assert torch.equal(ours.tokens, expected.tokens)
        assert torch.equal(ours.labels, expected.labels)
    parts = []
    for rank in range(2):
        part = data.train_dataloader()
        part.rank, part.world_size = rank, 2
        parts.append(epoch(part, 0))
    for whole, one, two in zip(first, *parts, strict=True):
        assert torch.equal(whole.tokens[0::2], one.tokens)
        assert torch.equal(whole.labels[1::2], two.labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 1}, "vocab_size must be at least 2, got 1"),
        ({"seq_len": 2}, "seq_len must exceed order=2, got 2"),
        ({"vocab_size": 50, "order": 3}, "make 125,000 states"),
        ({"concentration": 0}, "concentration must be positive, got 0"),
        ({"mask_probability": 1.0}, r"mask_probability must lie in \(0, 1\), got 1.0"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(InputError, match=message):
        MarkovTextDataModule(**options)


def tiny_topics(task, **options):
    sizes = {"num_topics": 2, "num_words": 3, "sentence_len": 2, "num_documents": 20}
    return TopicDocumentsDataModule(task, **{**sizes, "num_test": 12, **options})


def test_pair_inference_by_enumeration():
    """Every topic, text, pairing and corruption of a four-word pair."""
    data, first = tiny_topics("masked", mask_probability=0.3), 5
    mask, p = 4, 0.3
    shown = torch.tensor([[2, first + 1, mask, 3, mask, first + 2, 3]])
    observed = [shown[0, i].item() for i in (1, 2, 4, 5)]
    batch = data.split("test")._replace(tokens=shown)
    found = data.infer(batch)
    any_word, _ = data.corruption.emissions(torch.tensor([observed]))

    def text_probability(chain, words):
        return math.prod(
            (chain.stationary[w] if i == 0 else chain.transition[words[i - 1], w]).item()
            for i, w in enumerate(words)
        )

    def channel(true, what):
        if what == mask:
            return p * 0.8
        return p * (0.1 / 3 + 0.1 * (true == what - first))

    likelihood = {True: 0.0, False: 0.0}
    chosen = torch.zeros(2, 3, dtype=torch.float64)  # words 0 and 2, the hidden ones
    for words in itertools.product(range(3), repeat=4):
        joint = sum(text_probability(c, words) / 2 for c in data.chains)
        apart = sum(text_probability(c, words[:2]) / 2 for c in data.chains) * sum(
            text_probability(c, words[2:]) / 2 for c in data.chains
        )
        for is_next, text in ((True, joint), (False, apart)):
            shows = [any_word[0, i, w].item() for i, w in enumerate(words)]
            likelihood[is_next] += text * math.prod(shows)
            for row, i in enumerate((0, 2)):
                others = math.prod(s for j, s in enumerate(shows) if j != i)
                chosen[row, words[i]] += 0.5 * text * others * channel(words[i], observed[i])
    expected = likelihood[True] / (likelihood[True] + likelihood[False])
    assert found.is_next.item() == pytest.approx(expected, abs=1e-9)
    for row, position in ((0, 1), (1, 4)):
        torch.testing.assert_close(
            found.words[0, position], chosen[row] / chosen[row].sum(), rtol=1e-9, atol=1e-12
        )


def test_causal_and_topic_optima_by_enumeration():
    data = tiny_topics("causal")
    for batch_task in ("causal", "classification"):
        test = tiny_topics(batch_task).split("test")
        words = (test.labels[:, :4] - 5).tolist()
        losses, topic_losses = [], []
        for row, text in enumerate(words):
            weights = [0.5, 0.5]
            for i, word in enumerate(text):
                rows = [
                    (c.stationary if i == 0 else c.transition[text[i - 1]])[word].item()
                    for c in data.chains
                ]
                mixed = sum(w * r for w, r in zip(weights, rows, strict=True))
                losses.append(-math.log(mixed))
                weights = [w * r / mixed for w, r in zip(weights, rows, strict=True)]
            if test.y is not None:
                topic_losses.append(-math.log(weights[test.y[row]]))
        expected = losses if batch_task == "causal" else topic_losses
        optimum = tiny_topics(batch_task).optimum["test/cross_entropy"].value
        assert optimum == pytest.approx(sum(expected) / len(expected), abs=1e-9)


def test_topic_rows():
    pairs = tiny_topics("masked", num_documents=2000, mask_probability=0.01, batch_size=2000)
    batch = next(iter(pairs.train_dataloader()))
    assert batch.tokens.shape == (2000, pairs.context_length) == (2000, 7)
    assert (batch.tokens[:, 0] == 2).all()
    assert (batch.tokens[:, [3, 6]] == 3).all()
    assert batch.segments[0].tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert batch.is_next.float().mean().item() == pytest.approx(0.5, abs=0.06)
    assert (batch.labels[:, [0, 3, 6]] == -100).all()
    causal = tiny_topics("causal").split("train")
    assert torch.equal(causal.tokens[:, 1:], causal.labels[:, :-1])
    labelled = tiny_topics("classification").split("train")
    assert torch.equal(labelled.tokens[:, 1:], labelled.labels[:, :-1])
    assert (labelled.tokens[:, -1] == 3).all()
    assert labelled.y.max() < 2
    with pytest.raises(InputError, match="num_topics must be at least 2, got 1"):
        tiny_topics("causal", num_topics=1)
