"""``penalty.group_lasso``: λ·Σ‖w_group‖, which makes whole groups zero together."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Cases, Stream, tensor
from conformance.exact import ZERO, each, exact, full, magnitude, real, total
from conformance.formats import FLOATS
from conformance.operation import (
    Flag,
    Mistake,
    Operation,
    Value,
    map_tensors,
    widest,
)
from conformance.operations import _regularization_cases as common
from conformance.oracle import groups, regularization
from conformance.oracle.regularization import Settings, sign


def oracle(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """λ·Σ‖w_group‖ over all groups of all tensors;  λ·w/‖w_group‖, 0 in a zero group."""
    regularization.real_floats(inputs["weights"])
    return _penalty(inputs, settings)


def _penalty(
    inputs: dict[str, Any],
    settings: Settings,
    term: Any = lambda n: n,
    slope: Any = lambda x, n: ZERO if n == 0 else x / n,
) -> dict[str, Any]:
    regularization.non_negative(settings, "strength")
    strength = real(float(settings["strength"]))
    values: list[Any] = []
    grads: list[Value | None] = []
    for w in inputs["weights"]:
        if w is None:
            grads.append(None)
            continue
        norms = groups.norms(w, settings)
        factor = strength * groups.size_factor(w, settings)
        values += [factor * term(n) for n in norms.ravel()]
        scaled = factor * each(slope, exact(w), norms) if w.size else exact(w)
        grads.append(Value(scaled, w.dtype.name))
    return {"value": Value(full((), total(values)), widest(inputs)), "grads": grads}


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """ULP allowed per output (see WHY)."""
    ulps, count = groups.norm_ulps(inputs, settings), 0
    for w in inputs["weights"]:
        count += 0 if w is None else w.size // max(groups.group_size(w, settings), 1)
    wide = max(FLOATS[w.dtype.name].precision for w in inputs["weights"] if w is not None)
    return {"value": ulps + count + 4, "grads": ulps + 5 if wide >= 24 else 2}


WHY = (
    f"{groups.NORM_WHY} Adding the norms of G groups adds G-1, rounding λ and the root of the size, their"
    " product and that with the sum 4. An element of the gradient divides by its norm instead of adding: 5"
    " in all. 16-bit weights are computed in float32: rounding once is half an ULP, the rest far below another."
)


def _scope(change: Any) -> Any:
    """Return a mistake that sees other groups."""

    def mistaken(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        results = []
        for w in inputs["weights"]:
            axes = [] if w is None else groups.group_axes(w, settings)
            other = change(w, axes)
            results.append(oracle({"weights": [w]}, settings | {"axis": other}))
        value = total(r["value"].exact[()] for r in results)
        grads = [r["grads"][0] for r in results]
        return {"value": Value(full((), value), widest(inputs)), "grads": grads}

    return mistaken


def _others(w: Any, axes: Any) -> list[int]:
    return [] if w is None else [a for a in range(w.ndim) if a not in axes]


def _joint(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """One root over the groups of all tensors."""
    result = oracle(inputs, settings)
    strength = real(float(settings["strength"]))
    squares = total(x * x for w in inputs["weights"] if w is not None for x in exact(w).ravel())
    value = full((), strength * squares ** real(0.5))
    return result | {"value": Value(value, result["value"].dtype)}


def _no_guard(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    return _penalty(inputs, settings, slope=lambda x, n: real(float("nan")) if n == 0 else x / n)


def _magnitudes(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Σ|w| with its signs: λ·‖w_group‖₁."""
    result = oracle(inputs, settings)
    strength = real(float(settings["strength"]))
    summed = total(
        x for w in inputs["weights"] if w is not None for x in magnitude(exact(w)).ravel()
    )
    grads = map_tensors(
        lambda w: Value(each(lambda x: strength * sign(x), exact(w)), w.dtype.name),
        inputs["weights"],
    )
    return {"value": Value(full((), strength * summed), result["value"].dtype), "grads": grads}


MISTAKES = (
    Mistake("other axes", "the norms run over the axis that indexes the groups", _scope(_others)),
    Mistake("one group", "each tensor is one group", _scope(lambda w, axes: [])),
    Mistake("elements", "each element is a group",
            _scope(lambda w, axes: [] if w is None else list(range(w.ndim)))),
    Mistake("squared norms", "λ·Σ‖w_group‖² with the gradient 2·λ·w",
            lambda i, s: _penalty(i, s, lambda n: n * n, lambda x, n: 2 * x)),
    Mistake("one root over all", "λ·√Σ‖w_group‖²", _joint),
    Mistake("magnitudes", "λ·Σ‖w_group‖₁: the L1 penalty", _magnitudes),
    Mistake("zero over zero", "a zero group has a NaN gradient", _no_guard,
            ("tensorflow/tensorflow#22048",)),
    Mistake("weight instead of direction", "the gradient is λ·w",
            lambda i, s: _penalty(i, s, slope=lambda x, n: x)),
    Mistake("no effect on the gradient", "the value is reported and not differentiated",
            lambda i, s: _penalty(i, s, slope=lambda x, n: ZERO), ("PaddlePaddle/Paddle#5836",)),
    Mistake("once per replica", "two replicas add the whole penalty each",
            lambda i, s: oracle(i, s | {"strength": 2 * float(s["strength"])}),
            ("tensorflow/models#6195", "tensorflow/tensorflow#29873")),
    Mistake("size weighs fully", "a group counts times its size",
            lambda i, s: _sized(i, s)),
)  # fmt: skip


def _sized(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    results = []
    for w in inputs["weights"]:
        size = 1 if w is None else groups.group_size(w, settings)
        strength = float(settings["strength"]) * size
        results.append(oracle({"weights": [w]}, settings | {"strength": strength}))
    value = total(r["value"].exact[()] for r in results)
    return {
        "value": Value(full((), value), widest(inputs)),
        "grads": [r["grads"][0] for r in results],
    }


CONSTRAINTS = {
    "G1": "The value is λ times the sum of the 2-norms of all groups of all tensors.",
    "G2": "The gradient of a weight is λ·w divided by the norm of its group.",
    "G3": "The gradient in a group of zeros is 0: the subgradient of least norm.",
    "G4": "axis indexes the groups, the norms run over all other axes; negative axes count from the end; no"
    " axis makes the tensor one group, every axis each element.",
    "G5": "The value is 0-d, float64 if any weight is float64, else float32; gradients have the dtype of"
    " their weight. A norm is right whenever it is representable, squares that are not notwithstanding.",
    "G6": "An absent weight counts nothing and has no gradient; an empty one counts 0.",
    "G7": "λ is finite and >= 0 and every axis exists, once, else a refusal.",
    "G8": "A NaN makes the value and the gradient of its whole group NaN; other groups do not see it.",
}

FLAGS = {
    "basic": Flag("BASIC", "Groups of different norms."),
    "two-tensors": Flag("BASIC", "Several tensors, one value."),
    "axes": Flag("EDGE_CASE", "Negative axes, several, none, all."),
    "zero-group": Flag("KNOWN_BUG", "A group of zeros, where the norm has no derivative.",
                       ("tensorflow/tensorflow#22048",)),
    "size": Flag("DIALECT", "Groups of several sizes, where weighing by the size shows."),
    "extreme": Flag("OVERFLOW", "Norms whose squares are not representable."),
    "sixteen-bits": Flag("PRECISION", "Squares beyond the precision or the range of 16 bits."),
    "zero-strength": Flag("EDGE_CASE", "λ = 0."),
    **common.FLAGS,
}  # fmt: skip


def cases(c: Cases) -> None:
    """Write the cases."""
    # fmt: off

    def add(name: str, flags: str, labels: str, weights: Any, strength: Any, axis: Any,
            dtypes: Any = ALL) -> None:
        c.add(name, flags, labels, {"weights": weights}, {"strength": strength, "axis": axis}, dtypes)

    random = Stream(72)
    matrix = tensor([3, -4, 0], [0.5, 1, -2])
    add("rows", "basic", "G1 G2 G4", [matrix], 0.1, 0)
    add("columns", "basic", "G1 G2 G4", [matrix], 0.1, 1)
    add("three-four-five", "basic", "G1 G2", [tensor([3, -4], [0, 1])], 0.5, 0)
    add("two-tensors", "two-tensors", "G1 G2", [random.uniform(2, 5), random.uniform(4, 3)], 0.3, 0)
    add("two-columns", "two-tensors size", "G1 G2", [random.uniform(2, 3), random.uniform(5, 2)], 0.7, 1)
    add("sizes", "size two-tensors", "G1", [tensor([3, 4]), tensor([1, -2, 2, 4, -2, 0.5, 1, 3, -1])], 0.2, 0)
    add("sizes-of-one", "size", "G1 G2", [tensor([3.0], [-0.5], [2.0]), random.uniform(3, 8)], 0.2, 0)
    add("last-axis", "axes", "G4", [random.uniform(2, 3, 4)], 0.3, -1)
    add("first-axis-from-the-end", "axes", "G4", [tensor([3, -4, 0.5], [12, 0.5, -2])], 0.3, -2)
    add("middle-axis", "axes", "G4", [random.uniform(2, 3, 4)], 0.3, 1)
    add("two-axes", "axes", "G4", [random.uniform(2, 3, 4)], 0.3, [0, 2])
    add("two-axes-negative", "axes", "G4", [random.uniform(3, 2, 2)], 0.3, [-1, 0])
    add("no-axis", "axes", "G4", [tensor([3, -4], [12, 0.5])], 0.3, [])
    add("every-axis", "axes zero-group", "G3 G4", [tensor([3, -4], [0, 0.5])], 0.3, [0, 1])
    add("vector", "axes", "G4", [tensor(3, -4, 0.5)], 0.3, 0)
    add("zero-group", "zero-group", "G3", [tensor([0, 0], [3, -1])], 0.5, 0)
    add("minus-zero-group", "zero-group", "G3", [tensor([0, -0.0, 3], [0, 0, -1])], 0.5, 1)
    add("only-zeros", "zero-group", "G3", [np.zeros((3, 2))], 0.5, 0)
    add("one-left", "zero-group", "G2 G3", [tensor([0, 1e-3, 0], [0, 0, 0])], 0.3, 0)
    add("squares-overflow", "extreme", "G5", [tensor([3e30, -4e30], [0.5, 1])], 0.25, 0,
        ("float32", "bfloat16"))
    add("squares-overflow", "extreme", "G5", [tensor([3e200, -4e200], [0.5, 1])], 0.25, 0, ("float64",))
    add("squares-underflow", "extreme", "G5", [tensor([3e-30, -4e-30], [1e-30, 2e-30])], 0.5, 0,
        ("float32", "bfloat16"))
    add("squares-underflow", "extreme", "G5", [tensor([3e-200, -4e-200], [1e-200, 0])], 0.5, 0, ("float64",))
    add("squares-beyond-float16", "sixteen-bits", "G5", [tensor([300, -400, 9], [0.5, 2, -1])], 0.1, 0)
    add("squares-below-float16", "sixteen-bits", "G5", [tensor([1e-4, -3e-5], [2e-4, 7e-5])], 0.5, 0)
    add("long-groups", "sixteen-bits", "G1 G5", [random.uniform(2, 80, low=0.5)], 0.5, 0)
    add("zero-strength", "zero-strength", "G7", [matrix], 0.0, 0)
    add("zero-strength-two", "zero-strength two-tensors", "G7", [matrix, tensor([0, 0.0])], 0.0, 0, WIDE)
    add("zero-strength-columns", "zero-strength zero-group", "G3 G7", [tensor([0, 2], [0, 1])], 0.0, 1, WIDE)
    add("nan-weight", "nonfinite", "G8", [tensor([np.nan, -4], [3, -1])], 0.1, 0)
    add("infinite-weight", "nonfinite", "G8", [tensor([np.inf, -4], [3, -1])], 0.1, 0)
    add("nan-and-zero", "nonfinite zero-group", "G3 G8", [tensor([np.nan, 0], [0, 0])], 0.1, 1, WIDE)
    add("wide-range", "wide-range", "G1 G2", [random.spread(5, 7), random.spread(3, 4)], 0.3, 0)
    add("wide-range-columns", "wide-range", "G1 G2", [random.spread(6, 5)], 0.3, 1)
    add("wider-range", "wide-range", "G1 G2", [random.spread(4, 6, low=1e-10, high=1e10)], 0.3, 1, WIDE)
    given: dict[str, Any] = {"strength": 0.3, "axis": 0}
    common.add_dtypes_and_absence(common.bound(c, "G5 G6", **given))
    common.add_shapes(common.bound(c, "G1 G2 G6", **(given | {"axis": 1})), random)
    common.add_refusals(common.bound(c, "G7"), given, "strength")
    for name, axis in (("beyond", 2), ("before", -3), ("twice", [0, -2]), ("one-beyond", [0, 5])):
        add(f"axis-{name}", "range axes", "G7", [tensor([3, -4], [0.5, 2])], 0.3, axis, WIDE)
    add("axis-of-zero-dimensional", "range axes", "G7", [np.array(3.0)], 0.3, 0, WIDE)
    # fmt: on


OPERATION = Operation(
    id="penalty.group_lasso",
    summary="The sum of the norms of groups of weights, times a strength, and its subgradient.",
    formula="value = λ·Σ‖w_group‖;  gradient = λ·w/‖w_group‖",
    sources=(
        "M. Yuan, Y. Lin: Model selection and estimation in regression with grouped variables. J. R. Stat. Soc."
        " B 68, 2006",
    ),
    constraints=CONSTRAINTS,
    inputs=regularization.INPUTS,
    outputs=regularization.OUTPUTS,
    params=(regularization.STRENGTH, groups.AXIS),
    dials=(groups.SIZE_WEIGHT,),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=WHY,
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    dialects={"torch": {}},
)
