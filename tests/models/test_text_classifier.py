"""What the two classifiers of texts share."""

import pytest
import torch

from datamodules import InputError
from datamodules.batches import TokenBatch
from lit_models import LitBERTClassifier, LitGPTClassifier

CLASSES = [LitBERTClassifier, LitGPTClassifier]


def batch(**fields):
    tokens = torch.randint(7, (4, 5), generator=torch.Generator().manual_seed(0))
    return TokenBatch(tokens, tokens.roll(-1, 1), **fields)


@pytest.mark.parametrize("kind", CLASSES)
def test_weights_of_the_classes_count_in_training_alone(kind):
    y = torch.tensor([0, 1, 1, 1])
    plain, weighted = (
        kind(7, 5, 2, d_model=8, dropout=0.0, class_weights=weights) for weights in (None, [3, 1])
    )
    weighted.load_state_dict(plain.state_dict())
    losses = {}
    for training in (True, False):
        for name, model in (("plain", plain), ("weighted", weighted)):
            model.train(training)
            output = model.step(batch(y=y)) if training else model.eval_step(batch(y=y))
            losses[name, training] = output.loss
    logits = plain.logits(batch())
    each = torch.nn.functional.cross_entropy(logits, y, reduction="none")
    assert losses["plain", True] == losses["plain", False] == losses["weighted", False]
    torch.testing.assert_close(losses["weighted", True], (3 * each[0] + each[1:].sum()) / 6)


@pytest.mark.parametrize("kind", CLASSES)
def test_texts_without_a_class_are_refused(kind):
    model = kind(7, 5, 2, d_model=8)
    for use in (model.step, model.eval_step, model.predict_step):
        with pytest.raises(InputError, match="needs the class of each text"):
            use(batch())
