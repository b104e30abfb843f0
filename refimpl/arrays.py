"""The one seam between the mathematics and the array library that runs it.

What shaped this module:

* the rest of ``refimpl`` is written against the array API standard, so the namespace is always taken
  from the arguments (:func:`namespace`), never imported;
* 16-bit floats have neither the range nor the precision to accumulate in, and float64 must not
  appear where the caller did not bring it (some devices have none): :func:`accumulation_dtype`;
* a host round trip per call would stall a GPU, so nothing here calls ``bool``, ``float`` or ``int``
  on an array.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, TypeAlias

import array_api_compat

Array: TypeAlias = Any
"""Any array-API array. The standard has no common base class, hence ``Any``."""

Namespace: TypeAlias = Any
DType: TypeAlias = Any


def namespace(*arrays: Array | None) -> Namespace:
    """Return the array-API namespace of the arrays that are given (``None`` is ignored)."""
    return array_api_compat.array_namespace(*[array for array in arrays if array is not None])


def accumulation_dtype(xp: Namespace, *arrays: Array | None) -> DType:
    """Return float64 if any array is float64 or complex128, else float32.

    This is the dtype of norms, penalty values and losses, and the dtype in which 16-bit inputs are
    computed before they are rounded back, once, at the end.
    """
    double = (getattr(xp, "float64", None), getattr(xp, "complex128", None))
    given = [array for array in arrays if array is not None]
    return xp.float64 if any(array.dtype in double for array in given) else xp.float32


def widen(xp: Namespace, array: Array) -> Array:
    """Return a float array in its own accumulation dtype: 16 bits become 32, wider stays as it is."""
    return astype(xp, array, accumulation_dtype(xp, array))


def astype(xp: Namespace, array: Array, dtype: DType) -> Array:
    """Return the array in another dtype; the array itself where the dtype is already right."""
    return array if array.dtype == dtype else xp.astype(array, dtype)


def scalar(xp: Namespace, value: float, like: Array, dtype: DType | None = None) -> Array:
    """Return a Python number as a 0-d array on the device of ``like`` (default: with its dtype)."""
    device = array_api_compat.device(like)
    return xp.asarray(value, dtype=like.dtype if dtype is None else dtype, device=device)


def through_float32(value: float) -> float:
    """Return the nearest float32 number, as libraries use a hyper-parameter that they store as one."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def present(arrays: Sequence[Array | None]) -> list[Array]:
    """Return the arrays of a list without its absent entries (``None``)."""
    return [array for array in arrays if array is not None]


def smallest(xp: Namespace, keys: Sequence[Array], k: int) -> Array:
    """Return a boolean mask of exactly the ``k`` smallest entries of a 1-d array.

    ``keys`` are 1-d arrays of one length, compared in order (the first decides, the next breaks its
    ties); among equals the lowest index is the smallest. Keys must not hold NaN: the standard does
    not say where a sort puts it.
    """
    return ranks(xp, keys) < k


def ranks(xp: Namespace, keys: Sequence[Array]) -> Array:
    """Return the position (int64) that each entry takes in the order that :func:`smallest` uses."""
    return xp.argsort(stable_order(xp, keys), stable=True)


def stable_order(xp: Namespace, keys: Sequence[Array]) -> Array:
    """Return the indices that sort by the first key, then the next, then by index."""
    *major, minor = keys
    order = xp.argsort(minor, stable=True)
    for key in reversed(major):
        order = xp.take(order, xp.argsort(xp.take(key, order, axis=0), stable=True), axis=0)
    return order


def euclidean_norm(xp: Namespace, array: Array, axis: tuple[int, ...] | None = None) -> Array:
    """Return the 2-norm over ``axis`` (default: all), which keeps its place with length 1.

    Right whenever the true norm is representable: dividing by the largest magnitude first keeps
    the squares from overflowing or vanishing. Infinities give infinity, NaN gives NaN.
    """
    if 0 in array.shape:
        return xp.sqrt(xp.sum(array * array, axis=axis, keepdims=True))
    largest = xp.max(xp.abs(array), axis=axis, keepdims=True)
    unscaled = (largest == 0) | xp.isinf(largest)
    scale = xp.where(unscaled, xp.ones_like(largest), largest)
    return scale * xp.sqrt(xp.sum((array / scale) ** 2, axis=axis, keepdims=True))
