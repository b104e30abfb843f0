"""The rectified linear unit that lets a little through."""

from __future__ import annotations

from collections.abc import Callable

from ..arrays import Array, astype, namespace, through_float32, widen
from ..checks import choice, number
from .checks import check_real, check_upstream


def leaky_relu(
    x: Array, *, slope: float, at_zero: str = "slope", hyperparameters: str = "exact"
) -> tuple[Array, Callable[[Array], Array]]:
    """Return ``x`` where it is positive and ``slope * x`` elsewhere, and its backward pass.

    ``x`` is a real float array of any shape, ``slope`` any finite number. ``backprop(dy)`` returns
    ``dx``: ``dy`` where ``x > 0``, ``slope * dy`` elsewhere, NaN included. ``y`` and ``dx`` have the
    shape and dtype of ``x``. At 0 the derivative is a convention: the ``slope``, or ``one``. With
    ``hyperparameters="float32"`` the slope passes through float32, whatever ``x`` is.

    Raises ValueError if ``x`` is not a real float array, ``slope`` not finite, or ``dy`` does not
    fit (Maas, Hannun and Ng, "Rectifier nonlinearities improve neural network acoustic models",
    2013).
    """
    xp = namespace(x)
    check_real(xp, x=x)
    slope = number("slope", slope)
    choice("at_zero", at_zero, ("slope", "one"))
    choice("hyperparameters", hyperparameters, ("exact", "float32"))
    slope = through_float32(slope) if hyperparameters == "float32" else slope

    y = xp.where(x > 0, x, astype(xp, slope * widen(xp, x), x.dtype))

    def backprop(dy: Array) -> Array:
        check_upstream(dy, y)
        passing = x >= 0 if at_zero == "one" else x > 0
        return xp.where(passing, dy, astype(xp, slope * widen(xp, dy), x.dtype))

    return y, backprop
