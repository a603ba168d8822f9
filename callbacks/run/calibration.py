r"""Intervals and sets that hold, and probabilities that mean what they say, of any table model.

Both are fitted on the validation rows, at every validation, and travel in the checkpoint.

* :class:`Conformal`, split conformal prediction (Vovk et al., 2005; Lei et al., 2018). With the
  scores :math:`s_i` of n validation rows, :math:`q` the
  :math:`\lceil (n + 1)(1 - \alpha) \rceil`-th smallest covers a new row with probability
  :math:`1 - \alpha` at least, whatever the model. Numbers: :math:`s = |y - \mu| / \sigma`, with
  :math:`\sigma` the model's own standard deviation where it states one, else 1. Classes:
  :math:`s = 1 - p_y` (Sadinle et al., 2019); the most probable class is always in the set.
* :class:`TemperatureScaling` (Guo et al., 2017): the :math:`T` of
  :math:`\mathrm{softmax}(o / T)` that minimises the cross-entropy.

The validation rows also chose the checkpoint; the guarantee is the papers' for rows that nothing
else saw.
"""

import math
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional import calibration_error

from datamodules.errors import InputError

_NO_CLASSES = "TemperatureScaling needs classes, and the target is a number; leave it out"


def conformal_quantile(scores: Tensor, level: float) -> Tensor:
    """The score that a new row stays below with a probability of ``level`` at least.

    Args:
        scores: Scores of held-out rows, ``(N, ...)``.
        level: The probability.

    Returns:
        One quantile a column, ``(...)``; infinite where the rows are too few for the level.
    """
    rank = math.ceil((len(scores) + 1) * level)
    if rank > len(scores):
        return torch.full(scores.shape[1:], math.inf, dtype=scores.dtype)
    return scores.sort(dim=0).values[rank - 1]


def fit_temperature(logits: Tensor, target: Tensor) -> float:
    """The temperature with the least cross-entropy.

    Of n rows each counts as wrong with the probability 1 / (n + 2), as in the rule of succession: a
    few rows that are all right would else ask for certainty.

    Args:
        logits: Logits or log probabilities of held-out rows, ``(N, K)``.
        target: Their classes, ``(N,)``.
    """
    wide, doubt = logits.double(), 1 / (len(target) + 2)

    def loss(log_temperature: float) -> float:
        scaled = wide * math.exp(-log_temperature)
        return float(F.cross_entropy(scaled, target, label_smoothing=doubt))

    found = minimize_scalar(loss, bounds=(math.log(0.05), math.log(20.0)), method="bounded")
    return math.exp(found.x)


def _from_all_ranks(held: list[tuple[Tensor, ...]], world_size: int) -> list[Tensor]:
    """Columns of the batches that all ranks hold, rank by rank; none of no batch."""
    parts = [held]
    if world_size > 1:
        parts = [[] for _ in range(world_size)]
        dist.all_gather_object(parts, held)
    batches = [batch for part in parts for batch in part]
    return [torch.cat(column) for column in zip(*batches, strict=True)]


class _Calibrated(L.Callback):
    """Collects what the model says of the validation rows, from all ranks."""

    def __init__(self) -> None:
        self._held: list[tuple[Tensor, ...]] = []

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Keeps the outputs of a batch."""
        self._held.append(self._keep(outputs["preds"], outputs["target"]))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Fits on all validation rows, before the checkpoint is written."""
        columns = _from_all_ranks(self._held, trainer.world_size)
        self._held = []
        if columns:
            self._fit(*columns)

    def _keep(self, preds: Any, target: Tensor) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def _fit(self, *columns: Tensor) -> None:
        raise NotImplementedError

    def _need(self, value: Any) -> Any:
        if value is None:
            raise InputError(
                f"{type(self).__name__} has no validation rows to go by; validate in the fit, or "
                "test a checkpoint of a fit that had this callback"
            )
        return value


class Conformal(_Calibrated):
    """Conformal intervals of numbers and sets of classes, with their coverage at the test.

    Logs ``test/coverage_90`` and ``test/width_90`` or ``test/set_size_90``, and with ``conformal_``
    before them where the model scores intervals of its own at this level; predictions gain
    ``conformal_lower_90`` and ``conformal_upper_90``, or ``conformal_set_90``.

    Args:
        level: Share of new rows that the intervals or sets hold.

    Raises:
        InputError: If the level is no share.
    """

    def __init__(self, level: float = 0.9) -> None:
        super().__init__()
        if not 0 < level < 1:
            raise InputError(f"level must lie in (0, 1), got {level}")
        self.level, self.name = level, f"{100 * level:g}"
        self.quantile: list[float] | None = None
        self._sums: Tensor | None = None
        self._size = "width"

    def state_dict(self) -> dict[str, Any]:
        """The quantile of each target, or of the classes."""
        return {"quantile": self.quantile, "level": self.level}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the quantile of a checkpoint; another level needs another fit."""
        if state_dict["level"] == self.level:
            self.quantile = state_dict["quantile"]

    def _keep(self, preds: Any, target: Tensor) -> tuple[Tensor, ...]:
        if target.is_floating_point():
            mean, std = _mean_and_std(preds)
            return (((target - mean).abs().double() / std).cpu(),)
        chosen = preds.softmax(1).gather(1, target.unsqueeze(1))
        return ((1 - chosen.double()).cpu(),)

    def _fit(self, *columns: Tensor) -> None:
        self.quantile = conformal_quantile(columns[0], self.level).tolist()

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the counts."""
        self._need(self.quantile)
        self._sums = None

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Counts the targets that are held."""
        preds, target = outputs["preds"], outputs["target"]
        if target.is_floating_point():
            mean, std = _mean_and_std(preds)
            half = torch.as_tensor(self.quantile, device=target.device) * std
            held, size = (target - mean).abs() <= half, 2 * half.expand_as(mean)
            self._size = "width"
        else:
            self._size = "set_size"
            sets = self._sets(preds.softmax(1))
            held, size = sets.gather(1, target.unsqueeze(1)), sets.sum(1, keepdim=True)
        sums = [held.sum(), size.double().sum(), torch.tensor(held.numel(), device=target.device)]
        found = torch.stack([value.double() for value in sums])
        self._sums = found if self._sums is None else self._sums + found

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs coverage and size."""
        if self._sums is None:
            return
        sums = trainer.strategy.reduce(self._sums, reduce_op="sum")
        assert isinstance(sums, Tensor)
        names = [f"coverage_{self.name}", f"{self._size}_{self.name}"]
        # A model with a predictive density has a coverage of its own intervals.
        own: Any = getattr(pl_module, "test_metrics", {})
        taken = not {f"test/{name}" for name in names}.isdisjoint(own.keys())
        before = "test/conformal_" if taken else "test/"
        values = zip(names, (sums[0] / sums[2], sums[1] / sums[2]), strict=True)
        pl_module.log_dict({before + name: value for name, value in values})

    def _sets(self, probability: Tensor) -> Tensor:
        """Classes of each row's set, ``(B, K)`` bool."""
        (quantile,) = self._need(self.quantile)
        best = F.one_hot(probability.argmax(1), probability.shape[1]).bool()
        sets: Tensor = (1 - probability.double() <= quantile) | best
        return sets

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Adds the intervals or sets to the predictions."""
        quantile = self._need(self.quantile)
        if "probability" in outputs:
            outputs[f"conformal_set_{self.name}"] = self._sets(outputs["probability"])
            return
        mean = outputs["prediction"].double()
        std = torch.ones_like(mean)
        if "epistemic_std" in outputs and "aleatoric_std" in outputs:
            std = torch.hypot(outputs["epistemic_std"], outputs["aleatoric_std"]).double()
        half = torch.as_tensor(quantile, dtype=torch.float64, device=mean.device) * std
        outputs[f"conformal_lower_{self.name}"] = mean - half
        outputs[f"conformal_upper_{self.name}"] = mean + half


class TemperatureScaling(_Calibrated):
    """Probabilities whose size means what it says, by one number fitted on the validation rows.

    Logs ``test/temperature``, ``test/cross_entropy_scaled`` and ``test/calibration_error_scaled``
    beside the scores of the model as it is; the probabilities of a prediction are the scaled ones.
    The most probable class stays the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.temperature: float | None = None
        self._tested: list[tuple[Tensor, ...]] = []

    def state_dict(self) -> dict[str, Any]:
        """The temperature."""
        return {"temperature": self.temperature}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the temperature of a checkpoint."""
        self.temperature = state_dict["temperature"]

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Checks that there are classes.

        Raises:
            InputError: If the target is a number.
        """
        datamodule: Any = getattr(trainer, "datamodule", None)
        if stage == "fit" and getattr(datamodule, "task", "") == "regression":
            raise InputError(_NO_CLASSES)

    def _keep(self, preds: Any, target: Tensor) -> tuple[Tensor, ...]:
        if target.is_floating_point():
            raise InputError(_NO_CLASSES)
        return preds.detach().double().cpu(), target.cpu()

    def _fit(self, *columns: Tensor) -> None:
        logits, target = columns
        self.temperature = fit_temperature(logits, target)

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts anew."""
        self._need(self.temperature)
        self._tested = []

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Keeps the logits of a batch."""
        self._tested.append(self._keep(outputs["preds"], outputs["target"]))

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs the scores of the scaled probabilities."""
        logits, target = _from_all_ranks(self._tested, trainer.world_size)
        scaled = logits / self._need(self.temperature)
        error = calibration_error(
            scaled.softmax(1), target, task="multiclass", num_classes=scaled.shape[1]
        )
        pl_module.log_dict(
            {
                "test/temperature": torch.tensor(self._need(self.temperature)),
                "test/cross_entropy_scaled": F.cross_entropy(scaled, target),
                "test/calibration_error_scaled": error,
            },
            rank_zero_only=False,
        )

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Scales the probabilities of a prediction."""
        probability = outputs["probability"].double()
        log_probs = probability.clamp(min=1e-300).log()
        outputs["probability"] = (log_probs / self._need(self.temperature)).softmax(1)


def _mean_and_std(preds: Any) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of numbers; 1 where the model states no deviation."""
    if isinstance(preds, Tensor):
        return preds, torch.ones((), dtype=torch.float64, device=preds.device)
    return preds.mean, preds.variance.sqrt().double()
