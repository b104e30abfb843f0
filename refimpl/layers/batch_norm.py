"""Batch normalisation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

from ..arrays import Array, astype, namespace, widen
from ..checks import choice, number
from .checks import check_real, check_shape, check_upstream

Running: TypeAlias = tuple[Array, Array]
Backprop: TypeAlias = Callable[[Array], tuple[Array, Array, Array]]


def batch_norm(
    x: Array, scale: Array, shift: Array, running_mean: Array, running_var: Array, *,
    training: bool = True, eps: float = 1e-5, momentum: float = 0.1,
    running_variance: str = "unbiased",
) -> tuple[Array, Running, Backprop]:  # fmt: skip
    """Return ``y = scale * (x - mean) / sqrt(var + eps) + shift``, the running values, ``backprop``.

    ``x`` is (N, C), NHWC or any (..., C); the other four are (C,), all of one real float dtype. In
    training, mean and (biased) variance are those of ``x`` over all axes but the last, and the new
    running values are ``(1 - momentum) * old + momentum * new``: ``momentum`` in [0, 1] weighs the
    new batch, whose variance enters ``unbiased`` (times m / (m - 1)) or ``biased``. Otherwise the
    running values normalise and stay as they are. ``backprop(dy)`` returns ``(dx, dscale, dshift)``.

    Raises ValueError if a shape, a dtype or a parameter does not fit, ``eps`` is negative, or, in
    training, a channel has no value, or one that has no unbiased variance (Ioffe and Szegedy,
    "Batch normalization", 2015).
    """
    xp = namespace(x, scale, shift, running_mean, running_var)
    vectors = {"scale": scale, "shift": shift}
    vectors |= {"running_mean": running_mean, "running_var": running_var}
    check_real(xp, x=x, **vectors)
    if x.ndim < 2:
        raise ValueError(f"x must have shape (..., channels), got {tuple(x.shape)}")
    for name, vector in vectors.items():
        check_shape(name, vector, (x.shape[-1],))
    eps, momentum = number("eps", eps, low=0.0), number("momentum", momentum, low=0.0, high=1.0)
    choice("running_variance", running_variance, ("unbiased", "biased"))
    if not isinstance(training, bool):
        raise ValueError(f"training must be true or false, got {training!r}")
    axes, count = tuple(range(x.ndim - 1)), math.prod(x.shape[:-1])
    needed = 2 if running_variance == "unbiased" else 1
    if training and count < needed:
        raise ValueError(f"training needs at least {needed} values per channel, got {count}")
    wide, gain = widen(xp, x), widen(xp, scale)

    mean, var = widen(xp, running_mean), widen(xp, running_var)
    running = running_mean, running_var
    if training:
        old_mean, old_var = mean, var
        mean = xp.sum(wide, axis=axes) / count
        var = xp.sum((wide - mean) ** 2, axis=axes) / count
        new_var = var * (count / (count - 1)) if needed == 2 else var
        new_mean = (1 - momentum) * old_mean + momentum * mean
        new_var = (1 - momentum) * old_var + momentum * new_var
        running = astype(xp, new_mean, x.dtype), astype(xp, new_var, x.dtype)
    deviation = xp.sqrt(var + eps)
    normalised = (wide - mean) / deviation
    y = astype(xp, gain * normalised + widen(xp, shift), x.dtype)

    def backprop(dy: Array) -> tuple[Array, Array, Array]:
        check_upstream(dy, y)
        wide_dy = widen(xp, dy)
        dscale = xp.sum(wide_dy * normalised, axis=axes)
        dshift = xp.sum(wide_dy, axis=axes)
        # The batch's own mean and variance move with x, which takes out of dy what lies along them.
        inner = (dshift + normalised * dscale) / count if training else 0.0
        dx = gain / deviation * (wide_dy - inner)
        return astype(xp, dx, x.dtype), astype(xp, dscale, x.dtype), astype(xp, dshift, x.dtype)

    return y, running, backprop
