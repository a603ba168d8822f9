"""BLEU and chrF against sacrebleu itself, and the attention figure, through the command."""

import random
import warnings
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers import fit

from lit_models.__main__ import main

sacrebleu = pytest.importorskip("sacrebleu")
TINY = [
    *("--config", "translation", "--config", "cpu", "--trainer.enable_progress_bar", "false"),
    *("--model.d_model", "16", "--model.num_heads", "2", "--model.dim_feedforward", "11"),
    *("--model.num_encoder_layers", "1", "--model.num_decoder_layers", "2"),
    *("--data.tokenizer", "word", "--data.max_length", "13", "--data.batch_tokens", "97"),
    *("--model.optimizer.lr", "0.01", "--model.dropout", "0.0"),
    *("--trainer.check_val_every_n_epoch", "1", "--trainer.max_epochs", "15"),
]


def write(path, count):
    draw = random.Random(count)
    words = ["hund", "katze", "läuft", "rot", "gras"]
    lines = []
    for _ in range(count):
        src = draw.choices(words, k=draw.randint(2, 7))
        lines.append(" ".join(src) + "\t" + " ".join(src[::-1]) + " .")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("translation")
    files = {"path": 151, "val_path": 29, "test_path": 37}
    data = []
    for name, count in files.items():
        data += [f"--data.{name}", write(folder / f"{name}.tsv", count)]
    results = fit("transformer", *TINY, *data, tmp_path=folder)
    return results, data


def test_bleu_equals_sacrebleu(run):
    results, data = run
    folder = Path(results["run_dir"])
    arguments = ["--config", str(folder / "config.yaml"), "--ckpt_path"]
    assert main(["predict", *arguments, str(folder / "checkpoints" / "best.ckpt")]) == 0
    frame = pd.read_csv(folder / "predictions.csv", keep_default_na=False)
    assert frame["line"].tolist() == list(range(1, 38))
    lines = Path(data[5]).read_text(encoding="utf-8").splitlines()
    pairs = frame["source"] + "\t" + frame["reference"]
    assert pairs.tolist() == lines
    expected = sacrebleu.corpus_bleu(frame["translation"].tolist(), [frame["reference"].tolist()])
    assert results["metrics"]["test/bleu"] == pytest.approx(expected.score, abs=1e-3)
    assert expected.score > 1
    chrf = sacrebleu.corpus_chrf(frame["translation"].tolist(), [frame["reference"].tolist()])
    assert results["metrics"]["test/chrf"] == pytest.approx(chrf.score, abs=0.05)


def test_attention_is_drawn(run):
    folder = Path(run[0]["run_dir"]) / "figures"
    assert (folder / "attention.png").stat().st_size > 5000


def test_luong_translates_too(run, tmp_path):
    sizes = ["--model.hidden_size", "8", "--model.embedding_size", "7", "--trainer.max_epochs", "1"]
    check = ["--trainer.check_val_every_n_epoch", "1", "--trainer.enable_progress_bar", "false"]
    overlays = ["--config", "translation_luong", "--config", "cpu"]
    data = [*run[1], "--data.tokenizer", "word", "--data.max_length", "13"]
    results = fit("seq2seq_luong", *overlays, *data, *sizes, *check, tmp_path=tmp_path)
    assert "test/bleu" in results["metrics"]
    assert (Path(results["run_dir"]) / "figures" / "attention.png").exists()


def test_data_without_sentences(tmp_path, capsys):
    options = ["--trainer.callbacks", "callbacks.TranslationScore", "--data.num_samples", "128"]
    code = main(["fit", "--config", "seq2seq", *options, "--runs_dir", str(tmp_path)])
    assert code == 2
    assert "use it with TextPairsDataModule" in capsys.readouterr().err


def test_bfloat16_trains_a_clipped_fused_optimizer(run, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = fit(
            "transformer",
            *TINY,
            *run[1],
            *("--config", "bf16", "--trainer.max_epochs", "1"),
            tmp_path=tmp_path,
        )
    assert results["metrics"]["test/cross_entropy"] == pytest.approx(
        results["metrics"]["test/loss"]
    )
    assert torch.isfinite(torch.tensor(results["metrics"]["test/loss"]))
