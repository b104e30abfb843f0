"""What layers and losses ask of their arguments: shapes, dtypes, geometry; never a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from ..arrays import Array, Namespace
from ..checks import real_floating

Pair: TypeAlias = Sequence[int]
Padding: TypeAlias = Sequence[Sequence[int]]


def check_real(xp: Namespace, **arrays: Array | None) -> None:
    """Raise ValueError unless the arrays are real floats, all of one dtype (``None`` is ignored)."""
    first = None
    different = False
    for name, array in arrays.items():
        if array is None:
            continue
        if first is None or array.dtype != first:
            real_floating(xp, name, array)
            different, first = first is not None, array.dtype
            if different:
                break
    if different:
        given = {name: array for name, array in arrays.items() if array is not None}
        found = ", ".join(f"{name} {array.dtype}" for name, array in given.items())
        raise ValueError(f"all arrays must have one dtype, got {found}")


def check_shape(name: str, array: Array, expected: Sequence[int | str]) -> None:
    """Raise ValueError unless the shape is the expected one; a string stands for any extent."""
    shape = tuple(array.shape)
    if len(shape) == len(expected):
        for want, extent in zip(expected, shape, strict=True):
            if want != extent and not isinstance(want, str):
                break
        else:
            return
    wanted = ", ".join(str(want) for want in expected) + "," * (len(expected) == 1)
    raise ValueError(f"{name} must have shape ({wanted}), got {shape}")


def check_upstream(dy: Array, y: Array) -> None:
    """Raise ValueError unless an upstream gradient has the shape and dtype of the output."""
    if dy.shape != y.shape:
        check_shape("dy", dy, tuple(y.shape))
    if dy.dtype != y.dtype:
        raise ValueError(f"dy must have the dtype of y, {y.dtype}, got {dy.dtype}")


def check_pair(name: str, value: Pair, minimum: int = 1) -> tuple[int, int]:
    """Return two integers as a tuple; ValueError unless they are both at least ``minimum``."""
    whole = isinstance(value, list | tuple) and len(value) == 2
    if not whole or any(type(item) is not int or item < minimum for item in value):
        raise ValueError(f"{name} must be two integers of at least {minimum}, got {value!r}")
    return value[0], value[1]


def check_padding(value: Padding) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return ``[[top, bottom], [left, right]]`` as tuples; ValueError if it is anything else."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError(f"padding must be [[top, bottom], [left, right]], got {value!r}")
    rows, columns = value
    return check_pair("row padding", rows, 0), check_pair("column padding", columns, 0)
