"""`lit-models export`: a trained model as a file that needs none of this package.

``torch`` writes a ``torch.export`` program, ``onnx`` an ONNX graph. The number of rows (for a
graph, of nodes and edges) stays free, and so do the lengths of texts and sequences, up to the
longest that the model reads; a recurrent sequence model takes those of the example, padded. The
file is read back and must answer as the model does, also for another number of rows and another
length, before it appears under its name.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from callbacks.run.interrupt import GracefulInterrupt
from datamodules.errors import InputError
from lit_models.command.arguments import prepare
from lit_models.command.cli import LitCLI
from lit_models.command.export_file import write
from lit_models.command.run_folder import RunFolder
from lit_models.ddpm import LitDDPM
from lit_models.weights.checkpoints import check_compatible
from lit_models.weights.diffusers_unet import save_diffusers

USAGE = """\
usage: lit-models export --ckpt_path best|last|FILE [--config NAME_OR_FILE ...]
                         [--format torch|onnx|diffusers] [--output FILE]

  --format torch       a torch.export program, read by torch.export.load (default)
  --format onnx        an ONNX graph; needs `pip install 'lit-models[export]'`
  --format diffusers   a folder of a U-Net and its scheduler, for LitDDPM alone
  --output FILE        model.pt2, model.onnx or diffusers/ in the run's folder by default

Options of the model and its data are those of the checkpoint's run."""

_NAMES = {"torch": "model.pt2", "onnx": "model.onnx", "diffusers": "diffusers"}


class _Unrun(LitCLI):
    """Model and data of a checkpoint, built and not run."""

    def after_instantiate_classes(self) -> None:
        """Makes no folder."""

    def _run_subcommand(self, subcommand: str) -> None:
        pass


def export(argv: Sequence[str]) -> None:
    """Exports a checkpoint.

    Args:
        argv: Command line after ``export``.

    Raises:
        InputError: If an option is wrong, a package missing, or the model cannot be exported.
    """
    if "--help" in argv or "-h" in argv:
        sys.stdout.write(USAGE + "\n")
        return
    given, rest = _own_options(argv)
    kind = given.get("--format", "torch")
    if kind not in _NAMES:
        raise InputError(f"--format must be torch, onnx or diffusers, got {kind!r}")
    line = prepare(["export", *rest, "--wandb.mode", "disabled"])
    if line.checkpoint is None:
        raise InputError("export needs trained weights: --ckpt_path best, last or FILE")
    line.args[0] = "predict"  # whose options it has
    cli = _Unrun(line, GracefulInterrupt(), RunFolder())
    assert cli.checkpoint is not None
    check_compatible(line.checkpoint, cli.checkpoint, cli.model)
    cli.model.load_state_dict(cli.checkpoint["state_dict"])
    default = (line.run_dir or line.checkpoint.parent) / _NAMES[kind]
    output = Path(given.get("--output", default))
    if not output.parent.is_dir():
        raise InputError(f"no folder {str(output.parent)!r} for --output; make it first")
    if kind == "diffusers":
        _write_diffusers(cli.model, output)
        return
    error = write(cli.model, cli.datamodule, kind, output)
    sys.stdout.write(f"{output}: {kind}, at most {error:.1e} from the model's own output\n")


def _write_diffusers(model: Any, folder: Path) -> None:
    """Writes the folder, whole or not at all."""
    if not isinstance(model, LitDDPM):
        raise InputError(f"--format diffusers is for LitDDPM, not {type(model).__name__}")
    try:
        save_diffusers(model.eval().cpu(), folder)
    except ValueError as error:
        raise InputError(
            f"{type(model).__name__} cannot be exported to diffusers: {error}"
        ) from error
    sys.stdout.write(f"{folder}: a U-Net and its scheduler for diffusers\n")


def _own_options(argv: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The options of export by name, and all others."""
    found: dict[str, str] = {}
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if name not in ("--format", "--output"):
            rest.append(word)
            continue
        found[name] = value if equals else next(words, "")
        if not found[name] or found[name].startswith("--"):
            raise InputError(f"{name} needs a value")
    return found, rest
