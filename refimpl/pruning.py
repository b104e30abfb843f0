"""Unstructured pruning: scores in, masks and masked weights out.

score -> select -> mask: the functions here take scores (see :mod:`refimpl.scores`), choose what
goes and return the masks, True where a weight is kept, with the masked weights. What a ``previous``
mask has pruned stays pruned and does not compete again.

Two numbers have to be known on the host, because they decide whether to refuse and how many entries
to take: how many scores are NaN, and how many entries are left. :func:`_count` is the only place
that reads an array; everything else stays on the device.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence

from . import checks
from .arrays import (
    Array,
    Namespace,
    accumulation_dtype,
    astype,
    euclidean_norm,
    namespace,
    present,
    scalar,
    smallest,
    stable_order,
    widen,
)

Arrays = Sequence[Array | None]
Pruned = tuple[list[Array | None], list[Array | None]]

COMPARE = ("le", "lt")
ROUNDING = ("half_even", "floor", "ceil", "kept_half_even", "kept_floor")
TIES = ("lowest_index_first", "highest_index_first", "keep_all", "prune_all", "unspecified")
NAN_SCORE = ("reject", "highest", "lowest")
MASKING = ("select", "multiply")
THRESHOLD_DTYPE = ("float32_or_wider", "input_dtype")


def apply_mask(weights: Array, mask: Array, *, masking: str = "select") -> Array:
    """Return ``where(mask, weights, +0.0)``, of the shape and dtype of ``weights``.

    ``mask`` is boolean, of the same shape, True where a weight is kept, bit for bit. A selection,
    not a product, which would leave -0.0 for a negative weight and NaN for a NaN or an infinity;
    the dial ``masking`` "multiply" gives that product.
    Raises ValueError where the shapes differ or the mask is not boolean.
    """
    checks.choice("masking", masking, MASKING)
    xp = namespace(weights, mask)
    checks.boolean(xp, "the mask", mask)
    checks.same_shape("weights", weights, "the mask", mask)
    if masking == "multiply":
        return weights * astype(xp, mask, weights.dtype)
    return xp.where(mask, weights, xp.zeros_like(weights))


def prune_threshold(
    weights: Arrays,
    scores: Arrays,
    threshold: float,
    *,
    previous: Arrays | None = None,
    compare: str = "le",
    nan_score: str = "reject",
    threshold_dtype: str = "float32_or_wider",
    masking: str = "select",
) -> Pruned:
    """Prune every weight whose score is at or below a threshold (Han et al. 2015).

    ``weights``, ``scores`` and ``previous`` (boolean masks) are lists of equal length and shapes.
    ``threshold`` is in the units of the scores; any number but NaN. It is rounded once, to the
    dtype in which scores are compared: float64 for float64 scores, else float32. An entry without
    a score (``None``) is not pruned beyond its previous mask.

    Dials: ``compare`` "le" prunes where score <= threshold, "lt" where score < threshold;
    ``nan_score`` "reject" raises ValueError if a competing score is NaN, "highest" keeps it,
    "lowest" prunes it; ``threshold_dtype`` "input_dtype" rounds the threshold to the dtype of the
    scores, also to 16 bits; ``masking``: see :func:`apply_mask`.

    Returns the masks (boolean, True keeps) and the weights with +0.0 where pruned.
    Raises ValueError for a NaN threshold, an unknown dial setting or shapes that differ.
    """
    threshold = checks.number("threshold", threshold, finite=False)
    previous = _check(weights, scores, previous, compare=compare, nan_score=nan_score)
    checks.choice("threshold_dtype", threshold_dtype, THRESHOLD_DTYPE)
    masks: list[Array | None] = []
    for w, s, before in zip(weights, scores, previous, strict=True):
        if w is None or s is None:
            masks.append(_untouched(w, before))
            continue
        xp = namespace(w, s)
        _refuse_nan(xp, s, before, nan_score)
        selected = _at_threshold(xp, s, threshold, compare, nan_score, threshold_dtype)
        masks.append(_keep(~selected, before))
    return masks, _apply(weights, masks, masking)


def prune_fraction(
    weights: Arrays,
    scores: Arrays,
    *,
    amount: float | None = None,
    count: int | None = None,
    scope: str = "tensor",
    previous: Arrays | None = None,
    rounding: str = "half_even",
    ties: str = "lowest_index_first",
    minimum_kept: int = 0,
    normalise: str = "none",
    nan_score: str = "reject",
    iterate: str = "remaining",
    score_sign: str = "kept",
    amount_dtype: str = "float64",
    masking: str = "select",
) -> Pruned:
    """Prune the weights with the lowest scores: a fraction of them, or a count.

    ``weights``, ``scores`` and ``previous`` (boolean masks) are lists of equal length and shapes.
    ``amount`` is a fraction in [0, 1] (1 means everything, also as an integer), ``count`` a number
    of entries; exactly one is given. With ``scope`` "tensor" it holds for each tensor by itself,
    with "global" for all together, in the order (tensor, flat index). An entry without a score
    (``None``) takes no part and is not counted.

    How many, for n entries: k = round_half_to_even(amount * n), the product taken in float64.

    Dials:

    - ``rounding``: "half_even", "floor", "ceil" of amount * n; "kept_half_even", "kept_floor" round
      the kept count (1 - amount) * n instead, so that k = n - kept;
    - ``ties`` among equal scores at the boundary: "lowest_index_first" and "highest_index_first"
      prune exactly k; "keep_all" keeps and "prune_all" prunes the whole group of equals that the
      boundary would split, fewer or more than k; "unspecified" promises exactly k and no more
      (here it is "lowest_index_first");
    - ``minimum_kept``: k leaves at least so many of the entries that compete ("prune_all" may take
      further equals);
    - ``normalise`` "layer_l2": scores are divided by the 2-norm of the scores of their tensor that
      compete, before a comparison of global scope; an infinite score makes that undefined (NaN);
    - ``nan_score``: "reject" raises ValueError, "highest" ranks NaN above infinity, "lowest" below
      everything;
    - ``iterate``: "remaining" takes amount and count of what ``previous`` has left, "total" of all
      entries, those already pruned included;
    - ``score_sign`` "ignored" ranks by the magnitudes of the scores;
    - ``amount_dtype`` "float32": the product above, and 1 - amount, are rounded to float32;
    - ``masking``: see :func:`apply_mask`.

    Returns the masks (boolean, True keeps) and the weights with +0.0 where pruned.
    Raises ValueError for an amount outside [0, 1], a count above what is there, both or neither of
    them, an unknown dial setting or shapes that differ.
    """
    if (amount is None) == (count is None):
        raise ValueError("exactly one of amount and count must be given")
    if amount is not None:
        amount = checks.number("amount", amount, low=0.0, high=1.0)
    else:
        count = checks.integer("count", count, low=0)
    minimum_kept = checks.integer("minimum_kept", minimum_kept, low=0)
    checks.choice("scope", scope, ("tensor", "global"))
    checks.choice("rounding", rounding, ROUNDING)
    checks.choice("ties", ties, TIES)
    checks.choice("normalise", normalise, ("none", "layer_l2"))
    checks.choice("iterate", iterate, ("remaining", "total"))
    checks.choice("score_sign", score_sign, ("kept", "ignored"))
    checks.choice("amount_dtype", amount_dtype, ("float64", "float32"))
    previous = _check(weights, scores, previous, nan_score=nan_score)

    masks = [_untouched(w, before) for w, before in zip(weights, previous, strict=True)]
    competing = [i for i, s in enumerate(scores) if s is not None and weights[i] is not None]
    groups = [[i] for i in competing] if scope == "tensor" else [competing] if competing else []
    for group in groups:
        grouped = present([scores[i] for i in group])
        xp = namespace(*grouped)
        if score_sign == "ignored":
            grouped = [abs(s) for s in grouped]
        # Inside one tensor a common divisor changes no order, but its rounding could make ties.
        divide = normalise if scope == "global" else "none"
        values = _flatten(xp, grouped, [previous[i] for i in group], divide)
        before = None
        if any(previous[i] is not None for i in group):
            before = xp.concat([xp.reshape(masks[i], (-1,)) for i in group])
        size = values.shape[0]
        left = size if before is None else _count(xp, before)
        _refuse_nan(xp, values, before, nan_score)
        k = _to_prune(size, left, amount, count, rounding, iterate, amount_dtype)
        k = min(k, max(left - minimum_kept, 0))
        kept = ~_select(xp, _keys(xp, values, before, nan_score), k, ties)
        start = 0
        for i, s in zip(group, grouped, strict=True):
            stop = start + math.prod(s.shape)
            masks[i] = _keep(xp.reshape(kept[start:stop], s.shape), previous[i])
            start = stop
    return masks, _apply(weights, masks, masking)


def shrink(
    weights: Arrays,
    scores: Arrays,
    threshold: float,
    rate: float,
    *,
    previous: Arrays | None = None,
    compare: str = "le",
    nan_score: str = "reject",
    threshold_dtype: str = "float32_or_wider",
) -> list[Array | None]:
    """Return weights times ``1 - rate`` where the score is at or below a threshold.

    A soft prune: what is selected fades over several calls, and ``rate`` 1 zeroes it at once.
    ``rate`` is in [0, 1]; lists, ``threshold`` and dials are those of :func:`prune_threshold`.
    What ``previous`` has pruned is +0.0; everything else is the input bit for bit. The product is
    plain: its zeros have the sign of the weight, and it leaves a NaN or an infinity visible.

    Raises ValueError for a rate outside [0, 1] and as :func:`prune_threshold` does.
    """
    threshold = checks.number("threshold", threshold, finite=False)
    rate = checks.number("rate", rate, low=0.0, high=1.0)
    previous = _check(weights, scores, previous, compare=compare, nan_score=nan_score)
    checks.choice("threshold_dtype", threshold_dtype, THRESHOLD_DTYPE)
    shrunk: list[Array | None] = []
    for w, s, before in zip(weights, scores, previous, strict=True):
        if w is None:
            shrunk.append(None)
            continue
        result = w
        if s is not None:
            xp = namespace(w, s)
            _refuse_nan(xp, s, before, nan_score)
            selected = _at_threshold(xp, s, threshold, compare, nan_score, threshold_dtype)
            result = xp.where(selected, astype(xp, widen(xp, w) * (1.0 - rate), w.dtype), w)
        shrunk.append(result if before is None else apply_mask(result, before))
    return shrunk


def clipped_gradient(
    grads: Arrays, limit: float, threshold: float, *, compare: str = "le"
) -> list[Array | None]:
    """Return gradients clipped to [-limit, limit], then +0.0 where |g| is at or below a threshold.

    ``limit`` and ``threshold`` are at least 0, in the units of the gradients, and rounded once to
    float32 or wider; an infinite ``limit`` does not clip. NaN stays NaN. Shapes and dtypes are
    those of ``grads``; absent entries stay absent. Dial: ``compare`` "le" zeroes at equality, "lt"
    does not. Raises ValueError for a negative or NaN limit or threshold.
    """
    limit = checks.number("limit", limit, low=0.0, finite=False)
    threshold = checks.number("threshold", threshold, low=0.0, finite=False)
    checks.choice("compare", compare, COMPARE)
    clipped: list[Array | None] = []
    for index, g in enumerate(grads):
        if g is None:
            clipped.append(None)
            continue
        xp = namespace(g)
        checks.real_floating(xp, f"grads[{index}]", g)
        wide = widen(xp, g)
        bound = scalar(xp, limit, wide)
        wide = xp.minimum(xp.maximum(wide, -bound), bound)
        small = _at_threshold(xp, abs(wide), threshold, compare, "highest")
        clipped.append(astype(xp, xp.where(small, xp.zeros_like(wide), wide), g.dtype))
    return clipped


def _count(xp: Namespace, flags: Array) -> int:
    """The one host read: how many flags are set (see the module docstring)."""
    return int(xp.sum(astype(xp, flags, xp.int64)))


def _refuse_nan(xp: Namespace, scores: Array, before: Array | None, nan_score: str) -> None:
    if nan_score != "reject":
        return
    missing = xp.isnan(scores)
    if before is not None:
        missing = missing & before
    if _count(xp, missing):
        raise ValueError("scores must not be NaN (nan_score: highest or lowest would rank them)")


def _at_threshold(
    xp: Namespace,
    scores: Array,
    threshold: float,
    compare: str,
    nan_score: str,
    threshold_dtype: str = "float32_or_wider",
) -> Array:
    wide = widen(xp, scores)
    like = scores if threshold_dtype == "input_dtype" else wide
    limit = astype(xp, scalar(xp, threshold, like), wide.dtype)
    selected = wide <= limit if compare == "le" else wide < limit
    return selected | xp.isnan(wide) if nan_score == "lowest" else selected


def _flatten(xp: Namespace, scores: Sequence[Array], previous: Arrays, normalise: str) -> Array:
    """Concatenate the scores of a group, widened, which is exact."""
    dtype = accumulation_dtype(xp, *scores)
    flat = []
    for s, before in zip(scores, previous, strict=True):
        wide = astype(xp, s, dtype)
        if normalise == "layer_l2":
            counted = ~xp.isnan(wide) if before is None else before & ~xp.isnan(wide)
            norm = euclidean_norm(xp, xp.where(counted, wide, xp.zeros_like(wide)))
            wide = wide / xp.where(norm == 0, xp.ones_like(norm), norm)
        flat.append(xp.reshape(wide, (-1,)))
    return xp.concat(flat)


def _to_prune(
    size: int,
    left: int,
    amount: float | None,
    count: int | None,
    rounding: str,
    iterate: str,
    amount_dtype: str,
) -> int:
    base = left if iterate == "remaining" else size
    if amount is not None:
        target = _rounded(amount, base, rounding, amount_dtype)
    else:
        assert count is not None
        if count > base:
            raise ValueError(f"count must be at most the {base} entries there are, got {count}")
        target = count
    return target if iterate == "remaining" else max(target - (size - left), 0)


def _rounded(amount: float, n: int, rounding: str, amount_dtype: str) -> int:
    cast = _float32 if amount_dtype == "float32" else float
    share = cast(amount)
    if rounding in ("kept_half_even", "kept_floor"):
        kept = cast(cast(1.0 - share) * cast(n))
        return n - (round(kept) if rounding == "kept_half_even" else math.floor(kept))
    product = cast(share * cast(n))
    if rounding == "floor":
        return math.floor(product)
    return math.ceil(product) if rounding == "ceil" else round(product)


def _float32(value: float) -> float:
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded


def _keys(xp: Namespace, values: Array, before: Array | None, nan_score: str) -> list[Array]:
    """Return the sort keys: a class, then the score.

    The class is -1 for NaN ranked lowest, 0 for a number, 1 for NaN ranked highest and 2 for what
    does not compete; it is left out where it could only be 0. Adding 0.0 makes -0.0
    and +0.0 one key, which a radix sort of the bits would tell apart.
    """
    missing = xp.isnan(values)
    numbers = xp.where(missing, xp.zeros_like(values), values) + 0.0
    if nan_score == "reject" and before is None:
        return [numbers]
    rank = -1 if nan_score == "lowest" else 1
    classes = astype(xp, missing, xp.int8) * rank
    if before is not None:
        classes = xp.where(before, classes, xp.full_like(classes, 2))
    return [classes, numbers]


def _select(xp: Namespace, keys: list[Array], k: int, ties: str) -> Array:
    """Return a flat mask of the ``k`` smallest entries, ties as the dial says."""
    if ties in ("lowest_index_first", "unspecified") or k == 0:
        return smallest(xp, keys, k)
    if ties == "highest_index_first":
        return xp.flip(smallest(xp, [xp.flip(key) for key in keys], k))
    size = keys[0].shape[0]
    if ties == "keep_all" and k == size:
        return xp.ones_like(keys[0], dtype=xp.bool)
    # keep_all: below the smallest that is kept; prune_all: up to the largest that is pruned
    pivot = k if ties == "keep_all" else k - 1
    at = stable_order(xp, keys)[pivot : pivot + 1]
    below = xp.zeros_like(keys[0], dtype=xp.bool)
    equal = ~below
    for key in keys:
        edge = xp.take(key, at, axis=0)
        below = below | (equal & (key < edge))
        equal = equal & (key == edge)
    return below if ties == "keep_all" else below | equal


def _keep(mask: Array, before: Array | None) -> Array:
    return mask if before is None else mask & before


def _untouched(weights: Array | None, before: Array | None) -> Array | None:
    if weights is None or before is not None:
        return before
    xp = namespace(weights)
    return xp.ones_like(weights, dtype=xp.bool)


def _apply(
    weights: Iterable[Array | None], masks: Iterable[Array | None], masking: str
) -> list[Array | None]:
    pairs = zip(weights, masks, strict=True)
    return [None if w is None else apply_mask(w, mask, masking=masking) for w, mask in pairs]


def _check(
    weights: Arrays,
    scores: Arrays,
    previous: Arrays | None,
    *,
    compare: str = "le",
    nan_score: str,
) -> Arrays:
    """Refuse what does not fit; return ``previous`` as a list."""
    checks.choice("compare", compare, COMPARE)
    checks.choice("nan_score", nan_score, NAN_SCORE)
    checks.same_length("weights", weights, "scores", scores)
    previous = [None] * len(weights) if previous is None else previous
    checks.same_length("weights", weights, "previous", previous)
    for index, (w, s, before) in enumerate(zip(weights, scores, previous, strict=True)):
        if w is None:
            if s is not None or before is not None:
                raise ValueError(f"weights[{index}] is absent, so its score and mask must be too")
            continue
        checks.real_floating(namespace(w), f"weights[{index}]", w)
        if s is not None:
            checks.real_floating(namespace(s), f"scores[{index}]", s)
            checks.same_shape(f"weights[{index}]", w, f"scores[{index}]", s)
        if before is not None:
            checks.boolean(namespace(before), f"previous[{index}]", before)
            checks.same_shape(f"weights[{index}]", w, f"previous[{index}]", before)
    return previous
