"""Recurrent sequence models leave the house: states without packing, and a file that answers."""

import pytest
import torch
from torch import nn

from datamodules import SequenceTaskDataModule
from lit_models import LitSeq2Seq
from lit_models.command.export_file import write
from lit_models.layers.plain_recurrence import without_packing
from lit_models.seq2seq import Encoder


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_states_without_packing_are_those_of_packed_rows(cell, bidirectional):
    torch.manual_seed(0)
    encoder = Encoder(11, 5, 6, cell, num_layers=3, bidirectional=bidirectional).double().eval()
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.7)
    src = torch.randint(11, (4, 7))
    mask = torch.arange(7) < torch.tensor([[7], [1], [4], [6]])
    states, summary = encoder(src, mask)
    plain, ends = without_packing(encoder.cell, encoder.embedding(src), mask)
    torch.testing.assert_close(plain[mask], states[mask], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ends, summary, rtol=1e-12, atol=1e-12)


def test_a_recurrent_sequence_model_is_exported(tmp_path):
    data = SequenceTaskDataModule(vocab_size=5, length=4, num_samples=16, num_test=20)
    sizes = (data.src_vocab_size, data.tgt_vocab_size, data.max_length)
    model = LitSeq2Seq(*sizes, attention="bahdanau", hidden_size=4, embedding_size=3)
    assert write(model, data, "torch", tmp_path / "model.pt2") < 1e-5
    batch = next(iter(data.test_dataloader()))
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    given = (batch.src[:7], batch.src_mask[:7], batch.tgt[:7])
    torch.testing.assert_close(loaded(*given), model(*given), rtol=1e-5, atol=1e-5)
