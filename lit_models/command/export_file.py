"""A model's file: written, read back, and kept only if it answers as the model does."""

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datamodules.errors import InputError
from datamodules.files.whole_file import whole_file
from lit_models.command.traced import Example, example_of, tensors_of

_TOLERANCE = 1e-4  # of the largest output; float32 rounds to about 1e-7 per operation

Run = Callable[..., list[Tensor]]


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
    return content.getvalue(), lambda *inputs: tensors_of(loaded(*inputs))


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
