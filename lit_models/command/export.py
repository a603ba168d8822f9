"""`lit-models export`: a trained model as a file that needs none of this package.

``torch`` writes a ``torch.export`` program, ``onnx`` an ONNX graph. The number of rows (for a
graph, of nodes and edges) stays free, and so do the lengths of texts and sequences, up to the
longest that the model reads. The file is read back and must answer as the model does, also for
another number of rows and another length, before it appears under its name.
"""

import contextlib
import inspect
import io
import logging
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from callbacks.run.interrupt import GracefulInterrupt
from datamodules.batches import GraphBatch, GraphSeriesBatch, SequencePairBatch, TokenBatch
from datamodules.errors import InputError
from datamodules.files.whole_file import whole_file
from lit_models.base import LitModule
from lit_models.command.arguments import prepare
from lit_models.command.cli import LitCLI
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
_NUM_ROWS = 4
_SHORTEST = 4  # positions of a row from which on its length is tried to be left free
_TOLERANCE = 1e-4  # of the largest output; float32 rounds to about 1e-7 per operation

Run = Callable[..., list[Tensor]]


class Example(NamedTuple):
    """What a model is traced with.

    Attributes:
        module: Takes tensors alone.
        names: Names of its arguments.
        inputs: One tensor each.
        axes: The axis of each that is free: of rows, nodes or edges; None for a graph that all
            rows share.
        lengths: The axis of each that is a length, free where the model allows it; None for none.
    """

    module: nn.Module
    names: list[str]
    inputs: tuple[Tensor, ...]
    axes: list[int | None]
    lengths: list[int | None]

    def eager(self, *inputs: Tensor) -> list[Tensor]:
        """Outputs of the model itself."""
        with torch.no_grad():
            return _flat(self.module(*inputs))

    @property
    def dynamic_shapes(self) -> Any:
        """The dimension that stays free of each input."""
        kinds = torch.export.Dim
        free: list[dict[int, Any]] = []
        for axis, length in zip(self.axes, self.lengths, strict=True):
            free.append({} if axis is None else {axis: kinds.DYNAMIC})
            free[-1] |= {} if length is None else {length: kinds.AUTO}
        wrapped = isinstance(self.module, OnTensors | ByName)
        return (tuple(free),) if wrapped else tuple(free)

    def shorter(self) -> tuple[Tensor, ...] | None:
        """The inputs without their last positions; None where they have no length."""
        if all(length is None for length in self.lengths):
            return None
        return tuple(
            tensor if length is None else tensor.narrow(length, 0, tensor.shape[length] - 1)
            for tensor, length in zip(self.inputs, self.lengths, strict=True)
        )

    def with_more_rows(self) -> tuple[Tensor, ...]:
        """Other inputs: the rows, or a graph's edges, one and a half times."""
        return tuple(
            tensor if axis is None else torch.cat([tensor, _half(tensor, axis)], axis)
            for tensor, axis in zip(self.inputs, self.axes, strict=True)
        )


def _half(tensor: Tensor, axis: int) -> Tensor:
    return tensor.narrow(axis, 0, (tensor.shape[axis] + 1) // 2)


class OnTensors(nn.Module):
    """A model whose ``forward`` takes a whole batch, called with the batch's tensors.

    Args:
        model: The model.
        batch: A batch; what is no tensor of it stays as it is.
        names: Fields that become arguments; targets are left out.
    """

    def __init__(self, model: nn.Module, batch: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.make, self.names = model, type(batch), list(names)
        self.rest = {
            name: None if isinstance(value, Tensor) else value
            for name, value in batch._asdict().items()
            if name not in names
        }

    def forward(self, *tensors: Tensor) -> Any:
        """The model's output."""
        return self.model(self.make(**dict(zip(self.names, tensors, strict=True)), **self.rest))


class ByName(nn.Module):
    """A model whose example leaves out an argument in the middle, called by names.

    Args:
        model: The model.
        names: Names of the arguments that there are.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, list(names)

    def forward(self, *tensors: Tensor) -> Any:
        """The model's output."""
        return self.model(**dict(zip(self.names, tensors, strict=True)))


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


def write(model: Any, datamodule: Any, kind: str, output: Path) -> float:
    """Writes a model and checks the file.

    Args:
        model: A trained :class:`~lit_models.base.LitModule`.
        datamodule: Data of its kind; its test split gives the example.
        kind: ``torch`` or ``onnx``.
        output: The file.

    Returns:
        Largest difference from the model's own output.

    Raises:
        InputError: If the model cannot be exported, or the file answers otherwise than the model.
    """
    name = type(model).__name__
    datamodule.setup("test")
    model = model.eval().cpu().requires_grad_(False)
    example = example_of(model, next(iter(datamodule.test_dataloader())))
    expected = example.eager(*example.inputs)
    if any(not torch.equal(a, b) for a, b in zip(expected, example.eager(*example.inputs))):  # noqa: B905
        raise InputError(f"{name} cannot be exported: its output is random at every call")
    try:
        silence = io.StringIO()  # the exporters print the graph they were at
        with (
            warnings.catch_warnings(),
            torch.no_grad(),
            contextlib.redirect_stdout(silence),
            contextlib.redirect_stderr(silence),
        ):
            warnings.simplefilter("ignore")
            logging.getLogger("torch").setLevel(logging.CRITICAL)  # the error says it
            content, run = (_as_torch if kind == "torch" else _as_onnx)(example)
            largest = _largest_error(example, run)
    except InputError:
        raise
    except Exception as error:  # torch.export and the converter raise what the operators raise
        plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
        reason = _reason(plain) if plain else type(error).__name__
        raise InputError(f"{name} cannot be exported to {kind}: {reason[:300]}") from error
    if not largest <= _TOLERANCE:
        raise InputError(f"{name} cannot be exported to {kind}: its output is {largest:.1e} off")
    with whole_file(output, "wb") as file:
        file.write(content)
    return largest


def _reason(message: str) -> str:
    """The line of an exporter's message that says why."""
    if "data-dependent" in message or "Could not guard" in message:
        return "what it computes depends on the values of its inputs, not on their shapes alone"
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    causes = [line for line in lines if re.match(r"(<class|[A-Za-z.]*(Error|Exception):)", line)]
    return (causes or lines)[0]


def example_of(model: LitModule, batch: Any) -> Example:
    """A model with a few rows of a batch, or its graph, as its arguments."""
    takes_batch = list(inspect.signature(model.forward).parameters) == ["batch"]
    given = batch._asdict() if takes_batch else model.example_inputs(batch)
    scored = ("y", "mask") if takes_batch else ()
    names, inputs, axes, lengths = [], [], [], []
    for name, value in given.items():
        if not isinstance(value, Tensor) or name in scored:
            continue
        axis: int | None = 1 if name == "edge_index" else 0
        if isinstance(batch, GraphSeriesBatch) and name.startswith("edge"):
            axis = None
        elif not isinstance(batch, GraphBatch):
            value = value[:_NUM_ROWS]
        names.append(name)
        inputs.append((value if value.layout == torch.strided else value.to_dense()).contiguous())
        axes.append(axis)
        of_length = isinstance(batch, TokenBatch | SequencePairBatch) and value.dim() == 2
        long = of_length and value.shape[1] > _SHORTEST
        # One position less than a row has: a length that fills the context would count as its size.
        inputs[-1] = inputs[-1][:, :-1].contiguous() if long else inputs[-1]
        lengths.append(1 if long else None)
    module: nn.Module = model
    if takes_batch:
        module = OnTensors(model, batch, names)
    elif names != list(given)[: len(names)]:
        module = ByName(model, names)
    return Example(module, names, tuple(inputs), axes, lengths)


def _flat(outputs: Any) -> list[Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]


def _largest_error(example: Example, run: Run) -> float:
    """Of the outputs for the example and for other numbers of rows, by the largest output."""
    worst = 0.0
    shorter = example.shorter()
    for inputs in (example.inputs, example.with_more_rows(), *([shorter] if shorter else [])):
        for want, have in zip(example.eager(*inputs), run(*inputs), strict=True):
            scale = max(float(want.abs().max()), 1.0)
            worst = max(worst, float((want.double() - have.double()).abs().max()) / scale)
    return worst


def _as_torch(example: Example) -> tuple[bytes, Run]:
    program = torch.export.export(
        example.module, example.inputs, dynamic_shapes=example.dynamic_shapes, strict=False
    )
    content = io.BytesIO()
    torch.export.save(program, content)
    content.seek(0)
    loaded = torch.export.load(content).module()
    return content.getvalue(), lambda *inputs: _flat(loaded(*inputs))


def _as_onnx(example: Example) -> tuple[bytes, Run]:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"--format onnx needs {error.name}: `pip install 'lit-models[export]'`"
        ) from error
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    program = torch.onnx.export(
        example.module,
        example.inputs,
        dynamo=True,
        dynamic_shapes=example.dynamic_shapes,
        input_names=example.names,
        verbose=False,
    )
    assert program is not None
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    known = {value.name for value in session.get_inputs()}

    def run(*inputs: Tensor) -> list[Tensor]:
        feed = zip(example.names, inputs, strict=True)
        arrays = {name: tensor.numpy() for name, tensor in feed if name in known}
        return [torch.from_numpy(array) for array in session.run(None, arrays)]

    return content, run
