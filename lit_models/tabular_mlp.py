r"""A perceptron for tables nobody tuned: piecewise-linear embeddings, members that share weights.

.. math:: s_j = \frac{z_j}{\sqrt{1 + (z_j / 5)^2}}, \quad z = \frac{x - \mu}{\sigma}, \qquad
          e_j = v_j s_j + c_j + W_j\, \mathrm{PLE}(s_j), \qquad
          h_0^m = r^m \odot [e_1, \dots, e_D]

.. math:: h_l^m = \mathrm{Dropout}(\mathrm{SiLU}(A_l h_{l-1}^m + a_l)), \qquad
          o^m = U^m h_L^m + B s + C\, \mathrm{PLE}(s) + b, \qquad
          \hat p = \frac1M \sum_m \mathrm{softmax}(o^m)

Piecewise-linear encodings of quantile bins (Gorishniy et al., "On Embeddings for Numerical Features
in Tabular Deep Learning", 2022); the M members share all but an input scale, drawn as +1 or -1, and
a head (Gorishniy et al., "TabM", 2025); the smooth clipping is RealMLP's (Holzmueller et al.,
"Better by Default", 2024). Categories of up to eight levels enter as indicators, larger ones as a
learned vector. The additive path :math:`B s + C\,\mathrm{PLE}(s) + G\,v(s) + b` holds the votes v
of near training rows (:mod:`~lit_models.layers.neighbours`) and starts at the ridge or logistic
solution on the training rows; validation rows choose its penalty, and whether C and G are 0. The
heads and W start at zero: before the first step the model *is* that solution. From there B, C and G
move at a tenth of the rate, and decay towards their start: Adam's steps are as long where there is
nothing left to gain. The papers have no such path.

Shape letters: B batch, D columns, N numbers, T bins, E embedding, M members, K outputs.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection

from datamodules.batches import SupervisedBatch
from datamodules.errors import InputError
from lit_models.base import LitModule, StepOutput
from lit_models.families.linear_start import first_rows, linear_solution, plain_rows
from lit_models.layers.neighbours import NUM_WIDTHS, NeighbourVotes
from lit_models.layers.piecewise_linear import AdditivePath, PiecewiseLinearEmbedding
from lit_models.layers.standardize import Standardize
from lit_models.metrics.means import weigh
from lit_models.metrics.tables import class_scores, number_scores, skewness

_LOSSES: dict[str, Callable[..., Tensor]] = {
    "mse": F.mse_loss,
    "mae": F.l1_loss,
    "huber": F.huber_loss,
}
_CLIP = 5.0
_MAX_LOG_RATE = 40.0
# Of the codes beside standardised numbers: one penalty holds bends back more than slopes.
_CODE_SCALE = 0.3


class TabularMLP(nn.Module):
    """The network.

    Arguments as for :class:`LitTabularMLP`; a dropped unit is dropped in all members.

    Shape:
        Input ``(B, D)`` twice, the indicators as they are and all columns standardised, and votes
        ``(B, 3 K)``; output ``(B, M, K)``.
    """

    def __init__(
        self,
        column_widths: Sequence[int],
        num_outputs: int,
        hidden_sizes: Sequence[int],
        num_members: int,
        num_bins: int,
        embedding_dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        ends = np.cumsum(column_widths).tolist()
        spans = [(end - width, end) for end, width in zip(ends, column_widths, strict=True)]
        self.numbers = [start for start, end in spans if end - start == 1]
        self.small = [i for start, end in spans if 1 < end - start <= 8 for i in range(start, end)]
        self.large = [(start, end) for start, end in spans if end - start > 8]
        self.embedding = PiecewiseLinearEmbedding(len(self.numbers), num_bins, embedding_dim)
        self.tables = nn.ParameterList(
            nn.Parameter(torch.randn(end - start, embedding_dim) * 0.3) for start, end in self.large
        )
        width = (len(self.numbers) + len(self.large)) * embedding_dim + len(self.small)
        self.member_scale = nn.Parameter(torch.randint(2, (num_members, width)) * 2.0 - 1.0)
        self.layers = nn.ModuleList()
        for hidden in hidden_sizes:
            self.layers.append(nn.Linear(width, hidden))
            width = hidden
        self.head = nn.Parameter(torch.zeros(num_members, width, num_outputs))
        # Columns, codes and votes of the additive path.
        self.groups = (sum(column_widths), len(self.numbers) * num_bins, NUM_WIDTHS * num_outputs)
        self.skip = AdditivePath(sum(self.groups), num_outputs)
        self.dropout = dropout

    def additive_columns(self, scaled: Tensor, codes: Tensor, votes: Tensor) -> Tensor:
        """What the additive path sees, ``(B, D + N T + 3 K)``."""
        return torch.cat([scaled, _CODE_SCALE * codes.flatten(1), votes], dim=1)

    def forward(self, x: Tensor, scaled: Tensor, votes: Tensor) -> Tensor:
        """Outputs of every member."""
        numbers = scaled[:, self.numbers]
        codes = self.embedding.encode(numbers)
        parts = [self.embedding(numbers, codes).flatten(1), x[:, self.small]]
        parts += [
            x[:, start:end] @ table
            for (start, end), table in zip(self.large, self.tables, strict=True)
        ]
        h = torch.cat(parts, dim=1).unsqueeze(1) * self.member_scale  # (B, M, W)
        for layer in self.layers:
            h = F.silu(layer(h))
            mask = F.dropout(h.new_ones(len(h), 1, h.shape[2]), self.dropout, self.training)
            h = h * mask
        deep = torch.einsum("bmw,mwk->bmk", h, self.head)
        additive: Tensor = self.skip(self.additive_columns(scaled, codes, votes))
        return deep + additive.unsqueeze(1)


Loss = Literal["mse", "mae", "huber", "quantile", "poisson"]


class LitTabularMLP(LitModule):
    """A perceptron for tables with numbers and categories, for classes or numbers.

    Args:
        column_widths: 1 for each number, the number of levels for each category, in the order of
            the columns.
        num_outputs: Number K of classes or targets.
        task: Whether the target is a class or a number.
        hidden_sizes: Width of each hidden layer.
        num_members: Number M of members that share weights.
        num_bins: Number T of quantile bins of each number.
        embedding_dim: Size E of the vectors of numbers and of categories over eight levels.
        dropout: Probability of dropping a hidden unit.
        loss: What a regression minimises, of the standardised target: squared, absolute or Huber's
            error, or the pinball loss of one ``quantile``; ``poisson`` predicts the mean of counts
            through a logarithm.
        quantile: The quantile that ``loss="quantile"`` predicts.
        target_transform: ``log1p`` fits the logarithm of one plus a target that is not negative
            and predicts back; ``auto`` does so where that makes a skewed target less so.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer.

    Raises:
        ValueError: If an argument is out of range.

    Shape:
        Input ``(B, D)``, output log probabilities or numbers in the units of the data, ``(B, K)``.
    """

    weighs_rows = True
    is_log: Tensor
    doubt: Tensor

    def __init__(
        self,
        column_widths: list[int],
        num_outputs: int,
        task: Literal["classification", "regression"],
        hidden_sizes: Sequence[int] = (128, 128, 128),
        num_members: int = 8,
        num_bins: int = 16,
        embedding_dim: int = 8,
        dropout: float = 0.1,
        loss: Loss = "mse",
        quantile: float = 0.5,
        target_transform: Literal["none", "log1p", "auto"] = "none",
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        if not 0 < quantile < 1:
            raise ValueError(f"quantile must lie in (0, 1), got {quantile}")
        self.is_classifier = task == "classification"
        if self.is_classifier and (loss != "mse" or target_transform != "none"):
            raise ValueError("loss and target_transform are for numbers, and the target is a class")
        if loss == "poisson" and target_transform != "none":
            raise ValueError("the poisson loss has a logarithm of its own; leave target_transform")
        scores = class_scores(num_outputs) if self.is_classifier else number_scores()
        super().__init__(scores, optimizer, lr_scheduler)
        quick = ("accuracy", "cross_entropy", "mse", "mae")
        few: dict[str, Metric | MetricCollection] = {
            name: metric.clone() for name, metric in scores.items() if name in quick
        }
        self.val_metrics = MetricCollection(few, prefix="val/", compute_groups=False)
        self.x_scaler = Standardize(sum(column_widths))
        if self.is_classifier:
            self.register_buffer("doubt", torch.tensor(0.0))
        else:
            self.y_scaler = Standardize(num_outputs)
            self.register_buffer("is_log", torch.tensor(False))
        self.votes = NeighbourVotes(num_outputs, self.is_classifier or loss == "poisson")
        self.net = TabularMLP(
            *(column_widths, num_outputs, hidden_sizes, num_members),
            *(num_bins, embedding_dim, dropout),
        )
        self.loss, self.quantile, self.target_transform = loss, quantile, target_transform

    def scaled(self, x: Tensor) -> Tensor:
        """Standardised columns, large values drawn in, ``(B, D)``."""
        z: Tensor = self.x_scaler(x)
        return z / (1 + (z / _CLIP).square()).sqrt()

    def members(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Outputs ``(B, M, K)``; training rows, with their targets, have no vote on themselves."""
        scaled = self.scaled(x)
        votes = self.votes(scaled, None if y is None else self._voted(y))
        outputs: Tensor = self.net(x.to(self.x_scaler.dtype), scaled, votes)
        return outputs

    def _voted(self, y: Tensor) -> Tensor:
        """Targets as neighbours vote for them, ``(B, K)``."""
        return F.one_hot(y, self.net.skip.out_features) if self.is_classifier else self._standard(y)

    def _mixture(self, members: Tensor) -> Tensor:
        if self.is_classifier:
            log_probs: Tensor = members.log_softmax(-1).logsumexp(1) - np.log(members.shape[1])
            return log_probs
        if self.loss == "poisson":
            return members.double().clamp(max=_MAX_LOG_RATE).exp().mean(1)
        numbers = self.y_scaler.inverse(members.mean(1))
        return torch.where(self.is_log, numbers.expm1(), numbers)

    def _standard(self, y: Tensor) -> Tensor:
        """Targets as the loss sees them, ``(B, K)``."""
        if self.loss == "poisson":
            return y.to(self.x_scaler.dtype)
        standard: Tensor = self.y_scaler(torch.where(self.is_log, y.clamp(min=0).log1p(), y))
        return standard

    def forward(self, x: Tensor) -> Tensor:
        """Log probabilities, or numbers in the units of the data, ``(B, K)``."""
        return self._mixture(self.members(x))

    def step(self, batch: SupervisedBatch) -> StepOutput:
        """Mean of the members' losses."""
        members = self.members(batch.x, batch.y)
        if self.is_classifier:
            target = batch.y.unsqueeze(1).expand(members.shape[:2])
            losses = F.cross_entropy(members.transpose(1, 2), target, reduction="none")
        else:
            losses = self._losses(members, self._standard(batch.y).unsqueeze(1))
        return StepOutput(*weigh(losses, batch.weight), self._mixture(members), batch.y)

    def eval_step(self, batch: SupervisedBatch) -> StepOutput:
        """Loss of the members' mean, which is what predicts.

        It chooses the checkpoint: n validation rows that are all right bear no probability beyond
        about 1 - 1 / n, so that each counts as wrong with the probability 1 / (n + 2).
        """
        members = self.members(batch.x)
        preds, scalars = self._mixture(members), {}
        if self.is_classifier:
            doubt = float(self.doubt)
            losses = F.cross_entropy(preds, batch.y, reduction="none", label_smoothing=doubt)
        else:
            mean = preds.log() if self.loss == "poisson" else members.mean(1)
            losses = self._losses(mean, self._standard(batch.y))
        if self.loss == "quantile":
            scalars = {"share_below": (batch.y <= preds).double().mean()}
        return StepOutput(*weigh(losses, batch.weight), preds, batch.y, scalars)

    def _losses(self, output: Tensor, target: Tensor) -> Tensor:
        target = target.expand_as(output)
        if self.loss == "quantile":
            error = target - output
            return torch.maximum(self.quantile * error, (self.quantile - 1) * error)
        if self.loss == "poisson":
            return F.poisson_nll_loss(output.clamp(max=_MAX_LOG_RATE), target, reduction="none")
        return _LOSSES[self.loss](output, target, reduction="none")

    def predict_step(self, batch: SupervisedBatch, batch_idx: int = 0) -> dict[str, Tensor]:
        """Class and probabilities, or the prediction; and the target."""
        preds = self(batch.x)
        if not self.is_classifier:
            return {"prediction": preds, "target": batch.y}
        return {"class": preds.argmax(1), "probability": preds.exp(), "target": batch.y}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Makes room for the rows that vote; earlier checkpoints have none."""
        super().on_load_checkpoint(checkpoint)
        state = checkpoint["state_dict"]
        if "votes.rows" not in state:
            state |= {f"votes.{name}": value for name, value in self.votes.state_dict().items()}
            for name in ("net.skip.weight", "net.skip.start_weight"):
                state[name] = F.pad(state[name], (0, self.net.groups[-1]))
        self.votes.make_room(state, "votes.")

    def take_scale(self, datamodule: Any) -> None:
        """Takes scale and bins of the training rows, and starts at the linear solution.

        Args:
            datamodule: Publishes ``standardization`` and its splits.

        Raises:
            InputError: If the targets are not what the loss or the transform needs.
        """
        super().take_scale(datamodule)
        if not hasattr(datamodule, "split"):
            return
        width = self.net.skip.in_features
        train, val = (first_rows(datamodule, split, width) for split in ("train", "val"))
        if self.is_classifier:
            self.doubt.fill_(1 / (len(datamodule.split("val").y) + 2))
        else:
            self._take_targets(datamodule.split("train").y)
        scaled = self.scaled(train.x)
        self.net.embedding.fit(scaled[:, self.net.numbers])
        if len(train.x) == len(datamodule.split("train").x):
            self.votes.fit(scaled, self._voted(train.y), train.weight)
        self._start(train, val)

    def _start(self, train: SupervisedBatch, val: SupervisedBatch) -> None:
        """Starts at the linear solution; rows that have no vote in it are not kept."""
        rows = []
        for batch, voted in ((train, self._voted(train.y)), (val, None)):
            scaled = self.scaled(batch.x)
            codes = self.net.embedding.encode(scaled[:, self.net.numbers])
            x = self.net.additive_columns(scaled, codes, self.votes.whole(scaled, voted))
            y = batch.y if self.is_classifier else self._standard(batch.y)
            rows.append(plain_rows(x, y, batch.weight))
        kind = (
            "logistic" if self.is_classifier else "poisson" if self.loss == "poisson" else "ridge"
        )
        skip, groups = self.net.skip, self.net.groups
        weight, bias = linear_solution(kind, rows[0], rows[1], skip.out_features, groups)
        skip.start_weight.copy_(weight)
        skip.start_bias.copy_(bias)
        if not weight[:, -groups[-1] :].any():
            self.votes.forget()

    def _take_targets(self, y: Tensor) -> None:
        """Checks the training targets ``(rows, K)``, and takes the scale of transformed ones."""
        needs = {"poisson": self.loss == "poisson", "log1p": self.target_transform == "log1p"}
        name = next((name for name, needed in needs.items() if needed), None)
        negative = bool((y < 0).any())
        if name is not None and negative:
            raise InputError(f"{name} needs targets of 0 and more, got {float(y.min()):g}")
        is_log = self.target_transform == "log1p"
        if self.target_transform == "auto" and not negative:
            is_log = bool((skewness(y) > 1).all() and (skewness(y.log1p()).abs() < 1).all())
        self.is_log.fill_(is_log)
        if is_log:
            logs = y.log1p()
            std = logs.std(0, correction=0)
            self.y_scaler.fit(logs.mean(0), torch.where(std > 0, std, torch.ones_like(std)))
        if self.target_transform == "auto":
            rank_zero_info(f"the target is {'fitted by its logarithm' if is_log else 'not skewed'}")
