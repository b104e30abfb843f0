"""``prox.group_lasso``: the soft threshold of whole groups, which become zero together."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Cases, Stream, tensor
from conformance.exact import ONE, ZERO, Real, each, exact, real
from conformance.formats import FLOATS
from conformance.operation import Flag, Mistake, Operation, Value, map_tensors
from conformance.operations import _regularization_cases as common
from conformance.oracle import groups, regularization
from conformance.oracle.regularization import Settings, soft


def oracle(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """w·max(0, 1 - t/‖w_group‖) with t = strength·step."""
    regularization.real_floats(inputs["weights"])
    regularization.non_negative(settings, "strength", "step")
    ulps = tolerance(inputs, settings)["weights"]
    return {"weights": map_tensors(lambda w: groups.shrunk(w, settings, ulps), inputs["weights"])}


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """ULP allowed (see WHY)."""
    given = [w for w in inputs["weights"] if w is not None]
    wide = max((FLOATS[w.dtype.name].precision for w in given), default=24)
    return {"weights": (groups.norm_ulps(inputs, settings) if wide >= 24 else 1) + 9}


WHY = (
    f"{groups.NORM_WHY} The threshold: rounding strength, step and the root of the size and multiplying"
    " them, 5. Dividing by the norm, subtracting from 1, multiplying by the weight and 16 bits, 4, all of"
    " |w|·(1 + t/‖w_group‖). The norm of 16-bit weights is computed in float32 and may be rounded once. A"
    " group that t exceeds by more than that must be zero. Where no operation"
    " rounds the bits are compared, so that zero is +0."
)


def _maps(change: Any) -> Any:
    """Return a mistake: another map of each weight, its group's norm, and the threshold."""

    def mistaken(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        regularization.non_negative(settings, "strength", "step")
        t = real(float(settings["strength"])) * real(float(settings["step"]))

        def one(w: Any) -> Any:
            if not w.size:
                return w
            n = groups.norms(w, settings)
            return Value(each(lambda x, m: change(x, m, t), exact(w), n), w.dtype.name)

        return {"weights": map_tensors(one, inputs["weights"])}

    return mistaken


def _scope(change: Any) -> Any:
    """Return a mistake that sees other groups."""

    def mistaken(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        def one(w: Any) -> Any:
            other = change(w, groups.group_axes(w, settings))
            return oracle({"weights": [w]}, settings | {"axis": other})["weights"][0]

        return {"weights": map_tensors(one, inputs["weights"])}

    return mistaken


def _ratio(t: Real, n: Real) -> Real:
    return ZERO if n == 0 else t / n


MISTAKES = (
    Mistake("step ignored", "the threshold is strength", lambda i, s: oracle(i, s | {"step": 1.0}),
            ("IntelLabs/distiller#289",)),
    Mistake("strength ignored", "the threshold is step", lambda i, s: oracle(i, s | {"strength": 1.0})),
    Mistake("other axes", "the norms run over the axis that indexes the groups",
            _scope(lambda w, axes: [a for a in range(w.ndim) if a not in axes])),
    Mistake("one group", "each tensor is one group", _scope(lambda w, axes: [])),
    Mistake("elements", "every weight is thresholded by itself", _maps(lambda x, n, t: soft(x, t))),
    Mistake("no maximum with 0", "groups below the threshold change their sign",
            _maps(lambda x, n, t: x * (ONE - _ratio(t, n)))),
    Mistake("hard threshold", "groups that stay are not shrunk",
            _maps(lambda x, n, t: ZERO if n <= t else x)),
    Mistake("squared norm", "the factor is 1 - t/‖w_group‖²",
            _maps(lambda x, n, t: x * max(ZERO, ONE - _ratio(t, n * n)) if n == n else n)),
    Mistake("zero over zero", "a zero group becomes NaN",
            _maps(lambda x, n, t: real(float("nan")) if n == 0 else ZERO if n <= t else x * (1 - t / n))),
    Mistake("ratio for difference", "w·(1 - t): groups shrink and stay",
            _maps(lambda x, n, t: x * (1 - t))),
    Mistake("root of the size", "a group's threshold grows with its size",
            lambda i, s: oracle(i, s | {"size_weight": "sqrt_size"})),
)  # fmt: skip

CONSTRAINTS = {
    "X1": "The weights of a group with norm n > t = strength·step are multiplied by 1 - t/n.",
    "X2": "A group with n <= t becomes zero as a whole, n = t included.",
    "X3": "That zero is +0.0, whatever the sign of the weight.",
    "X4": "axis indexes the groups, the norms run over all other axes; negative axes count from the end; no"
    " axis makes the tensor one group, every axis each element (then it is the soft threshold).",
    "X5": "Each output has the dtype and shape of its weight; 16 bits are computed in float32. A norm is"
    " right whenever it is representable, squares that are not notwithstanding.",
    "X6": "An absent weight stays absent; empty tensors are allowed.",
    "X7": "strength and step are finite and >= 0 and every axis exists, once, else a refusal; t = 0 leaves"
    " the weights as they are.",
    "X8": "A NaN makes its whole group NaN; beside an infinite weight the others of its group stay.",
}

FLAGS = {
    "basic": Flag("BASIC", "Groups on both sides of the threshold."),
    "at-threshold": Flag("KNOWN_BUG", "Groups whose norm is the threshold exactly.",
                         ("IntelLabs/distiller#289",)),
    "exact": Flag("EDGE_CASE", "Nothing is rounded, so every bit counts, the sign of zero included."),
    "product": Flag("BASIC", "The threshold is the product of strength and step."),
    "axes": Flag("EDGE_CASE", "Negative axes, several, none, all."),
    "zero-group": Flag("EDGE_CASE", "A group of zeros."),
    "size": Flag("DIALECT", "Groups of several sizes, where weighing by the size shows."),
    "extreme": Flag("OVERFLOW", "Norms whose squares are not representable."),
    "cancellation": Flag("PRECISION", "Norms just above the threshold."),
    "zero-threshold": Flag("EDGE_CASE", "strength or step is 0."),
    **common.FLAGS,
}  # fmt: skip


def cases(c: Cases) -> None:
    """Write the cases."""
    # fmt: off

    def add(name: str, flags: str, labels: str, weights: Any, strength: Any, step: Any, axis: Any = 0,
            dtypes: Any = ALL) -> None:
        params = {"strength": strength, "step": step, "axis": axis}
        c.add(name, flags, labels, {"weights": weights}, params, dtypes)

    random = Stream(75)
    matrix = tensor([3, -4, 0.25], [0.1, -0.2, 0.1])
    add("rows", "basic", "X1 X2 X4", [matrix], 0.7, 0.9)
    add("columns", "basic", "X1 X2 X4", [matrix], 0.7, 0.9, 1)
    add("two-tensors", "basic", "X1 X2", [random.uniform(3, 4), random.uniform(4, 2)], 0.9, 1.3)
    add("shrink-by-a-fifth", "basic", "X1", [tensor([3, 4])], 1.0, 1.0)
    add("exact", "exact basic", "X1 X2 X3", [tensor([6, -8], [0.75, 1], [-0.25, 0])], 5.0, 0.5)
    add("exact-columns", "exact", "X1 X2 X3", [tensor([3, 0.5, 0], [-4, 0, 1])], 2.5, 1.0, 1)
    add("at-threshold", "at-threshold exact", "X2 X3", [tensor([3, -4], [-0.5, 0.25])], 5.0, 1.0)
    add("at-threshold-columns", "at-threshold exact", "X1 X2 X3", [tensor([0.75, 6], [-1, -8])], 2.5, 0.5, 1)
    add("at-threshold-thirteen", "at-threshold exact", "X2 X3", [tensor([3, -4, 12], [-2, 3, 6])], 26.0, 0.5)
    add("at-threshold-decimal", "at-threshold", "X2", [tensor([0.3, 0.4], [3, 1])], 0.5, 1.0)
    add("strength-times-step", "product", "X1", [matrix], 4.0, 0.1)
    add("small-step", "product", "X1 X2", [matrix], 0.5, 1e-3)
    add("large-strength", "product", "X1 X2", [tensor([300, -400], [3, 7])], 1000.0, 0.0625)
    add("last-axis", "axes", "X4", [random.uniform(2, 3, 4)], 1.1, 0.9, -1)
    add("middle-axis", "axes", "X4", [random.uniform(2, 3, 4)], 1.3, 0.9, 1)
    add("two-axes", "axes", "X4", [random.uniform(2, 3, 4)], 0.9, 0.8, [0, 2])
    add("two-axes-negative", "axes", "X4", [random.uniform(3, 2, 2)], 0.9, 0.7, [-1, 0])
    add("no-axis", "axes", "X4", [tensor([3, -4], [12, 0.5])], 0.3, 0.7, [])
    add("every-axis", "axes exact", "X3 X4", [tensor([3, -4], [0, 0.5])], 0.5, 1.0, [0, 1])
    add("vector", "axes", "X4", [tensor(3, -4, 0.1)], 0.3, 0.7)
    add("zero-group", "zero-group exact", "X2 X3", [tensor([0, -0.0], [3, -4])], 2.5, 1.0)
    add("zero-group-rounded", "zero-group", "X1 X2", [tensor([0, 0], [3, -1])], 0.3, 0.7)
    add("only-zeros", "zero-group", "X2", [np.zeros((3, 2))], 0.3, 0.7, 1)
    add("zero-group-zero-threshold", "zero-group zero-threshold", "X2 X7", [tensor([0, 0], [3, -1])], 0.0, 0.7)
    add("sizes", "size", "X1 X2", [tensor([3, 4]), tensor([1, -2, 2, 4, -2, 0.5, 1, 3, -1])], 1.0, 1.1)
    add("sizes-of-four", "size exact", "X1 X2 X3", [tensor([1, -1, 1, 1], [2, 2, -2, 2])], 1.0, 1.0)
    add("size-decides", "size", "X1 X2", [tensor([0.3, -0.4, 0.1, 0.2, 0.3]), tensor([0.5], [0.1])], 0.5, 0.7)
    add("squares-overflow", "extreme", "X5", [tensor([3e30, -4e30], [0.5, 1])], 0.25, 0.7, 0,
        ("float32", "bfloat16"))
    add("squares-overflow", "extreme", "X5", [tensor([3e200, -4e200], [0.5, 1])], 0.25, 0.7, 0, ("float64",))
    add("squares-underflow", "extreme", "X5", [tensor([3e-30, -4e-30], [1e-30, 1e-30])], 2.5e-30, 0.7, 0,
        ("float32", "bfloat16"))
    add("squares-beyond-float16", "extreme", "X5", [tensor([300, -400, 9], [0.5, 2, -1])], 3.0, 0.9)
    add("just-above", "cancellation", "X1", [tensor([3.03125, -4], [1, 2])], 5.0, 1.0)
    add("far-above", "cancellation", "X1", [tensor([1000, -2048], [3, 1])], 0.1, 0.01)
    add("beside-threshold", "cancellation at-threshold", "X1 X2", [tensor([3.03125, -4], [2.96875, 4])], 10.0,
        0.5)
    add("zero-strength", "zero-threshold", "X7", [matrix], 0.0, 0.1)
    add("zero-step", "zero-threshold", "X7", [matrix], 0.1, 0.0, 1)
    add("nan-weight", "nonfinite", "X8", [tensor([np.nan, -4], [3, -1])], 0.5, 0.9)
    add("infinite-weight", "nonfinite", "X8", [tensor([np.inf, -4], [3, -1])], 0.5, 0.9)
    add("nan-and-zero", "nonfinite zero-group", "X8", [tensor([np.nan, 0], [0, 0])], 0.5, 0.9, 1, WIDE)
    add("wide-range", "wide-range", "X1 X2", [random.spread(5, 7), random.spread(3, 4)], 30.0, 0.7)
    add("wide-range-columns", "wide-range", "X1 X2", [random.spread(6, 5)], 30.0, 0.7, 1)
    add("wider-range", "wide-range", "X1 X2", [random.spread(9, 3, low=1e-10, high=1e10)], 3.0, 0.7, 0, WIDE)
    given: dict[str, Any] = {"strength": 1.3, "step": 0.7, "axis": 0}
    common.add_dtypes_and_absence(common.bound(c, "X5 X6", **given))
    common.add_shapes(common.bound(c, "X1 X2 X6", **(given | {"axis": 1})), random)
    common.add_refusals(common.bound(c, "X7"), given, "strength", "step")
    for name, axis in (("beyond", 2), ("before", -3), ("twice", [0, -2])):
        add(f"axis-{name}", "range axes", "X7", [tensor([3, -4], [0.5, 2])], 0.3, 0.7, axis, WIDE)
    # fmt: on


OPERATION = Operation(
    id="prox.group_lasso",
    summary="Shorten every group of weights by a threshold, and stop at zero.",
    formula="w ← w·max(0, 1 - t/‖w_group‖),  t = strength·step",
    sources=(
        "M. Yuan, Y. Lin: Model selection and estimation in regression with grouped variables. J. R. Stat. Soc."
        " B 68, 2006",
        "N. Parikh, S. Boyd: Proximal algorithms. Foundations and Trends in Optimization 1, 2014",
    ),
    constraints=CONSTRAINTS,
    inputs=regularization.INPUTS,
    outputs={"weights": "the list of weights after the step, each with its shape and dtype"},
    params=(regularization.STRENGTH, regularization.STEP, groups.AXIS),
    dials=(groups.SIZE_WEIGHT, regularization.ZERO_SIGN),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=WHY,
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
)
