"""``prox.hard_threshold``: the largest magnitudes stay as they are, the rest becomes zero."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Cases, Stream, tensor
from conformance.exact import each, exact, real
from conformance.operation import Flag, Mistake, Operation, Value, map_tensors
from conformance.operations import _regularization_cases as common
from conformance.oracle import projections, regularization
from conformance.oracle.regularization import Settings, soft


def oracle(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Keep the ``count`` largest magnitudes of each tensor, or those above ``threshold``."""
    regularization.real_floats(inputs["weights"])
    projections.check_hard(settings)
    return {"weights": map_tensors(lambda w: projections.hard(w, settings), inputs["weights"])}


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """Return 0: nothing is rounded."""
    return {"weights": 0}


def _settings(**change: Any) -> Any:
    def mistaken(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        return oracle(inputs, settings | change)

    return mistaken


def _counted(change: Any) -> Any:
    """Return a mistake in how many are kept, as a function of (count, size)."""

    def mistaken(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        count = settings["count"]
        if count is None or count < 0:
            return oracle(inputs, settings)

        def one(w: Any) -> Any:
            return projections.hard(w, settings | {"count": max(change(count, w.size), 0)})

        return {"weights": map_tensors(one, inputs["weights"])}

    return mistaken


def _sized(change: Any) -> Any:
    """Return a mistake that ranks or compares another number than |w|."""

    def mistaken(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        projections.check_hard(settings)

        def one(w: Any) -> Any:
            gone = projections.dropped(change(w), settings)
            return np.where(gone, np.zeros_like(w), w)

        with np.errstate(all="ignore"):
            return {"weights": map_tensors(one, inputs["weights"])}

    return mistaken


def _softened(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    if settings["threshold"] is None or not 0 <= float(settings["threshold"]) < 1e300:
        return oracle(inputs, settings)
    t = real(float(settings["threshold"]))
    return {
        "weights": map_tensors(
            lambda w: Value(each(lambda x: soft(x, t), exact(w)), w.dtype.name), inputs["weights"]
        )
    }


def _ties_all_kept(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The count-th magnitude becomes a threshold that equality passes."""
    count = settings["count"]
    if count is None or count < 1:
        return oracle(inputs, settings)

    def one(w: Any) -> Any:
        sizes = sorted(np.abs(w.astype(np.float64)).ravel())[::-1]
        if count >= w.size or np.isnan(sizes).any():
            return projections.hard(w, settings)
        return np.where(np.abs(w.astype(np.float64)) < sizes[count - 1], np.zeros_like(w), w)

    return {"weights": map_tensors(one, inputs["weights"])}


def _globally(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The count is one for all tensors together."""
    given = [w for w in inputs["weights"] if w is not None]
    if settings["count"] is None or not given or len({w.dtype for w in given}) > 1:
        return oracle(inputs, settings)
    joined = np.concatenate([w.ravel() for w in given])
    kept = oracle({"weights": [joined]}, settings)["weights"][0]
    parts = iter(np.split(kept, np.cumsum([w.size for w in given])[:-1]))
    return {"weights": map_tensors(lambda w: next(parts).reshape(w.shape), inputs["weights"])}


def _scaled(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """threshold is taken for the strength of the penalty: its root counts."""
    t = settings["threshold"]
    if t is None or not 0 <= float(t) < 1e300:
        return oracle(inputs, settings)
    return oracle(inputs, settings | {"threshold": (2 * float(t)) ** 0.5})


MISTAKES = (
    Mistake("strict comparison", "weights at the threshold stay", _settings(compare="lt")),
    Mistake("highest index dropped first", "among equals the first ones stay",
            _settings(ties="highest_index_first")),
    Mistake("ties all kept", "more than count stay where the last one has equals", _ties_all_kept),
    Mistake("product with the mask", "-0.0 for a dropped negative weight, NaN for an infinite one",
            _settings(masking="multiply")),
    Mistake("count dropped", "count is how many go", _counted(lambda k, n: n - k)),
    Mistake("one too many", "count + 1 stay", _counted(lambda k, n: k + 1)),
    Mistake("one too few", "count - 1 stay", _counted(lambda k, n: k - 1)),
    Mistake("no absolute value", "large negative weights go", _sized(lambda w: np.maximum(w, 0 * w)),
            ("intel/neural-compressor#592",)),
    Mistake("NaN becomes zero", "a NaN weight is dropped in silence",
            _sized(lambda w: np.where(np.isnan(w), np.zeros_like(w), w))),
    Mistake("soft threshold", "what stays is shrunk", _softened),
    Mistake("count for all tensors", "the tensors compete with each other", _globally),
    Mistake("root of the threshold", "the threshold is √(2·threshold)", _scaled),
)  # fmt: skip

CONSTRAINTS = {
    "H1": "count: the count largest magnitudes of each tensor stay, exactly as many; a tensor with no more"
    " entries stays whole.",
    "H2": "threshold: entries with |w| > threshold stay; equality goes.",
    "H3": "Among equal magnitudes the lowest flat index (C order) goes first; -0 and +0 are equal.",
    "H4": "What stays is the input bit for bit; what goes is +0.0, also for a negative or infinite weight.",
    "H5": "NaN counts as larger than everything: it stays.",
    "H6": "16-bit weights are compared in float32, where the threshold is not rounded to 16 bits.",
    "H7": "An absent weight stays absent; empty and 0-d tensors are allowed.",
    "H8": "Exactly one of count >= 0 and threshold >= 0 (or infinite: all finite and infinite weights go) is"
    " given, else a refusal.",
}

FLAGS = {
    "count": Flag("BASIC", "The number of entries that stay."),
    "threshold": Flag("BASIC", "The magnitude above which entries stay."),
    "at-threshold": Flag("EDGE_CASE", "Entries of the size of the threshold exactly."),
    "ties": Flag("EDGE_CASE", "Equal magnitudes at the boundary."),
    "signs": Flag("KNOWN_BUG", "Large negative weights, and zeros of either sign.",
                  ("intel/neural-compressor#592",)),
    "edge": Flag("EDGE_CASE", "Counts of nothing and of everything, thresholds of 0 and infinity."),
    "sixteen-bits": Flag("PRECISION", "A threshold that rounds to a number of 16 bits."),
    **common.FLAGS,
}  # fmt: skip


def cases(c: Cases) -> None:
    """Write the cases."""
    # fmt: off

    def add(name: str, flags: str, labels: str, weights: Any, dtypes: Any = ALL, **params: Any) -> None:
        c.add(name, flags, labels, {"weights": weights}, params, dtypes)

    random = Stream(76)
    add("count", "count", "H1 H4", [tensor([3, -4, 0.5], [0.25, -1, 2])], count=2)
    add("count-two-tensors", "count", "H1", [tensor([3, -0.1, 1], [0.2, -1, 0.05]), tensor(-0.3, 7, 0.1)],
        count=2)
    add("count-random", "count", "H1", [random.uniform(6, 7), random.uniform(5)], count=4)
    add("count-one", "count signs", "H1 H4", [tensor(-5, 1, 2)], count=1)
    add("threshold", "threshold", "H2 H4", [tensor([3, -4, 0.5], [0.25, -1, 2])], threshold=0.75)
    add("threshold-two-tensors", "threshold", "H2", [tensor([3, -0.1], [0.2, -1]), tensor(-0.3, 7, 0.1)],
        threshold=0.25)
    add("threshold-random", "threshold", "H2", [random.uniform(6, 7), random.uniform(5)], threshold=0.5)
    add("at-threshold", "at-threshold threshold", "H2", [tensor(0.5, -0.5, 0.75, -0.25)], threshold=0.5)
    add("at-threshold-one", "at-threshold threshold", "H2", [tensor([1, -1, 2], [-2, 1, -1])], threshold=1.0)
    add("at-threshold-sqrt", "at-threshold threshold", "H2", [tensor([2, -2], [1, 4])], threshold=2.0)
    add("beside-threshold", "threshold", "H2", [tensor(0.50390625, -0.498046875, 0.5)], threshold=0.5)
    add("ties", "ties count", "H1 H3", [tensor(2, -2, 2, 1)], count=1)
    add("ties-two-of-four", "ties count", "H1 H3", [tensor([1, -1], [1, 1])], count=2)
    add("ties-at-the-end", "ties count", "H1 H3", [tensor([3, 0.5, -0.5], [0.5, -7, 0.5])], count=4)
    add("ties-two-tensors", "ties count", "H1 H3", [tensor(1, -1, 0.5), tensor([1], [-1], [0.25])], count=1)
    add("ties-many", "ties count", "H1 H3", [np.round(4 * random.uniform(5, 8)) / 4], count=11)
    add("ties-of-zeros", "ties signs", "H1 H3 H4", [tensor(0, -0.0, 3, -0.0)], count=2)
    add("only-zeros", "ties signs", "H1 H3 H4", [tensor(-0.0, 0, -0.0)], count=1)
    add("column-order", "ties count", "H3", [tensor([1, 2, 1], [2, 1, 2])], count=2)
    add("large-negative", "signs count", "H1 H4", [tensor(-7, 1, -0.5, 2, -3)], count=3)
    add("large-negative-threshold", "signs threshold", "H2 H4", [tensor(-7, 1, -0.5, 2, -3)], threshold=1.5)
    add("count-none", "edge count", "H1 H4", [tensor(3, -4, 0.5)], count=0)
    add("count-all", "edge count signs", "H1 H4", [tensor(3, -0.0, 0.5)], count=3)
    add("count-more", "edge count", "H1", [tensor(3, -4, 0.5), tensor(1, 2, -7, 3, 0.1, 4)], count=4)
    add("threshold-zero", "edge threshold signs", "H2 H4", [tensor(3, -0.0, 0, -1e-4)], threshold=0.0)
    add("threshold-infinite", "edge threshold", "H2 H8", [tensor(3, -4, np.inf, -np.inf)], threshold="inf")
    add("threshold-large", "edge threshold", "H2", [tensor(3, -4, 0.5)], threshold=1000.0)
    add("threshold-small", "edge threshold", "H2", [tensor(3, -4e-3, 0.5)], threshold=1e-3)
    add("rounded-up", "sixteen-bits", "H6", [tensor(0.300048828125, -0.300048828125, 0.1)], ("float16",),
        threshold=0.3)
    add("rounded-down", "sixteen-bits", "H6", [tensor(0.0999755859375, 0.2)], ("float16",), threshold=0.1)
    add("rounded-up", "sixteen-bits", "H6", [tensor(0.10009765625, -0.10009765625, 0.2)], ("bfloat16",),
        threshold=0.1)
    add("nan-count", "nonfinite count", "H1 H5", [tensor(np.nan, -4, 0.5, 7)], count=2)
    add("nan-only-one-kept", "nonfinite count", "H5", [tensor(np.inf, np.nan, -4)], count=1)
    add("nan-ties", "nonfinite ties", "H3 H5", [tensor(np.nan, -4, np.nan)], count=1, dtypes=WIDE)
    add("nan-threshold", "nonfinite threshold", "H2 H5", [tensor(np.nan, -4, 0.5)], threshold=1.0)
    add("infinite", "nonfinite count", "H1 H4", [tensor(np.inf, -np.inf, 4, -7)], count=1)
    add("infinite-threshold", "nonfinite threshold", "H2 H4", [tensor(np.inf, -np.inf, 4, -7)], threshold=5.0)
    add("wide-range", "wide-range count", "H1", [random.spread(37), random.spread(5, 7)], count=9)
    add("wide-range-threshold", "wide-range threshold", "H2", [random.spread(37)], threshold=0.7)
    add("wider-range", "wide-range count", "H1", [random.spread(20, low=1e-30, high=1e30)], WIDE, count=7)
    common.add_dtypes_and_absence(common.bound(c, "H1 H7", "count", count=1))
    common.add_shapes(common.bound(c, "H1 H7", "count", count=3), random)
    add("zero-dimensional", "shapes threshold", "H2 H7", [np.array(-3.0), np.array(0.5)], threshold=1.0)
    refused = [tensor([3, -4], [0.5, 2])]
    add("neither", "range", "H8", refused, WIDE)
    add("both", "range", "H8", refused, WIDE, count=1, threshold=0.5)
    add("count-negative", "range", "H8", refused, WIDE, count=-1)
    add("threshold-negative", "range", "H8", refused, WIDE, threshold=-0.5)
    add("threshold-nan", "range", "H8", refused, WIDE, threshold="nan")
    # fmt: on


OPERATION = Operation(
    id="prox.hard_threshold",
    summary="Keep the largest magnitudes as they are, and make the rest zero.",
    formula="w ← w where |w| is among the count largest of its tensor, or above threshold; else 0",
    sources=(
        "T. Blumensath, M. E. Davies: Iterative thresholding for sparse approximations. J. Fourier Anal. Appl."
        " 14, 2008",
    ),
    constraints=CONSTRAINTS,
    inputs=regularization.INPUTS,
    outputs={"weights": "the list of weights after the step, each with its shape and dtype"},
    params=(projections.COUNT, projections.THRESHOLD),
    dials=projections.HARD_DIALS,
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why="Nothing is computed, only compared and chosen, so the bits are asked for.",
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    dialects={"torch": {"threshold_dtype": "input_dtype"}},
)
