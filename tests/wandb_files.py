"""Reads the records of an offline W&B run."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2


def chunks(path: Path, block: int = 32768) -> Iterator[bytes]:
    """Whole records of a .wandb file: a LevelDB log behind a header of 7 bytes.

    A record that W&B's process is still writing is left out.
    """
    data, position, buffered = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        left = block - position % block
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        chunk = data[position + 7 : position + 7 + length]
        if len(chunk) < length:
            return
        position += 7 + length
        buffered = chunk if kind in (1, 2) else buffered + chunk
        if kind in (1, 4):
            yield buffered


def parse(path: Path) -> list[Any]:
    found = []
    for chunk in chunks(path):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(chunk)
        found.append(record)
    return found


def records(run_dir: Path) -> list[Any]:
    """Every record of every offline part of a run, oldest first.

    wandb's own process may still have to write, or to make its file, when the command has ended;
    its last record is `exit`.
    """
    found: list[Any] = []
    deadline = time.monotonic() + 60
    while not (paths := sorted(run_dir.glob("wandb/offline-run-*/*.wandb"))):
        assert time.monotonic() < deadline, f"{run_dir} has no W&B file"
        time.sleep(0.05)
    for path in paths:
        while not of_type(part := parse(path), "exit"):
            assert time.monotonic() < deadline, f"{path} was not finished"
            time.sleep(0.05)
        found += part
    return found


def of_type(found: list[Any], kind: str) -> list[Any]:
    return [getattr(r, kind) for r in found if r.WhichOneof("record_type") == kind]


def entries(items: Any) -> dict[str, Any]:
    return {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in items}


def config_of(found: list[Any]) -> dict:
    merged: dict = {}
    for update in of_type(found, "config"):
        merged |= entries(update.update)
    return merged
