"""Means over targets, whatever batches and ranks the targets lie in."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lit_models.layers.standardize import widest_float

_COUNT = "count"


class WeightedMeans:
    """Sums of values times their number of targets; a thousandth of what ``self.log`` costs.

    A value may be a mean over targets of its own (BERT's next sentence): it then has a count of
    its own, and belongs to the loss, the sum of all such means.

    Attributes:
        sums: Sums of this process by name, ``()`` each; ``count`` and ``count/NAME`` are counts.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def add(
        self,
        loss: Tensor,
        num_targets: int | Tensor,
        scalars: Mapping[str, Tensor],
        terms: Mapping[str, tuple[Tensor, int | Tensor]],
    ) -> None:
        """Adds a batch.

        Args:
            loss: Mean over the batch's targets, ``()``.
            num_targets: Their number.
            scalars: Further means over them by name.
            terms: Further parts of the loss by name, each with the number its mean is over.
        """
        means = [("loss", loss, num_targets)]
        means += [(name, value, num_targets) for name, value in scalars.items()]
        means += [(name, value, number) for name, (value, number) in terms.items()]
        for name, value, number in means:
            self._add(name, value.detach().to(widest_float(value.device)) * number)
        counts = {_COUNT: num_targets}
        counts |= {f"{_COUNT}/{name}": number for name, (_, number) in terms.items()}
        wide = widest_float(loss.device)
        for name, number in counts.items():
            self._add(name, torch.as_tensor(number, dtype=wide, device=loss.device))

    def _add(self, name: str, value: Tensor) -> None:
        self.sums[name] = self.sums[name] + value if name in self.sums else value

    def take(self, sum_over_ranks: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Means over the targets of all ranks, and a fresh start.

        Args:
            sum_over_ranks: Adds a tensor up over the ranks.

        Returns:
            Means by name; ``loss`` includes the terms.
        """
        sums, self.sums = self.sums, {}
        totals = {name: sum_over_ranks(value) for name, value in sums.items()}
        counts = {name: totals.pop(name) for name in list(totals) if name.startswith(_COUNT)}
        means = {
            name: total / counts.get(f"{_COUNT}/{name}", counts[_COUNT])
            for name, total in totals.items()
        }
        for name in counts:
            if name != _COUNT:
                means["loss"] = means["loss"] + means[name.removeprefix(f"{_COUNT}/")]
        return means


def weigh(losses: Tensor, weight: Tensor | None) -> tuple[Tensor, int | Tensor]:
    """Mean of a batch's losses by row, and the number of targets that the mean is over.

    Args:
        losses: Losses, ``(B, ...)``.
        weight: Weight of each row, ``(B,)``; None where all weigh the same.

    Returns:
        The mean, ``()``, and the number of rows or the sum of their weights.
    """
    if weight is None:
        return losses.mean(), len(losses)
    weight = weight.to(losses.dtype)
    total = weight.sum()
    rows = losses.flatten(1).mean(1) if losses.dim() > 1 else losses
    return (rows * weight).sum() / total.clamp(min=torch.finfo(weight.dtype).tiny), total
