"""Projections onto norm balls, and hard thresholding, the projection onto sparse vectors.

Shared conventions: ``weights`` is a list of real floating-point arrays of any shape (``None`` stays
``None``). Results have the shape and dtype of their weights; 16-bit weights are computed in float32
and rounded once. What is inside already, or on the boundary, comes back bit for bit. Limits are in
the units of the weights, at least 0, and may be infinite. No value of an array is looked at by Python.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from array_api_compat import device

from . import checks
from .arrays import Array, Namespace, astype, namespace, scalar, smallest, widen
from .pruning import COMPARE, THRESHOLD_DTYPE, apply_mask
from .regularization import Axis, group_norms

Arrays = Sequence[Array | None]

NONFINITE = ("all_nan", "multiply", "nan_below")


def hard_threshold(
    weights: Arrays,
    *,
    count: int | None = None,
    threshold: float | None = None,
    compare: str = "le",
    ties: str = "lowest_index_first",
    threshold_dtype: str = "float32_or_wider",
    masking: str = "select",
) -> list[Array | None]:
    """Keep the ``count`` largest magnitudes of each array, or those above ``threshold``.

    Exactly one of the two is given. What is kept is kept bit for bit, the rest becomes +0.0. With
    ``count`` s this is the projection onto the vectors of at most s non-zeros; an array with no more
    than s entries stays. Among equals the lowest flat index is dropped first. NaN is larger than
    everything: it is kept, so that it stays visible.

    Dials: ``compare`` "le" drops where |w| <= threshold, "lt" where |w| < threshold (with
    threshold**2 / (2 * step) the proximal map of the number of non-zeros, which has both values
    there); ``ties`` "highest_index_first"; ``threshold_dtype`` and ``masking`` as in
    :func:`refimpl.pruning.prune_threshold`.

    Raises ValueError for none or both of the two, a negative count, a negative or NaN threshold.
    Source: Blumensath & Davies 2008, "Iterative Thresholding for Sparse Approximations".
    """
    if (count is None) == (threshold is None):
        raise ValueError("give count or threshold, exactly one of them")
    if count is not None:
        count = checks.integer("count", count, low=0)
    if threshold is not None:
        threshold = checks.number("threshold", threshold, low=0.0, finite=False)
    checks.choice("compare", compare, COMPARE)
    checks.choice("ties", ties, ("lowest_index_first", "highest_index_first"))
    checks.choice("threshold_dtype", threshold_dtype, THRESHOLD_DTYPE)

    def one(xp: Namespace, w: Array) -> Array:
        size = xp.abs(widen(xp, w))
        if threshold is not None:
            rounded = scalar(xp, threshold, w if threshold_dtype == "input_dtype" else size)
            limit = astype(xp, rounded, size.dtype)
            dropped = size <= limit if compare == "le" else size < limit
        else:
            dropped = _all_but_largest(xp, size, count or 0, ties)
        return apply_mask(w, ~dropped, masking=masking)

    return _each(weights, one)


def project_max_norm(
    weights: Arrays,
    max_norm: float,
    axis: Axis,
    *,
    eps: float = 0.0,
    below_limit: str = "unchanged",
    nonfinite: str = "all_nan",
    norm: str = "exact",
    infinite_limit: str = "identity",
    negative_limit: str = "reject",
    nan_limit: str = "reject",
) -> list[Array | None]:
    """Scale every group of weights whose 2-norm n exceeds ``max_norm``: w * max_norm / n.

    ``axis`` (one or several, negative ones count from the end) indexes the groups, as in
    :func:`refimpl.regularization.penalty_group_lasso`: for a dense weight (in, out) axis 1 limits
    the incoming weights of each unit. Groups with n <= max_norm stay bit for bit; ``max_norm`` 0
    gives zeros, infinity the input. A NaN or infinite norm makes its whole group NaN.

    Dials: ``eps`` is added to the norm it is divided by; ``below_limit`` "rescaled" multiplies
    groups inside by n / (n + eps) as well; ``nonfinite`` "multiply" gives what w * max_norm / n
    gives, "nan_below" that too, but takes a NaN norm for one below the limit; ``norm`` "naive"
    squares as they are, so that they may overflow or vanish; ``infinite_limit`` "multiply" scales
    by n / (n + eps); ``negative_limit`` "zeros" and ``nan_limit`` "all_nan" in place of a refusal.

    Raises ValueError for a negative or NaN ``max_norm``, and for an axis that is not there.
    Source: Srebro & Shraibman 2005, "Rank, Trace-Norm and Max-Norm"; Srivastava et al. 2014,
    "Dropout", section 5.1.
    """
    checks.choice("below_limit", below_limit, ("unchanged", "rescaled"))
    checks.choice("nonfinite", nonfinite, NONFINITE)
    checks.choice("norm", norm, ("exact", "naive"))
    checks.choice("infinite_limit", infinite_limit, ("identity", "multiply"))
    checks.choice("negative_limit", negative_limit, ("reject", "zeros"))
    checks.choice("nan_limit", nan_limit, ("reject", "all_nan"))
    eps = checks.number("eps", eps, low=0.0)
    if not (isinstance(max_norm, float) and math.isnan(max_norm) and nan_limit == "all_nan"):
        lowest = 0.0 if negative_limit == "reject" else -math.inf
        max_norm = max(checks.number("max_norm", max_norm, low=lowest, finite=False), 0.0)

    def one(xp: Namespace, w: Array) -> Array:
        wide = widen(xp, w)
        n, size = group_norms(xp, wide, axis)
        if norm == "naive" and size > 1:
            over = tuple(i for i in range(w.ndim) if n.shape[i] != w.shape[i])
            n = xp.sqrt(xp.sum(wide * wide, axis=over, keepdims=True))
        if math.isnan(max_norm):
            return xp.full_like(w, math.nan)
        if math.isinf(max_norm) and infinite_limit == "identity":
            return w
        limit = scalar(xp, max_norm, n)
        inside = n <= limit
        bottom = n + scalar(xp, eps, n)
        bottom = xp.where(bottom == 0, xp.ones_like(n), bottom)
        if nonfinite == "all_nan":
            bottom = xp.where(xp.isinf(n), xp.full_like(n, math.nan), bottom)
        factor = xp.where(inside, n, limit) / bottom
        tiny = 2.0**-126 if n.dtype == xp.float32 else 2.0**-1022
        # where c/n vanishes w/n does not, and the other way round
        scaled = xp.where(factor < tiny, wide / bottom * limit, wide * factor)
        scaled = astype(xp, scaled, w.dtype)
        # an eps of 0 leaves nothing to rescale
        kept = inside & ~xp.isinf(n) if below_limit == "unchanged" or not eps else n < 0
        kept = kept | xp.isnan(n) if nonfinite == "nan_below" else kept
        return xp.where(kept, w, scaled)

    return _each(weights, one)


def project_l1_ball(
    weights: Arrays, radius: float, *, zero_sign: str = "positive"
) -> list[Array | None]:
    """Return, for each array, the nearest point whose 1-norm is at most ``radius``.

    Inside, ``sum(|w|) <= radius``, that is the array itself, bit for bit. Outside it is the soft
    threshold ``sign(w) * max(|w| - theta, 0)`` with the one theta for which the 1-norm is the
    radius: with magnitudes u_1 >= u_2 >= ... and rho the largest j for which
    ``u_j > (u_1 + ... + u_j - radius) / j``, theta is that quotient for j = rho. ``radius`` 0 gives
    zeros, infinity the input; a NaN or an infinity outside makes the whole array NaN.

    Dial: ``zero_sign`` "of_weight" gives what the threshold reaches the sign of its weight.
    Raises ValueError for a negative or NaN radius. Source: Duchi, Shalev-Shwartz, Singer & Chandra
    2008, "Efficient Projections onto the l1-Ball for Learning in High Dimensions".
    """
    radius = checks.number("radius", radius, low=0.0, finite=False)
    checks.choice("zero_sign", zero_sign, ("positive", "of_weight"))

    def one(xp: Namespace, w: Array) -> Array:
        if math.isinf(radius) or 0 in w.shape:
            return w
        wide = widen(xp, w)
        size = xp.abs(wide)
        # measured from the largest magnitude: the radius is not lost beside large weights
        largest = xp.max(size)
        below = size - largest
        u = xp.sort(xp.reshape(below, (-1,)), descending=True)
        limit = scalar(xp, radius, wide)
        j = xp.arange(1, u.shape[0] + 1, dtype=u.dtype, device=device(u))
        active = u > (xp.cumulative_sum(u) - limit) / j
        rho = astype(xp, xp.sum(astype(xp, active, xp.int64)), u.dtype)
        kept = xp.sum(xp.where(active, u, xp.zeros_like(u)))
        # no entry is active where the radius is 0
        reached = below - (kept - limit) / xp.maximum(rho, xp.ones_like(rho))
        zero = xp.zeros_like(wide) if zero_sign == "positive" else wide * 0.0
        soft = xp.where(reached <= 0, zero, xp.where(wide < 0, -reached, reached))
        outside = xp.where(xp.isfinite(largest), soft, xp.full_like(wide, math.nan))
        return xp.where(xp.sum(size) <= limit, w, astype(xp, outside, w.dtype))

    return _each(weights, one)


def _all_but_largest(xp: Namespace, size: Array, count: int, ties: str) -> Array:
    """Return a mask of what is not among the ``count`` largest; NaN is largest of all."""
    flat = xp.reshape(size, (-1,))
    if ties == "highest_index_first":
        flat = xp.flip(flat)
    missing = xp.isnan(flat)
    keys = [astype(xp, missing, flat.dtype), xp.where(missing, xp.zeros_like(flat), flat)]
    dropped = smallest(xp, keys, max(flat.shape[0] - count, 0))
    if ties == "highest_index_first":
        dropped = xp.flip(dropped)
    return xp.reshape(dropped, size.shape)


def _each(weights: Arrays, one: Callable[[Namespace, Array], Array]) -> list[Array | None]:
    projected: list[Array | None] = []
    for index, w in enumerate(weights):
        if w is None:
            projected.append(None)
            continue
        xp = namespace(w)
        checks.real_floating(xp, f"weights[{index}]", w)
        projected.append(one(xp, w))
    return projected
