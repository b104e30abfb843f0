"""``penalty.l1``: λ·Σ|w| and its subgradient λ·sign(w), which pushes weights towards zero."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Cases, Stream, fixed, tensor
from conformance.exact import ONE, each, exact, real
from conformance.operation import Flag, Mistake, Operation, Value, map_tensors, sizes
from conformance.oracle import regularization
from conformance.oracle.regularization import Settings, sign


def oracle(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """λ·Σ|w| over all weights;  λ·sign(w)."""
    regularization.non_negative(settings, "strength")
    strength = regularization.strength(settings)
    at_zero = strength if settings["sign_of_zero"] == "plus_one" else 0 * strength
    return regularization.penalty(
        inputs["weights"],
        lambda x: strength * abs(x),
        lambda x: at_zero if x == 0 else strength * sign(x),
    )


def _slope(change: Any) -> Any:
    def mistaken(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        result = oracle(inputs, settings)
        strength = real(float(settings["strength"]))
        grads = map_tensors(
            lambda w: Value(each(lambda x: change(x, strength), exact(w)), w.dtype.name),
            inputs["weights"],
        )
        return result | {"grads": grads}

    return mistaken


def _value(change: Any) -> Any:
    def mistaken(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        result = oracle(inputs, settings)
        value = result["value"]
        return result | {"value": Value(change(value.exact, inputs, settings), value.dtype)}

    return mistaken


def _plain_sum(value: Any, inputs: Any, settings: Settings) -> Any:
    total = sum(x for w in inputs["weights"] if w is not None for x in exact(w).ravel())
    return np.array(total * real(float(settings["strength"])), dtype=object)


def _squares(value: Any, inputs: Any, settings: Settings) -> Any:
    total = sum(x * x for w in inputs["weights"] if w is not None for x in exact(w).ravel())
    return np.array(total * real(float(settings["strength"])), dtype=object)


def _mean(value: Any, inputs: Any, settings: Settings) -> Any:
    return value / max(sizes(inputs), 1)


def first_only(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Only the first tensor counts."""
    value = oracle({"weights": inputs["weights"][:1]}, settings)["value"]
    return oracle(inputs, settings) | {"value": value}


LINKS = ("Eric-mingjie/network-slimming#19", "foolwood/pytorch-slimming#3")
MISTAKES = (
    Mistake("magnitude forgotten", "the value is λ·Σw", _value(_plain_sum), LINKS),
    Mistake("squares for magnitudes", "the value is λ·Σw²", _value(_squares)),
    Mistake("mean for sum", "the value is divided by the number of weights", _value(_mean)),
    Mistake("term missing from the loss", "the value is 0", _value(lambda v, i, s: 0 * v), LINKS),
    Mistake("only the first tensor", "the others do not count", first_only),
    Mistake("weight for sign", "the gradient is λ·w", _slope(lambda x, s: s * x)),
    Mistake("sign forgotten", "the gradient is λ everywhere", _slope(lambda x, s: s * ONE), LINKS),
    Mistake("strength forgotten", "the gradient is sign(w)", _slope(lambda x, s: sign(x))),
    Mistake("opposite sign", "weights grow", _slope(lambda x, s: -s * sign(x))),
)

CONSTRAINTS = {
    "L1": "The value is λ·Σ|w| over all elements of all tensors: a sum, not a mean.",
    "L2": "The gradient is λ·sign(w), in the dtype and shape of its weight.",
    "L3": "At w = 0 (also -0.0) the gradient is 0.",
    "L4": "The value is 0-d, float64 if any weight is float64, else float32; 16 bits are summed in float32.",
    "L5": "An absent weight counts nothing and has no gradient; an empty one counts 0.",
    "L6": "λ is finite and >= 0, else a refusal; λ = 0 gives zeros.",
    "L7": "A NaN weight makes the value and its own gradient NaN; an infinite one has gradient ±λ.",
}

FLAGS = {
    "basic": Flag("BASIC", "Weights of both signs."),
    "two-tensors": Flag("BASIC", "Several tensors, one value."),
    "at-zero": Flag("KNOWN_BUG", "Weights that are zero: the subgradient is a choice.",
                    ("Eric-mingjie/network-slimming#19", "Eric-mingjie/network-slimming#1")),
    "sixteen-bits": Flag("PRECISION", "A sum beyond the precision or the range of 16 bits."),
    "mixed-dtypes": Flag("EDGE_CASE", "Several dtypes in one list."),
    "absent": Flag("EDGE_CASE", "Absent weights."),
    "empty": Flag("EDGE_CASE", "Empty tensors."),
    "shapes": Flag("EDGE_CASE", "0-d and multi-dimensional tensors."),
    "zero-strength": Flag("EDGE_CASE", "λ = 0."),
    "range": Flag("EDGE_CASE", "A λ without meaning."),
    "nonfinite": Flag("EDGE_CASE", "NaN and infinite weights."),
    "wide-range": Flag("PRECISION", "Magnitudes from 1e-3 to 1e3."),
}  # fmt: skip


def cases(c: Cases) -> None:
    """Write the cases."""
    # fmt: off

    def add(name: str, flags: str, labels: str, weights: Any, strength: Any, dtypes: Any = ALL) -> None:
        c.add(name, flags, labels, {"weights": weights}, {"strength": strength}, dtypes)

    random = Stream(51)
    add("basic", "basic", "L1 L2", [tensor([3, -4], [0.5, 1])], 0.1)
    add("negative", "basic", "L1 L2", [tensor(-3, -0.25, -1.5)], 0.5)
    add("two-tensors", "two-tensors", "L1 L2", [tensor([3, -4, 1], [0.5, -1, 2]), tensor(-0.25, 7)], 0.3)
    add("two-tensors-shuffled", "two-tensors", "L1 L2", [tensor(-0.25, 7), tensor([3, -4], [0.5, 1])], 0.3)
    add("at-zero", "at-zero", "L2 L3", [tensor(-1, 0, 1)], 0.25)
    add("at-minus-zero", "at-zero", "L3", [tensor(-0.0, 2, 0, -0.5)], 0.1)
    add("all-zero", "at-zero", "L1 L3", [tensor([0, 0], [0, -0.0])], 1.0)
    add("one-zero-each", "at-zero two-tensors", "L1 L3", [tensor(0, -2), tensor([4], [0])], 0.7)
    add("long-ones", "sixteen-bits", "L1 L4", [np.ones(300), np.full((7, 3), -0.5)], 0.5)
    add("beyond-float16", "sixteen-bits", "L4", [np.array([60000.0, -40000, 30000, 9])], 1.0)
    add("beyond-float16-then-small", "sixteen-bits", "L4", [np.array([60000.0, -40000, 30000])], 1e-4)
    add("tiny-strength", "sixteen-bits", "L2 L4", [tensor(3, -4, 0.5)], 1e-6)
    add("mixed-dtypes", "mixed-dtypes", "L2 L4", [fixed([3.0, 1.0], "float16"), fixed([[-2.0, 5.0]],
        "float32"), fixed([0.1, -4.0], "float64")], 0.1, ("float64",))
    add("mixed-16-32", "mixed-dtypes sixteen-bits", "L2 L4", [fixed([300.0, 1.0], "float16"),
        fixed([[-2.0, 5.1]], "float32"), fixed([0.5], "bfloat16")], 0.1, ("float32",))
    add("mixed-16-16", "mixed-dtypes sixteen-bits", "L2 L4", [fixed([300.0, -7.0], "float16"),
        fixed([2e20, 3.0], "bfloat16")], 0.2, ("float16",))
    add("absent", "absent", "L5", [None, tensor(3, -4), None, tensor([-12.0])], 0.2)
    add("empty-tensor", "empty", "L5", [np.zeros((0, 3)), tensor(3, -4)], 0.2)
    add("only-empty-tensor", "empty", "L5", [np.zeros((0, 3))], 0.2, WIDE)
    add("absent-and-empty", "absent empty", "L5", [np.zeros(0), None, tensor(-5.0)], 0.2, WIDE)
    add("shapes", "shapes", "L1 L2", [np.array(-2.0), random.uniform(2, 1, 3), random.uniform(4)], 0.4)
    add("zero-dimensional", "shapes", "L1 L4", [np.array(-3.0)], 0.1)
    add("four-dimensional", "shapes", "L1 L2", [random.uniform(2, 3, 1, 4)], 0.01)
    add("zero-strength", "zero-strength", "L6", [tensor(3, -4, 0)], 0.0)
    add("zero-strength-two", "zero-strength two-tensors", "L6", [tensor(3, -4), tensor([0.5])], 0.0, WIDE)
    for name, value in (("negative", -0.1), ("nan", "nan"), ("infinite", "inf")):
        add(f"strength-{name}", "range", "L6", [tensor(3, -4)], value, WIDE)
    add("nan-weight", "nonfinite", "L7", [tensor(np.nan, -4, 0)], 0.1)
    add("infinite-weight", "nonfinite", "L7", [tensor(np.inf, -4, -np.inf)], 0.1)
    add("nan-in-another", "nonfinite two-tensors", "L7", [tensor(1, 2), tensor(np.nan, -4)], 0.1, WIDE)
    add("wide-range", "wide-range", "L1 L2", [random.spread(37), random.spread(5, 7)], 0.01)
    add("wider-range", "wide-range", "L1", [random.spread(20, low=1e-20, high=1e20)], 0.3, WIDE)
    add("long-uneven", "wide-range", "L1", [random.uniform(200)], 1.0, WIDE)
    # fmt: on


OPERATION = Operation(
    id="penalty.l1",
    summary="The sum of magnitudes, times a strength, and its subgradient.",
    formula="value = λ·Σ|w|;  gradient = λ·sign(w), 0 at w = 0",
    sources=(
        "R. Tibshirani: Regression shrinkage and selection via the lasso. J. R. Stat. Soc. B 58, 1996",
    ),
    constraints=CONSTRAINTS,
    inputs=regularization.INPUTS,
    outputs=regularization.OUTPUTS,
    params=(regularization.STRENGTH,),
    dials=(regularization.SIGN_OF_ZERO, regularization.HYPERPARAMETERS),
    oracle=oracle,
    tolerance=regularization.penalty_tolerance,
    tolerance_why=regularization.PENALTY_WHY,
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    dialects={"torch": {}, "tensorflow": {"hyperparameters": "float32", "subnormals": "flush"}},
)
