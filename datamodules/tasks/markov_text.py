r"""Text from a Markov chain, with the exact cross-entropy of the best possible model.

Causal: no model predicts token t better than :math:`P(x_t \mid x_{<t})`, whose cross-entropy on
the test rows is the optimum; its expectation is the entropy rate once k tokens are seen. Masked:
the best guess of a hidden token is its posterior given all that is shown, by the forward-backward
recursion through the known corruption (:mod:`datamodules.loading.masking`).
"""

from functools import cached_property, partial
from typing import Any, Literal

import torch
from torch import Tensor

from datamodules.base import LitDataModule, Reference, Split
from datamodules.batches import TokenBatch
from datamodules.errors import InputError, at_least
from datamodules.laws.markov_chain import MarkovChain
from datamodules.loading.masking import IGNORE, Corruption, MaskingLoader, hide

_MAX_STATES = 20_000


class MarkovTextDataModule(LitDataModule[TokenBatch]):
    """Stationary sequences of one random chain.

    Args:
        vocab_size: Tokens of the chain; the masked objective adds [MASK] as the last number.
        order: Number k of earlier tokens a token depends on.
        seq_len: Tokens T the model reads.
        objective: ``causal`` predicts the next token, ``masked`` hidden ones.
        num_samples: Training sequences.
        num_test: Test sequences; validation has a quarter of it.
        concentration: Parameter of the Dirichlet distribution of the chain's rows; the smaller, the
            more predictable the text.
        mask_probability: Probability of hiding a token.
        batch_size: Sequences per optimizer step.
        seed: Seed of the data.

    Raises:
        InputError: If an argument is out of range.
    """

    def __init__(
        self,
        vocab_size: int = 12,
        order: int = 2,
        seq_len: int = 64,
        objective: Literal["causal", "masked"] = "causal",
        num_samples: int = 20_000,
        num_test: int = 2_000,
        concentration: float = 0.25,
        mask_probability: float = 0.15,
        batch_size: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, eval_batch_size=250)
        at_least(
            vocab_size=(vocab_size, 2),
            order=(order, 1),
            num_samples=(num_samples, 1),
            num_test=(num_test, 4),
        )
        if seq_len <= order:
            raise InputError(f"seq_len must exceed order={order}, got {seq_len}")
        if vocab_size**order > _MAX_STATES:
            raise InputError(
                f"vocab_size={vocab_size} and order={order} make {vocab_size**order:,} states; at "
                f"most {_MAX_STATES:,} are computed exactly: lower one of them"
            )
        if concentration <= 0:
            raise InputError(f"concentration must be positive, got {concentration}")
        if not 0 < mask_probability < 1:
            raise InputError(f"mask_probability must lie in (0, 1), got {mask_probability}")
        self.order, self.seq_len, self.objective = order, seq_len, objective
        self.num_samples, self.num_test = num_samples, num_test
        self.concentration = concentration
        self.num_symbols = vocab_size
        self.vocab_size = vocab_size + (objective == "masked")
        self.corruption = Corruption(vocab_size, 0, vocab_size, mask_probability)

    @property
    def context_length(self) -> int:
        """Number T of tokens the model reads."""
        return self.seq_len

    @property
    def next_sentence(self) -> bool:
        """Whether there are sentence pairs: never.

        Raises:
            InputError: If the labels are next tokens, which a model that reads both ways would see.
        """
        if self.objective != "masked":
            raise InputError("a model that reads both ways needs --data.objective masked")
        return False

    @property
    def num_train(self) -> int:
        """Number of training sequences."""
        return self.num_samples

    @cached_property
    def chain(self) -> MarkovChain:
        """The chain all sequences come from."""
        return MarkovChain(
            self.num_symbols, self.order, self.concentration, self.generator("chain")
        )

    def make_split(self, split: Split) -> TokenBatch:
        """Sequences of one split; training text of the masked objective has nothing hidden yet."""
        generator = self.generator(split)
        counts = {"train": self.num_samples, "val": self.num_test // 4, "test": self.num_test}
        length = self.seq_len + (self.objective == "causal")
        tokens = self.chain.sample(counts[split], length, generator)
        if self.objective == "causal":
            return TokenBatch(tokens[:, :-1], tokens[:, 1:])
        batch = TokenBatch(tokens, torch.tensor(IGNORE).expand_as(tokens))
        return batch if split == "train" else hide(batch, self.corruption, generator)

    def train_dataloader(self) -> Any:
        """Shuffled sequences; of the masked objective with other tokens hidden in every epoch."""
        if self.objective == "causal":
            return super().train_dataloader()
        make = partial(MaskingLoader, corruption=self.corruption)
        data = self.split("train")
        return self._loader(data, self.batch_size, True, self.drop_last, make)

    @cached_property
    def _optimum(self) -> dict[str, Reference]:
        test = self.split("test")
        if self.objective == "causal":
            tokens = torch.cat([test.tokens, test.labels[:, -1:]], dim=1)
            probabilities = self.chain.next_probabilities(tokens)[:, 1:]
            how = (
                "the true chain on the same rows; its entropy rate is "
                f"{self.chain.entropy_rate:.4f} nats"
            )
            return references("test/", probabilities, test.labels, how)
        any_token, chosen = self.corruption.emissions(test.tokens)
        posterior = self.chain.smooth(any_token)[1] * chosen
        posterior = posterior / posterior.sum(-1, keepdim=True)
        how = "posterior of the hidden tokens by forward-backward, on the same rows"
        return references("test/mlm_", posterior, test.labels, how)

    @property
    def optimum(self) -> dict[str, Reference]:
        """Scores of the true chain on the test rows."""
        return self._optimum

    @property
    def baseline(self) -> dict[str, Reference]:
        """Expected scores of a model that sees one token less, or the words' frequencies alone."""
        if self.objective == "causal":
            value = self.chain.conditional_entropy(self.order - 1)
            how = f"best model of the {self.order - 1} last tokens"
            return {"test/cross_entropy": Reference(value, how)}
        unigram = self.chain.unigram
        how = "frequencies of the tokens"
        return {
            "test/mlm_cross_entropy": Reference(float(-(unigram * unigram.log()).sum()), how),
            "test/mlm_accuracy": Reference(float(unigram.max()), how),
        }

    def decode(self, tokens: Tensor) -> str:
        """Numbers of the tokens, separated by blanks."""
        return " ".join(str(token) for token in tokens.tolist())


def references(
    prefix: str, probabilities: Tensor, labels: Tensor, how: str
) -> dict[str, Reference]:
    """Cross-entropy and accuracy of predicted probabilities ``(N, T, V)``."""
    scored = labels != IGNORE
    found, target = probabilities[scored], labels[scored].unsqueeze(1)
    cross_entropy = -found.gather(1, target).log().mean()
    accuracy = (found.argmax(1, keepdim=True) == target).double().mean()
    return {
        f"{prefix}cross_entropy": Reference(float(cross_entropy), how),
        f"{prefix}accuracy": Reference(float(accuracy), how),
    }
