"""Sums over the processes of a run."""

from torch import Tensor

from lit_models.training.lightning_repairs import QuickHookNames


class RankSums(QuickHookNames):
    """A module that can add a number up over its Trainer's ranks."""

    def _sum_over_ranks(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all ranks; the tensor itself on one, or without a Trainer."""
        if self._trainer is None or self._trainer.world_size == 1:
            return value
        reduced = self._trainer.strategy.reduce(value.clone(), reduce_op="sum")
        assert isinstance(reduced, Tensor)
        return reduced
