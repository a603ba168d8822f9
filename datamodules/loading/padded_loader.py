"""Batches of padded texts that end with their longest row, whatever the longest of the file is."""

from collections.abc import Callable

from torch import Tensor

from datamodules.batches import TokenBatch
from datamodules.loading.loader import TensorLoader


class PaddedLoader(TensorLoader[TokenBatch]):
    """Iterates over texts without the columns in which a batch holds padding alone.

    Each rank ends its share with the longest row of that share.
    """

    def fetch(self, order: Tensor, batch_idx: int) -> TokenBatch:
        """This rank's share of a batch, ``(B, T)`` with T of its longest row."""
        batch = super().fetch(order, batch_idx)
        assert batch.mask is not None
        length = int(batch.mask.any(0).nonzero().max()) + 1
        make: Callable[..., TokenBatch] = TokenBatch
        return make(
            *(
                field[:, :length] if field is not None and field.dim() == 2 else field
                for field in batch
            )
        )
