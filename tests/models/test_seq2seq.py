"""Recurrent sequence to sequence against its equations, written out in float64."""

import pytest
import torch

from datamodules.batches import BOS, SequencePairBatch
from lit_models.seq2seq import Attention, Decoder, Encoder, LitSeq2Seq, Seq2Seq

B, S, T, E, W, V = 3, 7, 5, 5, 6, 11
MASK = torch.arange(S) < torch.tensor([[7], [4], [1]])
KINDS = [
    ("none", "general", False),
    ("luong", "dot", False),
    ("luong", "general", True),
    ("luong", "concat", True),
    ("bahdanau", "concat", False),
]


def tokens(length):
    return torch.randint(3, V, (B, length))


def model(attention, score="general", input_feeding=True, cell="lstm", num_layers=1, **kwargs):
    encoder = Encoder(V, E, W, cell, num_layers, **kwargs)
    decoder = Decoder(V, E, W, cell, num_layers, attention, score, input_feeding)
    net = Seq2Seq(encoder, decoder)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.6)
    return net.double().eval()


def lstm_cell(cell, layer, x, h, c, suffix=""):
    """One step of an LSTM from torch's weights."""
    w, u, b, d = (
        getattr(cell, f"{name}_l{layer}{suffix}")
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    i, f, g, o = (w @ x + b + u @ h + d).chunk(4)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def encode(net, src):
    """States of one unpadded source, ``(S, W)``, and the summary: last forward, first backward."""
    x = net.encoder.embedding(src)
    halves = []
    for suffix, order in (("", range(len(src))), ("_reverse", reversed(range(len(src))))):
        h = c = torch.zeros(W // 2, dtype=torch.float64)
        states = [None] * len(src)
        for t in order:
            h, c = lstm_cell(net.encoder.cell, 0, x[t], h, c, suffix)
            states[t] = h
        halves.append(torch.stack(states))
    return torch.cat(halves, 1), torch.cat([halves[0][-1], halves[1][0]])


def score(attention, s, h):
    if attention.kind == "dot":
        return s @ h
    if attention.kind == "general":
        return s @ (attention.key.weight @ h)
    both = torch.cat([attention.query.weight, attention.key.weight], 1) @ torch.cat([s, h])
    return attention.energy.weight[0] @ torch.tanh(both + attention.query.bias)


def context(attention, s, states):
    weights = torch.stack([score(attention, s, h) for h in states]).softmax(0)
    return weights @ states, weights


def written_out(net, kind, input_feeding, src, tgt):
    """Logits and weights of one pair, token by token."""
    decoder = net.decoder
    states, summary = encode(net, src)
    s = torch.tanh(decoder.bridge[0].weight @ summary + decoder.bridge[0].bias)
    c, fed = torch.zeros_like(s), torch.zeros_like(s)
    logits, all_weights = [], []
    for token in tgt:
        y = decoder.embedding.weight[token]
        weights = None
        if kind == "none":
            s, c = lstm_cell(decoder.cell, 0, torch.cat([y, summary]), s, c)
            out = s
        elif kind == "luong":
            x = torch.cat([y, fed]) if input_feeding else y
            s, c = lstm_cell(decoder.cell, 0, x, s, c)
            mean, weights = context(decoder.attention, s, states)
            out = fed = torch.tanh(decoder.combine.weight @ torch.cat([mean, s]))
        else:
            mean, weights = context(decoder.attention, s, states)
            s, c = lstm_cell(decoder.cell, 0, torch.cat([y, mean]), s, c)
            out = torch.tanh(decoder.combine.weight @ torch.cat([mean, s, y]))
        logits.append(decoder.out_proj.weight @ out + decoder.out_proj.bias)
        all_weights.append(weights)
    return torch.stack(logits), all_weights


@pytest.mark.parametrize(("kind", "scoring", "feeding"), KINDS)
def test_equations(kind, scoring, feeding):
    net = model(kind, scoring, feeding)
    src, tgt = tokens(S), tokens(T)
    logits, weights = net(src, MASK, tgt)
    for row in range(B):
        length = int(MASK[row].sum())
        expected, expected_weights = written_out(net, kind, feeding, src[row, :length], tgt[row])
        torch.testing.assert_close(logits[row], expected, rtol=0, atol=1e-12)
        if kind == "none":
            assert weights is None
            continue
        found = weights[row, :, :length]
        torch.testing.assert_close(found, torch.stack(expected_weights), rtol=0, atol=1e-12)
        assert (weights[row, :, length:] == 0).all()


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_encoder_equals_torch_row_by_row(cell, bidirectional):
    net = Encoder(V, E, W, cell, 2, bidirectional).double()
    kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell]
    width = W // 2 if bidirectional else W
    theirs = kind(E, width, 2, batch_first=True, bidirectional=bidirectional).double()
    theirs.load_state_dict(net.cell.state_dict())
    src = tokens(S)
    states, summary = net(src, MASK)
    for row in range(B):
        length = int(MASK[row].sum())
        expected, last = theirs(net.embedding(src[row : row + 1, :length]))
        hidden = last[0] if cell == "lstm" else last
        torch.testing.assert_close(states[row, :length], expected[0], rtol=0, atol=1e-12)
        assert (states[row, length:] == 0).all()
        per_layer = hidden[:, 0].reshape(2, -1)
        torch.testing.assert_close(summary[:, row], per_layer, rtol=0, atol=1e-12)
        top = expected[0]
        ends = torch.cat([top[-1, :width], top[0, width:]])
        torch.testing.assert_close(summary[1, row], ends, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("kind", "scoring", "feeding"), KINDS)
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_token_by_token_equals_the_whole_target(kind, scoring, feeding, cell):
    net = model(kind, scoring, feeding, cell, num_layers=2)
    src, tgt = tokens(S), tokens(T)
    state, steps = net.start(src, MASK), []
    for token in tgt.unbind(1):
        logits, state = net.decode_step(token, state)
        steps.append(logits)
    whole, _ = net(src, MASK, tgt)
    torch.testing.assert_close(torch.stack(steps, 1), whole, rtol=0, atol=1e-12)
    forced = net.sample(src, MASK, tgt, teacher_forcing=1.0)
    torch.testing.assert_close(forced, whole, rtol=0, atol=1e-12)


def test_scheduled_sampling_feeds_the_likeliest_token():
    net = model("luong")
    src, tgt = tokens(S), tokens(T)
    free = net.sample(src, MASK, tgt, teacher_forcing=0.0)
    fed = torch.cat([tgt[:, :1], free.argmax(-1)[:, :-1]], dim=1)
    torch.testing.assert_close(net(src, MASK, fed)[0], free, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("kind", "scoring", "feeding"), KINDS)
def test_no_output_depends_on_a_later_target(kind, scoring, feeding):
    net = model(kind, scoring, feeding)
    embedded = []
    net.decoder.embedding.register_forward_hook(
        lambda module, args, out: embedded.append(out.requires_grad_()) or out
    )
    logits, _ = net(tokens(S), MASK, tokens(T))
    whole = embedded[0] if len(embedded) == 1 else None
    for t in range(T):
        if whole is not None:
            (gradient,) = torch.autograd.grad(logits[:, t].sum(), whole, retain_graph=True)
            later, own = gradient[:, t + 1 :], gradient[:, t]
        else:
            gradients = torch.autograd.grad(
                logits[:, t].sum(), embedded, retain_graph=True, allow_unused=True
            )
            later = torch.tensor([0.0 if g is None else g.abs().sum() for g in gradients[t + 1 :]])
            own = gradients[t]
        assert (later == 0).all()
        assert (own != 0).any()


def test_context_needs_both_ends():
    """The summary's backward half must have read the whole source (by gradient)."""
    encoder = Encoder(V, E, W, "lstm").double()
    embedded = []
    encoder.embedding.register_forward_hook(
        lambda module, args, out: embedded.append(out.requires_grad_()) or out
    )
    _, summary = encoder(tokens(S), torch.ones(B, S, dtype=torch.bool))
    for half in summary[0].chunk(2, dim=-1):
        (gradient,) = torch.autograd.grad(half.sum(), embedded[0], retain_graph=True)
        assert (gradient.abs().sum((0, 2)) > 0).all()


def test_teacher_forcing_follows_the_run():
    lit = LitSeq2Seq(V, V, T + 1, teacher_forcing=(1.0, 0.2))

    class Trainer:
        estimated_stepping_batches, global_step, validating = 11, 5, False

    lit._trainer = Trainer()
    assert lit.true_share == pytest.approx(0.6)
    assert lit.eval().true_share == 1
    tgt = torch.cat([torch.full((B, 1), BOS), tokens(T)], 1)
    batch = SequencePairBatch(tokens(S), tgt, MASK, torch.ones_like(tgt, dtype=torch.bool))
    plain = lit.step(batch).loss
    lit.train().teacher_forcing = (1.0, 1.0)
    torch.testing.assert_close(lit.step(batch).loss, plain)


def test_dot_scores_are_scaled_by_nothing():
    attention = Attention(W, "dot")
    assert list(attention.parameters()) == []
    states = torch.randn(B, S, W)
    _, weights = attention(states[:, :1], attention.keys(states), states, MASK)
    expected = (states[0] @ states[0, 0]).softmax(0)
    torch.testing.assert_close(weights[0, 0], expected)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="a bidirectional hidden_size must be even, got 7"):
        LitSeq2Seq(V, V, T, hidden_size=7)
    with pytest.raises(ValueError, match="num_layers must be at least 1, got 0"):
        LitSeq2Seq(V, V, T, num_layers=0)
    with pytest.raises(ValueError, match=r"teacher_forcing must lie in \[0, 1\]"):
        LitSeq2Seq(V, V, T, teacher_forcing=(1.0, 1.5))
