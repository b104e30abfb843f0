"""``prune.clipped_gradient``: limit every element of a gradient, then drop the small ones."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, isnan
from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Cases, Stream, fixed, tensor
from conformance.exact import Reject, exact, real
from conformance.formats import Tensor, dtype_of, round_exact
from conformance.operation import Flag, Mistake, Operation, Param, Value, map_tensors, widest
from conformance.oracle import pruning

Settings = dict[str, Any]
Rule = Callable[[Any, float, float, Settings], Any]


def clipped_then_dropped(g: Any, limit: float, threshold: float, settings: Settings) -> Any:
    """g ← min(max(g, -limit), limit), then +0 where |g| <= threshold; NaN passes every comparison."""
    clipped = np.where(g > limit, limit, np.where(g < -limit, -limit, g))
    return np.where(_small(clipped, threshold, settings), 0.0, clipped)


def _small(g: Any, threshold: float, settings: Settings) -> Any:
    return np.abs(g) <= threshold if settings["compare"] == "le" else np.abs(g) < threshold


def oracle(
    inputs: dict[str, Any], settings: Settings, rule: Rule = clipped_then_dropped
) -> dict[str, Any]:
    """Apply the rule to each tensor in float64, which holds every number of it exactly."""
    bounds = [float(settings[name]) for name in ("limit", "threshold")]
    for name, bound in zip(("limit", "threshold"), bounds, strict=True):
        if isnan(bound) or bound < 0:
            raise Reject(f"{name} must be a number >= 0, got {bound}")

    def one(g: Tensor) -> Tensor | Value:
        limit, threshold = (float(round_exact(real(bound), widest([g]))) for bound in bounds)
        with np.errstate(all="ignore"):
            result = rule(g.astype(np.float64), limit, threshold, settings)
            result = np.asarray(result).astype(dtype_of(g.dtype.name))
        # Which zero min(-0, +0) returns is not laid down, so only the value is asked for.
        return Value(exact(result), g.dtype.name) if limit == 0 else result

    return {"grads": map_tensors(one, inputs["grads"])}


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """Nothing is computed, only chosen: the bits are asked for, except of the zeros of limit = 0."""
    return {"grads": 1}


def _mistaken(rule: Rule) -> Any:
    return lambda inputs, settings: oracle(inputs, settings, rule)


def _dropped_first(g: Any, limit: float, threshold: float, s: Settings) -> Any:
    kept = np.where(_small(g, threshold, s), 0.0, g)
    return clipped_then_dropped(kept, limit, -1.0, s)


def _clipped_only(g: Any, limit: float, threshold: float, s: Settings) -> Any:
    return clipped_then_dropped(g, limit, -1.0, s)


def _dropped_only(g: Any, limit: float, threshold: float, s: Settings) -> Any:
    return clipped_then_dropped(g, inf, threshold, s)


def _signed(g: Any, limit: float, threshold: float, s: Settings) -> Any:
    clipped = clipped_then_dropped(g, limit, -1.0, s)
    return np.where(clipped <= threshold, 0.0, clipped)


def _large_dropped(g: Any, limit: float, threshold: float, s: Settings) -> Any:
    return clipped_then_dropped(np.where(np.abs(g) > limit, 0.0, g), limit, threshold, s)


def _inverted(g: Any, limit: float, threshold: float, s: Settings) -> Any:
    clipped = clipped_then_dropped(g, limit, -1.0, s)
    return np.where(_small(clipped, threshold, s), clipped, 0.0)


def _shrunk(g: Any, limit: float, threshold: float, s: Settings) -> Any:
    kept = clipped_then_dropped(g, limit, threshold, s)
    return kept - np.where(kept == 0, 0.0, np.sign(kept) * threshold)


def _nan_dropped(g: Any, limit: float, threshold: float, s: Settings) -> Any:
    kept = clipped_then_dropped(g, limit, threshold, s)
    return np.where(np.isnan(kept), 0.0, kept)


MISTAKES = (
    Mistake("dropped first", "small elements are dropped before the limit, not after",
        _mistaken(_dropped_first)),
    Mistake("not dropped", "the threshold is ignored", _mistaken(_clipped_only)),
    Mistake("not clipped", "the limit is ignored", _mistaken(_dropped_only)),
    Mistake("abs forgotten", "every negative element is dropped", _mistaken(_signed)),
    Mistake("large ones dropped", "what exceeds the limit becomes zero", _mistaken(_large_dropped)),
    Mistake("inverted", "the large elements are dropped", _mistaken(_inverted)),
    Mistake("soft threshold", "what is kept shrinks by the threshold", _mistaken(_shrunk)),
    Mistake("NaN dropped", "a NaN becomes zero, which hides it", _mistaken(_nan_dropped)),
)  # fmt: skip

CONSTRAINTS = {
    "C1": "Each element is limited to [-limit, limit]; then it becomes +0 where |g| <= threshold.",
    "C2": "What the limit leaves and the threshold keeps comes back bit for bit.",
    "C3": "The threshold meets the limited element: a threshold at or above the limit drops everything.",
    "C4": "NaN stays NaN; an infinite element becomes the limit; limit = inf limits nothing.",
    "C5": "A negative or NaN limit or threshold is refused.",
    "C6": "Limit and threshold are rounded once: to float64 for float64 gradients, else to float32.",
    "C7": "An absent gradient stays absent; an empty list gives an empty list.",
    "C8": "Each output has the dtype and shape of its gradient; a limit is rounded to that dtype at the end.",
}

FLAGS = {
    "basic": Flag("BASIC", "Elements above the limit, between, and below the threshold."),
    "order": Flag("ORDER", "A threshold at or above the limit, where the order of the two steps shows."),
    "at-threshold": Flag("EDGE_CASE", "An element that equals threshold or limit."),
    "zeros": Flag("EDGE_CASE", "Zeros of either sign; a threshold or limit of zero."),
    "nonfinite": Flag("EDGE_CASE", "NaN and infinities among gradients, or an infinite bound."),
    "bad-bounds": Flag("EDGE_CASE", "A negative or NaN limit or threshold."),
    "rounded-bound": Flag("PRECISION", "A limit or threshold that the dtype cannot hold."),
    "beyond-dtype": Flag("OVERFLOW", "A limit beyond the gradients' dtype."),
    "subnormal": Flag("EDGE_CASE", "Subnormal gradients."),
    "absent": Flag("EDGE_CASE", "Absent gradients, an empty list."),
    "shapes": Flag("EDGE_CASE", "0-d, empty and many-dimensional tensors."),
    "mixed-dtypes": Flag("EDGE_CASE", "Several dtypes in one list."),
}  # fmt: skip


def cases(c: Cases) -> None:
    """Write the cases."""
    random = Stream(73)

    def add(
        name: str,
        flags: str,
        labels: str,
        grads: Any,
        limit: Any,
        threshold: Any,
        dtypes: Any = WIDE,
    ) -> None:
        c.add(
            name, flags, labels, {"grads": grads}, {"limit": limit, "threshold": threshold}, dtypes
        )

    # fmt: off
    two = [tensor([3, -1, 0.25], [-0.5, 2, -0.125]), tensor(-4, 0.0625, 1, -0.75)]
    add("basic", "basic", "C1 C2", two, 1.5, 0.375, ALL)
    add("loose", "basic", "C2", two, 16.0, 0.03125, ALL)
    add("only-limit", "basic zeros", "C1 C2", two, 0.75, 0.0, ALL)
    add("only-threshold", "basic nonfinite", "C1 C4", two, "inf", 0.75, ALL)
    add("integers", "basic", "C1", two, 2, 1, ALL)
    add("uneven", "basic", "C1 C2", [random.uniform(5, 7), random.spread(9)], 0.625, 0.25)
    add("threshold-at-limit", "order at-threshold", "C3", two, 0.75, 0.75, ALL)
    add("threshold-above-limit", "order", "C3", two, 0.5, 1.25, ALL)
    add("threshold-just-below-limit", "order", "C3", two, 0.75, 0.74609375, ALL)
    add("tenth-and-tenth", "order rounded-bound", "C3 C6", [tensor(3, -0.5, 0.05)], 0.1, 0.1, ALL)
    add("at-threshold", "at-threshold", "C1", [tensor(0.5, -0.5, 0.75, -0.25), tensor([2, -2.0])], 2.0,
        0.5, ALL)
    add("one-step-off", "at-threshold", "C1", [tensor(0.50390625, -0.50390625, 0.498046875, 0.5)], 2.0,
        0.5, ALL)
    add("zeros", "zeros", "C1 C2", [tensor(0, -0.0, 3, -0.5), tensor([-0.0], [1])], 1.0, 0.25, ALL)
    add("zero-threshold", "zeros at-threshold", "C1", [tensor(0, -0.0, 1e-4, -2)], 1.0, 0.0, ALL)
    add("zero-limit", "zeros order", "C1 C3", [tensor(0, -0.0, 3, -0.5)], 0.0, 0.0, ALL)
    add("nonfinite", "nonfinite", "C4", [tensor(np.nan, np.inf, -np.inf, 0.25, -3), tensor([np.nan])],
        2.0, 0.5, ALL)
    add("nonfinite-unlimited", "nonfinite", "C4", [tensor(np.nan, np.inf, -np.inf, 0.25, -3)], "inf", 0.5, ALL)
    add("infinite-threshold", "nonfinite order", "C3 C4", [tensor(np.nan, np.inf, 3, -0.5)], 2.0, "inf", ALL)
    for name, bound in (("negative", -0.5), ("nan", "nan"), ("minus-inf", "-inf")):
        add(f"limit-{name}", "bad-bounds", "C5", two, bound, 0.25)
        add(f"threshold-{name}", "bad-bounds", "C5", two, 1.0, bound)
    add("tenths", "rounded-bound", "C6 C8", [tensor(0.3, -0.7, 0.5, 0.1, 0.3000001)], 0.7, 0.3, ALL)
    add("thirds", "rounded-bound", "C6 C8", [tensor(0.75, -0.3333333, 0.25, 1 / 3)], 2 / 3, 1 / 3, ALL)
    add("limit-between-halves", "rounded-bound", "C8", [tensor(3, -3, 0.5)], 1.00048828125, 0.25, ("float16",))
    add("beyond-float16", "beyond-dtype", "C8", [tensor(-6e4, np.inf, 1)], 1e5, 2.0, ("float16",))
    add("beyond-float32", "beyond-dtype", "C8", [tensor(-3e38, np.inf, 1)], 1e39, 2.0, ("float32", "bfloat16"))
    add("tiny-threshold", "beyond-dtype rounded-bound", "C6", [tensor(1e-30, 0, 1e-7)], 1.0, 1e-50, ALL)
    add("subnormal", "subnormal", "C1 C2", [tensor(1e-45, -1e-40, 3e-40, 2)], 1.0, 1e-40, ("float32",))
    add("subnormal", "subnormal", "C1 C2", [tensor(6e-8, -2e-6, 2)], 1.0, 1e-6, ("float16",))
    add("subnormal", "subnormal", "C1 C2", [tensor(5e-324, -1e-310, 3e-310, 2)], 1.0, 2e-310, ("float64",))
    add("absent", "absent", "C7", [None, tensor(3, -0.25), None], 1.0, 0.5, ALL)
    add("all-absent", "absent", "C7", [None], 1.0, 0.5, ("float32",))
    add("empty-list", "absent", "C7", [], 1.0, 0.5, ("float32",))
    add("shapes", "shapes", "C8", [np.array(-0.5), random.uniform(2, 1, 3), np.zeros((0, 4)), np.array(3.0)],
        0.625, 0.25, ALL)
    add("mixed-dtypes", "mixed-dtypes", "C6 C8", [fixed([3, -0.1, 0.05], "float16"), fixed([[0.1], [-7]],
        "bfloat16"), tensor(0.1, -0.3, 0.2)], 0.3, 0.1, ALL)
    # fmt: on


OPERATION = Operation(
    id="prune.clipped_gradient",
    summary="Limit every element of every gradient, then make the small ones zero.",
    formula="g ← min(max(g, -limit), limit);  g ← 0 where |g| <= threshold",
    sources=(
        "A. F. Aji, K. Heafield: Sparse communication for distributed gradient descent. EMNLP 2017 (dropping"
        " small gradients)",
        "X. Ye, P. Dai, J. Luo, X. Guo, Y. Qi, J. Yang, Y. Chen: Accelerating CNN training by pruning"
        " activation gradients. ECCV 2020",
    ),
    constraints=CONSTRAINTS,
    inputs={"grads": "list of float tensors of any shapes; null is an absent gradient"},
    outputs={"grads": "the list, limited and thinned out"},
    params=(
        Param("limit", "c >= 0 of the interval [-c, c], in the units of the gradient; inf: none",
        required=True),
        Param("threshold", "at or below it |g| becomes zero: >= 0, in the units of the gradient",
        required=True),
    ),
    dials=(pruning.COMPARE,),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why="Nothing is computed, only chosen: the bits must be right. limit = 0 leaves its sign open.",
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
)  # fmt: skip
