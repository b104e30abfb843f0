"""The two S-shaped activations: the logistic function and the hyperbolic tangent."""

from __future__ import annotations

from collections.abc import Callable

from ..arrays import Array, astype, namespace, widen
from .checks import check_real, check_upstream


def sigmoid(x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """Return ``y = 1 / (1 + exp(-x))`` and its backward pass, for a real float array of any shape.

    ``backprop(dy)`` returns ``dx = dy * y * (1 - y)``. ``y`` and ``dx`` have the shape and dtype of
    ``x``. Nothing overflows, and both keep their digits where ``y`` is next to 0. Raises ValueError
    if ``x`` is not a real float array or ``dy`` does not fit (Verhulst, "Recherches mathematiques
    sur la loi d'accroissement de la population", 1845).
    """
    xp = namespace(x)
    check_real(xp, x=x)
    wide = widen(xp, x)

    # With e <= 1 neither branch overflows: 1 / (1 + e) for x >= 0, e / (1 + e) below.
    e = xp.exp(-xp.abs(wide))
    result = xp.where(wide < 0, e, xp.ones_like(e)) / (1 + e)
    y = astype(xp, result, x.dtype)

    def backprop(dy: Array) -> Array:
        check_upstream(dy, y)
        # y (1 - y) without the cancellation in 1 - y.
        return astype(xp, widen(xp, dy) * (e / (1 + e) / (1 + e)), x.dtype)

    return y, backprop


def tanh(x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """Return ``y = tanh(x)`` and its backward pass, for a real float array of any shape.

    ``backprop(dy)`` returns ``dx = dy * (1 - y^2)``. ``y`` and ``dx`` have the shape and dtype of
    ``x``. Raises ValueError if ``x`` is not a real float array or ``dy`` does not fit (LeCun, Bottou,
    Orr and Mueller, "Efficient BackProp", 1998).
    """
    xp = namespace(x)
    check_real(xp, x=x)

    result = xp.tanh(widen(xp, x))
    y = astype(xp, result, x.dtype)

    def backprop(dy: Array) -> Array:
        check_upstream(dy, y)
        return astype(xp, widen(xp, dy) * ((1 - result) * (1 + result)), x.dtype)

    return y, backprop
