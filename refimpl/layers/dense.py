"""The fully connected layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from ..arrays import Array, accumulation_dtype, astype, matmul, namespace
from .checks import check_real, check_shape, check_upstream

Backprop: TypeAlias = Callable[..., tuple[Array, Array, Array | None]]


def dense(x: Array, weight: Array, bias: Array | None = None) -> tuple[Array, Backprop]:
    """Return ``y = x @ weight + bias`` and its backward pass.

    ``x`` is (N, in), ``weight`` (in, out), ``bias`` (out,) or None, all of one real float dtype;
    ``y`` is (N, out) in that dtype. ``backprop(dy)`` returns ``(dx, dweight, dbias)``, shaped like
    what they are gradients of; ``dbias`` is None where there is no bias, and with ``with_dx=False``
    ``dx`` is None and its work is spared. Raises ValueError if a shape or a dtype does not fit.

    With ``L`` the loss and ``dy = dL/dy``: ``dx = dy W^T``, ``dW = x^T dy``, ``db = sum_n dy_n``
    (Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors", 1986).
    """
    xp = namespace(x, weight, bias)
    check_real(xp, x=x, weight=weight, bias=bias)
    if x.ndim != 2 or weight.ndim != 2 or x.shape[1] != weight.shape[0]:
        check_shape("x", x, ("N", "in"))
        check_shape("weight", weight, (x.shape[1], "out"))
    if bias is not None and tuple(bias.shape) != (weight.shape[1],):
        check_shape("bias", bias, (weight.shape[1],))
    work, given = accumulation_dtype(xp, x), x.dtype
    wide_x, wide_weight = astype(xp, x, work), astype(xp, weight, work)

    product = matmul(xp, wide_x, wide_weight)
    y = astype(xp, product if bias is None else product + astype(xp, bias, work), given)

    def backprop(dy: Array, with_dx: bool = True) -> tuple[Array, Array, Array | None]:
        check_upstream(dy, y)
        wide_dy = astype(xp, dy, work)
        dx = astype(xp, matmul(xp, wide_dy, wide_weight.T), given) if with_dx else None
        dweight = matmul(xp, wide_x.T, wide_dy)
        dbias = None if bias is None else astype(xp, xp.sum(wide_dy, axis=0), given)
        return dx, astype(xp, dweight, given), dbias

    return y, backprop
