"""Array libraries as bare functions meet them: tensors of the suite in, tensors of the suite out.

No library is imported here before a user names it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from conformance.formats import FLOATS, Tensor, name_of

COMPLEX = ("complex128", "complex64")
EVERY = (*FLOATS, *COMPLEX)


@dataclass(frozen=True)
class Arrays:
    """How tensors get into a library and out of it."""

    name: str
    to_native: Callable[[Tensor], Any]
    to_numpy: Callable[[Any], Tensor]
    dtypes: tuple[str, ...] = EVERY
    """The floating-point and complex formats that the library has."""

    def native(self, tensor: Tensor) -> Any:
        """Return a native tensor with the same bits.

        Raises:
            TypeError: the library has, or was set up for, no such format.
        """
        made = self.to_native(tensor)
        got, wanted = name_of(self.to_numpy(made).dtype), name_of(tensor.dtype)
        if got != wanted:
            raise TypeError(f"{self.name} makes {got} of {wanted}")
        return made


def named(name: str) -> Arrays:
    """Return an array library by name.

    Raises:
        ValueError: no such library is known here, or it is not installed.
    """
    if name not in MAKERS:
        raise ValueError(f"unknown arrays {name!r}; known are {', '.join(MAKERS)}")
    try:
        return MAKERS[name]()
    except ModuleNotFoundError as error:
        raise ValueError(f"arrays {name!r}: {error.name} is not installed") from None


def _numpy() -> Arrays:
    # NumPy has no bfloat16 of its own: functions of NumPy do not know ml_dtypes.
    dtypes = tuple(dtype for dtype in EVERY if dtype != "bfloat16")
    return Arrays("numpy", lambda tensor: tensor, np.asarray, dtypes)


def _strict() -> Arrays:
    xp = importlib.import_module("array_api_strict")
    wide = ("float64", "float32", *COMPLEX)
    return Arrays("array_api_strict", xp.asarray, np.asarray, wide)


def _torch() -> Arrays:
    torch = importlib.import_module("torch")

    def to_native(tensor: Tensor) -> Any:
        if tensor.dtype == ml_dtypes.bfloat16:
            return torch.from_numpy(tensor.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(tensor)

    def to_numpy(native: Any) -> Tensor:
        native = torch.as_tensor(native).detach().cpu().contiguous()
        if native.dtype == torch.bfloat16:
            return native.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return native.resolve_conj().resolve_neg().numpy()

    return Arrays("torch", to_native, to_numpy)


def _tensorflow() -> Arrays:
    tensorflow = importlib.import_module("tensorflow")
    return Arrays("tensorflow", tensorflow.constant, np.asarray)


def _jax() -> Arrays:
    return Arrays("jax", importlib.import_module("jax.numpy").asarray, np.asarray)


def _cupy() -> Arrays:
    cupy = importlib.import_module("cupy")
    dtypes = tuple(dtype for dtype in EVERY if dtype != "bfloat16")

    def to_native(tensor: Tensor) -> Any:
        # Of a 0-d array alone asarray makes a fill, which loses the sign of -0.0.
        return cupy.asarray(tensor.ravel()).reshape(tensor.shape)

    return Arrays("cupy", to_native, cupy.asnumpy, dtypes)


MAKERS: dict[str, Callable[[], Arrays]] = {
    "numpy": _numpy,
    "torch": _torch,
    "tensorflow": _tensorflow,
    "jax": _jax,
    "cupy": _cupy,
    "array_api_strict": _strict,
}
