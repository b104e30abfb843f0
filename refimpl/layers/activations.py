"""Element-wise and shape-only layers."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..arrays import Array, at_least_zero, namespace, passed_above_zero, where_or_zero
from ..checks import choice
from .checks import check_real, check_upstream


def relu(x: Array, *, nan: str = "propagate") -> tuple[Array, Callable[[Array], Array]]:
    """Return ``y = max(x, 0)`` and its backward pass, for a real float array of any shape.

    ``backprop(dy)`` returns ``dx``: 0 where ``x <= 0`` (at 0 itself too, by convention), else
    ``dy``; it selects, so that an infinite ``dy`` leaves no NaN where it is blocked. ``y`` and
    ``dx`` have the shape and dtype of ``x``. Raises ValueError if ``x`` is not a real float array
    or ``dy`` does not fit (Nair and Hinton, "Rectified linear units improve restricted Boltzmann
    machines", 2010).

    ``nan``: NaN may ``propagate`` (``y`` is NaN, and ``dy`` passes, for NaN is not at or below 0),
    give NaN but ``no_gradient``, or give ``zero`` and no gradient.
    """
    xp = namespace(x)
    check_real(xp, x=x)
    choice("nan", nan, ("propagate", "no_gradient", "zero"))
    y = where_or_zero(xp, x > 0, x) if nan == "zero" else at_least_zero(xp, x)

    def backprop(dy: Array) -> Array:
        check_upstream(dy, y)
        return passed_above_zero(xp, x, dy) if nan == "propagate" else where_or_zero(xp, x > 0, dy)

    return y, backprop


def flatten(x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """Return (N, ...) as (N, rest) in C order, and the backward pass that restores the shape.

    ``y`` has the dtype of ``x`` and may share its memory. Raises ValueError if ``x`` is 0-d or not
    a real float array, or if ``dy`` does not fit.
    """
    xp = namespace(x)
    check_real(xp, x=x)
    if x.ndim == 0:
        raise ValueError("x must have a leading batch axis, got a 0-d array")
    # The extent is spelled out because -1 is ambiguous for an empty batch.
    y = xp.reshape(x, (x.shape[0], math.prod(x.shape[1:])))

    def backprop(dy: Array) -> Array:
        check_upstream(dy, y)
        return xp.reshape(dy, tuple(x.shape))

    return y, backprop
