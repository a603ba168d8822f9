"""The command line before LightningCLI parses it: names become files, classes and checkpoints."""

import difflib
import reprlib
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import callbacks
import datamodules
import lit_models
from datamodules.errors import InputError
from lit_models.command.catalog import configs_root, find_config, load_yaml
from lit_models.command.run_folder import resolve_checkpoint, run_dir_of
from lit_models.command.trust import check_found, named_classes

_CLASS_OPTIONS = {
    "--model": lit_models,
    "--model.class_path": lit_models,
    "--data": datamodules,
    "--data.class_path": datamodules,
}

# One of them must be there where no configuration is.
_STARTS = {"--model", "--data", "--model.class_path", "--ckpt_path", "--help", "-h"}

# Two classes have this name; Lightning's asks which metric to watch.
_PLATEAU = "ReduceLROnPlateau"

# Sections of a configuration that hold options, and no value.
_GROUPS = ("trainer", "wandb", "checkpoint", "last_checkpoint")


@dataclass
class CommandLine:
    """A command line whose names are resolved.

    Attributes:
        given: As the user typed it.
        args: As LightningCLI parses it.
        checkpoint: Checkpoint to continue or to score.
        run_dir: Folder of the run the checkpoint belongs to; None for a new run.
        classes: Class paths of ``model`` and ``data``.
        experiment_data: Class path of the data that the experiment itself has.
        found: Whether the run's own configuration is read without having been named.
        trusted: Class paths that the user has named, where that configuration is read.
        layers: Contents of the configurations.
    """

    given: list[str]
    args: list[str]
    checkpoint: Path | None = None
    run_dir: Path | None = None
    classes: dict[str, str] = field(default_factory=dict)
    experiment_data: str | None = None
    found: bool = False
    trusted: list[str] = field(default_factory=list)
    layers: list[dict[str, Any]] = field(default_factory=list)


def prepare(argv: Sequence[str]) -> CommandLine:
    """Resolves packaged configs, short class names and checkpoints of a command line.

    The layers, later ones winning: packaged defaults, the first ``--config``, the ``config.yaml``
    of the run that ``--ckpt_path`` belongs to, further ``--config`` files, single options.

    Raises:
        InputError: If a name stands for nothing.
    """
    command, *rest = argv
    options = list(_options(rest))
    configs = [find_config(value or "") for name, value in options if name in ("--config", "-c")]
    others = [(name, value) for name, value in options if name not in ("--config", "-c")]
    layers = [load_yaml(path) for path in configs]
    resolved = [layer for layer in layers if _is_resolved(layer)]
    for layer in resolved:  # a further run from it is neither called so nor continues another
        layer["ckpt_path"] = layer["run_id"] = None
    if not configs and not {name for name, _ in others} & _STARTS:
        raise InputError(
            f"{command} what? give --config NAME, such as `lit-models {command} --config lstm`; "
            "`lit-models list` shows the names"
        )
    experiment = _last(others, "--experiment") or _experiment(configs, layers, others)
    line = CommandLine(given=list(argv), args=[command], layers=layers)
    others = [option for option in others if option[0] != "--ckpt_path"]
    name = _checkpoint_name(command, options, layers)
    if name is not None and name != "none":
        runs_dir = _last(others, "--runs_dir") or _setting(layers, "runs_dir") or "runs"
        line.checkpoint = resolve_checkpoint(name, Path(runs_dir), experiment or "custom")
        line.run_dir, run_config = _own_run(line.checkpoint, experiment)
        if run_config is not None:
            own = load_yaml(run_config)
            line.found = run_config not in configs
            named = [*layers, *({name: value} for name, value in others)]
            check_found(run_config, own, named)
            line.trusted = named_classes(named)
            configs[1:1], layers[1:1] = [run_config], [own]
            experiment = experiment or _setting(layers, "experiment")
    if name is not None or resolved:
        others.append(("--ckpt_path", str(line.checkpoint or "null")))
    if resolved:
        others.insert(0, ("--run_id", "null"))
    if command in ("validate", "test"):
        others.insert(0, ("--verbose", "false"))  # the report prints a table of its own
    for path, layer in zip(configs, layers, strict=True):
        _check_groups(path, layer)
    line.args += _written(configs, experiment, others)
    datas = (layer["data"] for layer in layers if "model" in layer and "data" in layer)
    data = next(datas, None)
    line.experiment_data = data.get("class_path") if isinstance(data, dict) else None
    paths = {key: _last_class_path(layers, line.args, key) for key in ("model", "data")}
    line.classes = {key: path for key, path in paths.items() if path is not None}
    return line


def _written(
    configs: Sequence[Path], experiment: str | None, options: Sequence[tuple[str, str | None]]
) -> list[str]:
    """Arguments of LightningCLI: the configurations, the experiment's name, and the options."""
    args: list[str] = []
    for path in (configs_root() / "defaults.yaml", *configs):
        args += ["--config", str(path)]
    if experiment is not None:
        args += ["--experiment", experiment]
    named = {name for name, _ in options}
    for name, value in options:
        if name != "--experiment":
            args.append(name)
            args += [] if value is None else [_full_class_path(name, value, named)]
    return args


def _is_resolved(layer: dict[str, Any]) -> bool:
    """Whether a configuration is the ``config.yaml`` that a run has written."""
    trainer = layer.get("trainer")
    return isinstance(trainer, dict) and trainer.get("default_root_dir") is not None


def _checkpoint_name(
    command: str, options: Sequence[tuple[str, str | None]], layers: Sequence[dict[str, Any]]
) -> str | None:
    """The checkpoint that the command line, or else a configuration, names."""
    if ("--ckpt_path", None) in options:
        raise InputError("--ckpt_path needs a value: best, last or the path of a .ckpt file")
    name = _last(options, "--ckpt_path")
    if name is None and _setting(layers, "ckpt_path") is not None:
        name = str(_setting(layers, "ckpt_path"))
    flags = {option for option, _ in options}
    if name is None and command != "fit" and not flags & {"--help", "-h", "--print_config"}:
        raise InputError(
            f"{command} needs --ckpt_path best, last or FILE (none: the weights as initialised)"
        )
    return name


def _check_groups(path: Path, layer: dict[str, Any]) -> None:
    for group in _GROUPS:
        if group in layer and not isinstance(layer[group], dict):
            raise InputError(
                f"{path}: {group} is {reprlib.repr(layer[group])}; write `name: value` lines "
                "below it, or leave it out"
            )
    for group in ("model", "data"):
        section = layer.get(group)
        class_path = section.get("class_path", "") if isinstance(section, dict) else ""
        if not isinstance(class_path, str):
            raise InputError(
                f"{path}: class_path of {group} is {reprlib.repr(class_path)}; give the name of a "
                "class of the package, or a.b.C"
            )


def _last_class_path(layers: Sequence[dict[str, Any]], args: Sequence[str], key: str) -> str | None:
    options = (f"--{key}", f"--{key}.class_path")
    given: list[Any] = [args[i + 1] for i, arg in enumerate(args[:-1]) if arg in options]
    named = [layer[key].get("class_path") for layer in layers if isinstance(layer.get(key), dict)]
    return next((path for path in reversed(named + given) if isinstance(path, str)), None)


def _options(args: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Options with their values; a flag has None."""
    index = 0
    while index < len(args):
        name, equals, value = args[index].partition("=")
        index += 1
        if not name.startswith("-"):
            raise InputError(f"unexpected {name!r}; options start with --")
        if equals:
            yield name, value
        elif index < len(args) and not _is_option(args[index]):
            yield name, args[index]
            index += 1
        else:
            yield name, None


def _is_option(text: str) -> bool:
    return text.startswith("--") or text in ("-c", "-h")


def _last(options: Sequence[tuple[str, str | None]], name: str) -> str | None:
    return next((value for key, value in reversed(options) if key == name), None)


def _setting(layers: Sequence[dict[str, Any]], name: str) -> Any:
    return next((layer[name] for layer in reversed(layers) if layer.get(name) is not None), None)


def _experiment(
    configs: Sequence[Path], layers: Sequence[dict[str, Any]], options: Sequence[tuple[str, Any]]
) -> str | None:
    """Name of the run's folder: what a config says, else the name of the config with the model."""
    named = _setting(layers, "experiment")
    if named is not None:
        return str(named)
    stems = [path.stem for path, layer in zip(configs, layers, strict=True) if "model" in layer]
    model = _last(options, "--model")
    return stems[0] if stems else model


def _own_run(checkpoint: Path, experiment: str | None) -> tuple[Path | None, Path | None]:
    """Run folder of a checkpoint and its config, if it is a run of this experiment."""
    run_dir = run_dir_of(checkpoint)
    if run_dir is None:
        return None, None
    config = run_dir / "config.yaml"
    if experiment not in (None, load_yaml(config).get("experiment")):
        return None, None
    return run_dir, config


def import_named_classes(layer: Any) -> None:
    """Imports the modules of short class names in a config, so that the parser finds them."""
    if isinstance(layer, list):
        for item in layer:
            import_named_classes(item)
    elif isinstance(layer, dict):
        name = str(layer.get("class_path"))
        for package in (lit_models, datamodules, callbacks):
            if name in package.__all__:
                getattr(package, name)
        for item in layer.values():
            import_named_classes(item)


def _full_class_path(option: str, value: str, options: Set[str]) -> str:
    """Class path of a short name given to ``--model``, ``--data`` or the schedule."""
    if option == "--model.lr_scheduler" and value == _PLATEAU:
        watches = "--model.lr_scheduler.monitor" in options
        return f"{'lightning.pytorch.cli' if watches else 'torch.optim.lr_scheduler'}.{value}"
    package = _CLASS_OPTIONS.get(option)
    if package is None or not value.isidentifier():
        return value
    if value in package.__all__:
        return f"{package.__name__}.{value}"
    close = difflib.get_close_matches(value, package.__all__, n=3)
    hint = f"did you mean {', '.join(close)}?" if close else "give a class of the package or a.b.C"
    raise InputError(f"{option}: no class {value!r} in {package.__name__}; {hint}")
