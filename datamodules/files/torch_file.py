"""Files of ``torch.save``, read as plain data: nothing in them is ever executed."""

import pickle
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from datamodules.errors import InputError

# What torch raises on bytes that are no pickle, or not the pickle they claim to be.
_MALFORMED = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    struct.error,
    zipfile.BadZipFile,
)


def load_plain(path: Path, what: str, fix: str, classes: Sequence[type] = ()) -> Any:
    """Reads tensors, numbers, texts and containers of them, on the CPU.

    Args:
        path: The file.
        what: What it should be, for the message.
        fix: What to do about a wrong one, for the message.
        classes: Further classes it may hold.

    Raises:
        InputError: If the file is truncated, of another format, or holds anything else, such as
            code.
    """
    try:
        # torch would also unpickle a bare stream, the format before 1.6; a whole archive has an end
        # and checksums.
        if not zipfile.is_zipfile(path):
            raise EOFError("truncated, or no file of torch.save")
        with torch.serialization.safe_globals(list(classes)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} is no readable {what} (it holds more than plain data); {fix}"
        ) from error
    except _MALFORMED as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} is no readable {what} ({reason}); {fix}") from error
