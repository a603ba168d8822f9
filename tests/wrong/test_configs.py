"""Wrong YAML."""

import pytest
from refusals import FIT

CASES = {
    "tabs": ("trainer:\n\tmax_epochs: 3\n", "own.yaml, line 2: found character that cannot start"),
    "list": ("- 1\n- 2\n", "own.yaml holds no options"),
    "word": ("hello\n", "own.yaml holds no options"),
    "empty": ("", "own.yaml holds no options"),
    "binary": (b"\x89PNG\r\n\x1a\n\xff\xfe", "own.yaml is not UTF-8 text (byte 0)"),
    "UTF-16": ("trainer: 3".encode("utf-16"), "own.yaml is not UTF-8 text (byte 0)"),
    "NUL": (b"trainer:\x00 3\n", "own.yaml: not YAML; mend"),
    "repeated name": (
        "trainer:\n  max_epochs: 1\n  max_epochs: 2\n",
        "own.yaml, line 3: 'max_epochs' is given twice",
    ),
    "unknown section": ("trainr:\n  max_epochs: 1\n", "'trainr.max_epochs'; --help lists"),
    "below its command": ("fit:\n  trainer:\n    max_epochs: 1\n", "'fit.trainer.max_epochs'"),
    "code": (
        "trainer: !!python/object/apply:os.mkdir ['made']\n",
        "line 1: could not determine a constructor",
    ),
    "undefined alias": ("trainer: *nothing\n", "line 1: found undefined alias"),
    "unclosed": ("trainer: {max_epochs: 1\n", "line 2: did not find expected ',' or '}'"),
    "two colons": ("trainer: max_epochs: 1\n", "line 1: mapping values are not allowed"),
    "deep": ("trainer: " + "[" * 9999, "own.yaml, line 1: exceeded maximum nesting depth"),
    "endless": ("trainer: &a\n  callbacks: *a\n", "own.yaml refers to itself (&name, *name)"),
    "section of a word": ("trainer: fast\n", "own.yaml: trainer is 'fast'; write `name: value`"),
    "section of nothing": ("trainer:\n", "own.yaml: trainer is None; write `name: value`"),
    "tracker of a number": ("wandb: 5\n", "own.yaml: wandb is 5; write `name: value`"),
    "model of a number": ("model: 5\n", "model: Not a valid subclass of LightningModule, got 5"),
    "model of a list": ("model: [1]\n", "model: Not a valid subclass of LightningModule, got [1]"),
    "class of a number": (
        "model:\n  class_path: 5\n",
        "own.yaml: class_path of model is 5; give the name of a class",
    ),
    "arguments of a number": ("model:\n  class_path: tiny.LitTiny\n  init_args: 5\n", "model: "),
    "number for a name": ("3: 4\n", "Key must be a string, got: 3"),
    "date for a seed": ("seed_everything: 2020-01-01\n", "expected bool or int, got 2020-01-01"),
    "unknown callback": (
        "trainer:\n  callbacks:\n    - class_path: NoSuch\n",
        "trainer.callbacks: Not a valid subclass of Callback",
    ),
    "missing checkpoint": ("ckpt_path: nothing.ckpt\n", "no checkpoint 'nothing.ckpt'; give best"),
    "experiment of a list": ("experiment: [1, 2]\n", "experiment: expected str, got [1, 2]"),
    "folder of a number": ("runs_dir: 5\n", "runs_dir: expected str, got 5"),
}


@pytest.mark.parametrize("name", CASES)
def test_is_refused(refused, folder, name):
    content, message = CASES[name]
    raw = content if isinstance(content, bytes) else content.encode()
    (folder / "own.yaml").write_bytes(raw)
    refused([*FIT, "--config", "own.yaml"], message)


def test_every_command_reads_the_checkpoint_a_config_names(refused, folder):
    (folder / "own.yaml").write_text("ckpt_path: nothing.ckpt\n")
    for command in ("validate", "test", "predict"):
        refused([command, *FIT[1:], "--config", "own.yaml"], "no checkpoint 'nothing.ckpt'")
