"""BERT against Hugging Face's, with padding and segments, its defining property, its losses."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from datamodules.batches import TokenBatch
from lit_models import LitBERT, LitBERTClassifier
from lit_models.bert import BERT, BERTForPreTraining, Block, EncoderConfig
from lit_models.weights.hugging_face import save_pretrained
from lit_models.weights.pretrained import load_pretrained

transformers = pytest.importorskip("transformers")
V, T, D, L, H = 37, 11, 20, 3, 5
CONFIG = EncoderConfig(vocab_size=V, context_length=T, d_model=D, num_layers=L, num_heads=H)


@pytest.fixture(scope="module")
def hugging_face():
    """A random BERT whose every weight is far from its initial value."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=V,
        hidden_size=D,
        num_hidden_layers=L,
        num_attention_heads=H,
        intermediate_size=4 * D,
        max_position_embeddings=T,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = transformers.BertForPreTraining(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def folder(hugging_face, tmp_path_factory):
    path = tmp_path_factory.mktemp("bert")
    hugging_face.save_pretrained(path)
    return path


def network():
    return BERTForPreTraining(BERT(CONFIG)).eval()


def batch_of(rows=5):
    tokens = torch.randint(V, (rows, T))
    segments = (torch.arange(T) >= torch.randint(3, 8, (rows, 1))).long()
    mask = torch.arange(T) < torch.randint(8, T + 1, (rows, 1))
    labels = torch.where((torch.rand(rows, T) < 0.4) & mask, tokens, -100)
    return TokenBatch(tokens, labels, segments, torch.randint(2, (rows,)), mask)


def test_logits_and_losses_equal_hugging_face(hugging_face, folder):
    model = LitBERT(V, T, True, D, L, H, pretrained=str(folder)).eval()
    batch = batch_of()
    with torch.no_grad():
        expected = hugging_face(
            batch.tokens,
            attention_mask=batch.mask.long(),
            token_type_ids=batch.segments,
            labels=batch.labels,
            next_sentence_label=1 - batch.is_next,
        )
        logits, next_logits = model.net(batch.tokens, batch.segments, batch.mask)
        output = model.step(batch)
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(logits, expected.prediction_logits, **close)
    torch.testing.assert_close(next_logits, expected.seq_relationship_logits, **close)
    torch.testing.assert_close(output.total, expected.loss, **close)
    assert output.num_targets == (batch.labels >= 0).sum()
    torch.testing.assert_close(output.preds, logits[batch.labels >= 0], **close)


def test_weights_written_back_are_the_same(folder, tmp_path):
    net = network()
    load_pretrained(net, str(folder))
    save_pretrained(net, tmp_path)
    loaded = transformers.BertForPreTraining.from_pretrained(tmp_path).eval()
    tokens = torch.randint(V, (2, T))
    with torch.no_grad():
        logits, next_logits = net(tokens)
        expected = loaded(tokens)
    torch.testing.assert_close(logits, expected.prediction_logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(next_logits, expected.seq_relationship_logits, rtol=1e-5, atol=1e-5)


def test_masked_model_is_written_as_one(tmp_path):
    net = BERTForPreTraining(BERT(CONFIG), next_sentence=False).eval()
    save_pretrained(net, tmp_path)
    loaded = transformers.BertForMaskedLM.from_pretrained(tmp_path).eval()
    tokens = torch.randint(V, (2, T))
    with torch.no_grad():
        torch.testing.assert_close(loaded(tokens).logits, net(tokens)[0], rtol=1e-5, atol=1e-5)


def test_classifier_equals_hugging_face(hugging_face, folder, tmp_path):
    hugging_face.bert.save_pretrained(tmp_path)  # a body alone, its names without a prefix
    ours = LitBERTClassifier(V, T, 3, D, L, H, pretrained=str(tmp_path)).eval()
    config = transformers.AutoConfig.from_pretrained(folder, num_labels=3)
    theirs = transformers.BertForSequenceClassification(config).eval()
    theirs.bert.load_state_dict(hugging_face.bert.state_dict())
    theirs.classifier.load_state_dict(ours.net.head.state_dict())
    batch = batch_of()._replace(y=torch.randint(3, (5,)))
    with torch.no_grad():
        expected = theirs(
            batch.tokens,
            attention_mask=batch.mask.long(),
            token_type_ids=batch.segments,
            labels=batch.y,
        )
        output = ours.step(batch)
    torch.testing.assert_close(output.preds, expected.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.loss, expected.loss, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("norm_first", [True, False])
def test_bidirectionality_by_gradient(norm_first):
    blocks = [Block(replace(CONFIG, norm_first=norm_first)).double() for _ in range(2)]
    for block in blocks:
        for parameter in block.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, T, D, dtype=torch.float64, requires_grad=True)
    real = torch.ones(2, T, dtype=torch.bool)
    real[0, 8:] = False
    for t in (0, 4, 7):
        out = x
        for block in blocks:
            out = block(out, real[:, None, None])
        (gradient,) = torch.autograd.grad(out[0, t].norm(), x)
        seen = gradient.abs().sum(-1)
        assert (seen[0, :8] > 0).all()
        assert (seen[0, 8:] == 0).all()
        assert (seen[1] == 0).all()


def test_pre_norm_is_the_formula():
    block = Block(replace(CONFIG, norm_first=True)).double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(3, T, D, dtype=torch.float64)
    layer = torch.nn.TransformerEncoderLayer(
        D, H, 4 * D, 0.0, "gelu", 1e-12, batch_first=True, norm_first=True
    ).double()
    layer.self_attn.in_proj_weight.data = block.attention.in_proj.weight.data
    layer.self_attn.in_proj_bias.data = block.attention.in_proj.bias.data
    layer.self_attn.out_proj.load_state_dict(block.attention.out_proj.state_dict())
    layer.linear1.load_state_dict(block.feed_forward[0].state_dict())
    layer.linear2.load_state_dict(block.feed_forward[2].state_dict())
    layer.norm1.load_state_dict(block.norm1.state_dict())
    layer.norm2.load_state_dict(block.norm2.state_dict())
    torch.testing.assert_close(block(x), layer(x), rtol=1e-10, atol=1e-10)


def test_own_checkpoint_starts_a_classifier(tmp_path):
    path = tmp_path / "best.ckpt"
    source = LitBERT(V, T, True, D, L, H)
    torch.save({"state_dict": source.state_dict(), "hyper_parameters": {"num_heads": H}}, path)
    classifier = LitBERTClassifier(V, T, 3, D, L, H, pretrained=str(path))
    for name, value in classifier.net.bert.state_dict().items():
        assert torch.equal(value, source.net.bert.state_dict()[name]), name
    assert torch.equal(classifier.net.pooler.dense.weight, source.net.pooler.dense.weight)
    masked = LitBERT(V, T, False, D, L, H)
    torch.save({"state_dict": masked.state_dict()}, path)
    LitBERTClassifier(V, T, 3, D, L, H, pretrained=str(path))
    with pytest.raises(ValueError, match=r"lacks the weight 'pooler.dense.weight'"):
        LitBERT(V, T, True, D, L, H, pretrained=str(path))


def test_names_of_old_checkpoints(hugging_face, folder, tmp_path):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    old = {
        k.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): v
        for k, v in weights.items()
    }
    save_file(old, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    nets = [network(), network()]
    load_pretrained(nets[0], str(folder))
    load_pretrained(nets[1], str(tmp_path))
    tokens = torch.randint(V, (2, T))
    assert torch.equal(nets[0](tokens)[0], nets[1](tokens)[0])


def test_data_without_pairs_are_refused():
    model = LitBERT(V, T, True, D, L, H)
    batch = batch_of()._replace(is_next=None)
    with pytest.raises(ValueError, match=r"build with next_sentence=False"):
        model.step(batch)


def test_no_hidden_token_is_no_loss():
    model = LitBERT(V, T, False, D, L, H)
    tokens = torch.randint(V, (2, T))
    output = model.step(TokenBatch(tokens, torch.full_like(tokens, -100)))
    assert output.loss.item() == 0
    assert F.cross_entropy(model(tokens)[0], tokens[0]).isfinite()


@pytest.mark.parametrize(
    "entry", [{"is_decoder": True}, {"tie_word_embeddings": False}, {"type_vocab_size": 1}]
)
def test_a_folder_that_computes_otherwise_is_refused(folder, tmp_path, entry):
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **entry}))
    shutil.copy(folder / "model.safetensors", tmp_path)
    with pytest.raises(ValueError, match=f"has {next(iter(entry))}="):
        load_pretrained(network(), str(tmp_path))
