"""Exact norms of groups of weights: what group penalties and the max-norm constraint share."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, isinf, prod
from typing import Any

import numpy as np

from conformance.exact import INF, ONE, ZERO, Exact, Real, Reject, each, exact, real, sqrt, total
from conformance.formats import FLOATS, Tensor, round_exact
from conformance.operation import Dial, Param, Value, leaves, widest
from conformance.oracle.regularization import bits_if_exact, signed

Settings = dict[str, Any]

AXIS = Param(
    "axis",
    "the axis, or a list of axes, that indexes the groups: norms run over all others",
    required=True,
)
SIZE_WEIGHT = Dial(
    "size_weight",
    "none",
    "sqrt_size: a group counts times the root of its number of elements",
    ("sqrt_size",),
)

NORM_WHY = (
    "S squares and S-1 additions give the sum of a group of S an error of S roundoffs in any order, which"
    " the root halves; the root, and scaling to and from a safe range, add 3."
)


def group_axes(weight: Tensor, settings: Settings) -> tuple[int, ...]:
    """Return the axes that index the groups, counted from the front."""
    axis = settings["axis"]
    axes = tuple(axis) if isinstance(axis, list | tuple) else (axis,)
    if any(not -weight.ndim <= a < weight.ndim for a in axes):
        raise Reject(f"axis must be one of the {weight.ndim} axes of the weight, got {axis}")
    found = {a % weight.ndim for a in axes}
    if len(found) != len(axes):
        raise Reject(f"an axis is given twice: {axis}")
    return tuple(sorted(found))


def groups(weight: Tensor, axes: tuple[int, ...]) -> Iterator[tuple[Any, Tensor]]:
    """Yield the index of each group among the norms, and its members."""
    shape = tuple(n if a in axes else 1 for a, n in enumerate(weight.shape))
    for index in np.ndindex(shape):
        yield index, weight[tuple(i if a in axes else slice(None) for a, i in enumerate(index))]


def norms(weight: Tensor, settings: Settings) -> Exact:
    """Return the 2-norm of each group, with the shape of the weight but 1 along the other axes."""
    axes = group_axes(weight, settings)
    naive = settings.get("norm", "exact") == "naive"
    shape = tuple(n if a in axes else 1 for a, n in enumerate(weight.shape))
    result = np.empty(shape, dtype=object)
    for index, members in groups(weight, axes):
        result[index] = _norm(exact(members).ravel(), widest(weight), naive)
    return result


def _norm(values: Exact, dtype: str, naive: bool) -> Real:
    """Return the 2-norm; naive: squares and their sum overflow or vanish as in ``dtype``."""
    squares = [x * x for x in values]
    if naive and len(squares) > 1:
        squares = [ZERO if round_exact(x, dtype) == 0 else x for x in squares]
    summed = total(squares)
    overflown = naive and len(squares) > 1 and isinf(round_exact(summed, dtype))
    norm = INF if overflown else sqrt(summed)[()]
    return INF if isinf(round_exact(norm, dtype)) else norm


def group_size(weight: Tensor, settings: Settings) -> int:
    """Return the number of elements of a group."""
    axes = group_axes(weight, settings)
    return prod(n for a, n in enumerate(weight.shape) if a not in axes)


def size_factor(weight: Tensor, settings: Settings) -> Real:
    """Return what a group counts: 1, or the root of its size."""
    if settings["size_weight"] == "none":
        return ONE
    return sqrt(real(group_size(weight, settings)))[()]


def norm_ulps(inputs: dict[str, Any], settings: Settings) -> int:
    """Return the relative error of a norm in roundoffs of the accumulation dtype (see NORM_WHY)."""
    sizes = [group_size(w, settings) for _, w in leaves(inputs["weights"]) if w is not None]
    return ceil(max(sizes, default=0) / 2) + 3


def shrunk(weight: Tensor, settings: Settings, ulps: int) -> Value | Tensor:
    """Return w·max(0, 1 - t/‖w_group‖), as bits where no operation rounds."""
    t = real(float(settings["strength"])) * real(float(settings["step"]))
    t = t * size_factor(weight, settings)
    values, n, name = exact(weight), norms(weight, settings), weight.dtype.name
    factors = each(lambda x: ZERO if x <= t else ONE - t / x, n)
    moved = each(lambda x, f: ZERO if f == 0 else x * f, values, factors)
    ratios = each(lambda x: ZERO if x <= t else t / x, n)
    bits = bits_if_exact(moved, name, t, *n.ravel(), *ratios.ravel(), *factors.ravel())
    if bits is not None:
        return signed(bits, weight, settings)
    room = ONE - 2 * ulps * real(FLOATS[name].unit_roundoff)

    def scale(x: Real, norm: Real) -> Real:
        return (
            ZERO if norm != norm or norm <= t * room or abs(x) > 1e300 else abs(x) * (1 + t / norm)
        )

    return Value(moved, name, each(scale, values, n))
