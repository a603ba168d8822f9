"""GPT against Hugging Face's GPT-2 and the formula, its defining property, and its two weights."""

import copy
import json
import math
import shutil

import pytest
import torch
from torch.nn import functional as F

from lit_models import AdamWMatrixDecay, LitGPT, LitGPTClassifier, LitGPTRegressor
from lit_models.gpt import GPT, Block, DecoderConfig
from lit_models.weights.hugging_face import save_pretrained
from lit_models.weights.pretrained import load_pretrained

transformers = pytest.importorskip("transformers")
V, T, D, L, H = 37, 11, 20, 3, 5
SIZES = {"context_length": T, "d_model": D, "num_layers": L, "num_heads": H}


def network(vocab_size=V, **options):
    return GPT(vocab_size, DecoderConfig(**{**SIZES, **options}))


@pytest.fixture(scope="module")
def hugging_face():
    """A random GPT-2 whose every weight, biases and norms too, is far from its initial value."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=V,
        n_positions=T,
        n_embd=D,
        n_layer=L,
        n_head=H,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=None,
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def folder(hugging_face, tmp_path_factory):
    path = tmp_path_factory.mktemp("gpt2")
    hugging_face.save_pretrained(path)
    return path


@pytest.fixture
def net(folder):
    net = network().eval()
    load_pretrained(net, str(folder))
    return net


def test_logits_and_loss_equal_hugging_face(hugging_face, net):
    tokens = torch.randint(V, (7, T))
    with torch.no_grad():
        expected = hugging_face(tokens, labels=tokens)
        logits = net(tokens)
    torch.testing.assert_close(logits, expected.logits, rtol=1e-5, atol=1e-5)
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    torch.testing.assert_close(loss, expected.loss, rtol=1e-5, atol=1e-5)


def test_gradients_equal_hugging_face(hugging_face, net):
    tokens = torch.randint(V, (3, T))
    theirs = copy.deepcopy(hugging_face)
    theirs(tokens, labels=tokens).loss.backward()
    F.cross_entropy(net(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    expected = theirs.transformer.wte.weight.grad  # tied: input and output meet here
    torch.testing.assert_close(net.token_embedding.weight.grad, expected, rtol=1e-4, atol=1e-5)


def test_weights_written_back_are_the_same(hugging_face, net, tmp_path):
    save_pretrained(net, tmp_path / "out")
    loaded = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "out").eval()
    tokens = torch.randint(V, (2, T))
    with torch.no_grad():
        torch.testing.assert_close(loaded(tokens).logits, net(tokens), rtol=1e-5, atol=1e-5)
    again = network()
    load_pretrained(again, str(tmp_path / "out"))
    for name, value in again.state_dict().items():
        assert torch.equal(value, net.state_dict()[name]), name


def test_weights_without_biases_are_written_as_zeros(tmp_path):
    net = network(bias=False).eval()
    save_pretrained(net, tmp_path)
    loaded = transformers.GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    tokens = torch.randint(V, (2, T))
    with torch.no_grad():
        torch.testing.assert_close(loaded(tokens).logits, net(tokens), rtol=1e-5, atol=1e-5)


def test_a_shorter_context_takes_the_first_positions(folder, net):
    short = network(context_length=7).eval()
    load_pretrained(short, str(folder))
    tokens = torch.randint(V, (2, 7))
    torch.testing.assert_close(short(tokens), net(tokens))


@pytest.mark.parametrize("norm_first", [True, False])
def test_causality_by_gradient(norm_first):
    net = network(norm_first=norm_first).double()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    embedded = torch.randn(2, T, D, dtype=torch.float64, requires_grad=True)
    for t in range(T):
        (gradient,) = torch.autograd.grad(net.hidden_states(embedded)[0, t].norm(), embedded)
        seen = gradient.abs().sum(-1)
        assert (seen[0, : t + 1] > 0).all()
        assert (seen[0, t + 1 :] == 0).all()
        assert (seen[1] == 0).all()


@pytest.mark.parametrize("norm_first", [True, False])
def test_block_is_the_formula(norm_first):
    block = Block(DecoderConfig(**SIZES, norm_first=norm_first)).double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(3, T, D, dtype=torch.float64)

    def norm(x, layer):
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, correction=0)
        return (x - mean) / (variance + 1e-5).sqrt() * layer.weight + layer.bias

    def gelu(x):
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    def attend(x):
        q, k, v = (x @ block.attention.in_proj.weight.T + block.attention.in_proj.bias).chunk(3, -1)
        heads = []
        for h in range(H):
            part = slice(h * D // H, (h + 1) * D // H)
            scores = q[..., part] @ k[..., part].mT / math.sqrt(D // H)
            future = torch.ones(T, T).triu(1).bool()
            heads.append(scores.masked_fill(future, -torch.inf).softmax(-1) @ v[..., part])
        return torch.cat(heads, -1) @ block.attention.out_proj.weight.T + (
            block.attention.out_proj.bias
        )

    def transform(x):
        first, _, second = block.feed_forward
        return gelu(x @ first.weight.T + first.bias) @ second.weight.T + second.bias

    if norm_first:
        middle = x + attend(norm(x, block.norm1))
        expected = middle + transform(norm(middle, block.norm2))
    else:
        middle = norm(x + attend(x), block.norm1)
        expected = norm(middle + transform(middle), block.norm2)
    torch.testing.assert_close(block(x), expected, rtol=1e-10, atol=1e-10)


def test_initialisation():
    net = network(500, context_length=200, d_model=160, num_layers=6, num_heads=4)
    assert net.token_embedding.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert net.blocks[2].attention.in_proj.weight.std().item() == pytest.approx(0.02, rel=0.05)
    residual = 0.02 / math.sqrt(12)
    for block in net.blocks:
        for layer in (block.attention.out_proj, block.feed_forward[2]):
            assert layer.weight.std().item() == pytest.approx(residual, rel=0.05)
        assert (block.attention.in_proj.bias == 0).all()
    logits = net(torch.randint(500, (2, 200)))
    loss = F.cross_entropy(logits.flatten(0, 1), torch.randint(500, (400,)))
    assert loss.item() == pytest.approx(math.log(500), abs=0.1)


def test_decay_skips_vectors():
    model = LitGPT(V, T, D, L, H, optimizer=lambda p: AdamWMatrixDecay(p, weight_decay=0.3))
    decay = {
        id(p): group["weight_decay"]
        for group in model.configure_optimizers().param_groups
        for p in group["params"]
    }
    for name, parameter in model.named_parameters():
        vector = name.endswith("bias") or ".norm" in name
        assert decay[id(parameter)] == (0.0 if vector else 0.3), name


def test_long_inputs_are_refused():
    with pytest.raises(ValueError, match="12 tokens exceed context_length=11"):
        network()(torch.zeros(1, 12, dtype=torch.long))


def corrupted(folder, tmp_path, change):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    return str(tmp_path)


def test_a_missing_weight_is_named(folder, tmp_path):
    source = corrupted(folder, tmp_path, lambda w: w.pop("transformer.h.1.mlp.c_fc.bias"))
    with pytest.raises(ValueError, match=r"lacks the weight 'blocks.1.feed_forward.0.bias'"):
        load_pretrained(network(), source)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"d_model": 40}, r"d_model=20, the model 40; set --model.d_model 20"),
        ({"num_layers": 2}, r"num_layers=3, the model 2; set --model.num_layers 3"),
        ({"num_heads": 4}, r"num_heads=5, the model 4; set --model.num_heads 5"),
        ({"vocab_size": 41}, r"vocab_size=37, the model 41; the data need the tokenizer"),
        ({"context_length": 13}, r"'position_embedding.weight' has shape \(11, 20\)"),
        ({"norm_first": False}, r"norm_first=True, the model False"),
    ],
)
def test_a_checkpoint_of_another_shape_is_named(folder, sizes, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_pretrained(network(**sizes), str(folder))
    assert "\n" not in str(caught.value)


def test_sources_that_are_none(tmp_path):
    net = network()
    with pytest.raises(ValueError, match=r"no pretrained checkpoint '/nowhere/x.ckpt'"):
        load_pretrained(net, "/nowhere/x.ckpt")
    with pytest.raises(ValueError, match=r"holds no readable config.json"):
        load_pretrained(net, str(tmp_path))
    config = '{"model_type": "gpt2", "n_layer": 3}'
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ValueError, match=r"has no model.safetensors; save the model"):
        load_pretrained(net, str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ValueError, match=r"model.safetensors is no readable safetensors file"):
        load_pretrained(net, str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match=r"is of type 'llama'; this model takes 'gpt2'"):
        load_pretrained(net, str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "activation_function": "relu"}')
    with pytest.raises(ValueError, match=r"activation_function=relu, not gelu_new"):
        load_pretrained(net, str(tmp_path))


def test_classifier_reads_the_last_token_and_adds_the_language_loss():
    from datamodules.batches import TokenBatch

    model = LitGPTClassifier(V, T, 3, D, L, H, dropout=0.0, lm_weight=0.7).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    tokens = torch.randint(V, (2, T))
    lengths = torch.tensor([T, 6])
    mask = torch.arange(T) < lengths[:, None]
    labels = torch.full_like(tokens, -100)
    for row, length in enumerate(lengths):
        labels[row, : length - 1] = tokens[row, 1:length]
    y = torch.tensor([2, 0])
    output = model.step(TokenBatch(tokens, labels, mask=mask, y=y))
    losses, token_losses = [], []
    for row, length in enumerate(lengths):
        logits = model.net.gpt(tokens[row : row + 1, :length])[0]
        token_losses += F.cross_entropy(
            logits[:-1], tokens[row, 1:length], reduction="none"
        ).tolist()
        embedded = model.net.gpt.token_embedding(tokens[row : row + 1, :length])
        state = model.net.gpt.hidden_states(embedded)[0, -1]
        scores = model.net.head.weight @ state + model.net.head.bias
        losses.append(-scores.log_softmax(0)[y[row]].item())
    assert output.loss.item() == pytest.approx(sum(losses) / 2, abs=1e-10)
    expected = 0.7 * sum(token_losses) / len(token_losses)
    assert output.terms["lm_loss"][0].item() == pytest.approx(expected, abs=1e-10)
    assert output.terms["lm_loss"][1].item() == len(token_losses) == 15
    assert output.total.item() == pytest.approx(sum(losses) / 2 + expected, abs=1e-10)


def test_regressor_sees_earlier_answers_alone():
    model = LitGPTRegressor(3, 7, D, L, H).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 7, 3, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 7, dtype=torch.float64, requires_grad=True)
    for t in range(7):
        by_x, by_y = torch.autograd.grad(model(x, y)[1, t], (x, y))
        assert (by_y[1, :t] != 0).all()
        assert (by_y[1, t:] == 0).all()
        assert (by_x[1, : t + 1] != 0).all()
        assert (by_x[1, t + 1 :] == 0).all()
        assert (by_y[0] == 0).all()


def test_own_checkpoint_starts_another_model(tmp_path):
    source = LitGPT(
        V,
        T,
        D,
        L,
        H,
    )
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": source.state_dict(), "hyper_parameters": {"num_heads": H}}, path)
    model = LitGPT(V, T, D, L, H, pretrained=str(path))
    for name, value in model.net.state_dict().items():
        assert torch.equal(value, source.net.state_dict()[name]), name
    classifier = LitGPTClassifier(V, T, 3, D, L, H, pretrained=str(path))
    for name, value in classifier.net.gpt.state_dict().items():
        assert torch.equal(value, source.net.state_dict()[name]), name
    assert "pretrained" not in model.hparams
    with pytest.raises(ValueError, match=r"num_heads=5, the model 4"):
        LitGPT(V, T, D, L, 4, pretrained=str(path))


@pytest.mark.parametrize(
    "entry",
    [
        {"tie_word_embeddings": False},
        {"scale_attn_by_inverse_layer_idx": True},
        {"scale_attn_weights": False},
        {"n_inner": 7},
        {"rope_theta": 10_000.0},
    ],
)
def test_a_folder_that_computes_otherwise_is_refused(folder, tmp_path, entry):
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **entry}))
    shutil.copy(folder / "model.safetensors", tmp_path)
    with pytest.raises(ValueError, match=f"has {next(iter(entry))}="):
        load_pretrained(network(), str(tmp_path))


def test_an_output_of_its_own_is_refused(folder, tmp_path):
    source = corrupted(folder, tmp_path, lambda w: w.update({"lm_head.weight": torch.ones(V, D)}))
    with pytest.raises(ValueError, match=r"lm_head.weight is not the token embedding"):
        load_pretrained(network(), source)
