"""``prune.threshold``: prune every weight whose score is at or below a threshold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Cases, Stream, fixed, tensor
from conformance.formats import Tensor
from conformance.operation import Flag, Mistake, Operation, Param, map_tensors
from conformance.oracle import pruning

Settings = dict[str, Any]


def oracle(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """m = previous and not (s <= t);  w ← w where m, else +0."""
    return pruning.pruned(inputs, pruning.threshold_masks(inputs, settings), settings)


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """Return 0: weights are chosen, not computed."""
    return {"masks": 0, "weights": 0}


def _other_scores(change: Callable[[Tensor, Tensor], Tensor]) -> Any:
    """Return a mistake that ranks by something else than the scores."""

    def mistake(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        oracle(inputs, settings)
        scores = [
            None if w is None or s is None else np.asarray(change(w, s))
            for w, s in zip(inputs["weights"], inputs["scores"], strict=True)
        ]
        return oracle(inputs | {"scores": scores}, settings | {"nan_score": "highest"})

    return mistake


def inverted(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The mask is True where a weight is pruned; the weights are right."""
    result = oracle(inputs, settings)
    return result | {"masks": map_tensors(np.logical_not, result["masks"])}


def above_pruned(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """What is above the threshold goes, and what is below stays."""
    masks = pruning.threshold_masks(inputs, settings)
    kept = [
        None if m is None else live & ~m
        for m, live in zip(masks, pruning.before(inputs), strict=True)
    ]
    return pruning.pruned(inputs, kept, settings)


def unmasked(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The masks are right, and the weights come back whole."""
    return oracle(inputs, settings) | {"weights": inputs["weights"]}


def revived(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """``previous`` is ignored: what was pruned comes back if its score is high."""
    return oracle({**inputs, "previous": None}, settings)


def shrunk(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Soft threshold: kept weights move towards zero by the threshold."""
    result = oracle(inputs, settings)
    limit = float(settings["threshold"])
    if not np.isfinite(limit):
        return result
    weights = [
        None
        if w is None
        else np.where(m, w - (np.sign(w) * limit).astype(w.dtype), np.zeros_like(w))
        for w, m in zip(inputs["weights"], result["masks"], strict=True)
    ]
    return result | {"weights": weights}


def promoted(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """A float32 mask makes the weights float32, whatever they were."""
    result = oracle(inputs, settings)
    return result | {
        "weights": map_tensors(
            lambda w: w.astype(np.float32) if w.dtype.itemsize < 4 else w, result["weights"]
        )
    }


MISTAKES = (
    Mistake(
        "weights for scores",
        "the signed weight is compared, so large negative weights go",
        _other_scores(lambda w, s: w.astype(s.dtype)),
        ("intel/neural-compressor#592",),
    ),
    Mistake(
        "magnitudes for scores",
        "|w| is compared whatever the scores are",
        _other_scores(lambda w, s: np.abs(w).astype(s.dtype)),
    ),
    Mistake(
        "magnitudes of scores",
        "|s| is compared, so a strongly negative score survives",
        _other_scores(lambda w, s: np.abs(s)),
    ),
    Mistake("mask inverted", "1 means pruned", inverted),
    Mistake("wrong side", "scores above the threshold go", above_pruned),
    Mistake("weights not masked", "the weights come back whole", unmasked),
    Mistake("pruned weights revived", "previous masks are ignored", revived),
    Mistake("soft threshold", "kept weights shrink by the threshold", shrunk),
    Mistake(
        "16-bit weights promoted",
        "the mask's dtype becomes the weights'",
        promoted,
        ("apple/coreai-optimization#1",),
    ),
)

CONSTRAINTS = {
    "C1": "A weight is pruned where its score is at or below the threshold; the mask is False there.",
    "C2": "A kept weight comes back bit for bit, NaN, infinities and -0 included.",
    "C3": "A pruned weight is +0, whatever it was: never -0, and not NaN for a NaN or an infinity.",
    "C4": "What previous prunes stays pruned, and its score does not matter, not even if it is NaN.",
    "C5": "A NaN score that competes is refused; so is a NaN threshold.",
    "C6": "The threshold is any number, infinities included; scores keep their sign.",
    "C7": "The threshold is rounded once: to float64 for float64 scores, else to float32.",
    "C8": "Masks are boolean and of the weight's shape; weights keep shape and dtype.",
    "C9": "An absent weight has no mask; a weight without scores keeps the mask that it had.",
    "C10": "Lists of different lengths, or tensors of different shapes, are refused, and scores or masks of an"
    " absent weight.",
    "C11": "Weights and scores are real floats: integers are refused.",
}

FLAGS = {
    "basic": Flag("BASIC", "Several tensors, both signs."),
    "at-threshold": Flag(
        "EDGE_CASE",
        "A score equals the threshold: half of the libraries prune there, half do not.",
    ),
    "signs": Flag(
        "KNOWN_BUG", "Large negative weights, negative scores.", ("intel/neural-compressor#592",)
    ),
    "masked-value": Flag(
        "DIALECT",
        "What a pruned weight becomes where it was negative, NaN or infinite.",
    ),
    "previous": Flag(
        "KNOWN_BUG",
        "A weight that was pruned before, with a high score now.",
        ("neuralmagic/sparseml#589",),
    ),
    "nan-score": Flag("EDGE_CASE", "NaN among the scores."),
    "nan-threshold": Flag("EDGE_CASE", "A threshold that is no number."),
    "infinite": Flag("EDGE_CASE", "An infinite threshold or score."),
    "ties": Flag("EDGE_CASE", "All scores are equal."),
    "zeros": Flag("EDGE_CASE", "Scores or thresholds of zero, of either sign."),
    "rounding": Flag("PRECISION", "A threshold that the scores' dtype cannot hold."),
    "mixed-dtypes": Flag(
        "KNOWN_BUG",
        "Weights and scores, or the tensors of a list, of several dtypes.",
        ("apple/coreai-optimization#1",),
    ),
    "shapes": Flag("EDGE_CASE", "0-d, empty and many-dimensional tensors."),
    "absent": Flag("EDGE_CASE", "Absent weights or scores, or none at all."),
    "integers": Flag("EDGE_CASE", "Integer weights or scores."),
    "mismatch": Flag("EDGE_CASE", "Lists or shapes that do not fit each other."),
}


def cases(c: Cases) -> None:
    """Write the cases."""
    random = Stream(42)

    def add(
        name: str,
        flags: str,
        labels: str,
        weights: Any,
        scores: Any,
        threshold: Any,
        dtypes: Any = WIDE,
        **inputs: Any,
    ) -> None:
        tensors = {"weights": weights, "scores": scores, **inputs}
        c.add(name, flags, labels, tensors, {"threshold": threshold}, dtypes)

    # fmt: off
    def magnitudes(weights: Any) -> Any: return map_tensors(lambda w: np.asarray(np.abs(w)), weights)

    two = [tensor([3, -1, 0.25], [-0.5, 2, -4]), tensor(-0.75, 0.5, 1, -8)]
    add("two-tensors", "basic signs", "C1 C2 C3 C8", two, magnitudes(two), 0.9, ALL)
    spread = [random.spread(4, 3), random.spread(5)]
    add("wide-range", "basic signs", "C1 C2 C3", spread, magnitudes(spread), 1.0, ALL)
    edge = [tensor(0.25, -0.5, 0.75, -1), tensor([0.5], [-0.5])]
    add("at-threshold", "at-threshold signs", "C1 C3", edge, magnitudes(edge), 0.5, ALL)
    add("just-above", "at-threshold", "C1", edge, magnitudes(edge), 0.501953125, ALL)
    add("just-below", "at-threshold", "C1", edge, magnitudes(edge), 0.498046875, ALL)
    add("nothing-below", "basic", "C1 C2", two, magnitudes(two), 0.125, ALL)
    add("everything-below", "basic masked-value", "C1 C3", two, magnitudes(two), 9.0, ALL)
    all_equal = [tensor([1, -1], [-1, 1], [1, -1])]
    add("equal-at", "ties at-threshold", "C1 C3", all_equal, magnitudes(all_equal), 1.0, ALL)
    add("equal-above", "ties", "C1 C2", all_equal, magnitudes(all_equal), 0.5)
    zeros = [tensor(0, -0.0, 1, -1)]
    add("zero-threshold", "zeros at-threshold", "C1 C3", zeros, magnitudes(zeros), 0.0, ALL)
    add("minus-zero-threshold", "zeros at-threshold", "C1", zeros, magnitudes(zeros), -0.0)
    add("signed-zero-scores", "zeros", "C1", [tensor(3, -4, 5)], [tensor(-0.0, 0, 1)], 0.0, ALL)
    add("kept-minus-zero", "zeros", "C2", [tensor(-0.0, 0, 2)], [tensor(3, 4, 5)], 1.0, ALL)
    add("negative-threshold", "signs", "C1 C6", two, magnitudes(two), -1.0)
    add("signed-scores", "signs at-threshold", "C1 C6", [tensor(5, -6, 0.1, -0.2, 7)], [tensor(-3, 2, 0.5,
        -1, -0.5)], -0.5, ALL)
    add("scores-against-magnitude", "basic", "C1", [tensor([9, -8], [0.1, 0.2])], [tensor([0.125, 0.5], [2,
        3])], 1.0, ALL)
    weights = [tensor(np.nan, np.inf, -np.inf, -0.0, -3, 2)]
    low = [tensor(0, 0.5, 0.25, 0.75, 1, 2)]
    add("non-finite-pruned", "masked-value", "C3", weights, low, 1.0, ALL)
    high = [tensor(9, 8, 7, 6, 5, 0.5)]
    add("non-finite-kept", "masked-value", "C2", weights, high, 1.0, ALL)
    add("one-minus-one", "masked-value signs", "C3", [tensor(-1, 2)], [tensor(1, 2)], 1.5, ALL)
    nans = [tensor(np.nan, 1, 3), tensor([2.0])]
    add("nan-score", "nan-score", "C5", [tensor(4, -5, 6), tensor([7.0])], nans, 2.0, ALL)
    all_nan = [tensor(np.nan, np.nan)]
    add("all-nan-scores", "nan-score", "C5", [tensor(4, -5)], all_nan, 2.0)
    add("nan-score-infinite-threshold", "nan-score infinite", "C5", [tensor(4, -5, 6)], [tensor(np.nan,
        np.inf, 3)], "inf")
    add("nan-threshold", "nan-threshold", "C5", two, magnitudes(two), "nan")
    add("nan-threshold-no-tensors", "nan-threshold absent", "C5", [], [], "nan", ("float32",))
    infinite = [tensor(np.inf, 1, -np.inf, 2)]
    add("infinite-threshold", "infinite", "C6", [tensor(1, -2, 3, 4)], infinite, "inf", ALL)
    add("minus-infinite-threshold", "infinite", "C6", [tensor(1, -2, 3, 4)], infinite, "-inf", ALL)
    add("infinite-scores", "infinite", "C1 C6", [tensor(1, -2, 3, 4)], infinite, 1.5)
    before = [fixed([False, True, True, False, True], "bool"), None]
    again = [tensor(9, -0.5, 3, -0.0, 0.25), tensor([1.0], [0.5])]
    add("previous", "previous", "C4", again, magnitudes(again), 0.5, ALL, previous=before)
    nan_before = [tensor(np.nan, 1, 3, np.nan, 2), tensor([1.0], [0.5])]
    add("previous-nan-score", "previous nan-score", "C4", again, nan_before, 1.5, previous=before)
    negative = [tensor(-9, -0.5, np.nan, -np.inf, 0.25), tensor([1.0], [0.5])]
    scores = [tensor(8, 1, 3, 9, 2), tensor([1.0], [0.5])]
    add("previous-not-finite", "previous masked-value", "C3 C4", negative, scores, 1.0, ALL,
        previous=before)
    gone = [fixed([[False, False]], "bool")]
    add("previous-everything", "previous", "C4", [tensor([-3, 4])], [tensor([3, 4])], 1.0, previous=gone)
    w16 = [fixed([0.30004883, -0.29980469, 0.5, -0.1], "float16")]
    add("tenths-float16", "rounding at-threshold", "C7", w16, magnitudes_of(w16), 0.3, ("float16",))
    bf16 = [fixed([0.30078125, -0.29882812, 0.5, -0.1], "bfloat16")]
    add("tenths-bfloat16", "rounding at-threshold", "C7", bf16, magnitudes_of(bf16), 0.3, ("bfloat16",))
    tenths = [tensor(0.3, -0.1, 0.7, 0.30000001, -0.29999999)]
    add("tenths", "rounding at-threshold", "C7", tenths, magnitudes(tenths), 0.3)
    add("threshold-0.1", "rounding at-threshold", "C7", tenths, magnitudes(tenths), 0.1)
    add("threshold-beyond-float16", "rounding infinite", "C7", [tensor(1, -2, 3)], [tensor(60000, np.inf,
        1)], 1e5, ("float16",))
    add("wider-scores", "mixed-dtypes rounding", "C7 C8", [fixed([1, -2, 3], "float16"), fixed([[-4.0],
        [5.0]], "bfloat16")], [fixed([0.3, 0.29999, 0.30001], "float32"), fixed([[0.3], [0.30000000001]],
        "float64")], 0.3, ("float32",))
    add("mixed", "mixed-dtypes masked-value", "C8", [fixed([-1, 2, 3], "float16"), fixed([[-4.0], [0.5]],
        "float64"), tensor(-7, 0.25)], [fixed([1, 2, 3], "float16"), fixed([[4.0], [0.5]], "float64"),
        tensor(7, 0.25)], 1.0, ("float32", "bfloat16"))
    shapes = [np.array(-0.5), random.uniform(2, 1, 3), np.zeros((0, 4)), np.array(3.0)]
    add("shapes", "shapes", "C8", shapes, magnitudes(shapes), 0.5, ALL)
    add("absent", "absent", "C9", [None, tensor(-1, 3), None], [None, tensor(1, 3), None], 2.0, ALL)
    whole, one = fixed([4, -1, 2], "int64"), tensor(4, -1, 2)
    only = ("float32",)
    add("integers", "integers", "C11", [one, whole], [one, whole], 2.0, only)
    add("integer-weights", "integers", "C11", [whole], [tensor(4, 1, 2)], 2.0, only)
    add("integer-scores", "integers", "C11", [one], [fixed([4, 1, 2], "int32")], 2.0, only)
    add("score-without-weight", "absent mismatch", "C10", [None, one], [tensor(1, 2), one], 2.0, only)
    add("mask-without-weight", "absent mismatch previous", "C10", [None, one], [None, one], 2.0, only,
        previous=[fixed([True, False], "bool"), None])
    add("mismatch-after-absent", "absent mismatch", "C10", [None, one], [None, tensor(4, -1)], 2.0, only)
    add("absent-scores", "absent previous", "C4 C9", [tensor(-1, 3), tensor(2, -4), tensor([5.0])], [None,
        None, tensor([1.0])], 9.0, previous=[None, fixed([False, True], "bool"), None])
    add("no-tensors", "absent", "C9", [], [], 1.0, ("float32",))
    add("other-length", "mismatch", "C10", [tensor(1, 2)], [tensor(1, 2), tensor([3.0])], 1.0)
    add("other-shape", "mismatch", "C10", [tensor([1, 2])], [tensor([1], [2])], 1.0)
    add("broadcast-shape", "mismatch", "C10", [tensor([1, 2], [3, 4])], [tensor(1, 2)], 1.0)
    add("other-mask-shape", "mismatch previous", "C10", [tensor(1, 2)], [tensor(1, 2)], 1.0,
        previous=[fixed([True], "bool")])
    # fmt: on


def magnitudes_of(tensors: Any) -> Any:
    """Return the magnitudes of tensors that keep their own dtype."""
    return [type(t)(np.abs(t.tensor)) for t in tensors]


OPERATION = Operation(
    id="prune.threshold",
    summary="Prune every weight whose score is at or below a threshold.",
    formula="m = previous ∧ ¬(s ≤ t);  w ← w where m, else +0",
    sources=(
        "S. Han, J. Pool, J. Tran, W. Dally: Learning both weights and connections for efficient neural"
        " networks. NeurIPS 2015",
    ),
    constraints=CONSTRAINTS,
    inputs={
        "weights": "list of float tensors of any shapes; null is an absent one",
        "scores": "a score per weight, of the same shapes; null leaves a tensor as it is",
        "previous": "optional: boolean masks of the same shapes, False where pruned already",
    },
    outputs={"masks": "boolean, True where kept", "weights": "the list, +0 where pruned"},
    params=(
        Param("threshold", "in the units of the scores; any number, infinities included", required=True),
    ),
    dials=(pruning.COMPARE, pruning.NAN_SCORE, pruning.THRESHOLD_DTYPE, pruning.MASKING),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why="Weights are chosen, not computed, so the bits of masks and weights are asked for.",
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
)  # fmt: skip
