"""Refusals in one line: what was wrong and what was expected.

Every check reads Python values, shapes or dtypes, which the host knows; none reads an array's
elements, so none of them costs a device synchronisation.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from functools import cache
from numbers import Real
from typing import Any

from .arrays import Array, DType, Namespace

_NOT_REAL_FLOATING = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("complex64", "complex128"),
)


def number(
    name: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    below: float | None = None,
    finite: bool = True,
) -> float:
    """Return ``value`` as a Python float if low <= value <= high (and value < ``below``).

    Raises TypeError for something that is not a real number, ValueError for NaN, for an infinite
    value unless ``finite`` is false, and for a value out of range.
    """
    if type(value) is not float and (isinstance(value, bool) or not isinstance(value, Real)):
        raise TypeError(f"{name} must be a real number, got {type(value).__name__}")
    value = float(value)
    inside = low <= value <= high and (below is None or value < below)
    if not inside or (finite and math.isinf(value)):
        raise ValueError(f"{name} must be {_range(low, high, below, finite)}, got {value}")
    return value


def _range(low: float, high: float, below: float | None, finite: bool) -> str:
    kind = "finite" if finite else "a number, not NaN"
    if below is not None:
        return f"in [{low:g}, {below:g})"
    if math.isfinite(low) and math.isfinite(high):
        return f"in [{low:g}, {high:g}]"
    if math.isfinite(low):
        return f"{kind} and at least {low:g}"
    return kind


def integer(name: str, value: Any, *, low: int | None = None) -> int:
    """Return ``value`` as a Python int, at least ``low``. Raises TypeError or ValueError."""
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got bool")
    try:
        value = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}") from None
    if low is not None and value < low:
        raise ValueError(f"{name} must be at least {low}, got {value}")
    return int(value)


def choice(name: str, value: Any, allowed: Sequence[str]) -> None:
    """Raise ValueError unless ``value`` is one of the settings of a dial."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def same_length(first: str, one: Sequence[Any], second: str, other: Sequence[Any]) -> None:
    """Raise ValueError unless two lists have the same number of entries."""
    if len(one) != len(other):
        raise ValueError(
            f"{first} and {second} must have the same length, got {len(one)} and {len(other)}"
        )


def same_shape(first: str, one: Array, second: str, other: Array) -> None:
    """Raise ValueError unless two arrays have the same shape: broadcasting would hide mistakes."""
    if tuple(one.shape) != tuple(other.shape):
        raise ValueError(
            f"{first} and {second} must have the same shape, "
            f"got {tuple(one.shape)} and {tuple(other.shape)}"
        )


def real_floating(xp: Namespace, name: str, array: Array) -> None:
    """Raise ValueError for an integer, boolean or complex array.

    Integers would be truncated on the way back to their dtype. The test is by exclusion because
    bfloat16 is a floating dtype that ``xp.isdtype`` does not know everywhere.
    """
    if not _is_real_floating(xp, array.dtype):
        raise ValueError(f"{name} must have a real floating-point dtype, got {array.dtype}")


@cache
def _is_real_floating(xp: Namespace, dtype: DType) -> bool:
    return dtype not in [getattr(xp, d) for d in _NOT_REAL_FLOATING if hasattr(xp, d)]


def not_complex(xp: Namespace, name: str, array: Array) -> None:
    """Raise ValueError for a complex array where an order of its values is needed."""
    if array.dtype in [getattr(xp, d) for d in ("complex64", "complex128") if hasattr(xp, d)]:
        raise ValueError(f"{name} must be real: complex numbers have no order, got {array.dtype}")


def boolean(xp: Namespace, name: str, array: Array) -> None:
    """Raise ValueError unless an array is boolean (a mask of 0.0 and 1.0 is not a mask here)."""
    if array.dtype != xp.bool:
        raise ValueError(f"{name} must be boolean (True keeps), got {array.dtype}")
