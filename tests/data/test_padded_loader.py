"""Batches of texts end with their longest row, and models do not see the difference."""

import torch

from datamodules import LabelledTextDataModule
from datamodules.loading.loader import TensorLoader
from datamodules.loading.padded_loader import PaddedLoader
from lit_models import LitBERTClassifier


def texts(tmp_path, pairs=False):
    path = tmp_path / "texts.csv"
    lines = ["text,second,label"]
    for row in range(40):
        lines.append(
            f"{'a b c ' * (1 + row % 4)}{'d ' * (30 if row == 3 else 0)},e,{'xy'[row % 2]}"
        )
    path.write_text("\n".join(lines))
    return LabelledTextDataModule(
        str(path), tokenizer="word", batch_size=4, second="second" if pairs else None
    )


def test_a_batch_ends_with_its_longest_row(tmp_path):
    data = texts(tmp_path, pairs=True)
    data.setup("fit")
    rows = data.split("train")
    assert rows.mask is not None
    widths, seen = set(), 0
    for batch in data.train_dataloader():
        assert batch.mask.any(0)[-1]
        assert batch.tokens.shape == batch.labels.shape == batch.segments.shape == batch.mask.shape
        assert batch.y.shape == (4,)
        widths.add(batch.tokens.shape[1])
        seen += int(batch.mask.sum())
    assert len(widths) > 1
    assert max(widths) <= rows.tokens.shape[1]
    whole = sum(int(batch.mask.sum()) for batch in PaddedLoader(rows, 4))
    assert whole == int(rows.mask.sum()) >= seen


def test_logits_do_not_depend_on_what_is_cut(tmp_path):
    data = texts(tmp_path)
    data.setup("fit")
    model = (
        LitBERTClassifier(data.vocab_size, data.context_length, data.num_classes).double().eval()
    )
    rows = data.split("train")
    pairs = zip(PaddedLoader(rows, 4), TensorLoader(rows, 4), strict=True)
    for cut, whole in pairs:
        torch.testing.assert_close(model.logits(cut), model.logits(whole), rtol=0, atol=1e-12)
