r"""Documents about hidden topics, with every optimum exact.

A document has one of Z topics, drawn uniformly. Each topic has word frequencies of its own and is a
Markov chain of order 1 whose rows scatter around them. A document has two sentences of equal
length; a random second sentence comes from a document of its own. Given what is shown, the
posterior of topic, hidden words and next-sentence label follows from one forward-backward recursion
per topic:

.. math::
    P(\text{next} \mid A, B) = \frac{\sum_z P(AB \mid z) / Z}
        {\sum_z P(AB \mid z) / Z + \sum_z P(A \mid z) / Z \cdot \sum_z P(B \mid z) / Z}
"""

from functools import cached_property, partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from datamodules.base import LitDataModule, Reference, Split
from datamodules.batches import TokenBatch
from datamodules.errors import InputError, at_least
from datamodules.laws.markov_chain import MarkovChain
from datamodules.loading.masking import (
    CLS,
    IGNORE,
    MASK,
    SEP,
    SPECIAL_TOKENS,
    Corruption,
    MaskingLoader,
    Pairs,
    hide,
    join_pairs,
)
from datamodules.tasks.markov_text import references

_FIRST_WORD = len(SPECIAL_TOKENS)


class TopicDocumentsDataModule(LitDataModule[TokenBatch]):
    """Two-sentence documents of several topics, for pre-training and for classification.

    The tasks share words, special tokens and topics, so that a model pre-trained on one task can be
    fine-tuned on another: ``masked`` gives ``[CLS] A [SEP] B [SEP]`` with hidden words and
    next-sentence labels, ``causal`` gives ``[CLS] A B`` with the next word at each position, and
    ``classification`` gives ``[CLS] A B [SEP]`` with the topic, and the next words as labels.

    Args:
        task: What the batches are for.
        num_topics: Number Z of topics.
        num_words: Ordinary words; five special tokens come first.
        sentence_len: Words of a sentence.
        num_documents: Training documents.
        num_test: Test documents; validation has a quarter of it.
        topic_concentration: Parameter of the Dirichlet distribution of a topic's word frequencies;
            the smaller, the more the topics differ.
        concentration: How closely the rows of a topic's chain follow its word frequencies; the
            smaller, the more the order of the words matters.
        mask_probability: Probability of hiding a token.
        batch_size: Documents per optimizer step.
        seed: Seed of the data.

    Raises:
        InputError: If an argument is out of range.
    """

    def __init__(
        self,
        task: Literal["masked", "causal", "classification"] = "masked",
        num_topics: int = 8,
        num_words: int = 16,
        sentence_len: int = 16,
        num_documents: int = 100_000,
        num_test: int = 10_000,
        topic_concentration: float = 1.0,
        concentration: float = 20.0,
        mask_probability: float = 0.15,
        batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, eval_batch_size=1000)
        at_least(
            num_topics=(num_topics, 2),
            num_words=(num_words, 2),
            sentence_len=(sentence_len, 1),
            num_documents=(num_documents, 1),
            num_test=(num_test, 4),
        )
        if min(topic_concentration, concentration) <= 0:
            raise InputError(
                "topic_concentration and concentration must be positive, got "
                f"{topic_concentration} and {concentration}"
            )
        if not 0 < mask_probability < 1:
            raise InputError(f"mask_probability must lie in (0, 1), got {mask_probability}")
        self.task, self.num_topics, self.num_words = task, num_topics, num_words
        self.sentence_len = sentence_len
        self.num_documents, self.num_test = num_documents, num_test
        self.topic_concentration, self.concentration = topic_concentration, concentration
        self.vocab_size = _FIRST_WORD + num_words
        self.corruption = Corruption(MASK, _FIRST_WORD, self.vocab_size, mask_probability)

    @property
    def context_length(self) -> int:
        """Length of the longest task's rows: two sentences and three special tokens."""
        return 2 * self.sentence_len + 3

    @property
    def num_classes(self) -> int:
        """Number Z of topics."""
        return self.num_topics

    @property
    def next_sentence(self) -> bool:
        """Whether there are sentence pairs: in the masked task.

        Raises:
            InputError: If the labels are next words, which a model that reads both ways would see.
        """
        if self.task != "masked":
            raise InputError("a model that reads both ways needs --data.task masked")
        return True

    @property
    def num_train(self) -> int:
        """Number of training documents."""
        return self.num_documents

    @cached_property
    def chains(self) -> list[MarkovChain]:
        """The topics."""
        generator = self.generator("topics")
        shape = torch.full((self.num_topics, self.num_words), self.topic_concentration)
        frequencies = torch._sample_dirichlet(shape.double(), generator=generator)
        return [
            MarkovChain(self.num_words, 1, self.concentration * row, generator)
            for row in frequencies
        ]

    def _documents(
        self, count: int, generator: torch.Generator, first: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Documents in the numbers of the vocabulary, from word ``first`` on, and topics."""
        topics = torch.randint(self.num_topics, (count,), generator=generator)
        length = 2 * self.sentence_len
        words = torch.empty(count, length - first, dtype=torch.long)
        for topic, chain in enumerate(self.chains):
            rows = topics == topic
            words[rows] = chain.sample(int(rows.sum()), length, generator)[:, first:]
        return words.add_(_FIRST_WORD), topics

    def make_split(self, split: Split) -> Any:
        """Rows of one split; training pairs are joined and hidden afresh in every epoch."""
        generator = self.generator(split)
        counts = {"train": self.num_documents, "val": self.num_test // 4, "test": self.num_test}
        words, topics = self._documents(counts[split], generator)
        cls, sep = (torch.full_like(words[:, :1], token) for token in (CLS, SEP))
        if self.task == "causal":
            return TokenBatch(torch.cat([cls, words[:, :-1]], dim=1), words)
        if self.task == "classification":
            tokens = torch.cat([cls, words, sep], dim=1)
            ignored = torch.full_like(cls, IGNORE)
            return TokenBatch(tokens, torch.cat([words, sep, ignored], dim=1), y=topics)
        other, _ = self._documents(len(words), generator, self.sentence_len)
        first, second = torch.split(words, self.sentence_len, dim=1)
        pairs = Pairs(first, second, other)
        if split == "train":
            return pairs
        return hide(pairs, self.corruption, generator, _join)

    def train_dataloader(self) -> Any:
        """Shuffled rows; pairs with other words hidden and other partners in every epoch."""
        if self.task != "masked":
            return super().train_dataloader()
        make = partial(MaskingLoader, corruption=self.corruption, prepare=_join)
        return self._loader(self.split("train"), self.batch_size, True, self.drop_last, make)

    @cached_property
    def _optimum(self) -> dict[str, Reference]:
        test: Any = self.split("test")
        if self.task == "causal":
            how = "mixture of the topics' chains, on the same rows"
            return references("test/", self._causal(test.labels), test.labels, how)
        if self.task == "classification":
            posterior = self._topic_posterior(test.labels[:, : 2 * self.sentence_len])
            how = "posterior of the topic, on the same rows"
            return references("test/", posterior, test.y, how)
        exact = self.infer(test)
        how = "posterior over topics, hidden words and pairing, on the same rows"
        labels = torch.where(test.labels == IGNORE, IGNORE, test.labels - _FIRST_WORD)
        answers = torch.stack([1 - exact.is_next, exact.is_next], dim=1)
        return {
            **references("test/mlm_", exact.words, labels, how),
            **references("test/nsp_", answers, test.is_next, how),
        }

    @property
    def optimum(self) -> dict[str, Reference]:
        """Scores of exact inference on the test rows."""
        return self._optimum

    @property
    def baseline(self) -> dict[str, Reference]:
        """Scores of the words' frequencies, and of guessing."""
        unigram = torch.stack([chain.unigram for chain in self.chains]).mean(0)
        entropy = float(-(unigram * unigram.log()).sum())
        how = "frequencies of the words"
        if self.task == "causal":
            return {"test/cross_entropy": Reference(entropy, how)}
        if self.task == "classification":
            return {"test/accuracy": Reference(1 / self.num_topics, "a guess")}
        return {
            "test/mlm_cross_entropy": Reference(entropy, how),
            "test/nsp_accuracy": Reference(0.5, "a guess"),
        }

    def _log_likelihoods(self, words: Tensor) -> Tensor:
        """Log-probability of word t given the earlier ones in each topic, ``(N, T, Z)``."""
        return torch.stack(
            [
                chain.next_probabilities(words).gather(2, words.unsqueeze(2)).squeeze(2).log()
                for chain in self.chains
            ],
            dim=2,
        )

    def _topic_posterior(self, words: Tensor) -> Tensor:
        return self._log_likelihoods(words - _FIRST_WORD).sum(1).softmax(1)

    def _causal(self, words: Tensor) -> Tensor:
        """Probability of each token of the vocabulary given the earlier words, ``(N, T, V)``."""
        words = words - _FIRST_WORD
        seen = self._log_likelihoods(words).cumsum(1)
        topic = torch.nn.functional.pad(seen[:, :-1], (0, 0, 1, 0)).softmax(2)
        mixed = sum(
            topic[:, :, z, None] * chain.next_probabilities(words)
            for z, chain in enumerate(self.chains)
        )
        return torch.nn.functional.pad(torch.as_tensor(mixed), (_FIRST_WORD, 0))

    def infer(self, batch: TokenBatch) -> "PairPosterior":
        """Exact inference in pairs with hidden words."""
        any_word, chosen = self.corruption.emissions(batch.tokens)
        length = self.sentence_len
        first, second = slice(1, 1 + length), slice(2 + length, 2 + 2 * length)
        both = torch.cat([any_word[:, first], any_word[:, second]], dim=1)
        joint = [chain.smooth(both) for chain in self.chains]
        alone = [
            [chain.smooth(any_word[:, part]) for chain in self.chains] for part in (first, second)
        ]
        log_joint = torch.stack([found[0] for found in joint], dim=1)  # (N, Z)
        log_alone = [torch.stack([found[0] for found in part], dim=1) for part in alone]
        uniform = torch.log(torch.tensor(float(self.num_topics), dtype=torch.float64))
        next_score = log_joint.logsumexp(1) - uniform
        other_score = log_alone[0].logsumexp(1) + log_alone[1].logsumexp(1) - 2 * uniform
        is_next = torch.sigmoid(next_score - other_score)
        chosen_words = torch.cat([chosen[:, first], chosen[:, second]], dim=1)
        if_next = _mix(log_joint, [found[1] for found in joint], chosen_words)
        if_other = torch.cat(
            [
                _mix(log_alone[i], [found[1] for found in alone[i]], chosen[:, part])
                for i, part in enumerate((first, second))
            ],
            dim=1,
        )
        weight = is_next[:, None, None]
        mixed = weight * if_next + (1 - weight) * if_other
        words = torch.full_like(any_word, 1 / self.num_words)
        mixed = mixed / mixed.sum(-1, keepdim=True)
        words[:, first], words[:, second] = torch.split(mixed, length, dim=1)
        return PairPosterior(is_next, words)

    def decode(self, tokens: Tensor) -> str:
        """Words as numbers, special tokens by name."""
        return " ".join(
            SPECIAL_TOKENS[token] if token < _FIRST_WORD else str(token - _FIRST_WORD)
            for token in tokens.tolist()
        )


class PairPosterior(NamedTuple):
    """What the shown words of a pair tell.

    Attributes:
        is_next: Probability that the second sentence follows the first, ``(N,)``.
        words: Probability of each word at each position if it was chosen to be hidden,
            ``(N, T, num_words)``; uniform at special tokens.
    """

    is_next: Tensor
    words: Tensor


def _join(pairs: Pairs, generator: torch.Generator) -> TokenBatch:
    is_next = torch.randint(2, (len(pairs.first),), generator=generator)
    return join_pairs(pairs, is_next, CLS, SEP)


def _mix(log_likelihood: Tensor, leave_one_out: list[Tensor], chosen: Tensor) -> Tensor:
    """Words mixed over the topics, up to a factor per position.

    A topic's share is its likelihood of what is shown elsewhere times that of the shown word *if it
    was chosen*, since chosen words alone are scored.
    """
    weights = log_likelihood.softmax(1)
    total = torch.zeros_like(chosen)
    for topic, others in enumerate(leave_one_out):
        total += weights[:, topic, None, None] * others * chosen
    return total
