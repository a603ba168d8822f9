"""Rooms and arrows of the house: what may import what, and no circle.

Read from the syntax, so that an import inside a function or under TYPE_CHECKING counts too.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOPS = ("lit_models", "datamodules", "callbacks", "scripts")

# Contracts that everybody may know: batches, the error a user can mend, seeds.
COMMON = ("datamodules.batches", "datamodules.errors", "datamodules.seeds")
DATA = (*COMMON, "datamodules.base", "datamodules.graph_base", "datamodules.samples")

# Rooms, the longest name first; what stands in the open of a package is the package's own room.
ARROWS = {
    "lit_models.__main__": (*COMMON, "lit_models.command", "lit_models.training"),
    "lit_models.command": ("lit_models", "datamodules", "callbacks", "configs"),
    "lit_models.layers": (*COMMON, "lit_models.layers"),
    "lit_models.metrics": (*COMMON, "lit_models.metrics", "lit_models.layers"),
    "lit_models.decoding": (*COMMON, "lit_models.decoding", "lit_models.layers"),
    "lit_models.families": (*COMMON, "lit_models"),
    "lit_models.weights": (*COMMON, "lit_models.weights", "datamodules.files"),
    "lit_models.training": (
        *COMMON,
        *("lit_models.training", "lit_models.layers", "lit_models.metrics", "lit_models.optim"),
    ),
    "lit_models": (*COMMON, "lit_models"),
    "datamodules.laws": ("datamodules.laws",),
    "datamodules.files": (*COMMON, "datamodules.files"),
    "datamodules.loading": (*COMMON, "datamodules.loading"),
    "datamodules.tasks": (*DATA, "datamodules.tasks", "datamodules.laws", "datamodules.loading"),
    "datamodules.own": (*DATA, "datamodules.own", "datamodules.files", "datamodules.loading"),
    "datamodules": (*DATA, "datamodules.files", "datamodules.loading", "datamodules.laws"),
    "callbacks": (*COMMON, "callbacks", "datamodules.files"),
    "scripts": (*TOPS, "configs"),
}
# Models reach the rest of their package, but never the command.
_COMMAND = ("lit_models.command", "lit_models.__main__")
NEVER = {"lit_models": _COMMAND, "lit_models.families": _COMMAND}

# Libraries that a room may use; None for any.
LIBRARIES = {
    "datamodules.laws": {"torch", "numpy", "scipy"},
    "lit_models.layers": {"torch", "torch_geometric", "numpy"},
}
STANDARD = {
    *("math", "typing", "collections", "itertools", "functools", "dataclasses", "abc"),
    *("weakref", "contextlib", "enum", "statistics", "warnings"),
}


def modules() -> dict[str, Path]:
    found = {}
    for top in TOPS:
        for path in sorted(ROOT.joinpath(top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(name: str) -> Iterator[str]:
    """Full names of what a module imports; relative ones made absolute."""
    is_package = MODULES[name].name == "__init__.py"
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".")
                kept = parts[: len(parts) - node.level + is_package]
                base = ".".join([*kept, *([base] if base else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if full in MODULES else base


def inside(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


def room_of(name: str) -> str:
    return max((room for room in ARROWS if inside(name, room)), key=len)


@pytest.mark.parametrize("room", ARROWS)
def test_arrows(room):
    wrong = []
    for name in MODULES:
        if room_of(name) != room:
            continue
        for target in imports(name):
            if target.split(".")[0] not in (*TOPS, "configs"):
                continue
            allowed = any(inside(target, goal) for goal in ARROWS[room])
            forbidden = any(inside(target, goal) for goal in NEVER.get(room, ()))
            if not allowed or forbidden:
                wrong.append(f"{name} -> {target}")
    assert not wrong


@pytest.mark.parametrize("room", LIBRARIES)
def test_libraries(room):
    wrong = [
        f"{name} -> {target}"
        for name in MODULES
        if room_of(name) == room
        for target in imports(name)
        if target.split(".")[0] not in {*TOPS, *LIBRARIES[room], *STANDARD}
    ]
    assert not wrong


def test_nothing_but_the_command_is_below_the_command():
    wrong = [
        f"{name} -> {target}"
        for name in MODULES
        for target in imports(name)
        if (inside(target, "scripts") and not inside(name, "scripts"))
        or (
            inside(target, "lit_models.command")
            and room_of(name) not in ("lit_models.command", "lit_models.__main__", "scripts")
        )
    ]
    assert not wrong


def test_no_circle():
    edges = {name: {t for t in imports(name) if t in MODULES and t != name} for name in MODULES}
    open_, closed = set(), set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in open_, " -> ".join([*path[path.index(name) :], name])
        if name in closed:
            return
        open_.add(name)
        for target in sorted(edges[name]):
            visit(target, (*path, name))
        open_.remove(name)
        closed.add(name)

    for name in edges:
        visit(name, ())


def test_a_room_says_what_it_is_and_no_more():
    """Packages of public names resolve them lazily; every other ``__init__`` is one line."""
    for name, path in MODULES.items():
        if path.name == "__init__.py" and name not in ("lit_models", "datamodules", "callbacks"):
            lines = path.read_text(encoding="utf-8").splitlines()
            assert len(lines) == 1, f"{path}: {len(lines)} lines"
            assert lines[0].startswith('"""'), path


def test_the_models_stand_in_the_open():
    """Beside what they stand on, every file in the open is an architecture."""
    base = {"__init__.py", "__main__.py", "base.py", "optim.py"}
    files = list(ROOT.joinpath("lit_models").glob("*.py"))
    assert len(files) <= 23
    for path in files:
        if path.name not in base:
            classes = [
                n.name for n in ast.parse(path.read_text()).body if isinstance(n, ast.ClassDef)
            ]
            assert any(name.startswith("Lit") for name in classes), path.name


LONGEST = 350  # lines; what would make a file longer has a room of its own


def test_a_file_can_be_read_at_a_sitting():
    lines = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in MODULES.values()
    }
    assert not {name: count for name, count in lines.items() if count > LONGEST}
