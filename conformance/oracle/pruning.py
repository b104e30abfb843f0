"""What the prunings share: which weights go, and what is left of them.

A mask is True where a weight is kept. The order among weights is (tensor, flat index in C order).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, floor, isnan
from typing import Any

import numpy as np

from conformance.exact import (
    ONE,
    ZERO,
    Real,
    Reject,
    ctx,
    divide,
    each,
    exact,
    full,
    magnitude,
    real,
    total,
)
from conformance.formats import FLOATS, Tensor, round_exact
from conformance.operation import Dial, widest

Settings = dict[str, Any]
Mask = Any
"""A NumPy array of bool."""
Masks = list[Any]
"""One :data:`Mask` per weight; ``None`` where the weight is absent."""

COMPARE = Dial(
    "compare", "le", "prune where score <= threshold, or where score < threshold", ("lt",)
)
NAN_SCORE = Dial(
    "nan_score",
    "reject",
    "a NaN among the competing scores: a refusal, or it ranks above infinity or below all numbers",
    ("highest", "lowest"),
)
THRESHOLD_DTYPE = Dial(
    "threshold_dtype",
    "float32_or_wider",
    "the dtype that the threshold is rounded to before it meets the scores",
    ("input_dtype",),
)
MASKING = Dial(
    "masking",
    "select",
    "multiply: weights are multiplied by the mask, so pruned ones may be -0.0, and NaN where not finite",
    ("multiply",),
)

FRACTION_DIALS = (
    Dial(
        "rounding",
        "half_even",
        "how amount·n becomes the pruned count; the settings kept_… round the kept count (1 - amount)·n",
        ("floor", "ceil", "kept_half_even", "kept_floor"),
    ),
    Dial("amount_dtype", "float64", "the dtype of the product that is rounded", ("float32",)),
    Dial(
        "ties",
        "lowest_index_first",
        "who goes first among equals; keep_all and prune_all never split equals; unspecified: exactly"
        " as many, whichever (judged up to the choice)",
        ("highest_index_first", "keep_all", "prune_all"),
        left_open=("unspecified",),
    ),
    Dial("minimum_kept", 0, "how many of the competing weights are kept whatever the amount is", (1,)),
    Dial(
        "normalise",
        "none",
        "layer_l2: for global scope, scores are divided by the 2-norm of their tensor's scores",
        ("layer_l2",),
    ),
    NAN_SCORE,
    Dial(
        "iterate",
        "remaining",
        "what amount and count refer to: what previous left, or all weights",
        ("total",),
    ),
    Dial("score_sign", "kept", "ignored: weights are ranked by the magnitudes of scores", ("ignored",)),
    MASKING,
)  # fmt: skip


def check_lists(inputs: dict[str, Any]) -> None:
    """Refuse lists whose lengths or shapes do not fit each other: broadcasting would hide mistakes."""
    weights = inputs["weights"]
    for name in ("scores", "previous"):
        others = inputs.get(name)
        if others is None:
            continue
        if len(others) != len(weights):
            raise Reject(f"weights and {name} must have the same length")
        for w, other in zip(weights, others, strict=True):
            if w is None and other is not None:
                raise Reject(f"an absent weight has no {name}")
            if w is not None and other is not None and w.shape != other.shape:
                raise Reject(f"weights and {name} must have the same shape")
    for name in ("weights", "scores"):
        if any(t is not None and t.dtype.name not in FLOATS for t in inputs.get(name) or ()):
            raise Reject(f"{name} must be real floats")


def before(inputs: dict[str, Any]) -> Masks:
    """Return a mask per weight, as ``previous`` left it: True everywhere where there is none."""
    previous = inputs.get("previous") or [None] * len(inputs["weights"])
    return [
        None if w is None else np.ones(w.shape, bool) if mask is None else mask.astype(bool)
        for w, mask in zip(inputs["weights"], previous, strict=True)
    ]


def masked(weights: Tensor, mask: Mask, settings: Settings) -> Tensor:
    """Return kept weights bit for bit and +0.0 elsewhere; under ``masking=multiply``, w · mask."""
    if settings.get("masking", "select") == "multiply":
        with np.errstate(invalid="ignore"):
            return np.asarray(weights * mask.astype(weights.dtype))
    return np.where(mask, weights, np.zeros_like(weights))


def pruned(inputs: dict[str, Any], masks: Masks, settings: Settings) -> dict[str, Any]:
    """Return masks and masked weights."""
    return {
        "masks": masks,
        "weights": [
            None if w is None else masked(w, mask, settings)
            for w, mask in zip(inputs["weights"], masks, strict=True)
        ],
    }


# --- by threshold -------------------------------------------------------------------------------


def threshold_of(scores: Tensor, settings: Settings) -> Real:
    """Return the threshold as it meets these scores: rounded once, or exact in float64."""
    threshold = float(settings["threshold"])
    if isnan(threshold):
        raise Reject("threshold must be a number, got nan")
    dtype = scores.dtype.name
    if settings["threshold_dtype"] == "float32_or_wider":
        dtype = widest([scores])
    return real(round_exact(real(threshold), dtype))


def selected(scores: Tensor | None, live: Mask, settings: Settings) -> Mask:
    """Return where a score is at or below (``lt``: below) the threshold."""
    if scores is None:
        return np.zeros(live.shape, bool)
    values = exact(scores)
    undefined = each(lambda s: s != s, values).astype(bool)
    if settings["nan_score"] == "reject" and np.any(undefined & live):
        raise Reject("a score is NaN")
    limit = threshold_of(scores, settings)
    below = each(lambda s: s <= limit if settings["compare"] == "le" else s < limit, values)
    result = below.astype(bool)
    return result | undefined if settings["nan_score"] == "lowest" else result


def threshold_masks(inputs: dict[str, Any], settings: Settings) -> Masks:
    """Return the masks of pruning by threshold; what ``previous`` pruned stays pruned."""
    check_lists(inputs)
    if isnan(float(settings["threshold"])):
        raise Reject("threshold must be a number, got nan")
    return [
        None if live is None else np.asarray(live & ~selected(scores, live, settings))
        for scores, live in zip(inputs["scores"], before(inputs), strict=True)
    ]


# --- by fraction or count -----------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One competing weight: where it is, and its rank. Equal ranks are ties."""

    tensor: int
    index: int
    rank: tuple[int, Real]


@dataclass(frozen=True)
class Group:
    """The weights that one amount is shared by: those that compete, and how many there are in all."""

    entries: list[Entry]
    size: int


def groups(inputs: dict[str, Any], settings: Settings) -> Iterator[Group]:
    """Yield the groups: each tensor by itself, or all together. A tensor without scores takes no part."""
    live = before(inputs)
    every = [
        i
        for i, (w, s) in enumerate(zip(inputs["weights"], inputs["scores"], strict=True))
        if w is not None and s is not None
    ]
    together = settings["scope"] == "global"
    for members in [every] if together else [[i] for i in every]:
        entries = []
        for i in members:
            values = _values(inputs["scores"][i], live[i], settings)
            kept = np.flatnonzero(live[i])
            entries += [Entry(i, int(j), _rank(values[j], settings)) for j in kept]
        yield Group(entries, sum(inputs["scores"][i].size for i in members))


def _values(scores: Tensor, live: Mask, settings: Settings) -> Any:
    values = exact(scores)
    if settings["score_sign"] == "ignored":
        values = magnitude(values)
    if settings["normalise"] == "layer_l2" and settings["scope"] == "global":
        squares = [s * s for s in values[live] if s == s]
        norm = ctx.sqrt(total(squares))
        values = values if norm == 0 else divide(values, full(values.shape, norm))
    return values.ravel()


def _rank(score: Real, settings: Settings) -> tuple[int, Real]:
    if score == score:
        return 0, score
    if settings["nan_score"] == "reject":
        raise Reject("a score is NaN")
    return (1 if settings["nan_score"] == "highest" else -1), ZERO


def check_amount(settings: Settings) -> None:
    """Refuse anything but one of amount (in [0, 1]) and count (at least 0)."""
    amount, count = settings["amount"], settings["count"]
    if (amount is None) == (count is None):
        raise Reject("exactly one of amount and count must be given")
    if amount is not None and not 0 <= float(amount) <= 1:
        raise Reject(f"amount must be in [0, 1], got {amount}")
    if count is not None and count < 0:
        raise Reject(f"count must be at least 0, got {count}")
    if settings["scope"] not in ("tensor", "global"):
        raise Reject(f"scope must be tensor or global, got {settings['scope']}")


def how_many(group: Group, settings: Settings) -> int:
    """Return how many of the competing weights of a group go."""
    left = len(group.entries)
    of = left if settings["iterate"] == "remaining" else group.size
    k = settings["count"]
    if k is None:
        k = rounded_count(settings["amount"], of, settings)
    elif k > of:
        raise Reject(f"count must be at most the {of} weights there are, got {k}")
    gone = 0 if settings["iterate"] == "remaining" else group.size - left
    return max(0, min(k - gone, left - settings["minimum_kept"]))


def rounded_count(amount: Any, n: int, settings: Settings) -> int:
    """Return the pruned count: amount·n, rounded to floating point first and to an integer then.

    The product is a floating-point one on purpose: 0.35 is a little below 35/100, yet 0.35·10 is
    the tie 3.5 in float64, as whoever writes 0.35 means it.
    """
    dtype, rounding = settings["amount_dtype"], settings["rounding"]

    def machine(x: Real) -> Real:
        return real(round_exact(x, dtype))

    share = machine(real(amount))
    if rounding.startswith("kept"):
        kept = machine(machine(ONE - share) * n)
        return n - (_half_even(kept) if rounding == "kept_half_even" else floor(kept))
    product = machine(share * n)
    if rounding == "half_even":
        return _half_even(product)
    return int(floor(product) if rounding == "floor" else ceil(product))


def _half_even(x: Real) -> int:
    whole = int(ctx.floor(x))
    rest = x - whole
    half = real(0.5)
    return whole + int(rest > half or (rest == half and whole % 2 == 1))


def chosen(group: Group, k: int, settings: Settings) -> list[Entry]:
    """Return the entries of a group that go: the k of lowest rank, ties as the dial says."""
    ties = settings["ties"]
    backwards = ties == "highest_index_first"
    order = sorted(group.entries[::-1] if backwards else group.entries, key=lambda e: e.rank)
    if ties == "keep_all" and k < len(order):
        return [e for e in order if e.rank < order[k].rank]
    if ties == "prune_all" and k > 0:
        return [e for e in order if e.rank <= order[k - 1].rank]
    return order[:k]


def fraction_masks(inputs: dict[str, Any], settings: Settings) -> Masks:
    """Return the masks of pruning by amount or count."""
    check_amount(settings)
    check_lists(inputs)
    masks: Masks = [None if live is None else live.copy() for live in before(inputs)]
    for group in list(groups(inputs, settings)):
        for entry in chosen(group, how_many(group, settings), settings):
            masks[entry.tensor].ravel()[entry.index] = False
    return masks


def stand_in(inputs: dict[str, Any], settings: Settings, outputs: dict[str, Any]) -> dict[str, Any]:
    """Return the canonical masks and weights if the given ones only exchange equal scores.

    Each group must prune as many weights of each rank as the canonical choice does, nothing else may
    be pruned, and the weights must be those of the masks given. Otherwise the outputs come back as
    they are, and are judged so.
    """
    try:
        masks = fraction_masks(inputs, settings)
    except Reject:
        return outputs
    if not _plausible(inputs, outputs, settings):
        return outputs
    if not exchanges_equals(inputs, outputs["masks"], masks, settings):
        return outputs
    return outputs | pruned(inputs, masks, settings)


def exchanges_equals(
    inputs: dict[str, Any], given: Masks, wanted: Masks, settings: Settings
) -> bool:
    """Say whether masks prune as many weights of each rank as the wanted ones, and nothing else."""
    competing: Masks = [None if m is None else np.zeros(m.shape, bool) for m in wanted]
    for group in groups(inputs, settings):
        for entry in group.entries:
            competing[entry.tensor].ravel()[entry.index] = True
        if _pruned_ranks(group, given) != _pruned_ranks(group, wanted):
            return False
    return not any(
        mask is not None and np.any((mask != other) & ~free)
        for mask, other, free in zip(given, wanted, competing, strict=True)
    )


def _pruned_ranks(group: Group, masks: Masks) -> Counter[tuple[int, Real]]:
    gone = (e for e in group.entries if not masks[e.tensor].ravel()[e.index])
    return Counter(e.rank for e in gone)


def _plausible(inputs: dict[str, Any], outputs: dict[str, Any], settings: Settings) -> bool:
    weights, masks, given = inputs["weights"], outputs.get("masks"), outputs.get("weights")
    if not isinstance(masks, list) or not isinstance(given, list):
        return False
    if len(masks) != len(weights) or len(given) != len(weights):
        return False
    for w, mask, result in zip(weights, masks, given, strict=True):
        if w is None or mask is None or result is None:
            if not (w is None and mask is None and result is None):
                return False
            continue
        right_kind = mask.dtype == np.dtype(bool) and result.dtype == w.dtype
        if not right_kind or mask.shape != w.shape or result.shape != w.shape:
            return False
        if not same_bits(result, masked(w, mask, settings)):
            return False
    return True


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Say whether two float tensors of one shape and dtype have the same bits; any NaN equals any."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    words = f"u{a.dtype.itemsize}"
    undefined = np.isnan(a.astype(np.float64)) & np.isnan(b.astype(np.float64))
    return bool(np.all((a.view(words) == b.view(words)) | undefined))
