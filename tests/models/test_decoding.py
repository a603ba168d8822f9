"""Beam search against exhaustive search, on both models that use it."""

import itertools

import pytest
import torch

from datamodules.batches import BOS, EOS, PAD, SequencePairBatch
from lit_models.decoding.search import beam_search, decode, greedy_search, length_penalty
from lit_models.seq2seq import LitSeq2Seq
from lit_models.transformer import LitTransformer

B, S, V, T = 3, 5, 5, 4
MASK = torch.arange(S) < torch.tensor([[5], [2], [3]])


def models():
    sizes = {"src_vocab_size": V, "tgt_vocab_size": V, "max_length": T + 1}
    yield LitSeq2Seq(**sizes, attention="luong", embedding_size=7, hidden_size=6)
    yield LitSeq2Seq(**sizes, attention="bahdanau", cell="gru", embedding_size=7, hidden_size=6)
    yield LitTransformer(**sizes, d_model=6, num_heads=2, dim_feedforward=7, dropout=0.0)


@pytest.fixture(params=range(3), ids=["luong", "bahdanau", "transformer"])
def model(request):
    torch.manual_seed(request.param)
    model = list(models())[request.param].double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=1.1)
    return model


def source():
    return torch.randint(3, V, (B, S))


def every_target():
    """All token sequences that end in EOS, or are as long as allowed."""
    open_tokens = [token for token in range(V) if token != EOS]
    for length in range(1, T + 1):
        for body in itertools.product(open_tokens, repeat=length - 1):
            yield (*body, EOS)
    yield from itertools.product(open_tokens, repeat=T)


def log_prob(model, src, mask, target):
    prefix = torch.tensor([[BOS, *target[:-1]]])
    scores = model(src, mask, prefix).log_softmax(-1)[0]
    return sum(scores[t, token] for t, token in enumerate(target))


@torch.no_grad()
def test_a_wide_beam_is_exhaustive_also_below_the_best(model):
    src, num_best = source(), 6
    targets = list(every_target())
    for row in range(B):
        src_row, mask = src[row : row + 1, MASK[row]], torch.ones(1, int(MASK[row].sum())).bool()
        logs = [float(log_prob(model, src_row, mask, y)) for y in targets]
        for alpha in (0.0, 1.3, -1.5):
            state = model.net.start(src_row, mask, V**T)
            found = beam_search(model.net.decode_step, state, 1, V**T, T, alpha, num_best)
            scores = [
                log / ((5 + len(y)) / 6) ** alpha for log, y in zip(logs, targets, strict=True)
            ]
            every = sorted(zip(scores, targets, strict=True), reverse=True)
            width = found.tokens.shape[-1]
            for rank, (score, target) in enumerate(every[:num_best]):
                expected = [*target, *[PAD] * (width - len(target))]
                assert found.tokens[0, rank].tolist() == expected
                assert found.scores[0, rank].item() == pytest.approx(score, abs=1e-12)


@torch.no_grad()
def test_several_targets_are_predicted_with_their_scores(model):
    model.num_beams, model.num_best, src = 7, 3, source()
    tgt = torch.full((B, 3), EOS)
    batch = SequencePairBatch(src, tgt, MASK, torch.ones_like(tgt, dtype=torch.bool))
    columns = model.predict_step(batch)
    assert list(columns) == [
        *("prediction", "prediction_2", "prediction_3", "target"),
        *("score_1", "score_2", "score_3"),
    ]
    whole = model.generate(src, MASK, 7)
    assert torch.equal(columns["prediction"][:, : whole.shape[1]], whole)
    for row in range(B):
        src_row, mask = src[row : row + 1, MASK[row]], torch.ones(1, int(MASK[row].sum())).bool()
        second = columns["prediction_2"][row].tolist()
        ended = second[: second.index(EOS) + 1] if EOS in second else second[:T]
        expected = log_prob(model, src_row, mask, ended).item()
        assert columns["score_2"][row].item() == pytest.approx(expected, abs=1e-10)
    assert (columns["score_1"] >= columns["score_2"]).all()
    with pytest.raises(ValueError, match=r"num_best must lie in \[1, num_beams=2\], got 3"):
        LitTransformer(V, V, T, num_beams=2, num_best=3)


def test_one_beam_is_greedy(model):
    src = source()
    beam = beam_search(model.net.decode_step, model.net.start(src, MASK), B, 1, T).tokens[:, 0]
    greedy = greedy_search(model.net.decode_step, model.net.start(src, MASK), B, T)
    assert torch.equal(beam, greedy)
    assert torch.equal(model.generate(src, MASK), greedy)
    token = torch.full((B, 1), BOS)
    for t in range(greedy.shape[1]):
        expected = model(src, MASK, token)[:, -1].argmax(-1)
        open_rows = ~(token == EOS).any(1)
        assert torch.equal(greedy[open_rows, t], expected[open_rows])
        token = torch.cat([token, greedy[:, t : t + 1]], dim=1)


def test_sources_and_beams_are_batched_independently(model):
    src = source()
    whole = model.generate(src, MASK, num_beams=3)
    for row in range(B):
        mask = torch.ones(1, int(MASK[row].sum()), dtype=torch.bool)
        alone = model.generate(src[row : row + 1, MASK[row]], mask, num_beams=3)[0]
        kept = whole[row][whole[row] != PAD] if EOS in whole[row] else whole[row]
        assert alone[: len(kept)].tolist() == kept.tolist()


class Chain:
    """A first-order chain as a decoder: the state is nothing."""

    device = torch.device("cpu")

    def __init__(self, log_prob):
        self.log_prob = log_prob
        self.calls = 0

    def reorder(self, rows):
        pass

    def step(self, token, state):
        self.calls += 1
        return self.log_prob[token], state


def test_a_beam_finds_what_greedy_misses():
    prob = torch.full((5, 5), 1e-9)
    prob[BOS, 3], prob[BOS, 4] = 0.6, 0.4
    prob[3] = torch.tensor([1e-9, 1e-9, 0.34, 0.33, 0.33])
    prob[4, EOS] = 1.0
    chain = Chain(prob.log())
    assert decode(chain.step, chain, 1, 1, 9).tolist() == [[3, EOS]]
    assert decode(chain.step, chain, 1, 2, 9)[0, :2].tolist() == [4, EOS]


def test_the_penalty_prefers_longer_sequences():
    prob = torch.full((5, 5), 1e-9)
    prob[BOS, EOS], prob[BOS, 3] = 0.55, 0.45
    prob[3, 4] = prob[4, EOS] = 1.0
    chain = Chain(prob.log())
    assert decode(chain.step, chain, 1, 2, 9, alpha=0.0)[0, 0] == EOS
    assert decode(chain.step, chain, 1, 2, 9, alpha=2.0)[0, :3].tolist() == [3, 4, EOS]
    assert length_penalty(torch.tensor(7.0), 0.5).item() == pytest.approx(2**0.5)


def test_search_stops_when_nothing_can_win():
    prob = torch.full((5, 5), 1e-9)
    prob[BOS, EOS], prob[BOS, 3], prob[3, 3] = 0.9, 0.1, 1.0
    chain = Chain(prob.log())
    decode(chain.step, chain, 1, 2, 1000)
    assert chain.calls == 1
