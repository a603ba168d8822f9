r"""What the training rows near a row say: means of their targets, weighed by distance.

.. math:: v_h(x) = \frac{\sum_i w_i\, e^{-\lVert x - x_i \rVert_1 / h}\, t_i + c\, \bar t}
                        {\sum_i w_i\, e^{-\lVert x - x_i \rVert_1 / h} + c}

Kernel regression (Nadaraya, "On Estimating Regression", 1964; Watson, 1964) with a prior of c rows:
far from all rows the mean is that of the training targets. Beside the width h that predicts the
kept rows best there are a quarter and four times of it. A training row is judged by the other nine
of ten parts of the kept rows: the mean of all *other* rows falls where the row's own target rises,
which a linear model would read back.

Shape letters: B batch, N kept rows, D columns, K targets.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

_MAX_ROWS, _MAX_CELLS = 5_000, 500_000
_PRIOR = 0.01
_RATIOS = (0.0625, 0.125, 0.25, 0.5, 1.0)
NUM_WIDTHS = 3
# Rows closer than this, in target too, are the same row.
_SAME = 1e-4
_CHUNK, _NUM_PARTS = 512, 10


class NeighbourVotes(nn.Module):
    """Means of the targets of near rows; zeros before :meth:`fit` and after :meth:`forget`.

    Args:
        num_targets: Number K of targets, classes as indicators.
        is_log: Whether the means are positive and enter by their logarithm.

    Shape:
        Input ``(B, D)``, output ``(B, 3 K)``, less what the prior alone would give.
    """

    rows: Tensor
    targets: Tensor
    weight: Tensor
    prior: Tensor
    width: Tensor

    def __init__(self, num_targets: int, is_log: bool) -> None:
        super().__init__()
        self.is_log, self.num_targets = is_log, num_targets
        self.register_buffer("prior", torch.ones(num_targets))
        self.register_buffer("width", torch.ones(()))
        self.forget()

    def forget(self) -> None:
        """Keeps no rows."""
        like = self.prior
        self.register_buffer("rows", like.new_zeros(0, 1))
        self.register_buffer("targets", like.new_zeros(0, self.num_targets))
        self.register_buffer("weight", like.new_zeros(0))

    def fit(self, x: Tensor, targets: Tensor, weight: Tensor | None = None) -> None:
        """Keeps the rows and finds the width; of more than some thousand rows it keeps none.

        A network learns from many rows what few have to say by themselves, and distances to all of
        them would cost more than the network.

        Args:
            x: Standardised columns of the training rows, ``(rows, D)``.
            targets: Their targets, ``(rows, K)``.
            weight: Their weights, ``(rows,)``.
        """
        self.forget()
        if len(x) > min(_MAX_ROWS, _MAX_CELLS // x.shape[1]):
            return
        # In random order, in which the parts are every tenth row.
        kept = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        mass = torch.ones(len(x)) if weight is None else weight
        mass, targets = mass.to(x.dtype), targets.to(x.dtype)
        self.prior.copy_((mass.unsqueeze(1) * targets).sum(0) / mass.sum())
        if self.is_log:
            self.prior.clamp_(min=1e-6)
        self.rows, self.targets, self.weight = x[kept], targets[kept], mass[kept]
        columns = (self.rows, self.targets, self.weight)
        chunks = list(zip(*(torch.split(column, _CHUNK) for column in columns), strict=True))
        nearest = torch.cat([self._distances(part, y).amin(1) for part, y, _ in chunks])
        nearest = nearest[(nearest > _SAME) & nearest.isfinite()]
        if not len(nearest):
            self.forget()
            return
        widths = nearest.median() * torch.tensor(_RATIOS)
        losses = torch.zeros(len(widths))
        for part, target, mass in chunks:
            distances = self._distances(part, target)
            each = [self._losses((-distances / width).exp(), target) @ mass for width in widths]
            losses += torch.stack(each)
        self.width.copy_(widths[losses.argmin()])

    def forward(self, x: Tensor, target: Tensor | None = None) -> Tensor:
        """Means by four widths, by one and by a quarter.

        Args:
            x: Standardised columns.
            target: Targets ``(B, K)`` of training rows, each judged by the other parts alone.
        """
        if not len(self.rows):
            return x.new_zeros(len(x), NUM_WIDTHS * self.num_targets)
        distances = self._distances(x, target)
        kernels = [(-distances / (4 * self.width)).exp()]
        for _ in range(NUM_WIDTHS - 1):
            kernels.append(kernels[-1].square().square())
        means = [self._mean(kernel) for kernel in kernels]
        if self.is_log:
            return torch.cat([mean.log() - self.prior.log() for mean in means], dim=1)
        return torch.cat([mean - self.prior for mean in means], dim=1)

    def whole(self, x: Tensor, target: Tensor | None = None) -> Tensor:
        """As :meth:`forward`, some rows at a time."""
        targets = [None] * len(x) if target is None else torch.split(target, _CHUNK)
        parts = zip(torch.split(x, _CHUNK), targets, strict=False)
        return torch.cat([self(*part) for part in parts])

    def _distances(self, x: Tensor, target: Tensor | None) -> Tensor:
        """Distance to each kept row, ``(B, N)``; infinite to those of the row's own part."""
        if torch.compiler.is_compiling():  # ONNX has no cdist
            distances = (x.unsqueeze(1) - self.rows).abs().sum(2)
        else:
            distances = torch.cdist(x, self.rows, p=1.0)
        if target is None:
            return distances
        row, near = (distances < _SAME).nonzero(as_tuple=True)
        same = (self.targets[near] - target[row].to(x.dtype)).abs().amax(1) < _SAME
        part = torch.full((len(x),), _NUM_PARTS, device=x.device)
        part = part.scatter_reduce(0, row[same], near[same] % _NUM_PARTS, "amin")
        kept = torch.arange(len(self.rows), device=x.device) % _NUM_PARTS
        same_part = kept.byte() == part.byte().unsqueeze(1)
        return distances.masked_fill(same_part, torch.inf)

    def _mean(self, kernel: Tensor) -> Tensor:
        mass = self.weight.unsqueeze(1)
        sums = kernel @ torch.cat([mass * self.targets, mass], dim=1)
        mean: Tensor = (sums[:, :-1] + _PRIOR * self.prior) / (sums[:, -1:] + _PRIOR)
        return mean

    def _losses(self, kernel: Tensor, target: Tensor) -> Tensor:
        mean = self._mean(kernel)
        if self.is_log:  # of shares, the cross-entropy but for a constant
            return (mean - target * mean.log()).sum(1)
        return (mean - target).square().sum(1)

    def make_room(self, state_dict: Mapping[str, Any], prefix: str) -> None:
        """Takes the sizes of rows that are about to be loaded.

        Args:
            state_dict: Holds them.
            prefix: Begins their names in it.
        """
        for name in ("rows", "targets", "weight"):
            if prefix + name in state_dict:
                setattr(self, name, getattr(self, name).new_empty(state_dict[prefix + name].shape))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        self.make_room(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)
