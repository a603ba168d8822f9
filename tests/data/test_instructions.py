"""Instructions: loss on the answer alone, one template for both, the shift task at its floor."""

import json

import lightning as L
import pandas as pd
import pytest
import torch

from datamodules import InputError, InstructionsDataModule
from datamodules.own.prompts import PromptTemplate
from lit_models import LitGPT


@pytest.fixture
def shifts(tmp_path):
    """(x + s) mod 10, asked in words: a function of the prompt, so that its floor is 0 nats."""
    rows = [
        {"prompt": f"Add {s} to {x}.", "answer": str((x + s) % 10)}
        for s in range(3)
        for x in range(10)
    ] * 20
    path = tmp_path / "shifts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_loss_is_on_the_answer_alone(shifts):
    data = InstructionsDataModule(shifts, tokenizer="char")
    batch = data.split("train")
    end = data.tokenizer.token_to_id("<|endoftext|>")
    for tokens, labels, real in zip(batch.tokens, batch.labels, batch.mask, strict=True):
        answer, last = labels[labels >= 0].tolist()
        prompt = data.decode(tokens[real])
        asked, shift = int(prompt[9]), int(prompt[4])
        assert data.decode(torch.tensor([answer])) == str((asked + shift) % 10)
        assert last == end
        assert (labels >= 0).nonzero()[0, 0] == len("Add 1 to 2.\n") - 1


def test_training_and_prediction_fill_the_same_template(shifts, tmp_path):
    template = PromptTemplate("zero_shot", "Add the numbers")
    data = InstructionsDataModule(shifts, prompt=template, separator=" ", max_vocab_size=300)
    asked = data.split("predict")
    test = data.split("test")
    for row in range(len(test.tokens)):
        start = int((test.labels[row] >= 0).nonzero()[0, 0]) + 1
        assert torch.equal(test.tokens[row, :start], asked.tokens[row, asked.mask[row]])
    pd.DataFrame({"prompt": ["Add 1 to 1."]}).to_csv(tmp_path / "new.csv", index=False)
    new = InstructionsDataModule("gone.csv", predict_path=str(tmp_path / "new.csv"))
    new.load_state_dict(data.state_dict())
    assert new.prompts == ["Add 1 to 1.\n"]
    assert new.vocab_size == data.vocab_size


def test_wrong_rows_are_named(shifts, tmp_path, capsys):
    with pytest.raises(InputError, match="line 1: no text in the field 'reply'; it has 'prompt'"):
        _ = InstructionsDataModule(shifts, answer="reply").vocab_size
    with pytest.raises(InputError, match=r"have 13 tokens, more than context_length=9"):
        InstructionsDataModule(shifts, tokenizer="char", context_length=9).split("train")
    skipping = InstructionsDataModule(shifts, tokenizer="char", context_length=9, too_long="skip")
    with pytest.raises(InputError, match="the train split has no rows"):
        skipping.setup("fit")
    assert "rows exceed context_length=9 and are skipped" in capsys.readouterr().err


def test_the_shift_task_ends_at_its_floor(shifts):
    torch.manual_seed(0)
    data = InstructionsDataModule(shifts, tokenizer="char", context_length=16, batch_size=64)
    model = LitGPT(
        data.vocab_size, 16, 32, 1, 4, init_std=0.1, optimizer=lambda p: torch.optim.AdamW(p, 1e-2)
    )
    trainer = L.Trainer(
        max_steps=200, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        accelerator="cpu", enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(model, data)
    (scores,) = trainer.test(model, data, verbose=False)
    assert scores["test/cross_entropy"] < 0.01
    outputs = trainer.predict(model, data)
    outputs = {name: torch.cat([out[name] for out in outputs]) for name in outputs[0]}
    frame = data.prediction_frame(outputs)
    assert (frame.completion == frame.target).all()
    assert (frame.ended == "end token").all()
