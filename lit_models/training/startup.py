"""What importing Lightning and starting a W&B run load that no fit needs, left out.

Each costs half a second or more: torchmetrics (1.9) imports ``scipy.signal`` to give it an old name
back and, where they are installed, Hugging Face's ``transformers`` for one of its scores, and W&B
(0.31) imports its job launcher to look for inputs that only the launcher can have staged. Tests
fail once one of them needs it no longer.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _Stand(ModuleType):
    """Stands in for a module until more than the given names is asked of it.

    Args:
        name: Full name of the module.
        names: What it answers itself.
    """

    def __init__(self, name: str, names: dict[str, Any]) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)  # which `find_spec` asks for
        vars(self).update(names)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def standing_in(name: str, **names: Any) -> Iterator[None]:
    """Lets a module that is not loaded yet answer some names without being loaded.

    Args:
        name: Full name of the module.
        **names: The names and their values; any other name loads the module.
    """
    if name in sys.modules:
        yield
        return
    stand = sys.modules[name] = _Stand(name, names)
    try:
        yield
    finally:
        if sys.modules.get(name) is stand:
            del sys.modules[name]


class _Later:
    """A name of a module, which is loaded once the name is used.

    Args:
        module: Full name of the module.
        name: The name in it.
    """

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(getattr(importlib.import_module(self._module), self._name), name)


class _NoInputs:
    """W&B's staged inputs where nothing can have staged any."""

    def apply(self, run: Any) -> None:
        """Leaves the run's configuration as it is."""


@contextmanager
def light_lightning() -> Iterator[None]:
    """Context for the first import of Lightning."""
    names = ("AutoModel", "AutoTokenizer")
    later = {name: _Later("transformers", name) for name in names}
    with standing_in("scipy.signal", hamming=None), standing_in("transformers", **later):
        yield


def light_wandb() -> AbstractContextManager[None]:
    """Context for the start of a W&B run."""
    return standing_in("wandb.sdk.launch.inputs.internal", StagedLaunchInputs=_NoInputs)
