"""Penalties with their (sub)gradients, and the proximal maps of the same penalties.

A penalty's subgradient step oscillates around zero; its proximal step lands on zero exactly:
``prox(w) = argmin_x  (1/2) * |x - w|**2 + step * penalty(x)``.

Shared conventions: ``weights`` is a list of real floating-point arrays of any shape (``None`` stays
``None`` and counts nothing). Gradients and proximal points have the shape and dtype of their
weights; 16-bit weights are computed in float32 and rounded once. A penalty's value is 0-d, float64
if any weight is float64, else float32. NaN weights give NaN. ``strength`` (also ``l1``, ``l2``) and
``step`` are finite and at least 0, else ValueError; so is a penalty of no array at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from . import checks
from .arrays import (
    Array,
    DType,
    Namespace,
    accumulation_dtype,
    astype,
    euclidean_norm,
    namespace,
    present,
    scalar,
    through_float32,
    widen,
)

Arrays = Sequence[Array | None]
Penalty = tuple[Array, list[Array | None]]
Axis = int | Sequence[int]


def penalty_l1(
    weights: Arrays,
    strength: float,
    *,
    sign_of_zero: str = "zero",
    hyperparameters: str = "exact",
) -> Penalty:
    """Return ``strength * sum(|w|)`` over all weights, and its subgradient ``strength * sign(w)``.

    Dials: ``sign_of_zero`` "zero" has sign(0) = 0, the subgradient of least norm; "plus_one" has
    sign(0) = +1 (also for -0.0), which moves weights off zero; ``hyperparameters`` "exact", or
    "float32": the strength passes through float32 whatever the dtype of the weights is.
    Source: Tibshirani 1996, "Regression Shrinkage and Selection via the Lasso".
    """
    return penalty_elastic_net(
        weights,
        _strength("strength", strength),
        0.0,
        sign_of_zero=sign_of_zero,
        hyperparameters=hyperparameters,
    )


def penalty_l2(
    weights: Arrays, strength: float, *, half: bool = False, hyperparameters: str = "exact"
) -> Penalty:
    """Return ``strength * sum(w**2)`` over all weights, and its gradient ``2 * strength * w``.

    Dials: ``half`` true has strength / 2 in both: then the gradient is that of a coupled weight
    decay of the same number; ``hyperparameters`` as in :func:`penalty_l1`.
    Source: Krogh & Hertz 1991, "A Simple Weight Decay Can Improve Generalization".
    """
    strength = _through(_strength("strength", strength), hyperparameters)
    factor = 0.5 * strength if half else strength

    def one(xp: Namespace, w: Array) -> tuple[Array, Array]:
        return factor * xp.sum(w * w), 2.0 * factor * w

    return _penalty(weights, one)


def penalty_elastic_net(
    weights: Arrays,
    l1: float,
    l2: float,
    *,
    half: bool = False,
    sign_of_zero: str = "zero",
    hyperparameters: str = "exact",
) -> Penalty:
    """Return ``l1 * sum(|w|) + l2 * sum(w**2)``, and ``l1 * sign(w) + 2 * l2 * w``.

    Dials: those of :func:`penalty_l1` and :func:`penalty_l2`.
    Source: Zou & Hastie 2005, "Regularization and Variable Selection via the Elastic Net".
    """
    l1 = _through(_strength("l1", l1), hyperparameters)
    l2 = _through(_strength("l2", l2), hyperparameters)
    checks.choice("sign_of_zero", sign_of_zero, ("zero", "plus_one"))
    at_zero = 0.0 if sign_of_zero == "zero" else 1.0
    square = 0.5 * l2 if half else l2

    def one(xp: Namespace, w: Array) -> tuple[Array, Array]:
        sign = xp.where(w == 0, xp.full_like(w, at_zero), xp.sign(w))
        value, grad = l1 * xp.sum(xp.abs(w)), l1 * sign
        if square:
            # A term of strength 0 is none: 0 * inf would make NaN of the other one.
            squares, slope = square * xp.sum(w * w), 2.0 * square * w
            value, grad = (value + squares, grad + slope) if l1 else (squares, slope)
        return value, grad

    return _penalty(weights, one)


def penalty_group_lasso(
    weights: Arrays, strength: float, axis: Axis, *, size_weight: str = "none"
) -> Penalty:
    """Return ``strength * sum(norm2(w_group))``, and ``strength * w / norm2(w_group)``.

    ``axis`` (one or several, negative ones count from the end) indexes the groups: the norms run
    over the remaining axes; no axis makes each array one group. The subgradient of a zero group
    is 0.

    Dial: ``size_weight`` "none", or "sqrt_size": each group counts times the root of its number of
    elements. Raises ValueError for an axis that a weight does not have, or one given twice.
    Source: Yuan & Lin 2006, "Model Selection and Estimation in Regression with Grouped Variables".
    """
    strength = _strength("strength", strength)
    checks.choice("size_weight", size_weight, ("none", "sqrt_size"))

    def one(xp: Namespace, w: Array) -> tuple[Array, Array]:
        norms, size = group_norms(xp, w, axis)
        factor = strength * math.sqrt(size) if size_weight == "sqrt_size" else strength
        divisor = xp.where(norms == 0, xp.ones_like(norms), norms)
        return factor * xp.sum(norms), factor * (w / divisor)

    return _penalty(weights, one)


def prox_l1(
    weights: Arrays, strength: float, step: float, *, zero_sign: str = "positive"
) -> list[Array | None]:
    """Return the soft threshold ``sign(w) * max(|w| - t, 0)`` with ``t = strength * step``.

    ``t`` is in the units of the weights; where |w| <= t the result is +0.0, or with the dial
    ``zero_sign`` "of_weight" a zero with the sign of the weight, as the formula has it.
    Source: Daubechies et al. 2004; Beck & Teboulle 2009 (ISTA).
    """
    strength = _strength("strength", strength)
    return prox_elastic_net(weights, strength, 0.0, step, zero_sign=zero_sign)


def prox_l2(
    weights: Arrays, strength: float, step: float, *, half: bool = False
) -> list[Array | None]:
    """Return ``w / (1 + 2 * strength * step)``, the proximal map of :func:`penalty_l2`.

    Dial: ``half`` true has strength / 2: ``w / (1 + strength * step)``.
    Source: Parikh & Boyd 2014, "Proximal Algorithms".
    """
    t = _strength("strength", strength) * _strength("step", step)
    shrinkage = 1.0 + (t if half else 2.0 * t)
    return _map(weights, lambda xp, w: w / shrinkage)


def prox_elastic_net(
    weights: Arrays,
    l1: float,
    l2: float,
    step: float,
    *,
    half: bool = False,
    zero_sign: str = "positive",
) -> list[Array | None]:
    """Return ``soft(w, l1 * step) / (1 + 2 * l2 * step)``, the map of :func:`penalty_elastic_net`.

    Dials: ``half`` as in :func:`prox_l2`, ``zero_sign`` as in :func:`prox_l1`.
    Source: Parikh & Boyd 2014, "Proximal Algorithms".
    """
    step = _strength("step", step)
    t, ridge = _strength("l1", l1) * step, _strength("l2", l2) * step
    shrinkage = 1.0 + (ridge if half else 2.0 * ridge)
    checks.choice("zero_sign", zero_sign, ("positive", "of_weight"))

    def one(xp: Namespace, w: Array) -> Array:
        # the comparison that keeps NaN: |NaN| <= t is false, and NaN + t is NaN
        limit = scalar(xp, t, w)
        moved = xp.where(w > 0, w - limit, w + limit)
        zero = xp.zeros_like(w) if zero_sign == "positive" else w * 0.0
        soft = xp.where(xp.abs(w) <= limit, zero, moved)
        return soft / shrinkage

    return _map(weights, one)


def prox_group_lasso(
    weights: Arrays,
    strength: float,
    step: float,
    axis: Axis,
    *,
    size_weight: str = "none",
    zero_sign: str = "positive",
) -> list[Array | None]:
    """Return ``w * max(0, 1 - t / norm2(w_group))`` with ``t = strength * step``.

    ``axis`` and the dial ``size_weight`` are those of :func:`penalty_group_lasso`, ``zero_sign``
    that of :func:`prox_l1`. A group whose norm is at most ``t`` becomes +0.0. A NaN makes its whole
    group NaN. Source: Yuan & Lin 2006.
    """
    t = _strength("strength", strength) * _strength("step", step)
    checks.choice("size_weight", size_weight, ("none", "sqrt_size"))
    checks.choice("zero_sign", zero_sign, ("positive", "of_weight"))

    def one(xp: Namespace, w: Array) -> Array:
        norms, size = group_norms(xp, w, axis)
        limit = scalar(xp, t * math.sqrt(size) if size_weight == "sqrt_size" else t, w)
        divisor = xp.where(norms == 0, xp.ones_like(norms), norms)
        zero = xp.zeros_like(w) if zero_sign == "positive" else w * 0.0
        return xp.where(norms <= limit, zero, w * (1.0 - limit / divisor))

    return _map(weights, one)


def _strength(name: str, value: float) -> float:
    return checks.number(name, value, low=0.0)


def _through(strength: float, hyperparameters: str) -> float:
    checks.choice("hyperparameters", hyperparameters, ("exact", "float32"))
    return through_float32(strength) if hyperparameters == "float32" else strength


def group_norms(xp: Namespace, w: Array, axis: Axis) -> tuple[Array, int]:
    """Return the 2-norm of each group, broadcastable against ``w``, and the size of a group.

    ``axis`` indexes the groups. Raises ValueError for an axis that is not there, or given twice.
    """
    axes = tuple(axis) if isinstance(axis, Sequence) else (axis,)
    for one in axes:
        if not -w.ndim <= checks.integer("axis", one) < w.ndim:
            raise ValueError(f"axis must be one of the {w.ndim} axes of the weight, got {one}")
    groups = {one % w.ndim for one in axes}
    if len(groups) != len(axes):
        raise ValueError(f"axis must name each axis once, got {axis}")
    rest = tuple(one for one in range(w.ndim) if one not in groups)
    if not rest:  # each element is a group; an empty axis means "all" in some libraries
        return xp.abs(w), 1
    return euclidean_norm(xp, w, axis=rest), math.prod(w.shape[one] for one in rest)


def _penalty(weights: Arrays, one: Callable[[Namespace, Array], tuple[Array, Array]]) -> Penalty:
    """Sum the values and collect the gradients of a penalty of one array."""
    given = present(weights)
    if not given:
        raise ValueError("weights must hold at least one array, got none")
    xp = namespace(*given)
    dtype: DType = accumulation_dtype(xp, *given)
    total = scalar(xp, 0.0, given[0], dtype)
    grads: list[Array | None] = []
    for index, w in enumerate(weights):
        if w is None:
            grads.append(None)
            continue
        checks.real_floating(xp, f"weights[{index}]", w)
        value, grad = one(xp, astype(xp, w, dtype))
        total = total + value
        grads.append(astype(xp, grad, w.dtype))
    return total, grads


def _map(weights: Arrays, one: Callable[[Namespace, Array], Array]) -> list[Array | None]:
    mapped: list[Array | None] = []
    for index, w in enumerate(weights):
        if w is None:
            mapped.append(None)
            continue
        xp = namespace(w)
        checks.real_floating(xp, f"weights[{index}]", w)
        mapped.append(astype(xp, one(xp, widen(xp, w)), w.dtype))
    return mapped
