"""``prox.l2``: shrink every weight by the same factor; nothing becomes zero."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Cases, Stream, tensor
from conformance.exact import Real, each, exact, real
from conformance.operation import Flag, Mistake, Operation, Value, map_tensors
from conformance.operations import _regularization_cases as common
from conformance.oracle import regularization
from conformance.oracle.regularization import Settings, soft


def oracle(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """w / (1 + 2·λ·step)."""
    regularization.real_floats(inputs["weights"])
    return _maps(lambda x, t: x / (1 + t))(inputs, settings)


def _maps(change: Any) -> Any:
    """Return a map of each weight and t = 2·λ·step (λ·step under ``half``)."""

    def mapped(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        regularization.non_negative(settings, "strength", "step")
        t = _t(settings)

        def one(w: Any) -> Any:
            values = each(lambda x: change(x, t), exact(w))
            bits = regularization.bits_if_exact(values, w.dtype.name, 1 + t, 1 / (1 + t))
            zero = bits is not None and t == 0
            return w if zero else Value(values, w.dtype.name)

        return {"weights": map_tensors(one, inputs["weights"])}

    return mapped


def _t(settings: Settings) -> Real:
    t = real(float(settings["strength"])) * real(float(settings["step"]))
    return t if settings["half"] else 2 * t


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """ULP allowed (see WHY)."""
    return {"weights": 6}


WHY = (
    "Rounding strength and step, their product, the addition of 1 and the division (or a reciprocal and a"
    " product) are 6 roundoffs of the result; 16 bits are computed in float32 and rounded once, or likewise."
)

MISTAKES = (
    Mistake("gradient step", "w·(1 - 2·λ·step): beyond 1/2 weights change sign",
            _maps(lambda x, t: x * (1 - t))),
    Mistake("step ignored", "the factor is 1/(1 + 2·λ)",
            lambda i, s: oracle(i, s | {"step": 1.0})),
    Mistake("strength ignored", "the factor is 1/(1 + 2·step)",
            lambda i, s: oracle(i, s | {"strength": 1.0})),
    Mistake("half the penalty", "the map of λ/2·w²", lambda i, s: oracle(i, s | {"half": True}),
            ("titu1994/DenseNet#57", "mlcommons/hpc#22")),
    Mistake("soft threshold", "the map of λ·|w|", _maps(lambda x, t: soft(x, t / 2))),
    Mistake("no effect", "the option is accepted and unused", _maps(lambda x, t: x),
            ("PaddlePaddle/Paddle#5836",)),
    Mistake("exponential", "w·exp(-2·λ·step)", _maps(lambda x, t: x * real(2.718281828459045) ** -t)),
    Mistake("grows", "w·(1 + 2·λ·step)", _maps(lambda x, t: x * (1 + t)),
            ("harvard-edge/cs249r_book#2058",)),
)  # fmt: skip

CONSTRAINTS = {
    "X1": "Every weight is divided by 1 + 2·strength·step, the minimiser of (x - w)²/2 + step·strength·x².",
    "X2": "However large the product is, no weight changes its sign or becomes zero but by underflow.",
    "X3": "Each output has the dtype and shape of its weight; 16 bits are computed in float32.",
    "X4": "An absent weight stays absent; empty and 0-d tensors are allowed.",
    "X5": "strength and step are finite and >= 0, else a refusal; if one is 0 the weights stay, bit for bit.",
    "X6": "A NaN weight stays NaN, an infinite one infinite.",
}

FLAGS = {
    "basic": Flag("BASIC", "Weights of both signs."),
    "factor-two": Flag("KNOWN_BUG", "The map of λ·w² or that of λ/2·w².",
                       ("titu1994/DenseNet#57", "mlcommons/hpc#22")),
    "product": Flag("BASIC", "strength and step count through their product."),
    "large": Flag("KNOWN_BUG", "A product beyond 1/2, where a gradient step would overshoot.",
                  ("harvard-edge/cs249r_book#2058",)),
    "zero-product": Flag("EDGE_CASE", "strength or step is 0."),
    **common.FLAGS,
}  # fmt: skip


def cases(c: Cases) -> None:
    """Write the cases."""
    # fmt: off

    def add(name: str, flags: str, labels: str, weights: Any, strength: Any, step: Any,
            dtypes: Any = ALL) -> None:
        c.add(name, flags, labels, {"weights": weights}, {"strength": strength, "step": step}, dtypes)

    random = Stream(73)
    add("basic", "basic", "X1", [tensor([3, -4], [0.125, -0.1])], 0.3, 0.5)
    add("two-tensors", "basic", "X1", [tensor([3, -0.1, 1], [0.2, -1, 0.05]), tensor(-0.3, 7)], 0.25, 1.1)
    add("random", "basic", "X1", [random.uniform(4, 5), random.uniform(7)], 0.7, 0.3)
    add("factor-two", "factor-two", "X1", [tensor(1, -2, 0.75)], 0.5, 1.0)
    add("factor-two-small", "factor-two", "X1", [tensor(1, -3)], 0.1, 0.3)
    add("quarter", "factor-two", "X1", [tensor([6, -10], [0.5, 1])], 1.5, 1.0)
    add("strength-times-step", "product", "X1", [tensor(5, -3, 0.5)], 4.0, 0.1)
    add("step-times-strength", "product", "X1", [tensor(5, -3, 0.5)], 0.1, 4.0)
    add("small-step", "product", "X1", [tensor(5, -3, 0.5)], 0.5, 1e-3)
    add("tiny-product", "product", "X1", [tensor(5, -3, 0.5)], 1e-4, 1e-4)
    add("beyond-one-half", "large", "X1 X2", [tensor(5, -3, 0.5)], 3.0, 0.5)
    add("large", "large", "X1 X2", [tensor(5, -3, 0.5)], 1000.0, 0.3)
    add("very-large", "large", "X2", [tensor(5, -3, 0.5)], 1e6, 10.0, ("float64", "float32", "bfloat16"))
    add("zeros", "large basic", "X1 X2", [tensor(0, -0.0, 2)], 1.5, 2.0)
    add("zero-strength", "zero-product", "X5", [tensor(3, -0.4, -0.0, 1e-4)], 0.0, 0.1)
    add("zero-step", "zero-product", "X5", [tensor(3, -0.4, 1e-4)], 0.1, 0.0)
    add("zero-both", "zero-product", "X5", [tensor([3, -0.4], [0.7, -1e-3])], 0.0, 0.0, WIDE)
    add("nan-weight", "nonfinite", "X6", [tensor(np.nan, -4, 0.5)], 0.5, 1.0)
    add("infinite-weight", "nonfinite", "X6", [tensor(np.inf, -4, -np.inf)], 0.5, 1.3)
    add("nan-in-another", "nonfinite", "X6", [tensor(1, 2), tensor(np.nan, -4)], 0.1, 0.7, WIDE)
    add("wide-range", "wide-range", "X1", [random.spread(37), random.spread(5, 7)], 0.3, 0.7)
    add("wider-range", "wide-range", "X1", [random.spread(20, low=1e-30, high=1e30)], 0.3, 0.7, WIDE)
    add("wide-range-large", "wide-range large", "X1 X2", [random.spread(20)], 30.0, 0.7)
    given: dict[str, Any] = {"strength": 0.3, "step": 0.7}
    common.add_dtypes_and_absence(common.bound(c, "X3 X4", **given))
    common.add_shapes(common.bound(c, "X1 X3 X4", **given), random)
    add("zero-dimensional", "shapes", "X3 X4", [np.array(-3.0)], 0.4, 0.9)
    common.add_refusals(common.bound(c, "X5"), given, "strength", "step")
    # fmt: on


OPERATION = Operation(
    id="prox.l2",
    summary="Divide every weight by 1 + 2·strength·step.",
    formula="w ← w / (1 + 2·strength·step)",
    sources=(
        "N. Parikh, S. Boyd: Proximal algorithms. Foundations and Trends in Optimization 1, 2014",
    ),
    constraints=CONSTRAINTS,
    inputs=regularization.INPUTS,
    outputs={"weights": "the list of weights after the step, each with its shape and dtype"},
    params=(regularization.STRENGTH, regularization.STEP),
    dials=(regularization.HALF,),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=WHY,
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    dialects={"tensorflow": {"half": True, "subnormals": "flush"}},
)
