"""What all prunings share: masks, the order among scores, and how many go.

Two things have to be known on the host, because they decide whether to refuse and how many entries
to take: whether a score is NaN, and how many entries are left. :func:`refuse_nan` and
:func:`count_set` are the only places that read an array; everything else stays on the device.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from . import checks
from .arrays import (
    Array,
    Namespace,
    all_but_smallest,
    any_nan,
    astype,
    each,
    namespace,
    smallest,
    stable_order,
    through_float32,
    where_or_zero,
)

Arrays = Sequence[Array | None]

COMPARE = ("le", "lt")
ROUNDING = ("half_even", "floor", "ceil", "kept_half_even", "kept_floor")
TIES = ("lowest_index_first", "highest_index_first", "keep_all", "prune_all", "unspecified")
NAN_SCORE = ("reject", "highest", "lowest")
MASKING = ("select", "multiply")


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
    return where_or_zero(xp, mask, weights)


def apply_masks(
    weights: Iterable[Array | None], masks: Iterable[Array | None], masking: str
) -> list[Array | None]:
    """Apply a mask to each weight; absent weights stay absent."""
    weights, masks = list(weights), list(masks)
    given = [i for i, w in enumerate(weights) if w is not None]
    result: list[Array | None] = [None for _ in weights]
    if given:
        apply = partial(apply_mask, masking=masking)
        pairs = [weights[i] for i in given], [masks[i] for i in given]
        for i, masked in zip(given, each(namespace(weights[given[0]]), apply, *pairs), strict=True):
            result[i] = masked
    return result


def untouched(weights: Array | None, before: Array | None) -> Array | None:
    """Return the mask of a tensor that takes no part: the previous one, or one that keeps all."""
    if weights is None or before is not None:
        return before
    xp = namespace(weights)
    return xp.ones_like(weights, dtype=xp.bool)


def keep(mask: Array, before: Array | None) -> Array:
    """Return a mask without what the previous one has pruned already."""
    return mask if before is None else mask & before


def check_lists(
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


def count_set(xp: Namespace, flags: Array) -> int:
    """Return how many flags are set (see the module docstring)."""
    return int(xp.count_nonzero(flags))


def refuse_nan(xp: Namespace, scores: Array, before: Array | None, nan_score: str) -> None:
    """Raise ValueError for a NaN among the scores that compete, if ``nan_score`` is "reject"."""
    if nan_score != "reject":
        return
    # What is pruned already may be anything.
    if any_nan(xp, scores) and (before is None or bool(xp.any(xp.isnan(scores) & before))):
        raise ValueError("scores must not be NaN (nan_score: highest or lowest would rank them)")


@dataclass(frozen=True)
class Quota:
    """How many of the lowest scores go, and who goes among equals.

    The fields are the arguments and dials of :func:`refimpl.pruning.prune_fraction`; what is out of
    range raises ValueError.
    """

    amount: float | None = None
    count: int | None = None
    rounding: str = "half_even"
    ties: str = "lowest_index_first"
    minimum_kept: int = 0
    nan_score: str = "reject"
    iterate: str = "remaining"
    amount_dtype: str = "float64"

    def __post_init__(self) -> None:
        if (self.amount is None) == (self.count is None):
            raise ValueError("exactly one of amount and count must be given")
        if self.amount is not None:
            checks.number("amount", self.amount, low=0.0, high=1.0)
        else:
            checks.integer("count", self.count, low=0)
        checks.integer("minimum_kept", self.minimum_kept, low=0)
        checks.choice("rounding", self.rounding, ROUNDING)
        checks.choice("ties", self.ties, TIES)
        checks.choice("nan_score", self.nan_score, NAN_SCORE)
        checks.choice("iterate", self.iterate, ("remaining", "total"))
        checks.choice("amount_dtype", self.amount_dtype, ("float64", "float32"))

    def kept(self, xp: Namespace, values: Array, before: Array | None) -> Array:
        """Return which of the scores (1-d, float32 or wider) are kept; ``before``: which compete."""
        size = values.shape[0]
        left = size if before is None else count_set(xp, before)
        refuse_nan(xp, values, before, self.nan_score)
        k = min(self._to_prune(size, left), max(left - int(self.minimum_kept), 0))
        return ~lowest(xp, sort_keys(xp, values, before, self.nan_score), k, self.ties)

    def kept_in_each(self, xp: Namespace, values: Sequence[Array]) -> list[Array] | None:
        """Return :meth:`kept` of several arrays of any shapes that compete with each other in full.

        None where a dial asks for more than an order of numbers.
        """
        if self.nan_score != "reject" or self.ties not in ("lowest_index_first", "unspecified"):
            return None
        each(xp, lambda scores: refuse_nan(xp, scores, None, self.nan_score), values)
        size = sum(math.prod(array.shape) for array in values)
        k = min(self._to_prune(size, size), max(size - int(self.minimum_kept), 0))
        return all_but_smallest(xp, values, k)

    def _to_prune(self, size: int, left: int) -> int:
        base = left if self.iterate == "remaining" else size
        if self.amount is not None:
            target = _rounded(float(self.amount), base, self.rounding, self.amount_dtype)
        else:
            assert self.count is not None
            target = int(self.count)
            if target > base:
                raise ValueError(f"count must be at most the {base} there are, got {target}")
        return target if self.iterate == "remaining" else max(target - (size - left), 0)


def _rounded(amount: float, n: int, rounding: str, amount_dtype: str) -> int:
    cast = through_float32 if amount_dtype == "float32" else float
    share = cast(amount)
    if rounding in ("kept_half_even", "kept_floor"):
        kept = cast(cast(1.0 - share) * cast(n))
        return n - (round(kept) if rounding == "kept_half_even" else math.floor(kept))
    product = cast(share * cast(n))
    if rounding == "floor":
        return math.floor(product)
    return math.ceil(product) if rounding == "ceil" else round(product)


def sort_keys(xp: Namespace, values: Array, before: Array | None, nan_score: str) -> list[Array]:
    """Return the sort keys: a class, then the score.

    The class is -1 for NaN ranked lowest, 0 for a number, 1 for NaN ranked highest and 2 for what
    does not compete; it is left out where it could only be 0.
    """
    if nan_score == "reject" and before is None:
        return [values]
    missing = xp.isnan(values)
    numbers = xp.where(missing, xp.zeros_like(values), values)
    rank = -1 if nan_score == "lowest" else 1
    classes = astype(xp, missing, xp.int8) * rank
    if before is not None:
        classes = xp.where(before, classes, xp.full_like(classes, 2))
    return [classes, numbers]


def lowest(xp: Namespace, keys: list[Array], k: int, ties: str) -> Array:
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
