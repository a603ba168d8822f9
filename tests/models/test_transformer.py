"""The Transformer against torch's layers, its own cache, and the rules of its masks."""

import math

import pytest
import torch

from datamodules.batches import BOS, SequencePairBatch
from lit_models.transformer import (
    DecoderLayer,
    EncoderLayer,
    LitTransformer,
    SinusoidalPositions,
    Transformer,
)

B, S, T, D, H, F = 3, 7, 5, 12, 3, 17
SOURCES = torch.arange(S) < torch.tensor([[7], [4], [1]])
TARGETS = torch.arange(T) < torch.tensor([[5], [2], [3]])


def copy(attention, theirs):
    theirs.in_proj_weight.data = attention.in_proj.weight.data
    theirs.in_proj_bias.data = attention.in_proj.bias.data
    theirs.out_proj = attention.out_proj


def randomise(module):
    """Norms start as identities and biases at zero, which would hide a missing one."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return module.double().eval()


@pytest.mark.parametrize("norm_first", [True, False])
def test_encoder_layer_equals_torch(norm_first):
    ours = randomise(EncoderLayer(D, H, F, 0.0, norm_first))
    theirs = torch.nn.TransformerEncoderLayer(
        D, H, F, 0.0, batch_first=True, norm_first=norm_first, dtype=torch.float64
    )
    copy(ours.self_attention, theirs.self_attn)
    theirs.linear1, theirs.linear2 = ours.feed_forward[0], ours.feed_forward[2]
    theirs.norm1, theirs.norm2 = ours.self_residual.norm, ours.feed_forward_residual.norm
    x = torch.randn(B, S, D).double()
    expected = theirs.train()(x, src_key_padding_mask=~SOURCES)
    actual = ours(x, SOURCES[:, None, None])
    torch.testing.assert_close(actual[SOURCES], expected[SOURCES], rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm_first", [True, False])
def test_decoder_layer_equals_torch(norm_first):
    ours = randomise(DecoderLayer(D, H, F, 0.0, norm_first))
    theirs = torch.nn.TransformerDecoderLayer(
        D, H, F, 0.0, batch_first=True, norm_first=norm_first, dtype=torch.float64
    )
    copy(ours.self_attention, theirs.self_attn)
    copy(ours.cross_attention, theirs.multihead_attn)
    theirs.linear1, theirs.linear2 = ours.feed_forward[0], ours.feed_forward[2]
    theirs.norm1, theirs.norm2 = ours.self_residual.norm, ours.cross_residual.norm
    theirs.norm3 = ours.feed_forward_residual.norm
    x, memory = torch.randn(B, T, D).double(), torch.randn(B, S, D).double()
    later = ~torch.ones(T, T, dtype=torch.bool).tril()
    expected = theirs.train()(x, memory, tgt_mask=later, memory_key_padding_mask=~SOURCES)
    actual, weights = ours(x, memory, SOURCES[:, None, None], need_weights=True)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, H, T, dtype=torch.float64))
    assert (weights[1, :, :, 4:] == 0).all()


def test_positions_follow_the_formula():
    table = SinusoidalPositions(7, 11)(11)
    for position in range(11):
        for i in range(7):
            angle = position / 10_000 ** (2 * (i // 2) / 7)
            expected = math.cos(angle) if i % 2 else math.sin(angle)
            assert table[position, i].item() == pytest.approx(expected, abs=1e-6)


def net(norm_first=True, tie="none"):
    sizes = {"d_model": D, "num_heads": H, "dim_feedforward": F, "dropout": 0.0}
    layers = {"num_encoder_layers": 2, "num_decoder_layers": 2}
    model = Transformer(13, 13, 11, **sizes, **layers, norm_first=norm_first, tie_embeddings=tie)
    return model.double().eval()


def tokens(length, rows=B):
    return torch.randint(3, 13, (rows, length))


def test_a_layer_stack_equals_torch():
    """Embedding scale, positions, final norms and projection around torch's whole Transformer."""
    ours = randomise(net())
    theirs = torch.nn.Transformer(
        D, H, 2, 2, F, 0.0, batch_first=True, norm_first=True, dtype=torch.float64
    )
    for mine, other in zip(ours.encoder, theirs.encoder.layers, strict=True):
        copy(mine.self_attention, other.self_attn)
        other.linear1, other.linear2 = mine.feed_forward[0], mine.feed_forward[2]
        other.norm1, other.norm2 = mine.self_residual.norm, mine.feed_forward_residual.norm
    for mine, other in zip(ours.decoder, theirs.decoder.layers, strict=True):
        copy(mine.self_attention, other.self_attn)
        copy(mine.cross_attention, other.multihead_attn)
        other.linear1, other.linear2 = mine.feed_forward[0], mine.feed_forward[2]
        other.norm1, other.norm2 = mine.self_residual.norm, mine.cross_residual.norm
        other.norm3 = mine.feed_forward_residual.norm
    theirs.encoder.norm, theirs.decoder.norm = ours.encoder_norm, ours.decoder_norm
    src, tgt = tokens(S), tokens(T)
    table = ours.positions.table.double()
    x = ours.src_embedding(src) * math.sqrt(D) + table[:S]
    y = ours.tgt_embedding(tgt) * math.sqrt(D) + table[:T]
    later = ~torch.ones(T, T, dtype=torch.bool).tril()
    states = theirs.train()(
        x, y, tgt_mask=later, src_key_padding_mask=~SOURCES, memory_key_padding_mask=~SOURCES
    )
    expected = states @ ours.out_proj.weight.T
    torch.testing.assert_close(ours(src, SOURCES, tgt)[0], expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("norm_first", [True, False])
def test_cached_decoding_equals_the_whole_prefix(norm_first):
    model = net(norm_first)
    src, tgt = tokens(S), tokens(9)
    state = model.start(src, SOURCES)
    steps = []
    for token in tgt.unbind(1):
        logits, state = model.decode_step(token, state)
        steps.append(logits)
    whole = model(src, SOURCES, tgt)[0]
    torch.testing.assert_close(torch.stack(steps, 1), whole, rtol=0, atol=1e-12)


def test_no_output_depends_on_a_later_target():
    model = net()
    embedded = []
    model.tgt_embedding.register_forward_hook(
        lambda module, args, out: embedded.append(out.requires_grad_()) or out
    )
    logits = model(tokens(S), SOURCES, tokens(T))[0]
    for t in range(T):
        (gradient,) = torch.autograd.grad(logits[:, t].sum(), embedded[0], retain_graph=True)
        assert (gradient[:, t + 1 :] == 0).all()
        assert (gradient[:, t] != 0).any()


def test_padding_never_changes_a_result():
    model = net()
    src, tgt = tokens(S), tokens(T)
    whole = model(src, SOURCES, tgt)[0]
    for row in range(B):
        num_src, num_tgt = int(SOURCES[row].sum()), int(TARGETS[row].sum())
        alone = model(
            src[row : row + 1, :num_src],
            torch.ones(1, num_src, dtype=torch.bool),
            tgt[row : row + 1, :num_tgt],
        )[0]
        torch.testing.assert_close(whole[row, :num_tgt], alone[0], rtol=0, atol=1e-12)


def test_tied_embeddings_are_one_matrix():
    counts = {tie: len(list(net(tie=tie).parameters())) for tie in ("none", "output", "all")}
    assert counts["none"] - counts["output"] == 1
    assert counts["output"] - counts["all"] == 1
    model = net(tie="all")
    assert model.out_proj.weight is model.tgt_embedding.weight is model.src_embedding.weight


def test_smoothed_loss_of_a_batch():
    model = LitTransformer(13, 13, 11, d_model=D, num_heads=H, label_smoothing=0.2).double()
    tgt = torch.tensor([[BOS, 5, 7, 2], [BOS, 4, 2, 0], [BOS, 9, 2, 0]])
    batch = SequencePairBatch(tokens(S), tgt, SOURCES, tgt != 0)
    model.net.eval()
    log_prob = model(batch.src, SOURCES, tgt[:, :-1]).log_softmax(-1)
    nll = smoothed = 0.0
    for row in range(B):
        for t in range(int((tgt[row] != 0).sum()) - 1):
            own = log_prob[row, t, tgt[row, t + 1]]
            nll = nll - own
            smoothed = smoothed - 0.8 * own - 0.2 * log_prob[row, t].mean()
    output = model.step(batch)
    assert int(output.num_targets) == 4  # end signs are paid for, not counted
    torch.testing.assert_close(output.loss, smoothed / 4)
    torch.testing.assert_close(model.eval().step(batch).loss, nll / 4)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="num_heads must divide d_model=64, got 5"):
        LitTransformer(13, 13, 11, num_heads=5)
    with pytest.raises(ValueError, match="tie_embeddings=all needs one vocabulary, got 13 source"):
        LitTransformer(13, 14, 11, tie_embeddings="all")
    with pytest.raises(ValueError, match="num_beams must be positive, got 0"):
        LitTransformer(13, 13, 11, num_beams=0)
    with pytest.raises(ValueError, match="position 11 lies beyond max_length=11"):
        net()(tokens(12), torch.ones(B, 12, dtype=torch.bool), tokens(T))
