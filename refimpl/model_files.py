"""Pruned models in files: dense, in compressed sparse rows or in 8 bits, plain or packed with gzip or zstd.

A file is safetensors (eight bytes of length, a JSON header, raw little-endian numbers), whole or inside
gzip or zstd. Its metadata hold the model, the shape of an example and a SHA-256 of everything. Nothing is
ever unpickled, and a file is written whole or not at all.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .compression import dequantize, from_csr, quantize, to_csr
from .files import write_whole

FORMAT = "secateurs-model-1"
DTYPES = {"F64": "<f8", "F32": "<f4", "I32": "<i4", "I8": "|i1"}
NAMES = {"float64": "F64", "float32": "F32", "int32": "I32", "int8": "I8"}
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
PARTS = ("data", "indices", "indptr")
FORMS = ("dense", "csr", "int8")


@dataclass(frozen=True)
class Stored:
    """A model as a file holds it."""

    model: list[dict[str, Any]]
    params: list[Any]
    input_shape: tuple[int, ...]


def save(path: Path, stored: Stored, *, form: str = "dense", packing: str = "none") -> int:
    """Write a model; return the number of bytes.

    ``form`` "dense" holds every number, "csr" each weight as the compressed sparse rows of the matrix
    whose columns are its last axis, "int8" each weight of float32 in one byte and a scale for each unit
    (:func:`refimpl.compression.quantize`), which loses digits; biases stay dense. ``packing`` is "none",
    "gzip" or "zstd", for which Python 3.14 or the package zstandard is needed.
    Raises ValueError for an unknown form or packing, and a dtype that is not float32 or float64.
    """
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
    tensors: dict[str, Any] = {}
    for i, p in enumerate(stored.params):
        if p.dtype.name not in ("float32", "float64"):
            raise ValueError(f"a model file holds float32 or float64, got {p.dtype.name}")
        if form == "int8" and p.dtype.name != "float32":
            raise ValueError(f"only float32 is written in 8 bits, got {p.dtype.name}")
        if form == "dense" or p.ndim < 2:
            tensors[f"{i}"] = p
        else:
            parts = to_csr(p.reshape(-1, p.shape[-1])) if form == "csr" else quantize(p)
            tensors |= {f"{i}.{part}": array for part, array in parts.items()}
    about = {
        "model": list(stored.model),
        "input_shape": list(stored.input_shape),
        "shapes": [list(p.shape) for p in stored.params],
    }
    content = _packed(_encode(tensors, json.dumps(about)), packing)
    write_whole(path, content)
    return len(content)


def load(path: Path) -> Stored:
    """Read a model back, whatever its form and packing.

    Raises ValueError, in one line, for a file that is damaged or holds no model, OSError if it can't
    be read.
    """
    content = path.read_bytes()
    try:
        tensors, about = _decode(_unpacked(content))
        params = [_tensor(tensors, i, shape) for i, shape in enumerate(about["shapes"])]
        return Stored(about["model"], params, tuple(about["input_shape"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = str(error) if type(error) is ValueError else "its header cannot be read"
        raise ValueError(f"{path} is damaged or holds no model: {reason}") from None


def _tensor(tensors: Mapping[str, Any], index: int, shape: Sequence[int]) -> Any:
    if f"{index}" in tensors:
        return tensors[f"{index}"].reshape(shape)
    if f"{index}.quantized" in tensors:
        parts = {part: tensors[f"{index}.{part}"] for part in ("quantized", "scale")}
        return dequantize(parts).reshape(shape)
    matrix = (math.prod(shape[:-1]), shape[-1])
    return from_csr({part: tensors[f"{index}.{part}"] for part in PARTS}, matrix).reshape(shape)


def _encode(tensors: Mapping[str, Any], about: str) -> bytes:
    header: dict[str, Any] = {}
    parts: list[bytes] = []
    end = 0
    for name, array in tensors.items():
        kind = NAMES[array.dtype.name]
        parts.append(np.ascontiguousarray(array, DTYPES[kind]).tobytes())
        begin, end = end, end + len(parts[-1])
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [begin, end]}
    data = b"".join(parts)
    digest = _digest(header, about, data)
    header["__metadata__"] = {"format": FORMAT, "about": about, "sha256": digest}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that the numbers are aligned
    return len(text).to_bytes(8, "little") + text + data


def _decode(content: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or len(content) - 8 < size:
        raise ValueError("it is shorter than its header says")
    header = json.loads(content[8 : 8 + size])
    data = content[8 + size :]
    metadata = header.pop("__metadata__")
    if metadata["format"] != FORMAT:
        raise ValueError(f"its format is not {FORMAT}")
    if metadata["sha256"] != _digest(header, metadata["about"], data):
        raise ValueError("its checksum is that of other content")
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        flat = np.frombuffer(data[begin:end], DTYPES[entry["dtype"]])
        tensors[name] = flat.astype(flat.dtype.newbyteorder("=")).reshape(entry["shape"])
    return tensors, json.loads(metadata["about"])


def _digest(header: Mapping[str, Any], about: str, data: bytes) -> str:
    return hashlib.sha256(json.dumps([header, about], sort_keys=True).encode() + data).hexdigest()


def _packed(content: bytes, packing: str) -> bytes:
    if packing == "gzip":
        return gzip.compress(content, mtime=0)
    if packing == "zstd":
        return bytes(_zstd().compress(content))
    if packing != "none":
        raise ValueError(f"packing must be none, gzip or zstd, got {packing!r}")
    return content


def _unpacked(content: bytes) -> bytes:
    try:
        if content.startswith(GZIP):
            return gzip.decompress(content)
        if content.startswith(ZSTD):
            return bytes(_zstd().decompress(content))
    except ValueError:
        raise
    except Exception as error:  # each library has errors of its own
        raise ValueError(f"it cannot be unpacked: {error}") from None
    return content


def has_zstd() -> bool:
    """Say whether this Python can pack with zstd."""
    try:
        _zstd()
    except ValueError:
        return False
    return True


def _zstd() -> Any:
    for name in ("compression.zstd", "zstandard"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ValueError("zstd needs Python 3.14 or the package zstandard")
