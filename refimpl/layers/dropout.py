"""Inverted dropout, with the mask drawn elsewhere: every backend can be given the same one."""

from __future__ import annotations

from collections.abc import Callable

from ..arrays import Array, astype, namespace, widen
from ..checks import boolean, choice, number, same_shape
from .checks import check_real, check_upstream


def dropout(
    x: Array, mask: Array, *, rate: float, dropped: str = "zero", rate_one: str = "zeros"
) -> tuple[Array, Callable[[Array], Array]]:
    """Return ``x / (1 - rate)`` where the mask keeps and 0 elsewhere, and its backward pass.

    ``x`` is a real float array of any shape, ``mask`` a boolean array of that shape (True keeps),
    ``rate`` in [0, 1] the probability of being dropped with which the mask was drawn; dividing by
    what is left of it keeps the expectation of ``y`` at ``x``. With rate 1 all is 0, whatever the
    mask. ``backprop(dy)`` returns ``dx``, which ``dy`` reaches in the same way. ``y`` and ``dx`` have
    the shape and dtype of ``x``.

    A dropped element is ``zero``, or what ``multiply`` makes of it: 0 times an infinity is NaN.
    ``rate_one="reject"`` refuses rate 1. Raises ValueError if a shape, a dtype or the rate does not
    fit (Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting",
    2014).
    """
    xp = namespace(x, mask)
    check_real(xp, x=x)
    boolean(xp, "mask", mask)
    same_shape("x", x, "mask", mask)
    rate = number("rate", rate, low=0.0, high=1.0)
    choice("dropped", dropped, ("zero", "multiply"))
    choice("rate_one", rate_one, ("zeros", "reject"))
    if rate == 1.0 and rate_one == "reject":
        raise ValueError("rate must be less than 1, got 1.0")
    kept = mask & (rate < 1.0)
    factor = 1.0 / (1.0 - rate) if rate < 1.0 else 0.0

    def thin(values: Array) -> Array:
        wide = widen(xp, values)
        nothing = wide * 0 if dropped == "multiply" else xp.zeros_like(wide)
        return astype(xp, xp.where(kept, wide * factor, nothing), x.dtype)

    y = thin(x)

    def backprop(dy: Array) -> Array:
        check_upstream(dy, y)
        return thin(dy)

    return y, backprop
