"""Clipping with many norms: one per output unit (adaptive, AGC), or one per example.

Both are the norm clip of :mod:`refimpl.norms` with an axis left over. Adaptive clipping measures a
unit's gradient against the unit's own weights; per-example clipping bounds what a single example
can contribute to a batch's gradient, which is what differential privacy needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, TypedDict, Unpack

from . import checks
from .arrays import (
    Array,
    Namespace,
    accumulation_dtype,
    astype,
    namespace,
    present,
    scalar,
    widen,
    zeros,
)
from .norms import NormClip, NormDials, ScaledNorm, clipped, scaled_norm

Tensors = Sequence[Array | None]


class UnitDials(TypedDict, total=False):
    """The dials of the norm clips that unit-wise clipping has; see :class:`~refimpl.norms.NormClip`."""

    nonfinite: Literal["all_nan", "multiply", "reject"]
    norm: Literal["exact", "naive"]
    accumulate: Literal["float32_or_wider", "input_dtype"]
    at_equal: Literal["unchanged", "rescaled"]
    infinite_limit: Literal["identity", "multiply"]
    nan_limit: Literal["reject", "nan"]
    negative_limit: Literal["reject", "flip_sign"]


def clip_unitwise(
    grads: Tensors,
    weights: Tensors,
    clipping: float,
    unit_axis: int | Sequence[int],
    eps: float = 1e-3,
    *,
    div_eps: float = 0.0,
    singleton_axes: Literal["count", "squeeze"] = "count",
    **dials: Unpack[UnitDials],
) -> list[Array | None]:
    """Scale each output unit's gradient so that its norm is at most a share of its weights' norm.

    For every unit i: ``limit_i = clipping · max(‖w_i‖, eps)``; ``g_i ← g_i · min(1, limit_i / ‖g_i‖)``.
    A unit is a position along ``unit_axis``; its norm runs over all other axes. Scalars and vectors
    (biases, gains) are one unit as a whole. A unit at or below its limit comes back bit for bit; one
    whose gradient or weights have a NaN norm becomes NaN, as does one with an infinite gradient.

    Args:
        grads: float arrays of any shapes and dtypes; ``None`` is an absent gradient.
        weights: an array of the same shape for each gradient; ignored where that is absent.
        clipping: λ >= 0, a ratio without a unit; 0 gives zeros, inf leaves all as it is.
        unit_axis: the axis of output units of arrays with two or more axes, or several axes (heads
            and features, say); negative ones count from the end. ``[]``: the array is one unit.
        eps: >= 0, in the units of the weights: the least norm a unit is taken to have, so that units
            that start at zero can learn.
        div_eps: dial; the division is by max(‖g‖, div_eps).
        singleton_axes: dial; ``squeeze``: axes of length 1 are not counted as axes, so that a
            (n, 1) kernel is one unit.
        dials: see :class:`~refimpl.norms.NormClip`; λ takes the place of ``max_norm``.

    Returns:
        The clipped gradients, each in its own dtype.

    Raises:
        ValueError: ``clipping`` or ``eps`` is negative or NaN, lists or shapes do not fit each other,
            or an axis is out of range or named twice.

    Source: Brock, De, Smith & Simonyan: High-performance large-scale image recognition without
    normalization. ICML 2021, equation 3.
    """
    if math.isnan(clipping) and dials.get("nan_limit", "reject") == "reject":
        raise ValueError("clipping must be a number >= 0, got nan")
    if clipping < 0 and dials.get("negative_limit", "reject") == "reject":
        raise ValueError(f"clipping must be >= 0, got {clipping}")
    if not 0 <= eps < math.inf:
        raise ValueError(f"eps must be finite and >= 0, got {eps}")
    checks.choice("singleton_axes", singleton_axes, ("count", "squeeze"))
    checks.same_length("grads", grads, "weights", weights)
    clip = NormClip(clipping, eps_at="max", eps=div_eps, **dials)
    squeeze = singleton_axes == "squeeze"
    result: list[Array | None] = []
    for g, w in zip(grads, weights, strict=True):
        if g is None:
            result.append(None)
            continue
        if w is None:
            raise ValueError("every gradient needs its weights, got None for one")
        checks.same_shape("a gradient", g, "its weights", w)
        axis = _norm_axes(tuple(g.shape), unit_axis, squeeze)
        result.append(_clipped_units(g, w, axis, eps, clip))
    return result


def _norm_axes(
    shape: tuple[int, ...], unit_axis: int | Sequence[int], squeeze: bool
) -> tuple[int, ...]:
    """Return the axes that the norm of a unit runs over."""
    count = len(shape)
    if (sum(n != 1 for n in shape) if squeeze else count) <= 1:
        return tuple(range(count))
    units = [unit_axis] if isinstance(unit_axis, int) else list(unit_axis)
    if any(not -count <= axis < count for axis in units):
        raise ValueError(f"unit_axis must name axes of shape {shape}, got {unit_axis}")
    kept = [axis % count for axis in units]
    if len(set(kept)) < len(kept):
        raise ValueError(f"unit_axis must name each axis once, got {unit_axis}")
    return tuple(axis for axis in range(count) if axis not in kept)


def _clipped_units(
    grad: Array, weight: Array, axis: tuple[int, ...], eps: float, clip: NormClip
) -> Array:
    xp = namespace(grad, weight)
    dtype = accumulation_dtype(xp, grad, weight)
    wide = scaled_norm([grad], clip, axis)
    norm = ScaledNorm(*(astype(xp, part, dtype) for part in (wide.mantissa, wide.scale, wide.norm)))
    of_weight = astype(xp, scaled_norm([weight], clip, axis).norm, dtype)
    least = xp.full_like(of_weight, eps)
    limit = scalar(xp, clip.max_norm, of_weight) * xp.maximum(of_weight, least)
    if clip.max_norm == math.inf:
        limit = xp.full_like(of_weight, math.inf)
    # The limits carry the infinities from here on: λ itself is no limit of a norm.
    return clipped(grad, norm, replace(clip, max_norm=1.0), limit)


def clip_per_example(
    grads: Tensors,
    max_norm: float,
    reduction: Literal["mean", "sum"] = "mean",
    scope: Literal["all", "tensor"] = "all",
    **dials: Unpack[NormDials],
) -> tuple[list[Array | None], Array]:
    """Clip each example's gradient by its own norm, then add the examples up or average them.

    For every example b: ``n_b = ‖g_b‖₂`` over all tensors (scope ``all``) or over each by itself
    (``tensor``); ``g ← Σ_b g_b · min(1, max_norm / n_b)``, divided by the number of examples for
    ``mean``. So no example moves the sum by more than ``max_norm`` (times the root of the number of
    tensors for scope ``tensor``). Clipping the mean would bound nothing of the kind.

    Args:
        grads: float arrays of shape (examples, …), all with the same number of examples; ``None`` is
            an absent gradient.
        max_norm: threshold >= 0 in the units of one example's gradient; 0 gives zeros, inf clips none.
        reduction: over the examples, ``mean`` or ``sum``.
        scope: ``all``: one norm an example; ``tensor``: one an example and tensor.
        dials: see :class:`~refimpl.norms.NormClip`.

    Returns:
        The reduced gradients, without the leading axis, each in its own dtype, rounded once; and the
        norms before clipping, float64 if any gradient is float64, else float32: of shape (examples,),
        or for scope ``tensor`` (tensors, examples) with zeros for an absent gradient. Without any
        gradient there are no examples.

    Raises:
        ValueError: ``max_norm`` is negative or NaN, a gradient has no leading axis, their numbers of
            examples differ, or a mean over no example is asked for.

    Source: Abadi et al.: Deep learning with differential privacy. CCS 2016, algorithm 1 without noise.
    """
    clip = NormClip(max_norm, **dials)
    checks.choice("reduction", reduction, ("mean", "sum"))
    checks.choice("scope", scope, ("all", "tensor"))
    given = present(grads)
    if not given:
        return list(grads), _no_norms(len(grads), scope)
    xp = namespace(*given)
    examples = _number_of_examples(given)
    if examples == 0 and reduction == "mean":
        raise ValueError("the mean over no example is undefined; ask for the sum")
    if examples == 0:
        # The sum over no example; Dask computes other shapes of such rows than it says.
        sums = [None if g is None else zeros(xp, g.shape[1:], g) for g in grads]
        shape = (0,) if scope == "all" else (len(grads), 0)
        return sums, zeros(xp, shape, given[0], accumulation_dtype(xp, *given))
    rows = [None if g is None else _rows(xp, g) for g in grads]
    divisor = examples if reduction == "mean" else 1
    if scope == "all":
        joint = scaled_norm(present(rows), clip, (1,))
        own: list[ScaledNorm | None] = [joint] * len(rows)
        norms = xp.reshape(joint.norm, (examples,))
    else:
        own = [None if r is None else scaled_norm([r], clip, (1,)) for r in rows]
        norms = _stacked(xp, own, examples, accumulation_dtype(xp, *given), given[0])
    reduced = [
        None if g is None or r is None or n is None else _reduced(xp, g, r, n, clip, divisor)
        for g, r, n in zip(grads, rows, own, strict=True)
    ]
    return reduced, norms


def _number_of_examples(grads: list[Array]) -> int:
    if any(len(g.shape) == 0 for g in grads):
        raise ValueError("every gradient needs a leading axis of examples, got one of shape ()")
    counts = {int(g.shape[0]) for g in grads}
    if len(counts) > 1:
        raise ValueError(f"gradients must have the same number of examples, got {sorted(counts)}")
    return counts.pop()


def _rows(xp: Namespace, grad: Array) -> Array:
    return xp.reshape(grad, (grad.shape[0], math.prod(grad.shape[1:])))


def _reduced(
    xp: Namespace, grad: Array, rows: Array, norm: ScaledNorm, clip: NormClip, divisor: int
) -> Array:
    # The rows are widened before they are clipped, so that nothing is rounded to 16 bits on the way.
    scaled = clipped(widen(xp, rows), norm, clip)
    total = xp.sum(scaled, axis=0) / divisor
    return astype(xp, xp.reshape(total, tuple(grad.shape[1:])), grad.dtype)


def _stacked(
    xp: Namespace, norms: list[ScaledNorm | None], examples: int, dtype: Any, like: Array
) -> Array:
    none = xp.broadcast_to(scalar(xp, 0.0, like, dtype), (examples,))
    each = [
        none if n is None else astype(xp, xp.reshape(n.norm, (examples,)), dtype) for n in norms
    ]
    return xp.stack(each)


def _no_norms(tensors: int, scope: str) -> Array:
    # Without any gradient no array library is given; NumPy is the default one.
    import numpy as np

    return np.zeros((0,) if scope == "all" else (tensors, 0), dtype=np.float32)
