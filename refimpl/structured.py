"""Structured pruning: weights go in groups, or stay in a pattern that hardware can use.

A group is a slice along an axis (a channel, a filter, a row), a block of any shape, or m neighbours
of which n are kept. As everywhere a mask is True where a weight is kept, and what a ``previous``
mask has pruned stays pruned: a group that is wholly pruned does not compete again, and of one that
is partly pruned only the rest counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from array_api_compat import device

from . import checks
from .arrays import (
    Array,
    Namespace,
    astype,
    maximum_of,
    namespace,
    scalar,
    stable_order,
    widen,
    zeros,
)
from .masks import NAN_SCORE, TIES, Quota, apply_mask, check_lists, refuse_nan, untouched

GROUP_AXIS = ("as_given", "last", "inputs")


def prune_structured(
    weights: Array,
    *,
    axis: int,
    amount: float | None = None,
    count: int | None = None,
    ord: float = 2.0,
    previous: Array | None = None,
    norm: str = "exact",
    norm_dtype: str = "float32_or_wider",
    masking: str = "select",
    **dials: Any,
) -> tuple[Array, Array]:
    """Prune the slices of ``weights`` along ``axis`` that have the smallest norms (Li et al. 2017).

    Slice i holds all weights whose index along ``axis`` is i; its score is (Σ|w|^ord)^(1/ord), for
    ``ord`` inf max|w|. ``weights`` has one axis or more, ``previous`` is a boolean mask of its
    shape. ``amount`` is a fraction of the slices in [0, 1], ``count`` a number of them; exactly one
    is given. For n slices k = round_half_to_even(amount * n) go, of equals the lowest index first.

    Dials: ``rounding``, ``amount_dtype``, ``ties``, ``minimum_kept``, ``nan_score`` and ``iterate``
    as in :func:`refimpl.pruning.prune_fraction`, counting slices;

    - ``norm`` "naive": powers may overflow, or vanish, in float32 or wider;
    - ``norm_dtype`` "input_dtype": norms are rounded to the dtype of the weights, which makes ties;
    - ``masking``: see :func:`refimpl.masks.apply_mask`.

    Returns the mask (boolean, True keeps) and the weights with +0.0 where pruned.
    Raises ValueError for an axis that is not there, an ``ord`` that is not > 0, a NaN among the
    norms, an amount or count out of range, both or neither, or an unknown dial setting.
    """
    quota = Quota(amount, count, **dials)
    power = checks.number("ord", ord, finite=False)
    if not power > 0:
        raise ValueError(f"ord must be > 0 or inf, got {ord}")
    checks.choice("norm", norm, ("exact", "naive"))
    checks.choice("norm_dtype", norm_dtype, ("float32_or_wider", "input_dtype"))
    live = _live(weights, None, previous)
    first = _axis(axis, weights.ndim)
    xp = namespace(weights)
    magnitudes = xp.abs(widen(xp, weights))
    magnitudes = xp.where(live, magnitudes, xp.zeros_like(magnitudes))
    norms = _row_norms(xp, _slices(xp, magnitudes, first), power, norm)
    if norm_dtype == "input_dtype":
        norms = astype(xp, astype(xp, norms, weights.dtype), norms.dtype)
    kept = quota.kept(xp, norms, xp.any(_slices(xp, live, first), axis=1))
    along = [weights.shape[first] if i == first else 1 for i in range(weights.ndim)]
    mask = live & xp.reshape(kept, tuple(along))
    return mask, apply_mask(weights, mask, masking=masking)


def prune_block(
    weights: Array,
    scores: Array,
    *,
    block: Sequence[int],
    amount: float,
    pool: str = "mean",
    previous: Array | None = None,
    masking: str = "select",
    **dials: Any,
) -> tuple[Array, Array]:
    """Prune the blocks with the lowest pooled scores (Narang, Undersander & Diamos 2017).

    ``block`` has a length >= 1 for each axis of ``weights``; blocks start at index 0 and the last
    of an axis may be cut off. The score of a block is the mean or the maximum (``pool``) of the
    scores of those of its weights that are there and not pruned already. ``scores`` and
    ``previous`` (boolean) have the shape of ``weights``. ``amount`` is a fraction of the blocks, in
    [0, 1]: of n blocks k = round_half_to_even(amount * n) go; equals in C order, lowest first.

    Dials: ``rounding``, ``amount_dtype``, ``ties``, ``minimum_kept``, ``nan_score`` and ``iterate``
    as in :func:`refimpl.pruning.prune_fraction`, counting blocks; ``masking``: see
    :func:`refimpl.masks.apply_mask`. The pool of a block with a NaN score is NaN.

    Returns the mask (boolean, True keeps) and the weights with +0.0 where pruned.
    Raises ValueError for a block that does not fit the axes, an unknown ``pool``, an amount out of
    range, shapes that differ or an unknown dial setting.
    """
    quota = Quota(amount, **dials)
    checks.choice("pool", pool, ("mean", "max"))
    live = _live(weights, scores, previous)
    if len(block) != weights.ndim:
        raise ValueError(f"block must have {weights.ndim} lengths, one per axis, got {len(block)}")
    sizes = tuple(checks.integer("a length of block", size, low=1) for size in block)
    xp = namespace(weights, scores)
    wide = widen(xp, scores)
    fill = 0.0 if pool == "mean" else -math.inf
    wide = xp.where(live, wide, xp.full_like(wide, fill))
    values = _tiles(xp, wide, sizes, fill)
    there = _tiles(xp, live, sizes, False)
    pooled = _mean(xp, values, there) if pool == "mean" else maximum_of(xp, values, 1)
    kept = quota.kept(xp, pooled, xp.any(there, axis=1))
    spread = xp.broadcast_to(xp.reshape(kept, (-1, 1)), tuple(values.shape))
    mask = live & _untiled(xp, spread, sizes, weights.shape)
    return mask, apply_mask(weights, mask, masking=masking)


def prune_n_m(
    weights: Array,
    scores: Array,
    *,
    n: int,
    m: int,
    axis: int,
    previous: Array | None = None,
    remainder: str = "reject",
    group_axis: str = "as_given",
    ties: str = "lowest_index_first",
    nan_score: str = "reject",
    masking: str = "select",
) -> tuple[Array, Array]:
    """Keep the ``n`` highest scores of every ``m`` neighbours along ``axis`` (Mishra et al. 2021).

    Groups start at index 0 and never cross into another row. 0 <= n <= m. ``scores`` and
    ``previous`` (boolean) have the shape of ``weights``. What ``previous`` has pruned counts among
    the m - n that go, so that a tensor that has the pattern already stays as it is. Of equal scores
    the lowest index along the axis goes first.

    Dials:

    - ``remainder`` where m does not divide the axis: "reject" raises ValueError; "pad" adds places
      that are always the first to go, so that a last group of r weights keeps min(n, r);
    - ``group_axis``: "as_given" groups along ``axis``; "last" and "inputs" along the last axis and
      the one before it (the inputs of weights (in, out) and (h, w, in, out)), whatever ``axis`` is;
    - ``ties``: as in :func:`refimpl.pruning.prune_fraction`, in each group by itself;
    - ``nan_score``, ``masking``: as in :func:`refimpl.pruning.prune_fraction`.

    Returns the mask (boolean, True keeps) and the weights with +0.0 where pruned.
    Raises ValueError for an axis that is not there or that m does not divide, for n or m out of
    range, a NaN score, shapes that differ or an unknown dial setting.
    """
    m = checks.integer("m", m, low=1)
    n = checks.integer("n", n, low=0)
    if n > m:
        raise ValueError(f"n must be at most m = {m}, got {n}")
    checks.choice("remainder", remainder, ("reject", "pad"))
    checks.choice("group_axis", group_axis, GROUP_AXIS)
    checks.choice("ties", ties, TIES)
    checks.choice("nan_score", nan_score, NAN_SCORE)
    live = _live(weights, scores, previous)
    along = _axis(axis, weights.ndim)
    if group_axis != "as_given":
        along = weights.ndim - 1 if group_axis == "last" else max(weights.ndim - 2, 0)
    size = weights.shape[along]
    if remainder == "reject" and size % m:
        raise ValueError(f"groups of {m} must divide axis {along}, which has {size} entries")
    xp = namespace(weights, scores)
    refuse_nan(xp, scores, live, nan_score)
    group = tuple(m if i == along else 1 for i in range(weights.ndim))
    values = _tiles(xp, widen(xp, scores), group, 0.0)
    missing = xp.isnan(values)
    classes = astype(xp, missing, xp.int8) * (-1 if nan_score == "lowest" else 1)
    # What is not there, or pruned already, goes first of all and takes one of the m - n places.
    classes = xp.where(_tiles(xp, live, group, False), classes, xp.full_like(classes, -2))
    numbers = xp.where(missing, xp.zeros_like(values), values) + 0.0
    pruned = _lowest_of_rows(xp, [classes, numbers], m - n, ties)
    mask = live & ~_untiled(xp, pruned, group, weights.shape)
    return mask, apply_mask(weights, mask, masking=masking)


def _live(weights: Array, scores: Array | None, previous: Array | None) -> Array:
    """Refuse what does not fit; return the mask of the weights that are not pruned yet."""
    check_lists([weights], [scores], [previous], nan_score="reject")
    return untouched(weights, previous)


def _axis(axis: int, ndim: int) -> int:
    axis = checks.integer("axis", axis)
    if not -ndim <= axis < ndim:
        raise ValueError(f"axis must be one of the {ndim} axes of the weights, got {axis}")
    return axis % ndim


def _slices(xp: Namespace, array: Array, axis: int) -> Array:
    """Return an array as a matrix with one row for each index along ``axis``."""
    others = [i for i in range(array.ndim) if i != axis]
    columns = math.prod(array.shape[i] for i in others)
    return xp.reshape(xp.permute_dims(array, (axis, *others)), (array.shape[axis], columns))


def _row_norms(xp: Namespace, rows: Array, power: float, norm: str) -> Array:
    if rows.shape[1] == 0:
        return xp.sum(rows, axis=1)
    largest = maximum_of(xp, rows, 1, keepdims=True)
    one = xp.ones_like(largest)
    if math.isinf(power):
        return largest[:, 0]
    if norm == "naive" or power <= 1:
        scale = top = one
    else:
        scale, top = _headroom(xp, largest), one
        if power != 2:
            # No fixed factor makes room for every power, so the largest becomes 1.
            usable = (largest > 0) & (largest < math.inf)
            top = xp.where(usable, largest * scale, one)
    scaled = rows * scale
    if power != 2:
        scaled = scaled / top
    total = xp.sum(scaled * scaled if power == 2 else scaled**power, axis=1)
    root = xp.sqrt(total) if power == 2 else total ** (1.0 / power) * top[:, 0]
    return root / scale[:, 0]


def _headroom(xp: Namespace, largest: Array) -> Array:
    """Return a power of two by which sums and squares of numbers up to ``largest`` stay in range.

    It is 1 for ordinary numbers: multiplied or not, equal sums of whole numbers stay equal.
    """
    limit, step = (50, 89) if largest.dtype == xp.float32 else (450, 740)
    one = xp.ones_like(largest)
    scale = xp.where(largest > 2.0**limit, one * 2.0**-step, one)
    return xp.where(largest < 2.0**-limit, one * 2.0**step, scale)


def _mean(xp: Namespace, rows: Array, there: Array) -> Array:
    """Return the mean of what is there in each row; what is not there must be 0."""
    if rows.shape[0] == 0:
        return xp.sum(rows, axis=1)
    scale = _headroom(xp, xp.max(xp.abs(rows), axis=1, keepdims=True))
    number = xp.sum(astype(xp, there, rows.dtype), axis=1)
    total = xp.sum(rows * scale, axis=1)
    return total / xp.where(number > 0, number, xp.ones_like(number)) / scale[:, 0]


def _tiles(xp: Namespace, array: Array, block: Sequence[int], fill: Any) -> Array:
    """Return an array's blocks as the rows of a matrix; where a block is cut off, ``fill``."""
    for axis, size in enumerate(block):
        short = -array.shape[axis] % size
        if short:
            shape = tuple(short if i == axis else s for i, s in enumerate(array.shape))
            array = xp.concat([array, xp.broadcast_to(scalar(xp, fill, array), shape)], axis=axis)
    grid = [s // b for s, b in zip(array.shape, block, strict=True)]
    if 0 in grid:
        # Dask reshapes no array without elements; there are no blocks.
        return zeros(xp, (0, math.prod(block)), array)
    pairs = [size for pair in zip(grid, block, strict=True) for size in pair]
    outer_first = (*range(0, len(pairs), 2), *range(1, len(pairs), 2))
    split = xp.permute_dims(xp.reshape(array, tuple(pairs)), outer_first)
    return xp.reshape(split, (math.prod(grid), math.prod(block)))


def _untiled(xp: Namespace, rows: Array, block: Sequence[int], shape: Sequence[int]) -> Array:
    """Return the array whose blocks are the given rows; the inverse of :func:`_tiles`."""
    grid = [-(-s // b) for s, b in zip(shape, block, strict=True)]
    if 0 in grid:
        return zeros(xp, shape, rows)
    ndim = len(grid)
    interleaved = tuple(i for axis in range(ndim) for i in (axis, ndim + axis))
    array = xp.permute_dims(xp.reshape(rows, (*grid, *block)), interleaved)
    array = xp.reshape(array, tuple(g * b for g, b in zip(grid, block, strict=True)))
    return array[tuple(slice(0, size) for size in shape)]


def _lowest_of_rows(xp: Namespace, keys: Sequence[Array], k: int, ties: str) -> Array:
    """Return a mask of the ``k`` smallest entries of each row, ties as the dial says."""
    if ties == "highest_index_first":
        turned = [xp.flip(key, axis=1) for key in keys]
        return xp.flip(_lowest_of_rows(xp, turned, k, "lowest_index_first"), axis=1)
    count, size = keys[0].shape
    numbers = xp.reshape(xp.arange(count, dtype=xp.int64, device=device(keys[0])), (count, 1))
    row = xp.broadcast_to(numbers, (count, size))
    flat = [xp.reshape(key, (count * size,)) for key in (row, *keys)]
    order = stable_order(xp, flat)
    if ties in ("lowest_index_first", "unspecified") or k in (0, size):
        place = xp.reshape(xp.argsort(order, stable=True), (count, size))
        return place - row * size < k
    # keep_all: below the smallest that is kept; prune_all: up to the largest that is pruned
    pivot = xp.reshape(order, (count, size))[:, k if ties == "keep_all" else k - 1]
    below = xp.zeros_like(row, dtype=xp.bool)
    equal = ~below
    for key, line in zip(keys, flat[1:], strict=True):
        edge = xp.reshape(xp.take(line, pivot, axis=0), (count, 1))
        below = below | (equal & (key < edge))
        equal = equal & (key == edge)
    return below if ties == "keep_all" else below | equal
