"""Says which files of an architecture are missing: `python -m scripts.check_architecture`."""

import inspect
import sys
from collections.abc import Sequence
from pathlib import Path

from lit_models.command.catalog import experiments, load_yaml
from lit_models.command.classes import named_class
from scripts.bars import TRIALS

ROOT = Path(__file__).parent.parent


def missing(experiment: str) -> list[str]:
    """What CONTRIBUTING.md asks of an experiment and is not there."""
    known = experiments()
    if experiment not in known:
        return [f"configs/{experiment}.yaml"]
    config = load_yaml(known[experiment])
    found: list[str] = []
    if not known[experiment].read_text(encoding="utf-8").startswith("# "):
        found.append(f"a first line in configs/{experiment}.yaml that says what it is")
    if not config.get("test_metrics"):
        found.append(f"test_metrics in configs/{experiment}.yaml")
    for section, tests in (("model", "tests/models"), ("data", "tests/data")):
        found += _untested(config[section]["class_path"], tests)
    if experiment not in {trial.experiment for trial in TRIALS}:
        found.append(f"a Trial of {experiment} in scripts/bars.py")
    return found


def _untested(class_path: str, folder: str) -> list[str]:
    """The class's module docstring and a test that names the class."""
    name = class_path.rpartition(".")[2]
    module = inspect.getmodule(named_class(class_path))
    found = []
    if module is None or not (module.__doc__ or "").strip():
        found.append(f"a module docstring of {class_path}")
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / folder).glob("test_*.py"))
    if not any(name in text for text in texts):
        found.append(f"a test of {name} in {folder}")
    return found


def main(names: Sequence[str] | None = None) -> int:
    """Checks the named experiments, or all.

    Returns:
        Exit code: 1 if something is missing.
    """
    names = list(sys.argv[1:] if names is None else names) or sorted(experiments())
    lacking = {name: missing(name) for name in names}
    for name, found in lacking.items():
        for what in found:
            print(f"{name}: {what}")
    if not any(lacking.values()):
        print(f"complete: {', '.join(names)}")
    return int(any(lacking.values()))


if __name__ == "__main__":
    sys.exit(main())
