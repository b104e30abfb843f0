"""Gradient clipping: by value, by each tensor's norm, by the global norm.

The idea in three lines (Pascanu, Mikolov & Bengio, ICML 2013; Mikolov, PhD thesis, Brno 2012)::

    n = (Σ |g|^p)^(1/p)
    coefficient = min(1, max_norm / n)
    g ← coefficient · g

What makes it longer here is only what happens at the edges, and the *dials*: choices that real libraries
make differently (PyTorch divides by ``n + 1e-6``, Optax does not). Every dial is a keyword argument whose
default is the canonical choice. No value of an array is looked at by Python, so the whole computation
stays on the array's device; the one exception is the dial ``nonfinite="reject"``, which has to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, Unpack

from refimpl.arrays import (
    Array,
    Namespace,
    accumulation_dtype,
    astype,
    namespace,
    present,
    scalar,
    widen,
)

Grads = Sequence[Array | None]


class NormDials(TypedDict, total=False):
    """The dials of the norm clips, as keyword arguments; see :class:`NormClip` for their meaning."""

    eps: float
    eps_at: Literal["none", "denominator", "max"]
    nonfinite: Literal["all_nan", "multiply", "reject"]
    norm: Literal["exact", "naive"]
    accumulate: Literal["float32_or_wider", "input_dtype"]
    norm_dtype: Literal["float32_or_wider", "input_dtype"]
    at_equal: Literal["unchanged", "rescaled"]
    below_limit: Literal["unchanged", "rescaled"]
    zero_over_zero: Literal["zero", "nan"]
    zero_limit: Literal["zeros", "disabled"]
    infinite_limit: Literal["identity", "nan", "multiply"]
    nan_limit: Literal["reject", "nan", "ignore"]
    negative_limit: Literal["reject", "flip_sign", "ignore", "zeros"]


@dataclass(frozen=True)
class NormClip:
    """A norm clip with all its dials; the defaults are canonical."""

    max_norm: float
    ord: float = 2.0
    eps: float = 0.0
    """With ``eps_at``: the coefficient is c/(n + eps) (denominator) or c/max(n, eps) (max)."""
    eps_at: str = "none"
    nonfinite: str = "all_nan"
    """A NaN or infinite norm makes all outputs NaN; ``multiply``: whatever g·(c/n) gives."""
    norm: str = "exact"
    """``naive``: powers may overflow or flush to zero in the accumulation dtype."""
    accumulate: str = "float32_or_wider"
    norm_dtype: str = "float32_or_wider"
    """``input_dtype``: the norm is rounded to the gradients' dtype before it is used."""
    at_equal: str = "unchanged"
    below_limit: str = "unchanged"
    """``rescaled``: below the threshold g is multiplied by c·(1/c), which may round."""
    zero_over_zero: str = "zero"
    zero_limit: str = "zeros"
    infinite_limit: str = "identity"
    """``multiply``: what min(1, c/n) gives, which is NaN where the norm is infinite too."""
    nan_limit: str = "reject"
    negative_limit: str = "reject"

    def __post_init__(self) -> None:
        """Refuse an order or threshold that has no meaning under the dials."""
        if not self.ord > 0:
            raise ValueError(f"ord must be > 0 or inf, got {self.ord}")
        if math.isnan(self.max_norm) and self.nan_limit == "reject":
            raise ValueError("max_norm must be a number >= 0, got nan")
        if self.max_norm < 0 and self.negative_limit == "reject":
            raise ValueError(f"max_norm must be >= 0, got {self.max_norm}")


def clip_global_norm(
    grads: Grads, max_norm: float, ord: float = 2.0, **dials: Unpack[NormDials]
) -> tuple[list[Array | None], Array]:
    """Scale all gradients by one factor so that their joint norm is at most ``max_norm``.

    ``n = (Σ|g|^p)^(1/p)`` over every element of every tensor; ``g ← g · min(1, max_norm / n)``. The
    direction of the whole gradient is kept. At or below the threshold the outputs are the inputs, bit
    for bit; an infinite or NaN norm makes every output NaN.

    Args:
        grads: float arrays of any shapes and dtypes; ``None`` is an absent gradient and does not count.
        max_norm: threshold >= 0 in the units of the gradient; 0 gives zeros, inf leaves all as it is.
        ord: p of the norm, a number > 0 or inf.
        dials: see :class:`NormClip`.

    Returns:
        The clipped gradients, each in its own dtype, and the norm before clipping (0-d; float64 if any
        gradient is float64, else float32).

    Raises:
        ValueError: ``max_norm`` is negative or NaN, or ``ord`` is not > 0.

    Source: Pascanu, Mikolov & Bengio 2013, algorithm 1; constraints C1-C11 of ``clip.global_norm``.
    """
    clip = NormClip(max_norm, ord, **dials)
    if not present(grads):
        return list(grads), _no_norm()
    scaled = _scaled_norm(present(grads), clip)
    clipped = [None if g is None else _apply(g, scaled, clip) for g in grads]
    return clipped, scaled.norm


def clip_norm(
    grads: Grads, max_norm: float, ord: float = 2.0, **dials: Unpack[NormDials]
) -> tuple[list[Array | None], list[Array | None]]:
    """Scale each gradient by its own factor so that its own norm is at most ``max_norm``.

    For every tensor ``n = (Σ|g|^p)^(1/p)`` and ``g ← g · min(1, max_norm / n)``. Each tensor keeps its
    direction, the gradient as a whole does not. Arguments, edges and errors as in
    :func:`clip_global_norm`; returned are the clipped gradients and each one's norm (0-d).
    """
    clip = NormClip(max_norm, ord, **dials)
    norms = [None if g is None else _scaled_norm([g], clip) for g in grads]
    clipped = [
        None if g is None or n is None else _apply(g, n, clip)
        for g, n in zip(grads, norms, strict=True)
    ]
    return clipped, [None if n is None else n.norm for n in norms]


def global_norm(grads: Grads, ord: float = 2.0, **dials: Unpack[NormDials]) -> Array:
    """Return the joint p-norm of all gradients (0-d), right whenever it is representable."""
    given = present(grads)
    return _scaled_norm(given, NormClip(math.inf, ord, **dials)).norm if given else _no_norm()


def _no_norm() -> Array:
    # Without any gradient no array library is given; NumPy is the default one.
    import numpy as np

    return np.asarray(0.0, dtype=np.float32)


def clip_value(
    grads: Grads,
    min: float | None = None,
    max: float | None = None,
    *,
    range: float | None = None,
    nan: Literal["propagate", "to_bound"] = "propagate",
    crossed_bounds: Literal["reject", "max_wins", "min_wins"] = "reject",
    nan_limit: Literal["reject", "nan", "ignore"] = "reject",
    zero_limit: Literal["zeros", "disabled"] = "zeros",
) -> list[Array | None]:
    """Limit every element to an interval: ``g ← min(max(g, low), high)``.

    Elements are changed one by one, so the direction of the gradient turns.

    Args:
        grads: float arrays of any shapes and dtypes; ``None`` is an absent gradient.
        min: lower bound in the units of the gradient; None for none.
        max: upper bound; None for none.
        range: the width c of the interval [-c/2, c/2], instead of min and max.
        nan: dial; a NaN stays NaN or becomes the lower bound.
        crossed_bounds: dial; min > max is refused, or one of them wins everywhere.
        nan_limit: dial; a NaN bound is refused, makes everything NaN, or switches clipping off.
        zero_limit: dial; min = max = 0 gives zeros, or switches clipping off.

    Returns:
        New arrays of the same dtypes; elements inside the interval bit for bit.

    Raises:
        ValueError: no bound, range together with min or max, a NaN bound, or min > max.

    Source: constraints C1-C8 of ``clip.value``; Mikolov 2012.
    """
    low, high = _interval(min, max, range)
    if math.isnan(low) or math.isnan(high):
        if nan_limit == "reject":
            raise ValueError("a bound must be a number, got nan")
        return [None if g is None else g if nan_limit == "ignore" else _all_nan(g) for g in grads]
    if low > high:
        if crossed_bounds == "reject":
            raise ValueError(f"min must be <= max, got {low} and {high}")
        low = high = high if crossed_bounds == "max_wins" else low
    if low == high == 0 and zero_limit == "disabled":
        return list(grads)
    return [None if g is None else _limited(g, low, high, nan) for g in grads]


def _interval(low: float | None, high: float | None, width: float | None) -> tuple[float, float]:
    if width is not None:
        if low is not None or high is not None:
            raise ValueError("give range, or min and max, not both")
        return -width / 2, width / 2
    if low is None and high is None:
        raise ValueError("give min, max or range")
    return -math.inf if low is None else low, math.inf if high is None else high


def _limited(grad: Array, low: float, high: float, nan: str) -> Array:
    xp = namespace(grad)
    # Comparing with where instead of clip: NaN fails every comparison, so it stays without a rule.
    lowest, highest = bound(xp, low, grad), bound(xp, high, grad)
    limited = xp.where(grad < lowest, lowest, xp.where(grad > highest, highest, grad))
    return limited if nan == "propagate" else xp.where(xp.isnan(grad), lowest, limited)


def bound(xp: Namespace, value: float, like: Array) -> Array:
    """Return a bound as an array of the gradient's dtype; beyond its range it is infinite."""
    # Through float64 first: a direct conversion of 1e5 to float16 is an error in some libraries.
    wide = scalar(xp, value, like, accumulation_dtype(xp, like))
    return xp.broadcast_to(astype(xp, wide, like.dtype), like.shape)


def _all_nan(grad: Array) -> Array:
    return namespace(grad).full_like(grad, math.nan)


@dataclass(frozen=True)
class _ScaledNorm:
    """A norm as ``mantissa / scale``: the two parts stay representable where their product may not."""

    mantissa: Array
    scale: Array
    norm: Array


def _scaled_norm(grads: list[Array], clip: NormClip) -> _ScaledNorm:
    xp = namespace(*grads)
    dtype = accumulation_dtype(xp, *grads)
    largest = _maximum(xp, [_largest(xp, g, dtype) for g in grads])
    one = xp.ones_like(largest)
    if clip.norm == "exact":
        scale = xp.where(
            xp.isfinite(largest) & (largest > 0), _power_of_two_near(xp, 1, largest), one
        )
    else:
        scale = one
    mantissa = (
        largest * scale if math.isinf(clip.ord) else _root_of_sum(xp, grads, scale, dtype, clip)
    )
    norm = mantissa / scale
    if clip.norm_dtype == "input_dtype" and len({str(g.dtype) for g in grads}) == 1:
        norm = astype(xp, norm, grads[0].dtype)
        rounded = astype(xp, norm, dtype)
        mantissa = xp.where(xp.isfinite(rounded), mantissa, rounded)
    return _ScaledNorm(mantissa, scale, norm)


def _largest(xp: Namespace, grad: Array, dtype: Any) -> Array:
    """Return max|g|, 0 for an empty tensor (over which a maximum is not defined)."""
    if math.prod(grad.shape) == 0:
        return scalar(xp, 0.0, grad, dtype)
    return xp.max(astype(xp, xp.abs(grad), dtype))


def _maximum(xp: Namespace, values: list[Array]) -> Array:
    return xp.max(xp.stack(values))


def _power_of_two_near(xp: Namespace, numerator: float, value: Array) -> Array:
    """Return the power of two next below ``numerator / value``, kept within the normal numbers.

    Multiplying by a power of two rounds nothing, so the norm of 2^k·g is exactly 2^k times that of g.
    """
    bound = 126.0 if value.dtype == xp.float32 else 1022.0
    exponent = -xp.ceil(xp.log2(value / numerator))
    exponent = xp.minimum(
        xp.maximum(exponent, xp.full_like(value, -bound)), xp.full_like(value, bound)
    )
    return xp.pow(xp.full_like(value, 2.0), exponent)


def _root_of_sum(
    xp: Namespace, grads: list[Array], scale: Array, dtype: Any, clip: NormClip
) -> Array:
    def powers(grad: Array) -> Array:
        magnitude = xp.abs(
            astype(xp, grad, dtype if clip.accumulate != "input_dtype" else grad.dtype)
        )
        magnitude = magnitude * astype(xp, scale, magnitude.dtype)
        power = (
            magnitude * magnitude
            if clip.ord == 2
            else magnitude
            if clip.ord == 1
            else magnitude**clip.ord
        )
        return astype(xp, xp.sum(power), dtype)

    total = xp.sum(xp.stack([powers(grad) for grad in grads]))
    return xp.sqrt(total) if clip.ord == 2 else total if clip.ord == 1 else total ** (1 / clip.ord)


def _apply(grad: Array, norm: _ScaledNorm, clip: NormClip) -> Array:
    xp = namespace(grad)
    limit = clip.max_norm
    if math.isnan(limit):
        return grad if clip.nan_limit == "ignore" else xp.full_like(grad, math.nan)
    if limit == math.inf and clip.infinite_limit != "multiply":
        return grad if clip.infinite_limit == "identity" else xp.full_like(grad, math.nan)
    if limit < 0 and clip.negative_limit in ("ignore", "zeros"):
        return grad if clip.negative_limit == "ignore" else xp.zeros_like(grad)
    if limit == 0 and clip.zero_limit == "disabled":
        return grad
    small, coefficient = _coefficient(xp, norm, clip)
    wide = widen(xp, grad)
    like = lambda x: astype(xp, x, wide.dtype)  # noqa: E731
    return astype(xp, (wide * like(small)) * like(coefficient), grad.dtype)


def _coefficient(xp: Namespace, norm: _ScaledNorm, clip: NormClip) -> tuple[Array, Array]:
    """Return the factor c/n as a product of two, so that neither underflows where g·c/n does not."""
    n = norm.mantissa / norm.scale
    c, eps = scalar(xp, clip.max_norm, n), scalar(xp, clip.eps, n)
    one, nan = xp.ones_like(n), xp.full_like(n, math.nan)
    bottom = {"none": n, "denominator": n + eps, "max": xp.maximum(n, eps)}[clip.eps_at]
    direct = c / bottom
    tiny = 2.0**-126 if n.dtype == xp.float32 else 2.0**-1022
    split = (xp.abs(direct) < tiny) & xp.isfinite(n) & (n > 0) & (c != 0)
    first = xp.where(split, norm.scale, one)
    second = xp.where(split, c / norm.mantissa, direct)
    binds = (n >= c) if clip.at_equal == "rescaled" else (bottom > c)
    if clip.below_limit == "rescaled":
        one = c * (one / c)
    second = xp.where(binds, second, one)
    at_zero = (n == 0) & (c == 0)
    second = xp.where(at_zero, c if clip.zero_over_zero == "zero" else nan, second)
    return first, _guard_nonfinite(xp, n, second, clip)


def _guard_nonfinite(xp: Namespace, n: Array, factor: Array, clip: NormClip) -> Array:
    if clip.nonfinite == "reject" and not bool(xp.isfinite(n)):
        raise ValueError(f"the norm of the gradients is {float(n)}")
    nan = xp.full_like(n, math.nan)
    if clip.max_norm == math.inf:
        return xp.where(xp.isfinite(n), xp.ones_like(n), nan)
    if clip.nonfinite == "multiply":
        return xp.where(xp.isfinite(n), factor, xp.where(xp.isnan(n), nan, xp.zeros_like(n)))
    return xp.where(xp.isfinite(n), factor, nan)
