"""``lit-models fit --help``: the options that matter, and those of the chosen model and data.

``--help all`` is the parser's own, with every option of Lightning's Trainer.
"""

import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lit_models.command.arguments import CommandLine, prepare
from lit_models.command.catalog import load_yaml
from lit_models.command.classes import arguments_of, named_class

_FLAGS = ("--help", "-h")
_WIDTH, _COLUMN = 80, 32
_NOT_A_NAME = ("optimizer", "lr_scheduler")  # classes, with options of their own


class Option(NamedTuple):
    """An option of every command, or of some.

    Attributes:
        name: The option, and what its value stands for.
        text: What it does.
        commands: Commands that take it.
    """

    name: str
    text: str
    commands: tuple[str, ...] = ("fit", "validate", "test", "predict")


_FIT = ("fit",)
OPTIONS = {
    "the run": (
        Option("--config NAME_OR_FILE", "packaged experiment or overlay, or a YAML file; later "
               "ones win"),
        Option("--model CLASS", "a model of the package, or a.b.C"),
        Option("--data CLASS", "a datamodule of the package, or a.b.C"),
        Option("--ckpt_path best|last|FILE", "checkpoint to continue or to score; best and last "
               "look in the newest run of the experiment"),
        Option("--run_id NAME", "name of the run's folder; made up if unset"),
        Option("--runs_dir FOLDER", "folder of all runs (runs)"),
        Option("--seed_everything SEED", "seed of weights, order and dropout (0)"),
        Option("--test_after_fit BOOL", "test the best checkpoint after the fit (true)", _FIT),
        Option("--print_config", "show the resolved configuration and stop"),
    ),
    "training": (
        Option("--trainer.max_epochs N", "epochs; -1 with max_steps or max_time", _FIT),
        Option("--trainer.max_steps N", "optimizer steps", _FIT),
        Option("--trainer.max_time DD:HH:MM:SS", "time after which the fit ends", _FIT),
        Option("--model.optimizer CLASS", "class of torch.optim, with --model.optimizer.lr RATE",
               _FIT),
        Option("--model.lr_scheduler CLASS", "class of torch.optim.lr_scheduler, or lit_models."
               "WarmupCosine", _FIT),
        Option("--trainer.gradient_clip_val NORM", "largest norm of the gradient", _FIT),
        Option("--trainer.accumulate_grad_batches N", "batches of one optimizer step", _FIT),
        Option("--trainer.check_val_every_n_epoch N", "epochs between validations", _FIT),
        Option("--checkpoint.monitor METRIC", "metric of the best checkpoint, with --checkpoint."
               "mode min|max", _FIT),
    ),
    "machine and records": (
        Option("--trainer.accelerator NAME", "cpu, gpu, mps or auto"),
        Option("--trainer.devices N", "processes, one a device"),
        Option("--trainer.precision NAME", "32-true, bf16-mixed, 16-mixed or 64-true"),
        Option("--trainer.fast_dev_run BOOL", "one batch of everything, nothing written"),
        Option("--trainer.profiler simple", "print what the time went into"),
        Option("--wandb.mode MODE", "online, offline or disabled (offline)"),
        Option("--tensorboard BOOL", "record for TensorBoard too (false)"),
        Option("--mlflow BOOL", "record for MLflow too (false)"),
        Option("--wandb.project NAME", "W&B project (lit-models)"),
    ),
}  # fmt: skip


def asks_for_short_help(argv: Sequence[str]) -> bool:
    """Whether a command line asks for help, and not for all of it."""
    return any(
        arg in _FLAGS and (index + 1 == len(argv) or argv[index + 1] != "all")
        for index, arg in enumerate(argv)
    )


def without_all(argv: Sequence[str]) -> list[str]:
    """The command line with ``--help all`` as the parser knows it."""
    after_flag = {i + 1 for i, arg in enumerate(argv) if arg in _FLAGS}
    return [arg for i, arg in enumerate(argv) if not (i in after_flag and arg == "all")]


def short_help(argv: Sequence[str]) -> str:
    """The help of a command line.

    Raises:
        InputError: If a name on it stands for nothing.
    """
    line = prepare(argv)
    command = argv[0]
    lines = [
        f"usage: lit-models {command} --config NAME_OR_FILE [--config ...] [--OPTION VALUE ...]"
    ]
    for title, options in OPTIONS.items():
        shown = [option for option in options if command in option.commands]
        lines += ["", f"{title}:", *(row for o in shown for row in _rows(o.name, o.text))]
    if not line.classes:
        lines += ["", f"`lit-models {command} --config lstm --help` adds the options of its model"]
        lines.append("and data; `lit-models list` shows the names.")
    for group, class_path in line.classes.items():
        lines += ["", *_class_rows(group, class_path, _given(line, group))]
    lines += ["", f"lit-models {command} --help all: every option of the Trainer and of loggers"]
    return "\n".join(lines)


def _rows(name: str, text: str) -> list[str]:
    """An option and what it does, in two columns."""
    first = f"  {name}"
    wrapped = textwrap.wrap(text, _WIDTH - _COLUMN)
    if len(first) + 2 > _COLUMN:
        return [first, *(" " * _COLUMN + part for part in wrapped)]
    lead = [first.ljust(_COLUMN), *[" " * _COLUMN] * max(len(wrapped) - 1, 0)]
    return [a + b for a, b in zip(lead, wrapped, strict=True)] if wrapped else [first]


def _given(line: CommandLine, group: str) -> dict[str, Any]:
    """Values that the configurations give the arguments of a class."""
    given: dict[str, Any] = {}
    names = iter(line.args)
    for name in names:
        if name == "--config":
            section = load_yaml(Path(next(names))).get(group)
            options = section.get("init_args") if isinstance(section, dict) else None
            given |= options if isinstance(options, Mapping) else {}
    return given


def _class_rows(group: str, class_path: str, given: Mapping[str, Any]) -> Iterator[str]:
    """What a class is, and each of its arguments with its value."""
    named = named_class(class_path)
    summary = (inspect.getdoc(named) or "").partition("\n")[0]
    yield from textwrap.wrap(f"{group} {named.__name__}: {summary}", _WIDTH)
    texts = documented_arguments(named)
    linked = set(_linked(named)) if group == "model" else set()
    for name, parameter in arguments_of(named).items():
        if name in linked or name in _NOT_A_NAME:
            continue
        required = parameter.default is inspect.Parameter.empty
        value = given.get(name, "required" if required else parameter.default)
        text = f"{texts.get(name, '')} ({_brief(value)})".strip()
        yield from _rows(f"--{group}.{name}", text)


def _linked(model: type) -> Iterator[str]:
    from lit_models.command.linking import linked_sizes

    return linked_sizes(model)


def documented_arguments(named: type) -> dict[str, str]:
    """Texts of a class's arguments by name, as its docstring and those of its bases have them."""
    found: dict[str, str] = {}
    for owner in named.__mro__:
        doc = inspect.cleandoc(vars(owner).get("__doc__") or "")
        section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", doc, re.S | re.M)
        for entry in re.split(r"\n(?=    \S)", section[1]) if section else ():
            name, _, text = entry.strip().partition(":")
            found.setdefault(name, _plain(" ".join(text.split())))
    return found


def _plain(text: str) -> str:
    """A docstring's text without its markup."""
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?([^`]*)`", r"\1", text)
    return text.replace("``", "").replace("`", "").rstrip(".")


def _brief(value: Any) -> str:
    """A value as one types it, cut where it is long."""
    words = {None: "unset", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    text = str(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 40 else f"{text[:39]}…"
