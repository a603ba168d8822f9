"""A W&B sweep file as Optuna reads it: command, metric, search space and early stopping."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import BaseTrial

from datamodules.errors import InputError
from lit_models.command.catalog import configs_root, load_yaml

_ARGS = "${args}"
_DIRECTIONS = ("minimize", "maximize")
# Distributions by W&B's names: kind of number, and whether its logarithm is uniform.
_RANGES: Mapping[str, tuple[type[int] | type[float], bool]] = {
    "int_uniform": (int, False),
    "uniform": (float, False),
    "q_uniform": (float, False),
    "log_uniform_values": (float, True),
}


@dataclass(frozen=True)
class Sweep:
    """What a sweep file asks for.

    Attributes:
        path: The file.
        command: Options of ``lit-models fit``, with ``${args}`` where the values go.
        metric: Metric of the validation that is searched by.
        direction: ``minimize`` or ``maximize``.
        method: ``bayes`` or ``random``.
        constants: Options that do not vary.
        space: Options that vary, with their distributions.
        early_terminate: W&B's ``early_terminate``, empty without one.
    """

    path: Path
    command: Sequence[str]
    metric: str
    direction: str
    method: str
    constants: Mapping[str, Any]
    space: Mapping[str, BaseDistribution]
    early_terminate: Mapping[str, Any]

    def suggest(self, trial: BaseTrial) -> dict[str, Any]:
        """Values of all options for a trial."""
        drawn = {name: _draw(trial, name, law) for name, law in self.space.items()}
        return {**self.constants, **drawn}

    def options(self, values: Mapping[str, Any]) -> list[str]:
        """Options of ``lit-models fit`` for the values, as the W&B agent would write them."""
        args = [f"--{name}={value}" for name, value in values.items()]
        index = self.command.index(_ARGS)
        return [*self.command[:index], *args, *self.command[index + 1 :]]

    def sampler(self, seed: int | None) -> BaseSampler:
        """Chooses the values of the next trial."""
        if self.method == "random":
            return RandomSampler(seed=seed)
        # Parallel workers would otherwise try the same promising place at the same time.
        return TPESampler(seed=seed, constant_liar=True)

    def pruner(self) -> BasePruner:
        """Stops trials that fall behind: W&B's hyperband is successive halving in brackets."""
        if not self.early_terminate:
            return NopPruner()
        return SuccessiveHalvingPruner(
            min_resource=self.early_terminate["min_iter"],
            reduction_factor=self.early_terminate.get("eta", 3),
        )


def read_sweep(name: str) -> Sweep:
    """Reads a sweep file.

    Args:
        name: Path of the file, or the name of a packaged one.

    Raises:
        InputError: If it cannot be read, or asks for what Optuna's search here does not have.
    """
    path = Path(name) if Path(name).is_file() else configs_root() / "sweeps" / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in path.parent.glob("*.yaml")))
        raise InputError(f"no sweep file {name!r}; packaged ones: {known or 'none here'}")
    config = load_yaml(path)
    metric = config.get("metric")
    if not isinstance(metric, dict) or not isinstance(metric.get("name"), str):
        raise InputError(f"{path}: metric needs a name, such as `name: val/loss`")
    direction = metric.get("goal", "minimize")
    method = config.get("method")
    _choice(path, "metric.goal", direction, _DIRECTIONS)
    _choice(path, "method", method, ("bayes", "random"))
    parameters = config.get("parameters")
    if not isinstance(parameters, dict) or not parameters:
        raise InputError(f"{path}: no parameters to search over")
    constants, space = {}, {}
    for option, spec in parameters.items():
        if isinstance(spec, dict) and "value" in spec:
            constants[option] = spec["value"]
        else:
            space[option] = _distribution(f"{path}: {option}", spec)
    return Sweep(
        path=path,
        command=_command(path, config.get("command")),
        metric=metric["name"],
        direction=direction,
        method=str(method),
        constants=constants,
        space=space,
        early_terminate=_early_terminate(path, config.get("early_terminate")),
    )


def _choice(path: Path, name: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        raise InputError(f"{path}: {name} must be one of {', '.join(known)}; got {value!r}")


def _command(path: Path, command: Any) -> list[str]:
    """The options behind ``lit-models fit``."""
    words = [str(word) for word in command] if isinstance(command, list) else []
    start = next((i for i, word in enumerate(words) if Path(word).name == "lit-models"), -1)
    if start < 0 or words[start + 1 : start + 2] != ["fit"]:
        raise InputError(f"{path}: command must run `lit-models fit`")
    options = words[start + 2 :]
    macros = [word for word in options if re.search(r"\$\{.*\}", word)]
    if macros != [_ARGS]:
        raise InputError(f"{path}: command needs {_ARGS} once, and no other macro; got {macros}")
    return options


def _distribution(where: str, spec: Any) -> BaseDistribution:
    if not isinstance(spec, dict):
        raise InputError(f"{where} must be a mapping with values, or min and max; got {spec!r}")
    if "values" in spec:
        _known(where, spec, ("values", "distribution"))
        if not isinstance(spec["values"], list) or not spec["values"]:
            raise InputError(f"{where}: values must be a list; got {spec['values']!r}")
        # As texts, which is what the command line takes: a study file stores no lists.
        return CategoricalDistribution([str(value) for value in spec["values"]])
    _known(where, spec, ("distribution", "min", "max", "q"))
    low, high = (_number(where, spec, key) for key in ("min", "max"))
    whole = isinstance(low, int) and isinstance(high, int)
    name = spec.get("distribution", "int_uniform" if whole else "uniform")
    if name not in _RANGES:
        known = ", ".join(("categorical", *_RANGES))
        raise InputError(f"{where}: distribution must be one of {known}; got {name!r}")
    kind, log = _RANGES[name]
    try:
        if kind is int:
            return IntDistribution(int(low), int(high))
        step = float(_number(where, spec, "q")) if name == "q_uniform" else None
        return FloatDistribution(float(low), float(high), log=log, step=step)
    except ValueError as error:
        raise InputError(f"{where}: {str(error).splitlines()[0]}") from error


def _number(where: str, spec: Mapping[str, Any], key: str) -> int | float:
    value = spec.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        # YAML 1.1 reads 1e-4 as text.
        raise InputError(f"{where}: {key} must be a number such as 0.001; got {value!r}")
    return value


def _known(where: str, spec: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in spec:
        if key not in known:
            raise InputError(f"{where}: {key!r} is not supported here; known: {', '.join(known)}")


def _early_terminate(path: Path, spec: Any) -> Mapping[str, Any]:
    if spec is None:
        return {}
    where = f"{path}: early_terminate"
    if not isinstance(spec, dict) or spec.get("type") != "hyperband" or "min_iter" not in spec:
        raise InputError(f"{where} must have `type: hyperband` and min_iter; got {spec!r}")
    _known(where, spec, ("type", "min_iter", "eta"))
    for key, least in (("min_iter", 1), ("eta", 2)):
        if key in spec and _number(where, spec, key) < least:
            raise InputError(f"{where}: {key} must be at least {least}, got {spec[key]}")
    return spec


def _draw(trial: BaseTrial, name: str, distribution: BaseDistribution) -> Any:
    match distribution:
        case CategoricalDistribution():
            return trial.suggest_categorical(name, distribution.choices)
        case IntDistribution():
            return trial.suggest_int(name, distribution.low, distribution.high)
        case FloatDistribution(low=low, high=high, step=step, log=log):
            return trial.suggest_float(name, low, high, step=step, log=log)
        case _:
            raise NotImplementedError(type(distribution).__name__)
