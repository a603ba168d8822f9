"""Prints the lowest versions that ``pyproject.toml`` allows, as constraints for pip.

``make lowest`` installs them into an environment of their own and runs the tests that meet the
libraries: the command, the models' contracts, tracking, checkpoints and readers.
"""

import argparse
import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
_BOUND = re.compile(r"(?P<name>[A-Za-z0-9_-]+)(?:\[.*?\])?>=(?P<version>[\d.]+)")


def lowest(project: dict[str, object], extras: list[str]) -> dict[str, str]:
    """Lowest version of every dependency by name, those of some extras included."""
    optional = project["optional-dependencies"]
    assert isinstance(optional, dict)
    assert isinstance(project["dependencies"], list)
    wanted = [*project["dependencies"], *(each for extra in extras for each in optional[extra])]
    bounds = (_BOUND.match(requirement) for requirement in wanted)
    return {bound["name"]: bound["version"] for bound in bounds if bound}


def main() -> None:
    """Prints one ``name==version`` a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extras", nargs="*", default=["test"], help="Extras to include.")
    parser.add_argument("--leave", nargs="*", default=[], help="Packages to leave to pip.")
    options = parser.parse_args()
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    for name, version in lowest(project, options.extras).items():
        if name not in options.leave:
            print(f"{name}=={version}")


if __name__ == "__main__":
    main()
