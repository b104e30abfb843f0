"""``penalty.l2``: λ·Σw² and its gradient 2·λ·w (twice what a weight decay of λ adds)."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Cases, Stream, fixed, tensor
from conformance.exact import each, exact, real
from conformance.operation import Flag, Mistake, Operation, Value, map_tensors, sizes
from conformance.oracle import regularization
from conformance.oracle.regularization import Settings, sign


def oracle(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """λ·Σw² over all weights;  2·λ·w."""
    regularization.non_negative(settings, "strength")
    factor = regularization.strength(settings) / (2 if settings["half"] else 1)
    return regularization.penalty(
        inputs["weights"], lambda x: factor * x * x, lambda x: 2 * factor * x
    )


def _changed(value: Any = None, slope: Any = None) -> Any:
    def mistaken(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        result = oracle(inputs, settings)
        strength = real(float(settings["strength"]))
        if value is not None:
            old = result["value"]
            result["value"] = Value(value(old.exact, inputs, strength), old.dtype)
        if slope is not None:
            result["grads"] = map_tensors(
                lambda w: Value(each(lambda x: slope(x, strength), exact(w)), w.dtype.name),
                inputs["weights"],
            )
        return result

    return mistaken


def _root(value: Any, inputs: Any, strength: Any) -> Any:
    return (value * strength) ** real(0.5)


def _magnitudes(value: Any, inputs: Any, strength: Any) -> Any:
    total = sum(abs(x) for w in inputs["weights"] if w is not None for x in exact(w).ravel())
    return np.array(total * strength, dtype=object)


def first_only(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Only the first tensor counts."""
    value = oracle({"weights": inputs["weights"][:1]}, settings)["value"]
    return oracle(inputs, settings) | {"value": value}


LINKS = ("titu1994/DenseNet#57", "mlcommons/hpc#22", "jingtinghuang/CS231n-Spring-2017#3")
MISTAKES = (
    Mistake("gradient of half the penalty", "λ·Σw² with the gradient λ·w",
            _changed(slope=lambda x, s: s * x), LINKS),
    Mistake("half the penalty with its whole gradient", "λ/2·Σw² with the gradient 2·λ·w",
            _changed(value=lambda v, i, s: v / 2), LINKS),
    Mistake("no effect", "the option is accepted and unused",
            _changed(value=lambda v, i, s: 0 * v, slope=lambda x, s: 0 * x),
            ("PaddlePaddle/Paddle#5836",)),
    Mistake("root of the sum", "the value is λ·√Σw²", _changed(value=_root)),
    Mistake("magnitudes for squares", "the value is λ·Σ|w|", _changed(value=_magnitudes)),
    Mistake("mean for sum", "the value is divided by the number of weights",
            _changed(value=lambda v, i, s: v / max(sizes(i), 1))),
    Mistake("sign for weight", "the gradient is 2·λ·sign(w)",
            _changed(slope=lambda x, s: 2 * s * sign(x))),
    Mistake("strength twice", "the gradient is 2·λ²·w", _changed(slope=lambda x, s: 2 * s * s * x)),
    Mistake("opposite sign", "weights grow", _changed(slope=lambda x, s: -2 * s * x),
            ("harvard-edge/cs249r_book#2058",)),
    Mistake("only the first tensor", "the others do not count", first_only),
)  # fmt: skip

CONSTRAINTS = {
    "P1": "The value is λ·Σw² over all elements of all tensors: a sum, not a mean, and no root.",
    "P2": "The gradient is 2·λ·w, in the dtype and shape of its weight.",
    "P3": "The value is 0-d, float64 if any weight is float64, else float32; 16 bits are squared in float32.",
    "P4": "An absent weight counts nothing and has no gradient; an empty one counts 0.",
    "P5": "λ is finite and >= 0, else a refusal; λ = 0 gives zeros.",
    "P6": "A NaN weight makes the value and its own gradient NaN; an infinite one makes them infinite.",
}

FLAGS = {
    "basic": Flag("BASIC", "Weights of both signs."),
    "two-tensors": Flag("BASIC", "Several tensors, one value."),
    "factor-two": Flag("KNOWN_BUG", "λ·Σw² or λ/2·Σw²: a factor of 2 between penalty and weight decay.",
                       ("titu1994/DenseNet#57", "mlcommons/hpc#22")),
    "sixteen-bits": Flag("PRECISION", "Squares beyond the precision or the range of 16 bits."),
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

    random = Stream(52)
    add("basic", "basic", "P1 P2", [tensor([3, -4], [0.5, 1])], 0.1)
    add("one", "factor-two", "P1 P2", [tensor([1.0])], 0.1)
    add("halves", "factor-two basic", "P1 P2", [tensor(-3, -0.25, 1.5)], 0.5)
    add("factor-two-tensors", "factor-two two-tensors", "P1 P2", [tensor(3, -1), tensor([2.0])], 0.01)
    add("two-tensors", "two-tensors", "P1 P2", [tensor([3, -4, 1], [0.5, -1, 2]), tensor(-0.25, 7)], 0.3)
    add("zeros", "basic", "P1 P2", [tensor(0, -0.0, 2)], 0.3)
    add("long-ones", "sixteen-bits", "P1 P3", [np.ones(300), np.full((7, 3), -0.5)], 0.5)
    add("squares-beyond-float16", "sixteen-bits", "P3", [np.array([300.0, -400, 9])], 1.0)
    add("squares-below-float16", "sixteen-bits", "P3", [np.array([1e-4, -3e-5, 2e-4])], 0.5)
    add("gradient-beyond-float16", "sixteen-bits", "P2 P3", [np.array([60000.0, -3])], 1.0)
    add("tiny-strength", "sixteen-bits", "P2 P3", [tensor(3, -4, 0.5)], 1e-6)
    add("mixed-dtypes", "mixed-dtypes", "P2 P3", [fixed([3.0, 1.0], "float16"), fixed([[-2.0, 5.0]],
        "float32"), fixed([0.1, -4.0], "float64")], 0.1, ("float64",))
    add("mixed-16-32", "mixed-dtypes sixteen-bits", "P2 P3", [fixed([300.0, 1.0], "float16"),
        fixed([[-2.0, 5.1]], "float32"), fixed([0.5], "bfloat16")], 0.1, ("float32",))
    add("mixed-16-16", "mixed-dtypes sixteen-bits", "P2 P3", [fixed([300.0, -7.0], "float16"),
        fixed([2e10, 3.0], "bfloat16")], 0.2, ("float16",))
    add("absent", "absent", "P4", [None, tensor(3, -4), None, tensor([-12.0])], 0.2)
    add("empty-tensor", "empty", "P4", [np.zeros((0, 3)), tensor(3, -4)], 0.2)
    add("only-empty-tensor", "empty", "P4", [np.zeros((0, 3))], 0.2, WIDE)
    add("absent-and-empty", "absent empty", "P4", [np.zeros(0), None, tensor(-5.0)], 0.2, WIDE)
    add("shapes", "shapes", "P1 P2", [np.array(-2.0), random.uniform(2, 1, 3), random.uniform(4)], 0.4)
    add("zero-dimensional", "shapes", "P1 P3", [np.array(-3.0)], 0.1)
    add("four-dimensional", "shapes", "P1 P2", [random.uniform(2, 3, 1, 4)], 0.01)
    add("zero-strength", "zero-strength", "P5", [tensor(3, -4, 0)], 0.0)
    add("zero-strength-two", "zero-strength two-tensors", "P5", [tensor(3, -4), tensor([0.5])], 0.0, WIDE)
    for name, value in (("negative", -0.1), ("nan", "nan"), ("infinite", "inf")):
        add(f"strength-{name}", "range", "P5", [tensor(3, -4)], value, WIDE)
    add("nan-weight", "nonfinite", "P6", [tensor(np.nan, -4, 0)], 0.1)
    add("infinite-weight", "nonfinite", "P6", [tensor(np.inf, -4, -np.inf)], 0.1)
    add("nan-in-another", "nonfinite two-tensors", "P6", [tensor(1, 2), tensor(np.nan, -4)], 0.1, WIDE)
    add("wide-range", "wide-range", "P1 P2", [random.spread(37), random.spread(5, 7)], 0.01)
    add("wider-range", "wide-range", "P1", [random.spread(20, low=1e-15, high=1e15)], 0.3, WIDE)
    add("long-uneven", "wide-range", "P1", [random.uniform(200)], 1.0, WIDE)
    # fmt: on


OPERATION = Operation(
    id="penalty.l2",
    summary="The sum of squares, times a strength, and its gradient.",
    formula="value = λ·Σw²;  gradient = 2·λ·w",
    sources=("A. Krogh, J. A. Hertz: A simple weight decay can improve generalization. NIPS 1991",),
    constraints=CONSTRAINTS,
    inputs=regularization.INPUTS,
    outputs=regularization.OUTPUTS,
    params=(regularization.STRENGTH,),
    dials=(regularization.HALF, regularization.HYPERPARAMETERS),
    oracle=oracle,
    tolerance=regularization.penalty_tolerance,
    tolerance_why=regularization.PENALTY_WHY,
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    dialects={"torch": {}, "tensorflow": {"hyperparameters": "float32", "subnormals": "flush"}},
)
