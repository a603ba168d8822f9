"""One wording for one argument: what two classes say alike, they say in the same words."""

import difflib
import inspect
import re
from collections import defaultdict

import pytest

import datamodules
import lit_models

# Arguments whose nearly equal wordings differ in a fact: what is counted, or whose weights.
_OF_A_FACT = {"batch_size", "mode", "num_test", "pretrained", "num_samples", "num_train"}
_ALIKE = 0.9


def arguments(docstring: str) -> dict[str, str]:
    """Texts of a docstring's arguments by name, lines joined."""
    section = re.search(r"\nArgs:\n(.*?)(?:\n\n|\Z)", docstring, re.S)
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \S)", section.group(1)) if section else ():
        name, _, text = entry.strip().partition(":")
        found[name] = " ".join(text.split())
    return found


def wordings() -> dict[str, dict[str, list[str]]]:
    """Classes by argument and wording."""
    said: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for module in (lit_models, datamodules):
        for name in dir(module):  # the modules import their classes when these are asked for
            if name.startswith("Lit") or name.endswith("DataModule"):
                docstring = inspect.getdoc(getattr(module, name)) or ""
                for argument, text in arguments(docstring).items():
                    said[argument][text].append(name)
    return said


SAID = wordings()


def test_the_reader_finds_the_arguments():
    assert len(SAID) > 100
    docstring = "Head.\n\nArgs:\n    a: One\n        two.\n    b: Three.\n\nReturns:\n    c"
    assert arguments(docstring) == {"a": "One two.", "b": "Three."}


@pytest.mark.parametrize("argument", sorted(set(SAID) - _OF_A_FACT))
def test_one_wording(argument):
    texts = sorted(SAID[argument])
    for index, first in enumerate(texts):
        for second in texts[index + 1 :]:
            words = first.lower().split(), second.lower().split()
            alike = difflib.SequenceMatcher(None, *words).ratio()
            where = SAID[argument][first] + SAID[argument][second]
            assert alike < _ALIKE, f"{where} say {argument} twice: {first!r} and {second!r}"
