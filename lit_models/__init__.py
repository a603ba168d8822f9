"""Classic deep-learning architectures as LightningModules; names resolve on first use."""

import importlib.util
import sys
from pathlib import Path

import lazy_loader

__version__ = "0.2.0"

_HOME = Path(__file__).resolve().parent.parent


def _stranger(name: str) -> str | None:
    """Says which package of somebody else's stands in the place of one of ours; None for ours.

    ``datamodules`` and ``callbacks`` are names that a project of one's own may have as well, and
    the current folder comes first for a notebook and for ``python -m``.
    """
    spec = importlib.util.find_spec(name)
    if spec is None:
        return f"{_HOME / name} is missing; install lit-models anew"
    ours = _HOME / name
    places = [Path(place).resolve() for place in spec.submodule_search_locations or []]
    if places[:1] == [ours]:
        return None
    found = places[0] if places else spec.origin
    return (
        f"{name!r} is {found} here, which hides {ours} of lit_models; rename it, or start from "
        "another folder"
    )


_program = Path((sys.argv or [""])[0]).stem  # "-m" while `python -m` looks its module up
for _name in ("datamodules", "callbacks"):
    _reason = _stranger(_name)
    if _reason is None:
        continue
    if _program in ("-m", "lit-models"):
        sys.stderr.write(f"lit-models: error: {_reason}\n")
        raise SystemExit(2)
    raise ImportError(_reason)

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
