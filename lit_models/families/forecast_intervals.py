"""Forecasters whose intervals hold: conformal widths from validation, adapted to what follows.

Widths are learned and adapted on data of a user's own alone, which come in the order of time.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from datamodules.batches import SeriesBatch
from lit_models.families.forecast import LitForecaster
from lit_models.layers.conformal import ConformalWidths
from lit_models.layers.forecast_heads import LEVELS, interval_ends
from lit_models.layers.series_units import from_rows
from lit_models.metrics.forecast import Windows


class LitIntervalForecaster(LitForecaster):
    """A forecaster with intervals; arguments as for :class:`LitForecaster`.

    Attributes:
        scores_by_series: Squared and absolute test error of each of several series.
        coverage_by_step: Share of the test targets in each level's adapted interval, ``(H,)``.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        count = self.num_series * self.num_targets
        self.widths = ConformalWidths(LEVELS, self.horizon, count) if count else None
        scored = ("lower", "upper", "target", "mask", "series")
        self.val_windows = Windows(*scored)
        self.test_windows = Windows(*scored, "time", "center", "scale", "error")
        self.scores_by_series: dict[str, dict[str, float]] = {}
        self.coverage_by_step: Mapping[float, Tensor] = {}
        self._adapted: tuple[Tensor, Tensor] | None = None

    def _bounds(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Ends of the intervals that the head states, ``(R, L, H)``, in the model's units."""
        ends = self.head.quantiles(params[:, : self.horizon], interval_ends())
        lower, upper = ends.movedim(-1, 1).chunk(2, dim=1)
        return lower, upper

    def _scored(self, params: Tensor, rows: SeriesBatch) -> dict[str, Tensor]:
        """Intervals and targets of some rows in the model's units."""
        lower, upper = self._bounds(params)
        target = self.units.target(rows, self.y_scaler, self._compute_dtype)[:, : self.horizon]
        mask = torch.ones_like(target, dtype=torch.bool) if rows.mask is None else rows.mask
        series = rows.series
        if series is None:
            series = torch.zeros(len(target), dtype=torch.long, device=target.device)
        return {"lower": lower, "upper": upper, "target": target, "mask": mask, "series": series}

    # Validation: widths --------------------------------------------------------------------------

    @property
    def _judges_by_validation(self) -> bool:
        return super()._judges_by_validation or self.widths is not None

    def _judge(self, validated: list[tuple[Tensor, SeriesBatch]]) -> None:
        super()._judge(validated)
        if self.widths is None:
            return
        for params, rows in validated:
            self.val_windows.update(**self._scored(params, rows))
        found = self.val_windows.compute()
        self.widths.fit(_scores(found), found["mask"], found["series"])
        self.val_windows.reset()

    # Test: coverage of adapted intervals ---------------------------------------------------------

    def test_step(self, batch: SeriesBatch, batch_idx: int) -> dict[str, Tensor]:
        """Updates the test metrics; keeps the intervals of a user's series."""
        params, rows = self.params(batch), self._rows(batch)
        output = self._output(params, rows)
        self._accumulate("test", output)
        self.update_metrics(self.test_metrics, output)
        if self.widths is not None and rows.time is not None:
            own = rows.center is not None and rows.scale is not None
            ones = torch.ones(len(params), 1, device=params.device)
            self.test_windows.update(
                **self._scored(params, rows),
                time=rows.time,
                center=rows.center[:, :1] if own else 0 * ones,  # type: ignore[index]
                scale=rows.scale[:, :1] if own else ones,  # type: ignore[index]
                error=(output.preds - output.target).abs(),
            )
        return {"preds": output.preds, "target": output.target}

    def on_test_epoch_end(self) -> None:
        """Logs means, metrics and the coverage of intervals that adapt over the test."""
        if self.widths is not None and self.test_windows.lower:
            self.log_dict(self._coverage(self.test_windows.compute()), sync_dist=True)
            self.test_windows.reset()
        super().on_test_epoch_end()

    def _coverage(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        assert self.widths is not None
        found = {name: part.detach().cpu() for name, part in found.items()}
        scores, mask = _scores(found), found["mask"]
        added = self.widths.adaptive(scores, found["time"], found["series"], mask)
        self._follow(found["time"], added)  # for whoever draws the test windows
        weight = mask.double().unsqueeze(1)
        inside = (scores <= added).double() * weight
        lower, upper = (
            self._to_units(found[name].double() + side * added, found)
            for name, side in (("lower", -1), ("upper", 1))
        )
        logged, by_step = {}, {}
        for index, level in enumerate(LEVELS):
            name = f"{round(100 * level)}"
            by_step[level] = inside[:, index].sum(0) / weight[:, 0].sum(0)
            covered = inside[:, index].sum() / weight.sum()
            logged[f"test/coverage_{name}"] = covered.float()
            logged[f"test/width_{name}"] = (upper - lower)[:, index][mask].mean().float()
        self.coverage_by_step = by_step
        self._score_by_series(found)
        return logged

    def _to_units(self, ends: Tensor, found: dict[str, Tensor]) -> Tensor:
        """Ends of intervals ``(N, L, H)`` in the units of the file."""
        own = bool((found["scale"] != 1).any())
        center, scale = (found[name].double() if own else None for name in ("center", "scale"))
        batch = SeriesBatch(ends, ends, center=center, scale=scale)
        return self.units.restore(ends.to(self.device), batch, self.y_scaler).cpu()

    def _score_by_series(self, found: dict[str, Tensor]) -> None:
        datamodule: Any = getattr(self.trainer, "datamodule", None)
        names = getattr(datamodule, "series_names", [])
        if self.num_targets > 1:
            names = [f"{n} {t}".strip() for n in names for t in datamodule.target_names]
        self.scores_by_series = {}
        if len(names) < 2:
            return
        for number in sorted(set(found["series"].tolist())):
            rows = found["series"] == number
            error = found["error"][rows].double()[found["mask"][rows]]
            name = names[number] if 0 <= number < len(names) else f"new series {-number}"
            scores = {"mse": error.square().mean().item(), "mae": error.mean().item()}
            self.scores_by_series[name] = scores

    # Prediction ----------------------------------------------------------------------------------

    def on_predict_start(self) -> None:
        """Adapts the widths to the windows whose targets are known."""
        super().on_predict_start()
        self._adapted = None
        followed = getattr(getattr(self.trainer, "datamodule", None), "followed_windows", None)
        if self.widths is None or followed is None:
            return
        parts = []
        with torch.no_grad():
            for given in followed():
                moved: Any = (f if f is None else f.to(self.device) for f in given)
                batch = SeriesBatch(*moved)
                rows = self._rows(batch)
                scored = self._scored(self.params(batch), rows)
                parts.append((_scores(scored), rows.time, rows.series, scored["mask"]))
        if parts:
            columns = [torch.cat(part).cpu() for part in zip(*parts, strict=True)]
            self._follow(columns[1], self.widths.adaptive(*columns))

    def _follow(self, time: Tensor, added: Tensor) -> None:
        keys, order = self._keys(time).sort()
        self._adapted = keys, added[order]

    def _keys(self, time: Tensor) -> Tensor:
        """A number of each row of its own: its time, and which of the targets it is."""
        which = torch.arange(len(time), device=time.device) % self.num_targets
        return time * self.num_targets + which

    def _added(self, rows: SeriesBatch) -> Tensor | int:
        """Widths of some rows ``(R, L, H)``: adapted, or those of the validation."""
        if self.widths is None:
            return 0
        series = torch.zeros(len(rows.x), dtype=torch.long) if rows.series is None else rows.series
        added = self.widths.static(series.to(self.widths.ratios.device))
        if self._adapted is not None and rows.time is not None:
            keys, widths = self._adapted
            wanted = self._keys(rows.time).cpu()
            place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
            here = (keys[place] == wanted)[:, None, None].to(added.device)
            added = torch.where(here, widths[place].to(added), added)
        return added

    def predict_step(self, batch: SeriesBatch, batch_idx: int = 0) -> dict[str, Tensor]:
        """Forecast, intervals where the model has them, and target; each ``(B, H)``.

        Of several targets together ``(B, H, M)``.
        """
        params, rows = self.params(batch)[:, : self.horizon], self._rows(batch)
        columns = {"prediction": self._point(params, rows)}
        if self.widths is not None or self.head_kind != "point":
            lower, upper = self._bounds(params)
            added = self._added(rows)
            lower, upper = (
                self.units.restore(ends, rows, self.y_scaler)
                for ends in (lower - added, upper + added)
            )
            for index, level in enumerate(LEVELS):
                columns[f"lower_{round(100 * level)}"] = lower[:, index]
                columns[f"upper_{round(100 * level)}"] = upper[:, index]
        columns["target"] = rows.y[:, : self.horizon]
        return {name: from_rows(part, self.num_targets) for name, part in columns.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also loads a checkpoint from before there were intervals, their ratios, or units."""
        super().on_load_checkpoint(checkpoint)
        own = self.state_dict()
        for name in ("widths.scores", "widths.count", "widths.ratios"):
            if name in own:
                checkpoint["state_dict"].setdefault(name, own[name])
        for name in ("start.reach", "start.stretch"):
            if name in own:
                checkpoint["state_dict"].setdefault(name, torch.ones_like(own[name]))


def _scores(found: Mapping[str, Tensor]) -> Tensor:
    """How far each target lies outside of its intervals, ``(N, L, H)``; negative inside."""
    target = found["target"].unsqueeze(1)
    return torch.maximum(found["lower"] - target, target - found["upper"])
