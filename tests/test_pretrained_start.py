"""`--model.pretrained`: nothing of architecture, vocabulary or context is set by hand."""

import json

import pytest
import torch

from datamodules import InputError
from datamodules.files.tokenization import load_tokenizer, train_tokenizer
from lit_models.command.cli import build
from lit_models.weights.pretrained import architecture_of

transformers = pytest.importorskip("transformers")
TEXT = "to be or not to be, that is the question whether it is nobler in the mind to suffer\n" * 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A GPT-2 with its vocabulary, rounded up to a multiple of 64."""
    path = tmp_path_factory.mktemp("gpt2")
    tokenizer = train_tokenizer("bpe", [TEXT], 300, ("<|endoftext|>",))
    rows = -(-tokenizer.get_vocab_size() // 64) * 64
    assert rows > tokenizer.get_vocab_size()
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=rows, n_positions=24, n_embd=20, n_layer=3, n_head=5, bos_token_id=0
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(path)
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "text.txt").write_text(TEXT)
    return path


def options(folder, *more):
    data = ("--data", "TextFileDataModule", "--data.path", str(folder / "text.txt"))
    cache = ("--data.cache_dir", str(folder / "cache"))
    return ["--config", "gpt", "--model.pretrained", str(folder), *data, *cache, *more]


def test_the_folder_decides(folder, capsys):
    cli = build(options(folder))
    theirs = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    tokens = cli.datamodule.split("val")[0][:20].astype("int64")
    size = cli.datamodule.vocab_size
    assert size == load_tokenizer(str(folder)).get_vocab_size() < theirs.config.vocab_size
    ours = cli.model.eval()(torch.from_numpy(tokens)[None])
    expected = theirs(torch.from_numpy(tokens)[None]).logits[..., :size]
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    assert cli.datamodule.seq_len == 24
    assert cli.config["model"]["init_args"]["d_model"] == 20, "the run's config.yaml says it"
    said = capsys.readouterr().err
    assert "decides model.d_model 20" in said
    assert "round the vocabulary up" in said


def test_a_typed_size_that_is_not_theirs_is_refused(folder):
    with pytest.raises(InputError, match=r"--model.d_model 64: pretrained .* has 20; leave"):
        build(options(folder, "--model.d_model", "64"))
    assert build(options(folder, "--model.d_model=20")).model.hparams["d_model"] == 20


def test_a_typed_vocabulary_stays(folder):
    with pytest.raises(InputError, match="the data need the tokenizer it was trained with"):
        build(options(folder, "--data.tokenizer", "char"))


def test_a_checkpoint_brings_its_own_weights(folder, tmp_path):
    cli = build(options(folder, "--trainer.max_steps", "1"))
    cli.trainer.strategy.connect(cli.model)
    path = tmp_path / "own.ckpt"
    torch.save(
        {
            "state_dict": {k: v + 1 for k, v in cli.model.state_dict().items()},
            "hyper_parameters": dict(cli.model.hparams),
        },
        path,
    )
    sizes = architecture_of(str(path))
    wanted = {"d_model": 20, "num_layers": 3, "num_heads": 5, "norm_first": True, "bias": True}
    assert sizes == {**wanted, "context_length": 24}
    assert architecture_of(str(folder)) == sizes


def test_a_model_nobody_here_computes_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ValueError, match="is of type 'llama'; the models here take gpt2 or bert"):
        architecture_of(str(tmp_path))


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_folders_that_hold_the_parts_of_a_vocabulary(kind, tmp_path):
    special = ("<|endoftext|>",) if kind == "bpe" else ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    whole = train_tokenizer(kind, [TEXT], 300, special, None if kind == "bpe" else "[UNK]")
    whole.model.save(str(tmp_path))
    text = "to be, or not to be"
    again = load_tokenizer(str(tmp_path))
    encoded = [t.encode(text, add_special_tokens=False).ids for t in (whole, again)]
    assert encoded[0] == encoded[1]
    assert again.decode(encoded[1]).replace(" ", "") == text.replace(" ", "")
