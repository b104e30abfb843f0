"""Gradient clipping: by value, by each tensor's norm, by the global norm.

The idea in three lines (Pascanu, Mikolov & Bengio, ICML 2013; Mikolov, PhD thesis, Brno 2012)::

    n = (Σ |g|^p)^(1/p)
    coefficient = min(1, max_norm / n)
    g ← coefficient · g

What makes it longer here is only what happens at the edges, and the *dials*: choices that real libraries
make differently (PyTorch divides by ``n + 1e-6``, Optax does not). Every dial is a keyword argument whose
default is the canonical choice. The norm and the factor themselves are in :mod:`refimpl.norms`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, Unpack

from . import checks
from .arrays import (
    Array,
    Namespace,
    accumulation_dtype,
    astype,
    each,
    namespace,
    present,
    scalar,
)
from .bundles import Part, bundled, intact
from .norms import NormClip, NormDials, clipped, clipper, scaled_norm, unchanged

Grads = Sequence[Array | None]
Duplicates = Literal["once", "twice", "twice_in_place"]


def clip_global_norm(
    grads: Grads,
    max_norm: float,
    ord: float = 2.0,
    *,
    duplicates: Duplicates = "once",
    reuse: bool = False,
    **dials: Unpack[NormDials],
) -> tuple[list[Array | None], Array]:
    """Scale all gradients by one factor so that their joint norm is at most ``max_norm``.

    ``n = (Σ|g|^p)^(1/p)`` over every element of every tensor; ``g ← g · min(1, max_norm / n)``. The
    direction of the whole gradient is kept. At or below the threshold the outputs are the inputs, bit
    for bit; an infinite or NaN norm makes every output NaN.

    Args:
        grads: float or complex arrays of any shapes and dtypes; ``None`` is an absent gradient and does
            not count. Of a complex number the modulus counts.
        max_norm: threshold >= 0 in the units of the gradient; 0 gives zeros, inf leaves all as it is.
        ord: p of the norm, a number > 0 or inf.
        duplicates: dial; an array that is listed twice (the very same object: a tied weight) counts
            once or twice, or counts twice and is scaled twice, as in-place libraries do.
        reuse: not a dial: the gradients are given up, and the results may take their memory (NumPy's
            do), which spares as much again. Different gradients must not share memory then.
        dials: see :class:`NormClip`.

    Returns:
        The clipped gradients, each in its own dtype, and the norm before clipping (0-d; float64 if any
        gradient is float64, else float32).

    Raises:
        ValueError: ``max_norm`` is negative or NaN, or ``ord`` is not > 0.

    Source: Pascanu, Mikolov & Bengio 2013, algorithm 1; constraints C1-C13 of ``clip.global_norm``.
    """
    description = NormClip(max_norm, ord, **dials)
    norm, clip = measure_global_norm(grads, description, duplicates=duplicates, reuse=reuse)
    return clip(), norm


def measure_global_norm(
    grads: Grads, clip: NormClip, *, duplicates: Duplicates = "once", reuse: bool = False
) -> tuple[Array, Callable[[], list[Array | None]]]:
    """Return the norm, and a function that then clips: the two halves of :func:`clip_global_norm`.

    Between them a caller can look at the norm, as the trainer does, which skips a step that is not
    finite. ``clip`` holds the threshold, the order and the dials; the rest is that of the whole.
    """
    checks.choice("duplicates", duplicates, ("once", "twice", "twice_in_place"))
    known = intact(grads)
    given = known or present(grads)
    if not given:
        return _no_norm(), lambda: list(grads)
    unique = known or _unique(given)
    # Sums in a narrow dtype are kept apart: joined, they could overflow where each alone does not.
    joins = duplicates == "once" and clip.accumulate == "float32_or_wider"
    xp = known.cut.xp if known else namespace(*unique)
    whole: Sequence[Array] = unique
    part: Part = list
    if known and joins:
        whole, part = known.wholes, known.cut.part
    elif joins:
        (whole,), part = bundled(xp, unique)
    scaled = scaled_norm(whole if duplicates == "once" else given, clip)

    def apply() -> list[Array | None]:
        scale = clipper(scaled, clip, reuse=reuse)
        if scale is unchanged:
            return known.copy() if known else list(grads)

        def scaled_each_time(g: Array) -> Array:
            result = g
            for _ in range(sum(other is g for other in given)):
                result = scale(result)
            return result

        in_place = duplicates == "twice_in_place"
        each_result = part(each(xp, scaled_each_time if in_place else scale, whole))
        if len(unique) == len(grads):
            return each_result
        results = {id(g): result for g, result in zip(unique, each_result, strict=True)}
        return [None if g is None else results[id(g)] for g in grads]

    return scaled.norm, apply


def _unique(arrays: Sequence[Array]) -> Sequence[Array]:
    """Return each array object once: values that are equal by chance are no duplicates."""
    unique = {id(array): array for array in arrays}
    return arrays if len(unique) == len(arrays) else list(unique.values())


def clip_norm(
    grads: Grads, max_norm: float, ord: float = 2.0, **dials: Unpack[NormDials]
) -> tuple[list[Array | None], list[Array | None]]:
    """Scale each gradient by its own factor so that its own norm is at most ``max_norm``.

    For every tensor ``n = (Σ|g|^p)^(1/p)`` and ``g ← g · min(1, max_norm / n)``. Each tensor keeps its
    direction, the gradient as a whole does not. Arguments, edges and errors as in
    :func:`clip_global_norm`; returned are the clipped gradients and each one's norm (0-d).
    """
    clip = NormClip(max_norm, ord, **dials)
    norms = [None if g is None else scaled_norm([g], clip) for g in grads]
    result = [
        None if g is None or n is None else clipped(g, n, clip)
        for g, n in zip(grads, norms, strict=True)
    ]
    return result, [None if n is None else n.norm for n in norms]


def global_norm(grads: Grads, ord: float = 2.0, **dials: Unpack[NormDials]) -> Array:
    """Return the joint p-norm of all gradients (0-d), right whenever it is representable.

    An array that is listed twice (the very same object) counts once.
    """
    given = _unique(present(grads))
    return scaled_norm(given, NormClip(math.inf, ord, **dials)).norm if given else _no_norm()


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
        ValueError: no bound, range together with min or max, a NaN bound, min > max, or a complex
            gradient, since complex numbers have no order.

    Source: constraints C1-C8 of ``clip.value``; Mikolov 2012.
    """
    for g in present(grads):
        checks.not_complex(namespace(g), "grads", g)
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
