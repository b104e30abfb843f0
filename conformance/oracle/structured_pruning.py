"""What the prunings of groups share: which weights form a group, its score, and who goes.

A group is told by a label for each weight. Weights with the same label are a slice, a block, or the m
neighbours of which n are kept.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from conformance.exact import (
    INF,
    NAN,
    ONE,
    ZERO,
    Real,
    Reject,
    ctx,
    exact,
    magnitude,
    power,
    real,
    total,
)
from conformance.formats import FLOATS, Tensor, round_exact
from conformance.operation import Dial, widest
from conformance.oracle import pruning
from conformance.oracle.pruning import Entry, Group, Mask, Settings

COUNTING = tuple(d for d in pruning.FRACTION_DIALS if d.name not in ("normalise", "score_sign"))
"""The dials of an amount of groups."""
STRUCTURED_DIALS = (
    *COUNTING,
    Dial("norm", "exact", "naive: powers may overflow or flush to zero", ("naive",)),
    Dial(
        "norm_dtype",
        "float32_or_wider",
        "input_dtype: norms are rounded to the dtype of the weights before they are ranked",
        ("input_dtype",),
    ),
)
N_M_DIALS = (
    Dial(
        "remainder",
        "reject",
        "where m does not divide the axis: a refusal, or places are added that are the first to go",
        ("pad",),
    ),
    Dial(
        "group_axis",
        "as_given",
        "along which axis groups lie: the one that is given, or the library's own: the last, or the one"
        " before it, which counts the inputs of (in, out) and (h, w, in, out)",
        ("last", "inputs"),
        {"remainder": "pad"},
    ),
    *(d for d in COUNTING if d.name in ("ties", "nan_score", "masking")),
)


@dataclass(frozen=True)
class Choice:
    """Entries that compete with each other, how many go, and the flat indices each stands for."""

    group: Group
    k: int
    places: dict[int, Tensor]


def alive(inputs: dict[str, Any]) -> Mask:
    """Refuse shapes that do not fit; return where ``previous`` has left a weight."""
    shape = inputs["weights"].shape
    for name in ("scores", "previous"):
        if inputs.get(name) is not None and inputs[name].shape != shape:
            raise Reject(f"weights and {name} must have the same shape")
    previous = inputs.get("previous")
    return np.ones(shape, bool) if previous is None else previous.astype(bool)


def axis_of(weights: Tensor, axis: int) -> int:
    """Return an axis counted from the front; refuse one that is not there."""
    if not -weights.ndim <= axis < weights.ndim:
        raise Reject(f"axis must be one of the {weights.ndim} axes of the weights, got {axis}")
    return axis % weights.ndim


def mask_of(choices: list[Choice], live: Mask, settings: Settings) -> Mask:
    """Return the mask without the weights of the entries that go."""
    mask = live.copy().ravel()
    for choice in choices:
        for entry in pruning.chosen(choice.group, choice.k, settings):
            mask[choice.places[entry.index]] = False
    return mask.reshape(live.shape)


def outputs_of(inputs: dict[str, Any], mask: Mask, settings: Settings) -> dict[str, Any]:
    """Return the mask and the masked weights."""
    return {"mask": mask, "weights": pruning.masked(inputs["weights"], mask, settings)}


def _ranked(score: Real, settings: Settings) -> tuple[int, Real]:
    if score == score:
        return 0, score
    if settings["nan_score"] == "reject":
        raise Reject("a score is NaN")
    return (1 if settings["nan_score"] == "highest" else -1), ZERO


def _among(labels: Any, number: int, live: Mask, scores: Any, settings: Settings) -> list[Choice]:
    """Return the one choice among so many groups; ``scores(all indices, those left)`` ranks one."""
    flat, left = labels.ravel(), live.ravel()
    entries, places = [], {}
    for name in range(number):
        every = np.flatnonzero(flat == name)
        remaining = every[left[every]]
        if len(remaining):
            entries.append(Entry(0, name, _ranked(scores(every, remaining), settings)))
            places[name] = every
    group = Group(entries, number)
    return [Choice(group, pruning.how_many(group, settings), places)]


# --- slices -------------------------------------------------------------------------------------


def slices(
    inputs: dict[str, Any], settings: Settings, *, count_pruned: bool = False
) -> list[Choice]:
    """Return the choice among the slices along an axis, ranked by the norms of what is left of them.

    With ``count_pruned``, a mistake, the norms count what ``previous`` has pruned.
    """
    weights = inputs["weights"]
    pruning.check_amount(settings | {"scope": "tensor"})
    order = float(settings["ord"])
    if not order > 0:
        raise Reject(f"ord must be > 0 or inf, got {order}")
    live = alive(inputs)
    axis = axis_of(weights, settings["axis"])
    labels = np.indices(weights.shape)[axis]
    values = magnitude(exact(weights)).ravel()
    dtype = widest([weights])
    stored = weights.dtype.name if settings["norm_dtype"] == "input_dtype" else None

    def norm(every: Any, remaining: Any) -> Real:
        result = _norm(
            list(values[every if count_pruned else remaining]),
            order,
            settings["norm"] == "naive",
            dtype,
        )
        return result if stored is None or result != result else real(round_exact(result, stored))

    return _among(labels, weights.shape[axis], live, norm, settings)


def _norm(values: list[Real], order: float, naive: bool, dtype: str) -> Real:
    if any(x != x for x in values):
        return NAN
    if any(x == INF for x in values):
        return INF
    if order == float("inf"):
        return max(values, default=ZERO)
    powers = [power(x, real(order)) for x in values]
    if naive:
        powers = [_held(x, dtype) for x in powers]
    sum_of = _held(total(powers), dtype) if naive else total(powers)
    if sum_of == INF or order == 1:
        return sum_of
    return ctx.sqrt(sum_of) if order == 2 else sum_of ** (ONE / real(order))


def _held(x: Real, dtype: str) -> Real:
    """Return a number as far as a format can hold it: infinite above its range, 0 below."""
    rounded = float(round_exact(x, dtype)) if x < INF else float("inf")
    if rounded == float("inf"):
        return INF
    return ZERO if x < FLOATS[dtype].tiny and rounded == 0 else x


# --- blocks -------------------------------------------------------------------------------------


def blocks(inputs: dict[str, Any], settings: Settings) -> list[Choice]:
    """Return the choice among blocks, ranked by the mean or the maximum of their scores."""
    weights, block = inputs["weights"], settings["block"]
    pruning.check_amount(settings | {"scope": "tensor", "count": None})
    if settings["pool"] not in ("mean", "max"):
        raise Reject(f"pool must be mean or max, got {settings['pool']}")
    live = alive(inputs)
    if len(block) != weights.ndim:
        raise Reject(f"block must have {weights.ndim} lengths, one per axis")
    if any(size < 1 for size in block):
        raise Reject("a length of block must be at least 1")
    values = exact(inputs["scores"]).ravel()

    def pooled(every: Any, remaining: Any) -> Real:
        members = list(values[remaining])
        if any(x != x for x in members):
            return NAN
        return max(members) if settings["pool"] == "max" else total(members) / len(members)

    number = prod(-(-length // size) for length, size in zip(weights.shape, block, strict=True))
    labels = block_labels(weights.shape, block)
    return _among(labels, number, live, pooled, settings | {"count": None})


def block_labels(shape: tuple[int, ...], block: Any) -> Any:
    """Return the number of the block of each weight, in C order."""
    labels = np.zeros(shape, dtype=np.int64)
    for index, size, length in zip(np.indices(shape), block, shape, strict=True):
        labels = labels * -(-length // size) + index // size
    return labels


# --- n of m -------------------------------------------------------------------------------------


def neighbours(inputs: dict[str, Any], settings: Settings) -> list[Choice]:
    """Return a choice for each m neighbours: all but n go, those that are not there first."""
    weights, n, m = inputs["weights"], settings["n"], settings["m"]
    if m < 1 or not 0 <= n <= m:
        raise Reject(f"m must be at least 1 and n in [0, m], got {n} of {m}")
    live = alive(inputs)
    axis = axis_of(weights, settings["axis"])
    if settings["group_axis"] == "last":
        axis = weights.ndim - 1
    elif settings["group_axis"] == "inputs":
        axis = max(weights.ndim - 2, 0)
    if settings["remainder"] == "reject" and weights.shape[axis] % m:
        raise Reject(
            f"groups of {m} must divide axis {axis}, which has {weights.shape[axis]} entries"
        )
    block = [m if i == axis else 1 for i in range(weights.ndim)]
    labels = block_labels(weights.shape, block).ravel()
    values = exact(inputs["scores"]).ravel()
    left = live.ravel()
    choices = []
    for name in sorted(set(labels.tolist())):
        every = np.flatnonzero(labels == name)
        entries = [Entry(0, int(i), _ranked(values[i], settings)) for i in every[left[every]]]
        places = {int(i): np.array([i]) for i in every}
        choices.append(Choice(Group(entries, len(every)), max(len(entries) - n, 0), places))
    return choices


# --- where an implementation may choose ---------------------------------------------------------


def stand_in(
    inputs: dict[str, Any], choices: list[Choice], settings: Settings, outputs: dict[str, Any]
) -> dict[str, Any]:
    """Return the canonical outputs if the given mask only exchanges groups of equal rank.

    Otherwise, and where the weights are not those of the mask, the outputs come back as they are.
    """
    weights, given = inputs["weights"], outputs["mask"]
    live = alive(inputs)
    if given.dtype != np.dtype(bool) or given.shape != weights.shape:
        return outputs
    if not pruning.same_bits(outputs["weights"], pruning.masked(weights, given, settings)):
        return outputs
    flat, left = given.ravel(), live.ravel()
    for choice in choices:
        gone: Counter[Any] = Counter()
        for entry in choice.group.entries:
            members = choice.places[entry.index]
            kept = flat[members[left[members]]]
            if kept.any() != kept.all():
                return outputs
            gone[entry.rank] += 0 if kept.any() else 1
        wanted = Counter(e.rank for e in pruning.chosen(choice.group, choice.k, settings))
        if +gone != wanted:
            return outputs
    if np.any(given & ~live):
        return outputs
    return outputs | outputs_of(inputs, mask_of(choices, live, settings), settings)
