"""``prox.l1``: the soft threshold, which lands on zero where a subgradient step would oscillate around it."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Cases, Stream, fixed, tensor
from conformance.exact import each, exact, real
from conformance.operation import Flag, Mistake, Operation, Value, map_tensors
from conformance.oracle import regularization
from conformance.oracle.regularization import Settings, sign, soft


def oracle(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """sign(w)·max(|w| - t, 0) with t = strength·step."""
    regularization.real_floats(inputs["weights"])
    regularization.non_negative(settings, "strength", "step")
    return {
        "weights": map_tensors(
            lambda w: regularization.soft_threshold(w, settings), inputs["weights"]
        )
    }


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """ULP allowed (see SOFT_WHY)."""
    return {"weights": regularization.SOFT_ULPS}


def _maps(change: Any) -> Any:
    def mistaken(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        regularization.non_negative(settings, "strength", "step")
        strength, step = (real(float(settings[name])) for name in ("strength", "step"))

        def one(w: Any) -> Value:
            return Value(each(lambda x: change(x, strength, step), exact(w)), w.dtype.name)

        return {"weights": map_tensors(one, inputs["weights"])}

    return mistaken


MISTAKES = (
    Mistake("subgradient step", "w - t·sign(w) overshoots zero",
            _maps(lambda x, s, h: x - s * h * sign(x)),
            ("cossio/RestrictedBoltzmannMachines.jl#168",)),
    Mistake("hard threshold", "what stays is not shrunk",
            _maps(lambda x, s, h: x if soft(x, s * h) != 0 else 0 * x)),
    Mistake("one-sided", "max(w - t, 0): negative weights vanish",
            _maps(lambda x, s, h: max(x - s * h, 0 * x) if x == x else x)),
    Mistake("clamp", "what is taken away is returned", _maps(lambda x, s, h: x - soft(x, s * h))),
    Mistake("step ignored", "the threshold is strength", _maps(lambda x, s, h: soft(x, s)),
            ("IntelLabs/distiller#289",)),
    Mistake("strength ignored", "the threshold is step", _maps(lambda x, s, h: soft(x, h))),
    Mistake("twice the threshold", "as for a penalty of twice the strength",
            _maps(lambda x, s, h: soft(x, 2 * s * h))),
    Mistake("ratio for difference", "w·(1 - t): weights shrink and stay",
            _maps(lambda x, s, h: x * (1 - s * h))),
)  # fmt: skip

CONSTRAINTS = {
    "X1": "Weights with |w| > t = strength·step move by t towards zero.",
    "X2": "Weights with |w| <= t become zero, those with |w| = t included.",
    "X3": "That zero is +0.0, whatever the sign of the weight.",
    "X4": "Each output has the dtype and shape of its weight; 16 bits are computed in float32.",
    "X5": "An absent weight stays absent; empty and 0-d tensors are allowed.",
    "X6": "strength and step are finite and >= 0, else a refusal; t = 0 leaves the weights as they are.",
    "X7": "A NaN weight stays NaN, an infinite one infinite.",
}

FLAGS = {
    "basic": Flag("BASIC", "Weights on both sides of the threshold."),
    "at-threshold": Flag("KNOWN_BUG", "Weights of the size of the threshold exactly.",
                         ("IntelLabs/distiller#289",)),
    "lands-on-zero": Flag("KNOWN_BUG", "Weights below the threshold: a subgradient step would overshoot.",
                          ("cossio/RestrictedBoltzmannMachines.jl#168",)),
    "exact": Flag("EDGE_CASE", "Nothing is rounded, so every bit counts, the sign of zero included."),
    "product": Flag("BASIC", "The threshold is the product of strength and step."),
    "cancellation": Flag("PRECISION", "Weights just above the threshold."),
    "mixed-dtypes": Flag("EDGE_CASE", "Several dtypes in one list."),
    "absent": Flag("EDGE_CASE", "Absent weights."),
    "shapes": Flag("EDGE_CASE", "Empty, 0-d and multi-dimensional tensors."),
    "zero-threshold": Flag("EDGE_CASE", "strength or step is 0."),
    "range": Flag("EDGE_CASE", "A strength or a step without meaning."),
    "nonfinite": Flag("EDGE_CASE", "NaN and infinite weights."),
    "wide-range": Flag("PRECISION", "Magnitudes from 1e-3 to 1e3."),
}  # fmt: skip


def cases(c: Cases) -> None:
    """Write the cases."""
    # fmt: off

    def add(name: str, flags: str, labels: str, weights: Any, strength: Any, step: Any,
            dtypes: Any = ALL) -> None:
        c.add(name, flags, labels, {"weights": weights}, {"strength": strength, "step": step}, dtypes)

    random = Stream(53)
    add("basic", "basic", "X1 X2", [tensor([3, -4], [0.125, -0.1])], 0.3, 0.5)
    add("two-tensors", "basic", "X1 X2", [tensor([3, -0.1, 1], [0.2, -1, 0.05]), tensor(-0.3, 7)], 0.25, 1.1)
    add("exact", "exact basic", "X1 X2 X3", [tensor(1, -1, 0.5, -0.125, 0.0625)], 0.5, 0.5)
    add("exact-two", "exact lands-on-zero", "X1 X2 X3", [tensor([2, -0.25], [0.125, -3]), tensor(-1.5, 0.5)],
        2.0, 0.5)
    add("at-threshold", "at-threshold exact", "X2 X3", [tensor(0.25, -0.25, 0.5, -0.5)], 0.5, 0.5)
    add("at-threshold-one", "at-threshold exact", "X2 X3", [tensor([1, -1, 2], [-2, 1, -1])], 1.0, 1.0)
    add("at-threshold-decimal", "at-threshold", "X2", [tensor(0.1, -0.1, 0.3)], 0.1, 1.0)
    add("beside-threshold", "at-threshold cancellation", "X1 X2", [tensor(0.2578125, -0.2421875, -0.2578125)],
        0.5, 0.5)
    add("lands-on-zero", "lands-on-zero", "X2", [tensor(0.003, -0.007, 0.0099, 0.02)], 1.0, 0.01)
    add("all-land-on-zero", "lands-on-zero", "X2", [tensor([0.3, -0.2], [0.1, -0.04])], 2.0, 0.2)
    add("minus-zero", "lands-on-zero", "X2", [tensor(-0.0, 0.0, -1)], 0.3, 0.7)
    add("strength-times-step", "product", "X1", [tensor(5, -3, 0.5)], 4.0, 0.1)
    add("small-step", "product", "X1", [tensor(5, -3, 0.5)], 0.5, 1e-3)
    add("large-strength", "product lands-on-zero", "X1 X2", [tensor(5, -300, 0.5)], 1000.0, 0.0625)
    add("just-above", "cancellation", "X1", [tensor(0.1015625, -0.1015625, 0.125)], 0.1, 1.0)
    add("far-above", "cancellation", "X1", [tensor(1000, -2048, 1)], 0.1, 0.01)
    add("mixed-dtypes", "mixed-dtypes", "X4", [fixed([3.0, -0.1], "float16"), fixed([[-2.0, 0.05]],
        "float32"), fixed([0.1, -4.0], "float64")], 0.1, 0.7, ("float64",))
    add("mixed-16-32", "mixed-dtypes", "X4", [fixed([300.0, -0.1], "float16"), fixed([[-2.0, 5.1]],
        "float32"), fixed([0.5], "bfloat16")], 0.1, 1.5, ("float32",))
    add("mixed-exact", "mixed-dtypes exact", "X3 X4", [fixed([-0.5, 2.0], "bfloat16"), fixed([0.5, -0.25],
        "float16"), fixed([[-1.5]], "float32")], 0.5, 1.0, ("float16",))
    add("absent", "absent", "X5", [None, tensor(3, -0.1), None, tensor([-12.0])], 0.2, 1.5)
    add("absent-last", "absent", "X5", [tensor(3, -0.1), None], 0.2, 1.5, WIDE)
    add("absent-between", "absent shapes", "X5", [np.array(0.5), None, np.zeros((0, 2))], 0.2, 0.5, WIDE)
    add("shapes", "shapes", "X4 X5", [np.array(-2.0), random.uniform(2, 1, 3), random.uniform(4)], 0.4, 0.9)
    add("empty-tensor", "shapes", "X5", [np.zeros((0, 3)), tensor(3, -4)], 0.2, 1.0)
    add("four-dimensional", "shapes", "X1 X2", [random.uniform(2, 3, 1, 4)], 0.7, 0.6)
    add("zero-strength", "zero-threshold exact", "X6", [tensor(3, -0.4, 1e-4)], 0.0, 0.1)
    add("zero-step", "zero-threshold exact", "X6", [tensor(3, -0.4, 1e-4)], 0.1, 0.0)
    add("zero-both", "zero-threshold exact", "X6", [tensor([3, -0.4], [0.7, -1e-3])], 0.0, 0.0, WIDE)
    for name, value in (("negative", -0.1), ("nan", "nan"), ("infinite", "inf")):
        add(f"strength-{name}", "range", "X6", [tensor(3, -4)], value, 0.1, WIDE)
        add(f"step-{name}", "range", "X6", [tensor(3, -4)], 0.1, value, WIDE)
    add("nan-weight", "nonfinite exact", "X7", [tensor(np.nan, -4, 0.5)], 0.5, 1.0)
    add("infinite-weight", "nonfinite exact", "X7", [tensor(np.inf, -4, -np.inf)], 0.5, 1.0)
    add("nonfinite-rounded", "nonfinite", "X7", [tensor(np.inf, np.nan, -np.inf, 0.7)], 0.3, 0.7)
    add("wide-range", "wide-range", "X1 X2", [random.spread(37), random.spread(5, 7)], 0.3, 0.7)
    add("wider-range", "wide-range", "X1 X2", [random.spread(20, low=1e-10, high=1e10)], 0.3, 0.7, WIDE)
    add("wide-range-large-threshold", "wide-range", "X1 X2", [random.spread(20)], 30.0, 0.7)
    # fmt: on


OPERATION = Operation(
    id="prox.l1",
    summary="Move every weight towards zero by a threshold, and stop at zero.",
    formula="w ← sign(w)·max(|w| - t, 0),  t = strength·step",
    sources=(
        "I. Daubechies, M. Defrise, C. De Mol: An iterative thresholding algorithm for linear inverse problems"
        " with a sparsity constraint. Comm. Pure Appl. Math. 57, 2004",
        "A. Beck, M. Teboulle: A fast iterative shrinkage-thresholding algorithm. SIAM J. Imaging Sci. 2, 2009",
    ),
    constraints=CONSTRAINTS,
    inputs=regularization.INPUTS,
    outputs={"weights": "the list of weights after the step, each with its shape and dtype"},
    params=(regularization.STRENGTH, regularization.STEP),
    dials=(regularization.ZERO_SIGN,),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=regularization.SOFT_WHY,
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    dialects={
        "torch": {"zero_sign": "of_weight"},
        "tensorflow": {"zero_sign": "of_weight", "subnormals": "flush"},
    },
)
