"""``penalty.elastic_net``: λ1·Σ|w| + λ2·Σw² and its subgradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Cases, Stream, tensor
from conformance.exact import Real, each, exact, real
from conformance.formats import round_exact
from conformance.operation import Flag, Mistake, Operation, Param, Value, map_tensors, sizes
from conformance.operations import _regularization_cases as common
from conformance.oracle import regularization
from conformance.oracle.regularization import Settings, sign


def _strengths(settings: Settings) -> tuple[Real, Real]:
    l1, l2 = (real(float(settings[name])) for name in ("l1", "l2"))
    if settings["hyperparameters"] == "float32":
        l1, l2 = (real(round_exact(x, "float32")) for x in (l1, l2))
    return l1, l2 / 2 if settings["half"] else l2


def oracle(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """λ1·Σ|w| + λ2·Σw² over all weights;  λ1·sign(w) + 2·λ2·w."""
    regularization.non_negative(settings, "l1", "l2")
    l1, l2 = _strengths(settings)
    at_zero = l1 if settings["sign_of_zero"] == "plus_one" else 0 * l1
    return regularization.penalty(
        inputs["weights"],
        lambda x: _sum(l1, abs(x), l2, x * x),
        lambda x: at_zero if x == 0 else _sum(l1, sign(x), 2 * l2, x),
    )


def _sum(l1: Real, a: Real, l2: Real, b: Real) -> Real:
    """Return l1·a + l2·b; of strength 0 a term is none, so that 0·inf does not make NaN of the other."""
    if not l2:
        return l1 * a
    return l2 * b if not l1 else l1 * a + l2 * b


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """ULP allowed per output (see WHY)."""
    return {"value": sizes(inputs["weights"]) + 3, "grads": 4}


WHY = (
    "No term is negative, so the sum of N of them has an error of N-1 roundoffs in any order; squaring,"
    " rounding λ and multiplying by it add 3, and adding the two sums 1. A gradient's two terms have the"
    " same sign: rounding λ2, a product, the addition, and for 16 bits one more rounding."
)


def _changed(value: Any = None, slope: Any = None) -> Any:
    """Return a mistake: other terms of the value, or another slope, as functions of (w, λ1, λ2)."""

    def mistaken(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        result = oracle(inputs, settings)
        l1, l2 = _strengths(settings)
        weights = inputs["weights"]
        if value is not None:
            given = [w for w in weights if w is not None]
            total = sum((value(x, l1, l2) for w in given for x in exact(w).ravel()), real(0))
            result["value"] = Value(np.array(total, dtype=object), result["value"].dtype)
        if slope is not None:
            result["grads"] = map_tensors(
                lambda w: Value(each(lambda x: slope(x, l1, l2), exact(w)), w.dtype.name), weights
            )
        return result

    return mistaken


def _mixing(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """α·(ρ·Σ|w| + (1-ρ)/2·Σw²) with α = l1 and ρ = l2."""
    l1, l2 = (float(settings[name]) for name in ("l1", "l2"))
    return oracle(inputs, settings | {"l1": l1 * l2, "l2": max(l1 * (1 - l2) / 2, 0.0)})


MISTAKES = (
    Mistake("gradient of half the squares", "λ2·Σw² with the gradient λ2·w",
            _changed(slope=lambda x, a, b: a * sign(x) + b * x), ("titu1994/DenseNet#57",)),
    Mistake("strengths exchanged", "λ1 weighs the squares",
            lambda i, s: oracle(i, s | {"l1": s["l2"], "l2": s["l1"]})),
    Mistake("squares left out", "the L1 part alone", lambda i, s: oracle(i, s | {"l2": 0.0})),
    Mistake("magnitudes left out", "the L2 part alone", lambda i, s: oracle(i, s | {"l1": 0.0})),
    Mistake("no absolute value", "λ1·Σw",
            _changed(value=lambda x, a, b: a * x + b * x * x, slope=lambda x, a, b: a + 2 * b * x)),
    Mistake("no effect on the gradient", "the value is reported and not differentiated",
            _changed(slope=lambda x, a, b: 0 * x), ("PaddlePaddle/Paddle#5836",)),
    Mistake("once per replica", "two replicas add the whole penalty each",
            lambda i, s: oracle(i, s | {n: 2 * float(s[n]) for n in ("l1", "l2")}),
            ("tensorflow/models#6195", "tensorflow/tensorflow#29873")),
    Mistake("strength and mixing", "l1 is taken for the strength and l2 for the share of L1", _mixing),
    Mistake("only the first tensor", "the others do not count",
            lambda i, s: oracle(i, s) | {"value": oracle({"weights": i["weights"][:1]}, s)["value"]}),
)  # fmt: skip

CONSTRAINTS = {
    "P1": "The value is λ1·Σ|w| + λ2·Σw² over all elements of all tensors.",
    "P2": "The gradient is λ1·sign(w) + 2·λ2·w, in the dtype and shape of its weight.",
    "P3": "sign(0) is 0, of -0 too: the subgradient of least norm, which leaves a zero weight alone.",
    "P4": "The value is 0-d, float64 if any weight is float64, else float32; 16 bits are squared in float32.",
    "P5": "An absent weight counts nothing and has no gradient; an empty one counts 0.",
    "P6": "λ1 and λ2 are finite and >= 0, else a refusal. With λ2 = 0 this is penalty.l1, with λ1 = 0"
    " penalty.l2: of an infinite weight too, for the other term is left out; with both 0 everything is 0.",
    "P7": "A NaN weight makes the value and its own gradient NaN; an infinite one makes them infinite.",
}

FLAGS = {
    "basic": Flag("BASIC", "Weights of both signs."),
    "two-tensors": Flag("BASIC", "Several tensors, one value."),
    "one-part": Flag("BASIC", "Only one of the two strengths is not 0."),
    "factor-two": Flag("KNOWN_BUG", "λ2·Σw² or λ2/2·Σw²: a factor of 2 between penalty and weight decay.",
                       ("titu1994/DenseNet#57", "mlcommons/hpc#22")),
    "zeros": Flag("KNOWN_BUG", "Zeros of either sign, which the subgradient must leave alone.",
                  ("Eric-mingjie/network-slimming#19",)),
    "sixteen-bits": Flag("PRECISION", "Squares beyond the precision or the range of 16 bits."),
    "zero-strength": Flag("EDGE_CASE", "Both strengths are 0."),
    **common.FLAGS,
}  # fmt: skip


def cases(c: Cases) -> None:
    """Write the cases."""
    # fmt: off

    def add(name: str, flags: str, labels: str, weights: Any, l1: Any, l2: Any, dtypes: Any = ALL) -> None:
        c.add(name, flags, labels, {"weights": weights}, {"l1": l1, "l2": l2}, dtypes)

    random = Stream(71)
    add("basic", "basic", "P1 P2", [tensor([3, -4], [0, 1])], 0.1, 0.2)
    add("negative-weights", "basic", "P1 P2", [tensor(-3, -0.25, -1.5)], 0.5, 0.3)
    add("two-tensors", "two-tensors", "P1 P2", [tensor([3, -4, 1], [0.5, -1, 2]), tensor(-0.25, 7)], 0.3, 0.7)
    add("two-uneven", "two-tensors basic", "P1 P2", [random.uniform(2, 5), random.uniform(3)], 0.7, 0.01)
    add("only-l1", "one-part", "P1 P2", [tensor(3, -1, 0.5)], 0.3, 0.0)
    add("only-l2", "one-part factor-two", "P1 P2", [tensor(3, -1, 0.5)], 0.0, 0.3)
    add("factor-two", "factor-two", "P1 P2", [tensor([1.0])], 0.05, 0.1)
    add("factor-two-tensors", "factor-two two-tensors", "P1 P2", [tensor(3, -1), tensor([2.0])], 0.001, 0.01)
    add("zeros", "zeros", "P2 P3", [tensor(0, -0.0, 2, -1)], 0.3, 0.1)
    add("only-zeros", "zeros", "P2 P3", [tensor([0, 0, -0.0])], 0.5, 0.25)
    add("slimming", "zeros", "P2 P3", [tensor(-1, 0, 1)], 0.01, 0.02)
    add("squares-beyond-float16", "sixteen-bits", "P4", [np.array([300.0, -400, 9])], 0.1, 1.0)
    add("squares-below-float16", "sixteen-bits", "P4", [np.array([1e-4, -3e-5, 2e-4])], 1e-5, 0.5)
    add("long", "sixteen-bits", "P1 P4", [np.linspace(0.5, 1, 120), np.full((7, 3), -0.5)], 0.5, 0.25)
    add("zero-strengths", "zero-strength", "P6", [tensor(3, -4, 0)], 0.0, 0.0)
    add("zero-strengths-two", "zero-strength two-tensors", "P6", [tensor(3, -4), tensor([0.5])], 0.0, 0.0, WIDE)
    add("zero-strengths-absent", "zero-strength absent", "P5 P6", [None, tensor([0.5, -3])], 0.0, 0.0, WIDE)
    add("nan-weight", "nonfinite", "P7", [tensor(np.nan, -4, 0)], 0.1, 0.2)
    add("infinite-weight", "nonfinite", "P7", [tensor(np.inf, -4, -np.inf)], 0.1, 0.2)
    add("infinite-weight-only-l1", "nonfinite one-part", "P6 P7", [tensor(np.inf, -4, -np.inf)], 0.3, 0.0)
    add("infinite-weight-only-l2", "nonfinite one-part", "P6 P7", [tensor(3, -np.inf)], 0.0, 0.3)
    add("nan-in-another", "nonfinite two-tensors", "P7", [tensor(1, 2), tensor(np.nan, -4)], 0.1, 0.2, WIDE)
    add("wide-range", "wide-range", "P1 P2", [random.spread(37), random.spread(5, 7)], 0.7, 0.01)
    add("wider-range", "wide-range", "P1", [random.spread(20, low=1e-15, high=1e15)], 0.3, 0.1, WIDE)
    add("small-strengths", "wide-range", "P1 P2", [random.spread(20)], 1e-6, 3e-7)
    given: dict[str, Any] = {"l1": 0.3, "l2": 0.2}
    common.add_dtypes_and_absence(common.bound(c, "P4 P5", **given))
    common.add_shapes(common.bound(c, "P1 P2 P5", **given), random)
    add("zero-dimensional", "shapes", "P1 P4", [np.array(-3.0)], 0.1, 0.2)
    common.add_refusals(common.bound(c, "P6"), given, "l1", "l2")
    # fmt: on


OPERATION = Operation(
    id="penalty.elastic_net",
    summary="Magnitudes and squares, each times its strength, and the subgradient of their sum.",
    formula="value = λ1·Σ|w| + λ2·Σw²;  gradient = λ1·sign(w) + 2·λ2·w",
    sources=(
        "H. Zou, T. Hastie: Regularization and variable selection via the elastic net. J. R. Stat. Soc. B 67,"
        " 2005",
    ),
    constraints=CONSTRAINTS,
    inputs=regularization.INPUTS,
    outputs=regularization.OUTPUTS,
    params=(
        Param("l1", "λ1 >= 0: the weight of the magnitudes", required=True),
        Param("l2", "λ2 >= 0: the weight of the squares", required=True),
    ),
    dials=(regularization.HALF, regularization.SIGN_OF_ZERO, regularization.HYPERPARAMETERS),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=WHY,
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    dialects={"torch": {}, "tensorflow": {"hyperparameters": "float32", "subnormals": "flush"}},
)
