"""Array libraries by name, for those who start the trainer from a command line.

A library is imported only when it is asked for. Arrays are made by NumPy and then moved, so that every
backend starts from the same bits. What each library has is one table (:data:`CAPABILITIES`): it feeds
the adapters (which formats are asked, which dialect is declared), the tests' skips, and the page
``docs/backends.md``, which ``python -m refimpl.backends docs/backends.md`` writes.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import Array


class Unavailable(Exception):
    """A backend that cannot run here; the message is one line that says why."""


@dataclass(frozen=True)
class Capabilities:
    """What an array library has of what ``refimpl`` can use; a field's comment is a row of the page."""

    float64: bool = True
    float16: bool = True
    bfloat16: bool = False
    complex: bool = False
    integers64: bool = True
    data_dependent_shapes: bool = True
    boolean_indexing: bool = True
    in_place: bool = True
    partition: bool = False
    lazy: bool = False
    devices: str = "cpu"
    subnormals: str = "kept"
    note: str = ""

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The formats in which operations are asked of the library."""
        pairs = (
            ("float64", self.float64), ("float32", True), ("float16", self.float16),
            ("bfloat16", self.bfloat16), ("complex64", self.complex),
            ("complex128", self.complex and self.float64),
        )  # fmt: skip
        return tuple(name for name, there in pairs if there)

    @property
    def dialect(self) -> dict[str, str]:
        """What the library's arithmetic does in every operation, as the suite writes it."""
        return {"subnormals": FLUSHED[self.subnormals]} if self.subnormals != "kept" else {}


FLUSHED = {"flushed": "flush", "float32 flushed": "flush_float32"}
"""The suite's words for what the table says of subnormal numbers."""

CAPABILITIES = {
    "numpy": Capabilities(
        bfloat16=True, complex=True, partition=True,
        note="bfloat16 is the type of the package ml_dtypes.",
    ),
    "cupy": Capabilities(
        complex=True, devices="CUDA", subnormals="float32 flushed",
        note="Runs on a GPU only: without a CUDA device it says so and exits with 3. CuPy has its"
        " kernels compiled with -ftz=true, which flushes subnormal float32 numbers and no others.",
    ),
    "torch": Capabilities(bfloat16=True, complex=True, devices="cpu, CUDA and others"),
    "jax": Capabilities(
        float64=False, bfloat16=True, complex=True, integers64=False, in_place=False,
        devices="cpu, CUDA, TPU", subnormals="flushed",
        note="float64 and int64 need its own switch jax_enable_x64, which stays off. XLA flushes"
        " subnormals in arithmetic and comparisons; what only selects keeps them. Every operation"
        " is compiled for each new shape: a first run is slow.",
    ),
    "dask": Capabilities(
        lazy=True, devices="cpu",
        note="Arrays are chunked graphs, computed when a value is read.",
    ),
    "array_api_strict": Capabilities(
        float16=False, complex=True, data_dependent_shapes=False, boolean_indexing=False,
        devices="CPU_DEVICE, device1, no_float64",
        note="The standard and nothing else. Data-dependent shapes and boolean indexing can be"
        " switched on; the suite leaves them off. Its device no_float64 has no float64.",
    ),
}  # fmt: skip
"""What each library that runs ``refimpl`` has."""

ROWS = {
    "float64": "float64",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "complex": "complex gradients in the norms",
    "integers64": "int64",
    "data_dependent_shapes": "shapes that depend on values",
    "boolean_indexing": "boolean indexing",
    "in_place": "arrays can be written to",
    "partition": "partition-based selection",
    "lazy": "computed when read",
    "devices": "devices",
    "subnormals": "subnormal numbers",
}


def page() -> str:
    """Return the page that describes the table, as Markdown."""
    names = list(CAPABILITIES)
    lines = [
        "# Array libraries",
        "",
        "The same functions of `refimpl` run on arrays of each of these libraries; results stay in the",
        "library and on the device. Written by `python -m refimpl.backends docs/backends.md`.",
        "",
        "| | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for field in fields(Capabilities):
        if field.name in ROWS:
            values = [getattr(CAPABILITIES[name], field.name) for name in names]
            cells = [("yes" if v else "no") if isinstance(v, bool) else v for v in values]
            lines.append(f"| {ROWS[field.name]} | " + " | ".join(cells) + " |")
    notes = [
        f"- **{name}**: {CAPABILITIES[name].note}" for name in names if CAPABILITIES[name].note
    ]
    return "\n".join([*lines, "", *notes, ""])


@dataclass(frozen=True)
class Backend:
    """How arrays get to a library's device and back."""

    name: str
    to_device: Callable[[np.ndarray[Any, Any]], Array]
    to_numpy: Callable[[Array], np.ndarray[Any, Any]]


def _numpy(device: str | None) -> Backend:
    if device not in (None, "cpu"):
        raise Unavailable(f"numpy has no device {device!r}, only cpu")
    return Backend("numpy", lambda array: array, np.asarray)


def _cupy(device: str | None) -> Backend:
    cupy = _load("cupy")
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:
        count = 0
    if count == 0:
        raise Unavailable("there is no CUDA device")
    number = (device or "cuda:0").removeprefix("cuda").removeprefix(":") or "0"
    if not number.isdecimal() or int(number) >= count:
        raise Unavailable(
            f"there is no CUDA device {device!r}; there are cuda:0 to cuda:{count - 1}"
        )
    chosen = int(number)
    cupy.cuda.Device(chosen).use()
    # Of a 0-d array alone CuPy's asarray makes a fill, which loses the sign of -0.0.
    return Backend(
        "cupy", lambda array: cupy.asarray(array.ravel()).reshape(array.shape), cupy.asnumpy
    )


def _torch(device: str | None) -> Backend:
    torch = _load("torch")
    name = device or "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise Unavailable("there is no CUDA device that PyTorch can use")
    return Backend(
        "torch",
        lambda array: torch.from_numpy(np.array(array)).to(name),
        lambda tensor: tensor.detach().cpu().numpy(),
    )


def _jax(device: str | None) -> Backend:
    jnp = _load("jax.numpy")
    if device not in (None, "cpu"):
        raise Unavailable("choose JAX's device with its own variable JAX_PLATFORMS")
    return Backend("jax", jnp.asarray, np.asarray)


def _dask(device: str | None) -> Backend:
    dask = _load("dask.array")
    if device not in (None, "cpu"):
        raise Unavailable(f"dask has no device {device!r}, only cpu")
    return Backend("dask", lambda array: dask.from_array(array, chunks=-1), np.asarray)


def _array_api_strict(device: str | None) -> Backend:
    strict = _load("array_api_strict")
    try:
        chosen = strict.Device(device or "CPU_DEVICE")
    except ValueError as error:
        raise Unavailable(f"array_api_strict: {error}") from None
    return Backend(
        "array_api_strict",
        lambda array: strict.asarray(array, device=chosen),
        lambda array: np.asarray(array.to_device(strict.Device("CPU_DEVICE"))),
    )


BACKENDS = {
    "numpy": _numpy,
    "cupy": _cupy,
    "torch": _torch,
    "jax": _jax,
    "dask": _dask,
    "array_api_strict": _array_api_strict,
}


def backend(name: str, device: str | None = None) -> Backend:
    """Return a backend by name; Unavailable if its library or its device is not here."""
    return BACKENDS[name](device)


def _load(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        if error.name == package:
            raise Unavailable(f"{package} is not installed") from None
        raise Unavailable(f"{name} cannot be imported: {error}") from None
    except ImportError as error:
        text = " ".join(str(error).split())
        raise Unavailable(f"{name} cannot be imported: {text}") from None


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
