"""Passages of a user's text, joined in pairs and hidden in part, for BERT's objective."""

from typing import Any, NamedTuple

import torch

from datamodules.batches import TokenBatch
from datamodules.files.tokenization import special_token
from datamodules.loading.masking import SPECIAL_TOKENS, Corruption, Pairs, join_pairs

_PURPOSE = "the masked objective"


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
