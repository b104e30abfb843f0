"""Norms of gradients and the factor that clips by them, shared by every clip by a norm.

A norm is kept as ``mantissa / scale`` with a power of two for the scale, so that neither squares that
overflow nor squares that vanish matter, and so that c/n can be applied in two parts where it would
itself vanish. Everything runs over one norm (0-d) or over many (one per unit or per example) alike.
No value of an array is looked at by Python, so the computation stays on the array's device; the one
exception is the dial ``nonfinite="reject"``, which has to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple, TypedDict

from .arrays import (
    Array,
    Namespace,
    accumulation_dtype,
    astype,
    binding,
    maximum_of,
    namespace,
    quiet,
    scalar,
    sum_of_squares,
    times,
    usual_factor,
)


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


class ScaledNorm(NamedTuple):
    """A norm as ``mantissa / scale``: the two parts stay representable where their quotient may not.

    Without a scale the mantissa is the norm, and far from the limits of its dtype.
    """

    mantissa: Array
    scale: Array | None
    norm: Array


def scaled_norm(
    grads: Sequence[Array], clip: NormClip, axis: tuple[int, ...] | None = None
) -> ScaledNorm:
    """Return the joint p-norm of arrays: over all elements (0-d), or over ``axis``.

    With ``axis`` the reduced axes keep their places with length 1, and the norms of several arrays
    must have one shape; their powers are added, as if the arrays had been joined along an axis.
    """
    xp = namespace(*grads)
    dtype = accumulation_dtype(xp, *grads)
    plain = clip.norm == "exact" and clip.norm_dtype == clip.accumulate == "float32_or_wider"
    if clip.ord == 2 and plain and axis is None:
        squares = sum_of_squares(xp, grads, dtype)
        if squares is not None:
            norm = scalar(xp, math.sqrt(squares), grads[0], dtype)
            return ScaledNorm(norm, None, norm)
    with quiet(xp):
        return _scaled_norm(xp, grads, dtype, clip, axis)


def _scaled_norm(
    xp: Namespace, grads: Sequence[Array], dtype: Any, clip: NormClip, axis: tuple[int, ...] | None
) -> ScaledNorm:
    largest = xp.max(xp.stack([_largest(xp, g, dtype, axis) for g in grads]), axis=0)
    one = xp.ones_like(largest)
    scale = one
    if clip.norm == "exact":
        usable = xp.isfinite(largest) & (largest > 0)
        scale = xp.where(usable, _power_of_two_near(xp, largest), one)
    if math.isinf(clip.ord):
        mantissa = largest * scale
    else:
        mantissa = _root(
            xp,
            xp.sum(xp.stack([_powers(xp, g, scale, dtype, clip, axis) for g in grads]), axis=0),
            clip.ord,
        )
    norm = mantissa / scale
    if clip.norm_dtype == "input_dtype" and len({str(g.dtype) for g in grads}) == 1:
        rounded = astype(xp, norm, xp.abs(grads[0]).dtype)
        norm, wide = rounded, astype(xp, rounded, dtype)
        mantissa = xp.where(xp.isfinite(wide), mantissa, wide)
    return ScaledNorm(mantissa, scale, norm)


def _largest(xp: Namespace, grad: Array, dtype: Any, axis: tuple[int, ...] | None) -> Array:
    """Return max|g|, 0 for an empty tensor."""
    magnitude = astype(xp, xp.abs(grad), dtype)
    return maximum_of(xp, magnitude, axis, keepdims=axis is not None)


def _power_of_two_near(xp: Namespace, value: Array) -> Array:
    """Return the power of two next below ``1 / value``, kept within the normal numbers.

    Multiplying by a power of two rounds nothing, so the norm of 2^k·g is exactly 2^k times that of g.
    """
    bound = 126.0 if value.dtype == xp.float32 else 1022.0
    exponent = -xp.ceil(xp.log2(value))
    exponent = xp.minimum(
        xp.maximum(exponent, xp.full_like(value, -bound)), xp.full_like(value, bound)
    )
    return xp.pow(xp.full_like(value, 2.0), exponent)


def _powers(
    xp: Namespace,
    grad: Array,
    scale: Array,
    dtype: Any,
    clip: NormClip,
    axis: tuple[int, ...] | None,
) -> Array:
    magnitude = xp.abs(grad)
    if clip.accumulate != "input_dtype":
        magnitude = astype(xp, magnitude, dtype)
    magnitude = magnitude * astype(xp, scale, magnitude.dtype)
    power = (
        magnitude * magnitude
        if clip.ord == 2
        else magnitude
        if clip.ord == 1
        else magnitude**clip.ord
    )
    return astype(xp, xp.sum(power, axis=axis, keepdims=axis is not None), dtype)


def _root(xp: Namespace, total: Array, order: float) -> Array:
    return xp.sqrt(total) if order == 2 else total if order == 1 else total ** (1 / order)


def clipped(grad: Array, norm: ScaledNorm, clip: NormClip, limit: Array | None = None) -> Array:
    """Return a gradient times min(1, c/n) as the dials say it; c is ``max_norm``, or ``limit`` of each n."""
    return clipper(norm, clip, limit)(grad)


def clipper(
    norm: ScaledNorm, clip: NormClip, limit: Array | None = None, *, reuse: bool = False
) -> Callable[[Array], Array]:
    """Return :func:`clipped` as a function of the gradient, with the factor computed once.

    With ``reuse`` the result may be written over the gradient. Where it can cheaply be told that
    nothing changes, the function is :func:`unchanged`.
    """
    c = clip.max_norm
    if math.isnan(c) or (c == math.inf and clip.infinite_limit not in _SPARING):
        return unchanged if math.isnan(c) and clip.nan_limit == "ignore" else _all_nan
    if c == math.inf and clip.infinite_limit == "identity":
        return unchanged
    if c < 0 and clip.negative_limit in ("ignore", "zeros"):
        return unchanged if clip.negative_limit == "ignore" else _zeros
    if c == 0 and clip.zero_limit == "disabled":
        return unchanged
    xp = namespace(norm.norm)
    usual = None
    if limit is None:
        if norm.mantissa.dtype == xp.float32 and c < math.inf:
            # rounded to float32 it could become infinite, and so another limit
            c = min(c, _LARGEST_FLOAT32)
        usual = _usual(xp, norm, c, clip)
        if usual == 1:
            return unchanged
        limit = scalar(xp, c, norm.mantissa)
    if usual is None:
        with quiet(xp):
            small, coefficient = factors(xp, norm, limit, clip)
    else:
        small, coefficient = scalar(xp, 1.0, limit), scalar(xp, usual, limit)
    bound = binding(xp, (small, coefficient))
    if not bound:
        return unchanged

    def scaled(grad: Array) -> Array:
        xp = namespace(grad)
        if is_complex(xp, grad):
            # A real factor enters a complex product as r + 0i, in which -0 and inf do not survive r = 1.
            product = astype(xp, (grad * small) * coefficient, grad.dtype)
            return xp.where((small == 1) & (coefficient == 1), grad, product)
        return times(xp, grad, bound, reuse=reuse)

    return scaled


_LARGEST_FLOAT32 = (2.0 - 2.0**-23) * 2.0**127
_SPARING = ("identity", "multiply")


def unchanged(grad: Array) -> Array:
    """Return the gradient itself."""
    return grad


def _all_nan(grad: Array) -> Array:
    return namespace(grad).full_like(grad, math.nan)


def _zeros(grad: Array) -> Array:
    return namespace(grad).zeros_like(grad)


def is_complex(xp: Namespace, array: Array) -> bool:
    """Say whether an array is complex; ``isdtype`` would not know bfloat16 everywhere."""
    return _is_complex(xp, array.dtype)


@cache
def _is_complex(xp: Namespace, dtype: Any) -> bool:
    return dtype in [getattr(xp, n) for n in ("complex64", "complex128") if hasattr(xp, n)]


def factors(xp: Namespace, norm: ScaledNorm, c: Array, clip: NormClip) -> tuple[Array, Array]:
    """Return the factor c/n as a product of two, so that neither underflows where g·c/n does not."""
    mantissa, scale = norm.mantissa, norm.scale
    if scale is None:
        scale = _power_of_two_near(xp, mantissa)
        mantissa = mantissa * scale
    n = mantissa / scale
    eps = scalar(xp, clip.eps, n)
    one, nan = xp.ones_like(n), xp.full_like(n, math.nan)
    bottom = {"none": n, "denominator": n + eps, "max": xp.maximum(n, eps * one)}[clip.eps_at]
    direct = c / bottom
    tiny = 2.0**-126 if n.dtype == xp.float32 else 2.0**-1022
    split = (xp.abs(direct) < tiny) & xp.isfinite(n) & (n > 0) & (c != 0)
    first = xp.where(split, scale, one)
    second = xp.where(split, c / mantissa, direct)
    binds = (n >= c) if clip.at_equal == "rescaled" else (bottom > c)
    second = xp.where(binds, second, c * (one / c) if clip.below_limit == "rescaled" else one)
    at_zero = (n == 0) & (c == 0)
    second = xp.where(at_zero, c if clip.zero_over_zero == "zero" else nan, second)
    return first, _guard_nonfinite(xp, n, c, second, clip)


def _usual(xp: Namespace, norm: ScaledNorm, c: float, clip: NormClip) -> float | None:
    """Return the factor c/n, or 1, where nothing is at an edge and it can be told cheaply, else None."""
    if norm.scale is not None or clip.eps_at != "none" or clip.at_equal != clip.below_limit:
        return None
    return usual_factor(xp, norm.mantissa, c) if clip.at_equal == "unchanged" else None


def _guard_nonfinite(xp: Namespace, n: Array, c: Array, factor: Array, clip: NormClip) -> Array:
    finite, unlimited = xp.isfinite(n), c == math.inf
    if clip.nonfinite == "reject" and not bool(xp.all(finite | unlimited)):
        raise ValueError("the norm of the gradients is not finite")
    one, nan = xp.ones_like(n), xp.full_like(n, math.nan)
    bad = nan
    if clip.nonfinite == "multiply":
        bad = xp.where(xp.isnan(n), nan, xp.zeros_like(n))
    factor = xp.where(finite, factor, bad)
    whole = one if clip.infinite_limit == "identity" else xp.where(finite, one, nan)
    return xp.where(unlimited, whole, xp.where(xp.isnan(c), nan, factor))
