"""``prune.shrink``: multiply weights by 1 - rate where the score is at or below a threshold."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Cases, Stream, fixed, tensor
from conformance.exact import ONE, ZERO, Exact, Real, Reject, each, exact, magnitude, real
from conformance.formats import Tensor, round_all, round_exact
from conformance.operation import Flag, Mistake, Operation, Param, Value
from conformance.oracle import pruning

Settings = dict[str, Any]
Selected = list[Any]


def oracle(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """w ← w·(1 - rate) where s <= t and previous keeps it; +0 where previous does not."""
    rate, chosen = rate_of(settings), selection(inputs, settings)
    return {"weights": shrunk(inputs, chosen, ONE - rate)}


def rate_of(settings: Settings) -> Real:
    """Return the rate; it must be in [0, 1]."""
    rate = float(settings["rate"])
    if not 0 <= rate <= 1:
        raise Reject(f"rate must be in [0, 1], got {rate}")
    return real(rate)


def selection(inputs: dict[str, Any], settings: Settings) -> Selected:
    """Return, per weight, where it is to shrink."""
    masks = pruning.threshold_masks(inputs, settings)
    return [
        None if live is None else live & ~mask
        for live, mask in zip(pruning.before(inputs), masks, strict=True)
    ]


def shrunk(inputs: dict[str, Any], chosen: Selected, factor: Real) -> list[Any]:
    """Return the weights, those that are chosen times a factor, those pruned before +0."""
    return [
        None if w is None else _shrunk(w, np.asarray(where), live, factor)
        for w, where, live in zip(inputs["weights"], chosen, pruning.before(inputs), strict=True)
    ]


def _shrunk(w: Tensor, where: Any, live: Any, factor: Real) -> Value | Tensor:
    name = w.dtype.name
    kept = pruning.masked(w, live, {})
    if factor == 1 or not where.any():
        return kept
    values = exact(w)
    result = each(lambda x, yes: x * factor if yes else x, np.where(live, values, ZERO), where)
    if _rounds_nothing(values[where], factor, name):
        return np.where(where, round_all(result, name), kept)
    return Value(result, name, np.where(where, magnitude(values), magnitude(result)))


def _rounds_nothing(values: Exact, factor: Real, name: str) -> bool:
    """Say whether w·f and w - w·(1 - f) are both exact at every step, and of one sign."""
    rest = ONE - factor
    steps = [factor, rest] + [x * f for x in values for f in (factor, rest)]
    return all(x != 0 and real(round_exact(x, name)) == x for x in steps)


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """ULP allowed; the derivation is in TOLERANCE_WHY."""
    return {"weights": 3}


TOLERANCE_WHY = (
    "Rounding the rate a, then 1 - a and the product w·(1 - a), or the product a·w and the difference: three"
    " roundings, each at most u·|w|, in either form, so 3 ULP of |w|; 16-bit weights that are computed in"
    " float32 round once. Where each of these steps is exact, where the rate is 0, and in tensors of which"
    " nothing is selected, the bits are asked for."
)


def _mistaken(factor: Any) -> Any:
    def mistake(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        rate, chosen = rate_of(settings), selection(inputs, settings)
        return {"weights": shrunk(inputs, chosen, factor(rate))}

    return mistake


def everything(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Every weight shrinks, whatever its score is."""
    rate_of(settings)
    selection(inputs, settings)
    chosen = pruning.before(inputs)
    return {"weights": shrunk(inputs, chosen, ONE - rate_of(settings))}


def kept_ones(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The weights above the threshold shrink."""
    rate = rate_of(settings)
    chosen = [
        None if live is None else live & ~where
        for live, where in zip(pruning.before(inputs), selection(inputs, settings), strict=True)
    ]
    return {"weights": shrunk(inputs, chosen, ONE - rate)}


def subtracted(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The rate is subtracted from the magnitude, not a share of it."""
    result, chosen = oracle(inputs, settings), selection(inputs, settings)
    rate = float(settings["rate"])
    weights = [
        None
        if w is None
        else np.where(where, w - (np.sign(w) * rate).astype(w.dtype), pruning.masked(w, live, {}))
        for w, where, live in zip(inputs["weights"], chosen, pruning.before(inputs), strict=True)
    ]
    return result | {"weights": weights}


def revived(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """``previous`` is ignored: what was pruned only shrinks."""
    return oracle({**inputs, "previous": None}, settings)


def by_weight(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """|w| is compared whatever the scores are."""
    oracle(inputs, settings)
    scores = [
        None if w is None or s is None else np.asarray(np.abs(w)).astype(s.dtype)
        for w, s in zip(inputs["weights"], inputs["scores"], strict=True)
    ]
    return oracle(inputs | {"scores": scores}, settings | {"nan_score": "highest"})


MISTAKES = (
    Mistake("rate ignored", "selected weights become zero at once", _mistaken(lambda a: ONE - ONE)),
    Mistake("rate kept", "selected weights are multiplied by the rate", _mistaken(lambda a: a)),
    Mistake("enlarged", "selected weights are multiplied by 1 + rate", _mistaken(lambda a: ONE + a)),
    Mistake("shrunk twice", "the factor is (1 - rate)²", _mistaken(lambda a: (ONE - a) ** 2)),
    Mistake("everything shrinks", "the scores do not matter", everything),
    Mistake("the others shrink", "weights above the threshold are taken", kept_ones),
    Mistake("rate subtracted", "the rate is an amount, not a share", subtracted),
    Mistake("pruned weights revived", "previous masks are ignored", revived),
    Mistake("magnitudes for scores", "|w| is compared whatever the scores are", by_weight),
)  # fmt: skip

CONSTRAINTS = {
    "C1": "A weight whose score is at or below the threshold is multiplied by 1 - rate.",
    "C2": "Any other weight comes back bit for bit, NaN, infinities and -0 included.",
    "C3": "rate = 0 leaves every weight as it is; rate = 1 makes the selected ones zero.",
    "C4": "A rate outside [0, 1], or NaN, is refused.",
    "C5": "What previous prunes is +0, and its score does not matter.",
    "C6": "A NaN score that competes is refused; so is a NaN threshold.",
    "C7": "A selected NaN stays NaN; a selected infinity stays infinite if rate < 1, else it is NaN.",
    "C8": "The threshold is rounded once: to float64 for float64 scores, else to float32.",
    "C9": "Weights keep shape and dtype; 16-bit ones are rounded once, at the end.",
    "C10": "An absent weight stays absent; a weight without scores only loses what previous prunes.",
    "C11": "Lists of different lengths, or tensors of different shapes, are refused.",
}

FLAGS = {
    "basic": Flag("BASIC", "Several tensors, both signs."),
    "at-threshold": Flag("EDGE_CASE", "A score equals the threshold."),
    "rate-edge": Flag("EDGE_CASE", "A rate of 0 or 1, or close to it."),
    "bad-rate": Flag("EDGE_CASE", "A rate that is no share."),
    "previous": Flag(
        "KNOWN_BUG", "A weight that was pruned before.", ("neuralmagic/sparseml#589",)
    ),
    "nan": Flag("EDGE_CASE", "A NaN score, threshold or weight."),
    "infinite": Flag("EDGE_CASE", "Infinite weights, scores or thresholds."),
    "rounding": Flag("PRECISION", "A rate or threshold that the dtype cannot hold."),
    "subnormal": Flag("OVERFLOW", "A product below the normal numbers."),
    "zeros": Flag("EDGE_CASE", "Zeros of either sign."),
    "mixed-dtypes": Flag("EDGE_CASE", "Several dtypes in one list."),
    "shapes": Flag("EDGE_CASE", "0-d, empty and many-dimensional tensors."),
    "absent": Flag("EDGE_CASE", "Absent weights or scores, or none at all."),
    "mismatch": Flag("EDGE_CASE", "Lists or shapes that do not fit each other."),
}


def cases(c: Cases) -> None:
    """Write the cases."""
    random = Stream(43)

    def add(
        name: str,
        flags: str,
        labels: str,
        weights: Any,
        scores: Any,
        threshold: Any,
        rate: Any,
        dtypes: Any = WIDE,
        **inputs: Any,
    ) -> None:
        tensors = {"weights": weights, "scores": scores, **inputs}
        c.add(name, flags, labels, tensors, {"threshold": threshold, "rate": rate}, dtypes)

    # fmt: off
    def magnitudes(weights: Any) -> Any: return [np.asarray(np.abs(w)) for w in weights]

    two = [tensor([3, -1, 0.25], [-0.5, 2, -4]), tensor(-0.75, 0.5, 1, -8), tensor(6, -7)]
    add("quarter", "basic", "C1 C2", two, magnitudes(two), 0.9, 0.25, ALL)
    add("tenth", "basic rounding", "C1 C9", two, magnitudes(two), 0.9, 0.1, ALL)
    spread = [random.spread(4, 3), random.spread(5)]
    add("wide-range", "basic rounding", "C1 C9", spread, magnitudes(spread), 1.0, 0.3, ALL)
    add("nothing-selected", "basic", "C2", spread, magnitudes(spread), 1e-6, 0.3, ALL)
    edge = [tensor(0.25, -0.5, 0.75, -1), tensor([0.5], [-0.5])]
    add("at-threshold", "at-threshold", "C1", edge, magnitudes(edge), 0.5, 0.5, ALL)
    add("just-below", "at-threshold", "C1 C2", edge, magnitudes(edge), 0.498046875, 0.5, ALL)
    tenths = [tensor(0.3, -0.1, 0.7, 0.30000001)]
    add("threshold-0.3", "rounding at-threshold", "C8", tenths, magnitudes(tenths), 0.3, 0.25)
    halves = [fixed([0.30004883, -0.29980469, 0.5], "float16")]
    half_scores = [fixed([0.30004883, 0.29980469, 0.5], "float16")]
    add("threshold-0.3", "rounding at-threshold", "C8", halves, half_scores, 0.3, 0.25, ("float16",))
    signed = [tensor([-3, 0.5, 4], [-1, 0, -2]), tensor(1, -1, 2, -0.25), tensor(-5, 5)]
    add("signed-scores", "basic", "C1", two, signed, -0.5, 0.75, ALL)
    add("rate-0", "rate-edge", "C3", two, magnitudes(two), 1.5, 0.0, ALL)
    add("rate-1", "rate-edge zeros", "C3", two, magnitudes(two), 1.5, 1.0, ALL)
    add("rate-1-integer", "rate-edge", "C3", two, magnitudes(two), 1.5, 1)
    add("rate-near-1", "rate-edge rounding", "C1 C3", two, magnitudes(two), 1.5, 0.9999)
    add("rate-near-0", "rate-edge rounding", "C1 C3", two, magnitudes(two), 1.5, 1e-4)
    for name, rate in (("negative", -0.1), ("above-1", 1.5), ("nan", "nan"), ("inf", "inf")):
        add(f"rate-{name}", "bad-rate", "C4", two, magnitudes(two), 1.5, rate)
    before = [fixed([[True, False, True], [False, True, True]], "bool"), None, fixed([False, False],
        "bool")]
    add("previous", "previous", "C5", two, magnitudes(two), 0.9, 0.5, ALL, previous=before)
    add("previous-above", "previous", "C5", two, magnitudes(two), 0.125, 0.5, previous=before)
    nan_before = [tensor([3, np.nan, 1], [0.5, 2, 4]), tensor(4, 3, 2, 1), tensor(np.nan, np.nan)]
    add("previous-nan", "previous nan", "C5 C6", two, nan_before, 2.0, 0.25, previous=before)
    nans = [tensor([3, np.nan, 1], [0.5, 2, 4]), tensor(4, 3, 2, 1), tensor(7, 8)]
    add("nan-score", "nan", "C6", two, nans, 2.0, 0.25, ALL)
    add("nan-threshold", "nan", "C6", two, magnitudes(two), "nan", 0.25)
    odd = [tensor(np.nan, np.inf, -np.inf, 5, -6), tensor(np.nan, -np.inf, -0.0, 0, 3)]
    low = [tensor(1, 2, 3, 4, 9), tensor(9, 8, 7, 6, 5)]
    add("non-finite", "nan infinite", "C2 C7", odd, low, 4.0, 0.75, ALL)
    add("non-finite-rate-1", "nan infinite rate-edge", "C7", odd, low, 4.0, 1.0, ALL)
    add("infinite-threshold", "infinite", "C1", two, magnitudes(two), "inf", 0.5, ALL)
    add("minus-infinite-threshold", "infinite", "C2", two, magnitudes(two), "-inf", 0.5)
    infinite = [tensor([np.inf, 1, 2], [-np.inf, 3, 4]), tensor(1, 2, 3, 4), tensor(1, -np.inf)]
    add("infinite-scores", "infinite", "C1", two, infinite, 1.5, 0.5)
    zeros = [tensor(0, -0.0, 3, -3), tensor([-0.0, 2])]
    zero_scores = [tensor(0, 1, 0, 1), tensor([1, 1])]
    add("zeros", "zeros", "C1 C2", zeros, zero_scores, 0.5, 0.25, ALL)
    add("zero-threshold", "zeros at-threshold", "C1", zeros, zero_scores, 0.0, 0.25)
    tiny = [tensor(1.5e-38, -3e-38, 1e-40, -2)]
    add("subnormal", "subnormal rounding", "C1", tiny, magnitudes(tiny), 1.0, 0.7, ("float32",))
    tiny16 = [tensor(6.5e-5, -1e-4, 1e-6, -2)]
    add("subnormal", "subnormal rounding", "C1 C9", tiny16, magnitudes(tiny16), 1.0, 0.7, ("float16",))
    tiny64 = [tensor(3e-308, -4e-308, 1e-310, -2)]
    add("subnormal", "subnormal rounding", "C1", tiny64, magnitudes(tiny64), 1.0, 0.7, ("float64",))
    mixed = [fixed([-1, 2, 3], "float16"), fixed([[-4.0], [0.5]], "float64"), tensor(-7, 0.25)]
    mixed_scores = [fixed([1, 2, 3], "float32"), fixed([[4.0], [0.5]], "float64"), tensor(7, 0.25)]
    add("mixed", "mixed-dtypes", "C9", mixed, mixed_scores, 1.0, 0.3, ("float32", "bfloat16"))
    halves = [fixed([-1, 2], "bfloat16"), fixed([[-4.0, 0.5]], "float16")]
    half_scores = [fixed([1, 2], "bfloat16"), fixed([[4.0, 0.5]], "float16")]
    add("mixed-16", "mixed-dtypes", "C9", halves, half_scores, 1.5, 0.4, ("float16",))
    add("wider-scores", "mixed-dtypes", "C9", halves, [fixed([1, 2], "float64"), fixed([[4, 0.5]],
        "float32")], 1.5, 0.4, ("float64",))
    shapes = [np.array(-0.5), random.uniform(2, 1, 3), np.zeros((0, 4)), np.array(3.0)]
    add("shapes", "shapes", "C9", shapes, magnitudes(shapes), 0.5, 0.25, ALL)
    add("zero-dimensional", "shapes", "C1 C9", [np.array(-0.5)], [np.array(0.5)], 1.0, 0.1)
    add("empty", "shapes", "C9", [np.zeros((2, 0))], [np.zeros((2, 0))], 1.0, 0.1)
    absent = [None, tensor(-1, 3), None]
    add("absent", "absent", "C10", absent, [None, tensor(1, 3), None], 2.0, 0.25, ALL)
    add("absent-scores", "absent previous", "C5 C10", [tensor(-1, 3), tensor(2, -4), tensor([5.0])], [None,
        None, tensor([1.0])], 9.0, 0.25, previous=[None, fixed([False, True], "bool"), None])
    add("no-tensors", "absent", "C10", [], [], 1.0, 0.5, ("float32",))
    add("other-length", "mismatch", "C11", [tensor(1, 2)], [], 1.0, 0.5)
    add("other-shape", "mismatch", "C11", [tensor([1, 2])], [tensor([1], [2])], 1.0, 0.5)
    add("broadcast-shape", "mismatch", "C11", [tensor([1, 2], [3, 4])], [tensor(1, 2)], 1.0, 0.5)
    # fmt: on


OPERATION = Operation(
    id="prune.shrink",
    summary="Let weights fade: multiply by 1 - rate where the score is at or below a threshold.",
    formula="w ← w·(1 - α) where previous ∧ s ≤ t;  +0 where not previous",
    sources=(
        "Y. He, G. Kang, X. Dong, Y. Fu, Y. Yang: Soft filter pruning for accelerating deep convolutional"
        " neural networks. IJCAI 2018 (rate 1)",
        "L. Cai, Z. An, C. Yang, Y. Xu: Softer pruning, incremental regularization. ICPR 2020",
    ),
    constraints=CONSTRAINTS,
    inputs={
        "weights": "list of float tensors of any shapes; null is an absent one",
        "scores": "a score per weight, of the same shapes; null leaves a tensor as it is",
        "previous": "optional: boolean masks of the same shapes, False where pruned already",
    },
    outputs={"weights": "the list, selected ones multiplied by 1 - rate"},
    params=(
        Param("threshold", "in the units of the scores; any number, infinities included", required=True),
        Param("rate", "the share that a selected weight loses, in [0, 1]", required=True),
    ),
    dials=(pruning.COMPARE, pruning.NAN_SCORE, pruning.THRESHOLD_DTYPE),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=TOLERANCE_WHY,
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
)  # fmt: skip
