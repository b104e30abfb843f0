"""Checkpoints: the state of a run in one file, from which it goes on bit for bit.

A file is in the safetensors format, so that any language can read it: eight bytes, the length of a
JSON header, the header, the raw little-endian numbers. The tensors are ``params.0``,
``optimizer.velocity.0``, ``masks.0`` and so on; the metadata hold the step, the plan, the shape of
the state as JSON, and a SHA-256 of all of this. Nothing is ever unpickled.

A file is written whole or not at all: into a temporary file beside it, which then takes its name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import Array
from .files import write_whole
from .trainer import Plan, State

FORMAT = "secateurs-checkpoint-1"
DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "BOOL": "bool",
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def save(path: str | os.PathLike[str], plan: Plan, state: State) -> None:
    """Write a checkpoint; a file of that name is replaced only once the new one is complete.

    The arrays of the state are of any library whose arrays ``numpy.asarray`` takes (on a device,
    move them to the host first), of float64, float32, float16, bfloat16 or bool. The plan must be
    plain data, as JSON has it. Raises ValueError for what the format cannot hold, OSError if the
    file cannot be written; the old file is then still there, and nothing is left beside it.
    """
    tensors: dict[str, np.ndarray[Any, Any]] = {}

    def put(name: str, array: Any) -> str | None:
        if array is None:
            return None
        tensors[name] = np.asarray(array)
        if tensors[name].dtype.name not in NAMES:
            raise ValueError(f"a checkpoint holds no {tensors[name].dtype.name}, found in {name}")
        return name

    layout = {
        "step": state.step,
        "params": [put(f"params.{i}", p) for i, p in enumerate(state.params)],
        "masks": [put(f"masks.{i}", m) for i, m in enumerate(state.masks)],
        "running": [put(f"running.{i}", r) for i, r in enumerate(state.running)],
        "optimizer": {
            slot: list(values)
            if slot == "step"
            else [put(f"optimizer.{slot}.{i}", value) for i, value in enumerate(values)]
            for slot, values in state.optimizer.items()
        },
    }
    try:
        written = json.dumps(_plain(plan), sort_keys=True)
    except TypeError as error:
        raise ValueError(f"the plan of a checkpoint must be plain data: {error}") from None
    metadata = {"format": FORMAT, "plan": written, "state": json.dumps(layout, sort_keys=True)}
    write_whole(Path(path), _encode(tensors, metadata))


def load(
    path: str | os.PathLike[str], to: Callable[[np.ndarray[Any, Any]], Array] = lambda array: array
) -> tuple[Plan, State]:
    """Return the plan and the state of a checkpoint; training goes on from them bit for bit.

    ``to`` makes an array of the library and device to go on with from a NumPy array; without it
    the arrays are NumPy's. bfloat16 needs the package ml_dtypes. Raises ValueError, in one line,
    for a file that is damaged or is no checkpoint, and OSError if it cannot be read.
    """
    content = Path(path).read_bytes()
    try:
        tensors, metadata = _decode(content)
        layout = json.loads(metadata["state"])
        plan = Plan(**json.loads(metadata["plan"]))

        def get(name: str | None) -> Array | None:
            return None if name is None else to(tensors[name])

        optimizer = {
            slot: list(values) if slot == "step" else [get(name) for name in values]
            for slot, values in layout["optimizer"].items()
        }
        params, masks = ([get(name) for name in layout[part]] for part in ("params", "masks"))
        running = [get(name) for name in layout.get("running", [])]
        return plan, State(params, optimizer, masks, layout["step"], running)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = str(error) if type(error) is ValueError else "its header cannot be read"
        raise ValueError(f"{path} is damaged or no checkpoint: {reason}") from None


def _plain(plan: Plan) -> dict[str, Any]:
    fields = (field for field in dataclasses.fields(plan) if field.init)
    return {field.name: getattr(plan, field.name) for field in fields}


def _encode(tensors: dict[str, np.ndarray[Any, Any]], metadata: dict[str, str]) -> bytes:
    header: dict[str, Any] = {}
    parts, end = [], 0
    for name, array in tensors.items():
        parts.append(array.astype(array.dtype.newbyteorder("<"), order="C").tobytes())
        begin, end = end, end + len(parts[-1])
        dtype, shape = NAMES[array.dtype.name], list(array.shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    data = b"".join(parts)
    header["__metadata__"] = {**metadata, "sha256": _digest(header, metadata, data)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that the numbers are aligned
    return len(text).to_bytes(8, "little") + text + data


def _decode(content: bytes) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, str]]:
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or len(content) - 8 < size:
        raise ValueError("it is shorter than its header says")
    header = json.loads(content[8 : 8 + size].decode())
    data = content[8 + size :]
    metadata = header.pop("__metadata__")
    if metadata.pop("format") != FORMAT:
        raise ValueError(f"its format is not {FORMAT}")
    told = metadata.pop("sha256")
    if told != _digest(header, {"format": FORMAT, **metadata}, data):
        raise ValueError("its checksum is that of other content")
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        dtype = _dtype(DTYPES[entry["dtype"]])
        if end - begin != math.prod(entry["shape"]) * dtype.itemsize:
            raise ValueError(f"the size of {name} does not fit its shape")
        flat = np.frombuffer(data[begin:end], dtype=dtype.newbyteorder("<"))
        tensors[name] = flat.astype(dtype).reshape(entry["shape"])
    return tensors, metadata


def _digest(header: dict[str, Any], metadata: dict[str, str], data: bytes) -> str:
    described = {name: entry for name, entry in header.items() if name != "__metadata__"}
    text = json.dumps([described, metadata], sort_keys=True)
    return hashlib.sha256(text.encode() + data).hexdigest()


def _dtype(name: str) -> np.dtype[Any]:
    if name == "bfloat16":
        try:
            from ml_dtypes import bfloat16
        except ImportError:
            raise ValueError("it holds bfloat16, for which ml_dtypes must be installed") from None
        return np.dtype(bfloat16)
    return np.dtype(name)
