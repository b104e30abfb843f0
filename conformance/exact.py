"""The oracle's arithmetic: 60 decimal digits, unbounded exponents, arrays of exact numbers.

Oracles are written with ordinary operators over NumPy object arrays whose elements are ``mpf``. They
import nothing of ``refimpl``: the two are allowed to disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import mpmath
import numpy as np

from conformance.formats import FLOATS, Tensor

ctx = mpmath.MPContext()
ctx.dps = 60

Real: TypeAlias = Any
"""An ``mpf`` of :data:`ctx`."""
Exact: TypeAlias = Any
"""A NumPy object array of :data:`Real`."""

ZERO = ctx.mpf(0)
ONE = ctx.mpf(1)
INF = ctx.mpf("inf")
NAN = ctx.mpf("nan")


class Reject(Exception):
    """The operation must refuse these arguments; the message says why."""


def real(value: Any) -> Real:
    """Return a Python or NumPy number, exactly as it is stored, as an exact number."""
    return ctx.mpf(float(value)) if not isinstance(value, int) else ctx.mpf(value)


def exact(tensor: Any) -> Exact:
    """Return the exact values of a tensor of floats, integers or complex numbers (``mpc``)."""
    array = np.asarray(tensor)
    if array.dtype == object:
        return array
    if array.dtype.kind == "c":
        return each(ctx.mpc, exact(array.real), exact(array.imag))
    values = array.astype(np.float64) if array.dtype.kind not in "iub" else array
    flat = np.empty(values.size, dtype=object)
    flat[:] = [real(value) for value in values.ravel().tolist()]
    return flat.reshape(array.shape)


def full(shape: tuple[int, ...], value: Real = ZERO) -> Exact:
    """Return an exact array of one value."""
    array = np.empty(shape, dtype=object)
    array.fill(value)
    return array


def each(function: Callable[..., Any], *arrays: Any) -> Exact:
    """Apply a function of exact numbers element by element, broadcasting; always returns an array."""
    broadcast = np.broadcast_arrays(*[np.asarray(array, dtype=object) for array in arrays])
    result = np.empty(broadcast[0].shape, dtype=object)
    flat = result.ravel()
    for i, values in enumerate(zip(*(array.ravel() for array in broadcast), strict=True)):
        flat[i] = function(*values)
    return flat.reshape(result.shape)


def magnitude(array: Any) -> Exact:
    """Return the absolute values; of a complex number the modulus, NaN if either part is."""
    return each(_modulus, array)


def _modulus(x: Any) -> Real:
    if not isinstance(x, ctx.mpc) or (ctx.isfinite(x.real) and ctx.isfinite(x.imag)):
        return abs(x)
    return NAN if x.real != x.real or x.imag != x.imag else INF


def sqrt(array: Any) -> Exact:
    """Return the square roots; the root of a negative number is NaN, as in IEEE arithmetic."""
    return each(lambda x: NAN if x < 0 else ctx.sqrt(x), array)


def exp(array: Any) -> Exact:
    """Return the exponentials."""
    return each(ctx.exp, array)


def divide(a: Any, b: Any) -> Exact:
    """Divide as IEEE 754 does: x/0 is infinite with the sign of x, 0/0 is NaN."""
    return each(_divide, a, b)


def _divide(a: Real, b: Real) -> Real:
    if b == 0:
        return NAN if a == 0 or a != a else (INF if a > 0 else -INF)
    return a / b


def total(values: Iterable[Any]) -> Real:
    """Return the exact sum; 0 for no values. Infinities and NaN propagate."""
    items = list(values)
    if any(not ctx.isfinite(x) for x in items):
        return sum(items, ZERO)
    return ctx.fsum(items)


def power(base: Real, exponent: Real) -> Real:
    """Return base**exponent for base >= 0."""
    if exponent == 2:
        return base * base
    if exponent == 1:
        return base
    return ZERO if base == 0 else base**exponent


FLUSHED = {
    "keep": (),
    "flush": ("float64", "float32", "bfloat16"),
    "flush_float32": ("float32",),
}
"""The formats whose subnormal numbers become zeros, by the setting of the dial ``subnormals``."""


def flush(tensor: Tensor, setting: str) -> Tensor:
    """Return a tensor with the subnormal numbers that a setting flushes replaced by zeros of their sign."""
    fmt = FLOATS.get(tensor.dtype.name)
    if fmt is None or fmt.name not in FLUSHED[setting]:
        return tensor
    small = np.abs(tensor.astype(np.float64)) < fmt.tiny
    signed_zero = np.copysign(np.zeros(tensor.shape), tensor.astype(np.float64))
    return np.where(small, signed_zero.astype(tensor.dtype), tensor)
