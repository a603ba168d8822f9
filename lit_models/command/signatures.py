"""Arguments of classes as their source has them, for what must not wait for torch to be imported.

Only what the source says plainly counts: a class that it does not, or one of somebody else, is left
to the parser, which imports it (:mod:`lit_models.command.classes`).
"""

import ast
import importlib.util
from functools import cache
from pathlib import Path

_PACKAGES = ("lit_models", "datamodules", "callbacks")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _module_file(module: str) -> Path | None:
    """File of a module, found without importing what it lies in; None where there is none."""
    top, *parts = module.split(".")
    spec = importlib.util.find_spec(top)
    for folder in [] if spec is None else spec.submodule_search_locations or []:
        place = Path(folder).joinpath(*parts)
        for path in (place.with_suffix(".py"), place / "__init__.pyi", place / "__init__.py"):
            if path.is_file():
                return path
    return None


def _imported(tree: ast.Module, name: str, package: str) -> tuple[str, str] | None:
    """Module and name of what a file imports under a name."""
    for node in ast.walk(tree):
        for alias in node.names if isinstance(node, ast.ImportFrom) else ():
            if name == (alias.asname or alias.name) and isinstance(node, ast.ImportFrom):
                start = package if node.level else ""
                return ".".join(filter(None, [start, node.module])), alias.name
    return None


def _find(module: str, name: str) -> tuple[ast.ClassDef, str] | None:
    """A class by the module it is imported from, and the module it is written in."""
    path = _module_file(module)
    if path is None:
        return None
    tree = _tree(path)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node, module
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    source = _imported(tree, name, package)
    return None if source is None else _find(*source)


def _initialiser(node: ast.ClassDef) -> ast.FunctionDef | None:
    methods = (part for part in node.body if isinstance(part, ast.FunctionDef))
    return next((method for method in methods if method.name == "__init__"), None)


def source_arguments(class_path: str) -> list[str] | None:
    """Names of a class's arguments; None where the source does not say all of them.

    Args:
        class_path: Path such as ``lit_models.LitGPT``; of a known package, else None.
    """
    module, _, name = class_path.rpartition(".")
    return _arguments(module, name) if module.split(".")[0] in _PACKAGES else None


def trainer_arguments() -> list[str] | None:
    """Names of the Trainer's arguments; None where Lightning's files lie elsewhere."""
    return _arguments("lightning.pytorch.trainer.trainer", "Trainer")


def _arguments(module: str, name: str) -> list[str] | None:
    found: list[str] = []
    for node in _lineage(module, name):
        if node is None:
            return None
        method = _initialiser(node)
        if method is not None:
            given = method.args
            found += [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)][1:]
            if given.kwarg is None:
                return list(dict.fromkeys(found))
    return None


def _lineage(module: str, name: str) -> list[ast.ClassDef | None]:
    """A class and its bases, nearest first; None for one that the source does not lead to."""
    found = _find(module, name) if module.split(".")[0] in (*_PACKAGES, "lightning") else None
    if found is None:
        return [None]
    node, home = found
    line: list[ast.ClassDef | None] = [node]
    for base in node.bases:
        line += _lineage(home, base.id) if isinstance(base, ast.Name) else [None]
    # What two bases share comes after both.
    return [
        part for index, part in enumerate(line) if part is None or part not in line[index + 1 :]
    ]
