"""The packaged experiments by name; light, since `lit-models list` answers from here."""

import difflib
import json
import textwrap
from pathlib import Path
from typing import Any

import yaml

from datamodules.errors import InputError

# Looked through in this order by `--config NAME`.
_FOLDERS = ("", "overlays", "optimizers")


def configs_root() -> Path:
    """Folder of the packaged configurations: the wheel's own, else the checkout's.

    Raises:
        InputError: If there is neither.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "defaults.yaml").is_file():
            return folder
    raise InputError(f"{package / 'configs'} is missing; install lit-models anew")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's loader of plain data, which takes the last of two equal names in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose names differ."""
        names: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in names:
                problem = f"{key.value!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            names.add(key.value)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping


def load_yaml(path: Path) -> dict[str, Any]:
    """Reads one configuration file.

    Raises:
        InputError: If the file cannot be read, is not YAML or holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        config = yaml.load(text, Loader=_Loader)
        json.dumps(config, default=str, skipkeys=True)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text (byte {error.start}); give a YAML file"
        ) from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; ask for access") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} refers to itself (&name, *name); write it out") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise InputError(f"{path}{where}: {problem}; mend the YAML") from error
    if not isinstance(config, dict):
        raise InputError(f"{path} holds no options; expected `name: value` lines")
    return config


def experiments() -> dict[str, Path]:
    """Runnable experiments by name: the files that name a model and its data."""
    found = {path.stem: path for path in sorted(configs_root().glob("*.yaml"))}
    return {name: path for name, path in found.items() if name != "defaults"}


def packaged_names() -> list[str]:
    """Names that ``--config`` knows: experiments, overlays and optimizers."""
    root = configs_root()
    found = (path.stem for folder in _FOLDERS for path in (root / folder).glob("*.yaml"))
    return sorted(name for name in found if name != "defaults")


def find_config(name: str) -> Path:
    """Path of a configuration: a file, else a packaged experiment, overlay or optimizer.

    Raises:
        InputError: If there is neither.
    """
    if Path(name).is_file():
        return Path(name)
    root = configs_root()
    for folder in _FOLDERS:
        packaged = root / folder / f"{name}.yaml"
        if packaged.is_file():
            return packaged
    close = difflib.get_close_matches(name, packaged_names(), n=3)
    hint = f"did you mean {', '.join(close)}?" if close else "`lit-models list` shows the names"
    raise InputError(f"no configuration file or packaged name {name!r}; {hint}")


def describe() -> str:
    """Name, what it is (the first line of its YAML) and test metrics of each experiment.

    Every line fits a terminal of 80 columns.
    """
    found = experiments()
    width = max(map(len, found)) + 2
    lines = [f"{'experiment':{width}}what it is (test metric)"]
    for name, path in found.items():
        metrics = ", ".join(load_yaml(path)["test_metrics"])
        first = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ").rstrip(".")
        text = textwrap.wrap(f"{first} ({metrics})", 80 - width)
        lines += [f"{'' if row else name:{width}}{part}" for row, part in enumerate(text)]
    return "\n".join(lines)
