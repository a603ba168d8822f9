"""Scales of series by their training rows, and the transform that validation prefers."""

from typing import Any, Literal

import numpy as np
import torch
from scipy import special
from torch import Tensor

from datamodules.errors import InputError
from datamodules.files.notes import say
from datamodules.loading.windows import Origins
from datamodules.own.series_options import SeriesOptions
from datamodules.own.series_rivals import Errors, Power, blocks, fit_ridge, linear_forecast
from datamodules.own.series_table import SeriesTable

Array = np.ndarray[Any, Any]
Transform = Literal["none", "log1p", "boxcox", "auto"]
_EXPONENTS = (0.0, 0.25, 0.5, 0.75)
_SAMPLE = 20_000


def series_scales(
    data: SeriesOptions, table: SeriesTable, power: Power | None, recall: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and standard deviation of each channel, ``(S, D)``, and the naive error, ``(S,)``.

    Of M targets together the naive errors are ``(S, M)``. A series of the training file has the
    scale of its training rows, which a run remembers; one that training did not have has that of
    all its rows. A constant channel keeps its unit.

    Args:
        data: The options, and what a run knows.
        table: The rows.
        power: Transform of the target before it is scaled.
        recall: Whether to take the scales that a run remembers; else those of the file at hand.
    """
    known = data.memory if recall else {}
    if recall and not known and table is not data.table:
        known = data.knowledge()
    same = not known
    starts = table.offsets[:-1]
    ends = data.bounds["train"][1] if same else table.ends
    center, scale = np.zeros((2, len(starts), table.values.shape[1]))
    targets = slice(table.num_targets)
    naive = np.ones((len(starts), table.num_targets))
    kinds = np.array(table.kinds if same else known["kinds"])
    for index, (start, end) in enumerate(zip(starts, np.maximum(ends, starts + 1), strict=True)):
        part = table.values[start:end]
        naive[index] = [_naive_error(target, data.season) for target in part[:, targets].T]
        if power is not None:
            part = part.copy()
            part[:, targets] = power_transform(part[:, targets], power)
        center[index], scale[index] = part.mean(0), part.std(0)
    pooled = kinds == "all"
    if pooled.any() and same:
        rows = np.concatenate(
            [table.values[s:e, pooled] for s, e in zip(starts, ends, strict=True)]
        )
        center[:, pooled], scale[:, pooled] = rows.mean(0), rows.std(0)
    center[:, kinds == "none"], scale[:, kinds == "none"] = 0, 1
    scale[scale == 0] = 1
    naive = naive[:, 0] if table.num_targets == 1 else naive
    found = [torch.from_numpy(part) for part in (center, scale, naive)]
    if not same:
        _recall(found, known, data.numbers_of(table.names), pooled, data.grouped)
    return found[0], found[1], found[2]


def _recall(
    found: list[Tensor], known: dict[str, Any], numbers: Tensor, pooled: Array, grouped: bool
) -> None:
    """Puts the scales that a run remembers in place of those of the file at hand."""
    remembered = [known[name] for name in ("center", "scale", "naive_error")]
    old = torch.zeros_like(numbers) if not grouped else numbers
    here = old >= 0
    for part, memory in zip(found, remembered, strict=True):
        part[here] = memory[old[here]]
    for part, memory in zip(found[:2], remembered[:2], strict=True):
        part[:, pooled] = memory[:1, pooled]


def _naive_error(target: Array, season: int) -> float:
    lag = season if 0 < season < len(target) else 1
    error = float(np.abs(target[lag:] - target[:-lag]).mean()) if len(target) > lag else 0.0
    return error or 1.0


def power_transform(values: Array, power: Power) -> Array:
    """Box-Cox transform of shifted values."""
    exponent, shift, least = power
    return np.asarray(special.boxcox(np.maximum(values + shift, least), exponent))


def choose_power(data: SeriesOptions, transform: Transform) -> Power | None:
    """The transform of the target: as asked for, or as validation prefers.

    Raises:
        InputError: If the target is not positive where the transform needs it to be.
    """
    if transform == "none":
        return None
    starts, ends = data.bounds["train"]
    spans = zip(starts, ends, strict=True)
    values = data.table.values[:, : data.num_targets]
    least = min(float(values[s:e].min()) for s, e in spans if e > s)
    powers = _powers(transform, least, str(data.table.where))
    if len(powers) == 1:
        return powers[0]
    scored = [(_validation_error(data, power), index) for index, power in enumerate(powers)]
    power = powers[min(scored)[1]]
    if power is not None:
        name = "log(1 + y)" if power[:2] == (0.0, 1.0) else f"Box-Cox, exponent {power[0]:g}"
        say(f"target transformed by {name}, which forecasts the validation rows best")
    return power


def _powers(transform: Transform, least: float, where: str) -> list[Power | None]:
    """Candidates of a transform for a target whose smallest training value is ``least``."""
    found: list[Power | None] = [None] if transform == "auto" else []
    if transform in ("boxcox", "auto") and least > 0:
        found += [(exponent, 0.0, 1e-3 * least) for exponent in _EXPONENTS]
    if transform in ("log1p", "auto") and (least >= 0 if transform == "auto" else least > -1):
        found.append((0.0, 1.0, 1e-3 * (1 + least)))
    if not found:
        raise InputError(
            f"{where}: the target is as small as {least:g} and {transform} needs it above "
            f"{'-1' if transform == 'log1p' else '0'}; use --data.transform none or auto"
        )
    return found


def _validation_error(data: SeriesOptions, power: Power | None) -> float:
    """Squared error of the ridge regression on the validation windows, in units of each series."""
    scales = series_scales(data, data.table, power)
    rows = data.rows_with(scales)
    scaler = data.scaler_of(scales, power)
    parts = [data.origins("train"), data.origins("val")]
    train, val = (
        Origins(*(field[:: 1 + len(part.row) // _SAMPLE] for field in part)) for part in parts
    )
    ridge = fit_ridge(rows, train, val, scaler)
    if ridge is None:
        return float("inf")
    errors = Errors()
    for batch in blocks(rows, val):
        errors.add(linear_forecast(ridge, batch, scaler), batch)
    return errors.means()["mase" if data.grouped else "mse"]
