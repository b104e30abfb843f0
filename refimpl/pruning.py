"""Unstructured pruning: scores in, masks and masked weights out.

score -> select -> mask: the functions here take scores (see :mod:`refimpl.scores`), choose what
goes and return the masks, True where a weight is kept, with the masked weights. What a ``previous``
mask has pruned stays pruned and does not compete again. How the choice is made is in
:mod:`refimpl.masks`; groups of weights are pruned in :mod:`refimpl.structured`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

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
    widen,
)
from .masks import (
    COMPARE,
    Arrays,
    Quota,
    apply_mask,
    apply_masks,
    check_lists,
    keep,
    refuse_nan,
    untouched,
)

Pruned = tuple[list[Array | None], list[Array | None]]

THRESHOLD_DTYPE = ("float32_or_wider", "input_dtype")


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
    previous = check_lists(weights, scores, previous, compare=compare, nan_score=nan_score)
    checks.choice("threshold_dtype", threshold_dtype, THRESHOLD_DTYPE)
    masks: list[Array | None] = []
    for w, s, before in zip(weights, scores, previous, strict=True):
        if w is None or s is None:
            masks.append(untouched(w, before))
            continue
        xp = namespace(w, s)
        refuse_nan(xp, s, before, nan_score)
        selected = _at_threshold(xp, s, threshold, compare, nan_score, threshold_dtype)
        masks.append(keep(~selected, before))
    return masks, apply_masks(weights, masks, masking)


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
    quota = Quota(amount, count, rounding, ties, minimum_kept, nan_score, iterate, amount_dtype)
    checks.choice("scope", scope, ("tensor", "global"))
    checks.choice("normalise", normalise, ("none", "layer_l2"))
    checks.choice("score_sign", score_sign, ("kept", "ignored"))
    previous = check_lists(weights, scores, previous, nan_score=nan_score)

    competing = [i for i, s in enumerate(scores) if s is not None and weights[i] is not None]
    groups = [[i] for i in competing] if scope == "tensor" else [competing] if competing else []
    masks = [
        untouched(w, before) if s is None else None
        for w, s, before in zip(weights, scores, previous, strict=True)
    ]
    for group in groups:
        grouped = present([scores[i] for i in group])
        xp = namespace(*grouped)
        if score_sign == "ignored":
            grouped = [abs(s) for s in grouped]
        # Inside one tensor a common divisor changes no order, but its rounding could make ties.
        divide = normalise if scope == "global" else "none"
        if divide == "none" and all(previous[i] is None for i in group):
            dtype = accumulation_dtype(xp, *grouped)
            whole = quota.kept_in_each(xp, [astype(xp, s, dtype) for s in grouped])
            if whole is not None:
                for i, mask in zip(group, whole, strict=True):
                    masks[i] = mask
                continue
        values = _flatten(xp, grouped, [previous[i] for i in group], divide)
        before = None
        if any(previous[i] is not None for i in group):
            each = [untouched(weights[i], previous[i]) for i in group]
            before = xp.concat([xp.reshape(mask, (-1,)) for mask in each])
        kept = quota.kept(xp, values, before)
        start = 0
        for i, s in zip(group, grouped, strict=True):
            stop = start + math.prod(s.shape)
            masks[i] = keep(xp.reshape(kept[start:stop], s.shape), previous[i])
            start = stop
    return masks, apply_masks(weights, masks, masking)


def prune_iterative(
    weights: Arrays,
    scores: Sequence[Arrays],
    amounts: Sequence[float],
    *,
    scope: str = "tensor",
    previous: Arrays | None = None,
    **dials: Any,
) -> list[list[Array | None]]:
    """Prune in rounds, each an amount of what the rounds before have left (Frankle & Carbin 2019).

    ``scores`` and ``amounts`` have one entry per round: a list of scores as
    :func:`prune_fraction` takes it, and a fraction in [0, 1]. ``scope``, ``previous`` and the dials
    are those of :func:`prune_fraction`; with ``iterate`` "total" each amount is of all weights, so
    that an amount which does not grow prunes nothing more.

    Returns the masks after each round: a list of rounds, each a list of boolean masks.
    Raises ValueError if there are not as many amounts as scores, and as :func:`prune_fraction`.
    """
    checks.same_length("amounts", amounts, "scores", scores)
    rounds: list[list[Array | None]] = []
    for amount, ranked in zip(amounts, scores, strict=True):
        masks, _ = prune_fraction(
            weights, ranked, amount=amount, scope=scope, previous=previous, **dials
        )
        rounds.append(masks)
        previous = masks
    return rounds


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
    previous = check_lists(weights, scores, previous, compare=compare, nan_score=nan_score)
    checks.choice("threshold_dtype", threshold_dtype, THRESHOLD_DTYPE)
    shrunk: list[Array | None] = []
    for w, s, before in zip(weights, scores, previous, strict=True):
        if w is None:
            shrunk.append(None)
            continue
        result = w
        if s is not None:
            xp = namespace(w, s)
            refuse_nan(xp, s, before, nan_score)
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
    return flat[0] if len(flat) == 1 else xp.concat(flat)
