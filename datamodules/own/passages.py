"""Passages of a user's text, joined in pairs and hidden in part, for BERT's objective."""

from typing import Any, NamedTuple

import numpy as np
import torch

from datamodules.batches import TokenBatch
from datamodules.files.token_cache import Tokens
from datamodules.files.tokenization import special_token
from datamodules.loading.masking import SPECIAL_TOKENS, Corruption, Pairs, join_pairs

_PURPOSE = "the masked objective"


def num_words(seq_len: int) -> int:
    """Tokens of the text in a row ``[CLS] A [SEP] B [SEP]``."""
    return seq_len - 3


def cut_pairs(tokens: Tokens, num_rows: int, seq_len: int) -> Pairs:
    """The first rows of a text, each in two passages that follow each other.

    Args:
        tokens: The text.
        num_rows: Number of rows.
        seq_len: Tokens of a row, the special ones included.
    """
    length = num_words(seq_len)
    rows = tokens[: num_rows * length].astype(np.int64).reshape(num_rows, length)
    text, first = torch.from_numpy(rows), length - length // 2
    return Pairs(text[:, :first], text[:, first:], text[:, first:])


class Passages(NamedTuple):
    """What a vocabulary makes of passages.

    Attributes:
        tokenizer: The vocabulary.
        mask_probability: Probability of hiding a token.
    """

    tokenizer: Any
    mask_probability: float

    @property
    def corruption(self) -> Corruption:
        """What is hidden, and by what."""
        mask = special_token(self.tokenizer, "[MASK]", _PURPOSE)
        special = [special_token(self.tokenizer, name, _PURPOSE) for name in SPECIAL_TOKENS]
        size = int(self.tokenizer.get_vocab_size())
        return Corruption(mask, max(special) + 1, size, self.mask_probability)

    def join(self, pairs: Pairs, generator: torch.Generator) -> TokenBatch:
        """Half of the rows with the second passage of another row of the batch."""
        n = len(pairs.first)
        is_next = torch.randint(2, (n,), generator=generator)
        # A shift by 1 to n - 1 rows: never its own.
        other = torch.arange(n)
        if n > 1:
            other = (other + torch.randint(1, n, (n,), generator=generator)) % n
        else:
            is_next = torch.ones_like(is_next)
        cls, sep = (special_token(self.tokenizer, name, "a pair") for name in ("[CLS]", "[SEP]"))
        return join_pairs(pairs._replace(other=pairs.other[other]), is_next, cls, sep)
