"""Array libraries by name, for those who start the trainer from a command line.

A library is imported only when it is asked for. Arrays are made by NumPy and then moved, so that every
backend starts from the same bits.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .arrays import Array


class Unavailable(Exception):
    """A backend that cannot run here; the message is one line that says why."""


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
    chosen = int((device or "cuda:0").rpartition(":")[2] or 0)
    if chosen >= count:
        raise Unavailable(f"there is no CUDA device {chosen}; {count} found")
    cupy.cuda.Device(chosen).use()
    return Backend("cupy", cupy.asarray, cupy.asnumpy)


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
    "array_api_strict": _array_api_strict,
}


def backend(name: str, device: str | None = None) -> Backend:
    """Return a backend by name; Unavailable if its library or its device is not here."""
    return BACKENDS[name](device)


def _load(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Unavailable(f"{name} cannot be imported: {error}") from None
