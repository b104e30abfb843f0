"""``prox.elastic_net``: a soft threshold, then a division: some weights zero, the others shrunk."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Cases, Stream, tensor
from conformance.exact import ONE, ZERO, Real, each, exact, real
from conformance.formats import FLOATS, Tensor
from conformance.operation import Flag, Mistake, Operation, Param, Value, map_tensors
from conformance.operations import _regularization_cases as common
from conformance.oracle import regularization
from conformance.oracle.regularization import Settings, sign, soft

ULPS = regularization.SOFT_ULPS + 6


def _numbers(settings: Settings) -> tuple[Real, Real]:
    """Return the threshold l1·step and the divisor 1 + 2·l2·step."""
    regularization.non_negative(settings, "l1", "l2", "step")
    l1, l2, step = (real(float(settings[name])) for name in ("l1", "l2", "step"))
    return l1 * step, 1 + (1 if settings["half"] else 2) * l2 * step


def oracle(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """sign(w)·max(|w| - l1·step, 0) / (1 + 2·l2·step)."""
    regularization.real_floats(inputs["weights"])
    t, divisor = _numbers(settings)

    def one(w: Tensor) -> Value | Tensor:
        weights, name = exact(w), w.dtype.name
        softened = each(lambda x: soft(x, t), weights)
        values = each(lambda x: x / divisor, softened)
        way = [x for x in softened.ravel() if abs(x) < 1e300]
        bits = regularization.bits_if_exact(values, name, t, divisor, 1 / divisor, *way)
        if bits is not None:
            return regularization.signed(bits, w, settings)
        room = ONE - 2 * ULPS * real(FLOATS[name].unit_roundoff)

        def scale(x: Real) -> Real:
            reached = x != x or abs(x) <= t * room
            return ZERO if reached or abs(x) > 1e300 else (abs(x) + t) / divisor

        return Value(values, name, each(scale, weights))

    return {"weights": map_tensors(one, inputs["weights"])}


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """ULP allowed (see WHY)."""
    return {"weights": ULPS}


WHY = (
    f"{regularization.SOFT_WHY} Rounding l2 and step, their product, the addition of 1 and the division (or"
    " a reciprocal and a product) add 6."
)


def _maps(change: Any) -> Any:
    """Return a mistake: another map of each weight, the threshold and the divisor."""

    def mistaken(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        t, divisor = _numbers(settings)

        def one(w: Any) -> Value:
            return Value(each(lambda x: change(x, t, divisor), exact(w)), w.dtype.name)

        return {"weights": map_tensors(one, inputs["weights"])}

    return mistaken


MISTAKES = (
    Mistake("division first", "the threshold meets weights that have been shrunk",
            _maps(lambda x, t, d: soft(x / d, t))),
    Mistake("squares left out", "the soft threshold alone", _maps(lambda x, t, d: soft(x, t))),
    Mistake("magnitudes left out", "the division alone", _maps(lambda x, t, d: x / d)),
    Mistake("strengths exchanged", "l1 divides and l2 is the threshold",
            lambda i, s: oracle(i, s | {"l1": s["l2"], "l2": s["l1"]})),
    Mistake("step ignored", "the map of a step of 1", lambda i, s: oracle(i, s | {"step": 1.0}),
            ("IntelLabs/distiller#289",)),
    Mistake("step reaches one part", "the divisor is 1 + 2·l2",
            lambda i, s: oracle(i, s | {"l2": float(s["l2"]) / float(s["step"])}
                                if float(s["step"]) > 0 else s)),
    Mistake("subgradient step", "w - step·(l1·sign(w) + 2·l2·w) overshoots zero",
            _maps(lambda x, t, d: x - t * sign(x) - (d - 1) * x),
            ("cossio/RestrictedBoltzmannMachines.jl#168",)),
    Mistake("half the squares", "the map of l2/2·w²", lambda i, s: oracle(i, s | {"half": True}),
            ("titu1994/DenseNet#57",)),
    Mistake("one-sided", "max(w - t, 0): negative weights vanish",
            _maps(lambda x, t, d: max(x - t, 0 * x) / d if x == x else x)),
)  # fmt: skip

CONSTRAINTS = {
    "X1": "Weights with |w| > l1·step move by that towards zero, and are then divided by 1 + 2·l2·step.",
    "X2": "Weights with |w| <= l1·step become zero, equality included, whatever l2 is.",
    "X3": "That zero is +0.0, whatever the sign of the weight.",
    "X4": "Each output has the dtype and shape of its weight; 16 bits are computed in float32.",
    "X5": "An absent weight stays absent; empty and 0-d tensors are allowed.",
    "X6": "l1, l2 and step are finite and >= 0, else a refusal; step = 0 leaves the weights as they are.",
    "X7": "A NaN weight stays NaN, an infinite one infinite.",
}

FLAGS = {
    "basic": Flag("BASIC", "Weights on both sides of the threshold."),
    "one-part": Flag("BASIC", "Only one of the two strengths is not 0."),
    "factor-two": Flag("KNOWN_BUG", "The map of l2·w² or that of l2/2·w².",
                       ("titu1994/DenseNet#57", "mlcommons/hpc#22")),
    "at-threshold": Flag("KNOWN_BUG", "Weights of the size of the threshold exactly.",
                         ("IntelLabs/distiller#289",)),
    "lands-on-zero": Flag("KNOWN_BUG", "Weights below the threshold: a subgradient step would overshoot.",
                          ("cossio/RestrictedBoltzmannMachines.jl#168",)),
    "exact": Flag("EDGE_CASE", "Nothing is rounded, so every bit counts, the sign of zero included."),
    "cancellation": Flag("PRECISION", "Weights just above the threshold."),
    "zero-step": Flag("EDGE_CASE", "step or both strengths are 0."),
    **common.FLAGS,
}  # fmt: skip


def cases(c: Cases) -> None:
    """Write the cases."""
    # fmt: off

    def add(name: str, flags: str, labels: str, weights: Any, l1: Any, l2: Any, step: Any,
            dtypes: Any = ALL) -> None:
        params = {"l1": l1, "l2": l2, "step": step}
        c.add(name, flags, labels, {"weights": weights}, params, dtypes)

    random = Stream(74)
    add("basic", "basic", "X1 X2", [tensor([3, -4], [0.125, -0.1])], 0.3, 0.7, 0.5)
    add("two-tensors", "basic", "X1 X2", [tensor([3, -0.1, 1], [0.2, -1, 0.05]), tensor(-0.3, 7)],
        0.25, 0.1, 1.1)
    add("random", "basic", "X1 X2", [random.uniform(4, 5), random.uniform(7)], 0.7, 2.0, 0.3)
    add("one-third", "factor-two", "X1", [tensor(1, -2)], 0.5, 1.0, 1.0)
    add("factor-two", "factor-two exact", "X1", [tensor(2, -1, 0.5)], 0.25, 0.5, 1.0)
    add("factor-two-quarter", "factor-two exact", "X1 X2 X3", [tensor([3, -5], [-1, 0.5])], 1.0, 1.5, 1.0)
    add("only-l1", "one-part exact", "X1 X2 X3", [tensor(3, -0.25, 0.5)], 0.5, 0.0, 1.0)
    add("only-l1-rounded", "one-part", "X1 X2", [tensor(3, -0.25, 0.1)], 0.3, 0.0, 0.7)
    add("only-l2", "one-part", "X1", [tensor(3, -0.25, 0.5)], 0.0, 0.3, 0.7)
    add("at-threshold", "at-threshold exact", "X2 X3", [tensor(0.25, -0.25, 0.5, -0.5)], 0.5, 1.0, 0.5)
    add("at-threshold-one", "at-threshold exact", "X2 X3", [tensor([1, -1, 2], [-2, 1, -1])], 1.0, 0.5, 1.0)
    add("at-threshold-decimal", "at-threshold", "X2", [tensor(0.1, -0.1, 0.3)], 0.1, 0.7, 1.0)
    add("lands-on-zero", "lands-on-zero", "X2", [tensor(0.003, -0.007, 0.0099, 0.02)], 1.0, 0.5, 0.01)
    add("all-land-on-zero", "lands-on-zero", "X2", [tensor([0.3, -0.2], [0.1, -0.04])], 2.0, 0.3, 0.2)
    add("shrinking-would-reach", "lands-on-zero", "X1 X2", [tensor(1.5, -1.25, 0.9)], 1.0, 2.0, 1.0)
    add("minus-zero", "lands-on-zero", "X2", [tensor(-0.0, 0.0, -1)], 0.3, 0.1, 0.7)
    add("minus-zero-exact", "lands-on-zero exact", "X2 X3", [tensor(-0.0, 0.0, -1)], 0.5, 0.5, 1.0)
    add("just-above", "cancellation", "X1", [tensor(0.1015625, -0.1015625, 0.125)], 0.1, 0.4, 1.0)
    add("far-above", "cancellation", "X1", [tensor(1000, -2048, 1)], 0.1, 5.0, 0.01)
    add("beside-threshold", "cancellation at-threshold", "X1 X2", [tensor(0.2578125, -0.2421875, -0.2578125)],
        0.5, 0.3, 0.5)
    add("zero-step", "zero-step exact", "X6", [tensor(3, -0.4, 1e-4)], 0.1, 0.3, 0.0)
    add("zero-strengths", "zero-step exact", "X6", [tensor(3, -0.4, 1e-4)], 0.0, 0.0, 0.3)
    add("zero-all", "zero-step exact", "X6", [tensor([3, -0.4], [0.7, -1e-3])], 0.0, 0.0, 0.0, WIDE)
    add("nan-weight", "nonfinite", "X7", [tensor(np.nan, -4, 0.5)], 0.5, 0.3, 1.0)
    add("infinite-weight", "nonfinite", "X7", [tensor(np.inf, -4, -np.inf)], 0.5, 0.3, 1.0)
    add("nan-in-another", "nonfinite", "X7", [tensor(1, 2), tensor(np.nan, -4)], 0.1, 0.2, 0.7, WIDE)
    add("wide-range", "wide-range", "X1 X2", [random.spread(37), random.spread(5, 7)], 0.3, 0.2, 0.7)
    add("wider-range", "wide-range", "X1 X2", [random.spread(20, low=1e-10, high=1e10)], 0.3, 0.2, 0.7, WIDE)
    add("wide-range-large-threshold", "wide-range", "X1 X2", [random.spread(20)], 30.0, 0.5, 0.7)
    given: dict[str, Any] = {"l1": 0.3, "l2": 0.2, "step": 0.7}
    common.add_dtypes_and_absence(common.bound(c, "X4 X5", **given))
    common.add_shapes(common.bound(c, "X1 X2 X4 X5", **given), random)
    add("zero-dimensional", "shapes", "X4 X5", [np.array(-3.0)], 0.4, 0.1, 0.9)
    common.add_refusals(common.bound(c, "X6"), given, "l1", "l2", "step")
    # fmt: on


OPERATION = Operation(
    id="prox.elastic_net",
    summary="Move every weight towards zero by a threshold, stop at zero, then divide.",
    formula="w ← sign(w)·max(|w| - l1·step, 0) / (1 + 2·l2·step)",
    sources=(
        "N. Parikh, S. Boyd: Proximal algorithms. Foundations and Trends in Optimization 1, 2014",
    ),
    constraints=CONSTRAINTS,
    inputs=regularization.INPUTS,
    outputs={"weights": "the list of weights after the step, each with its shape and dtype"},
    params=(
        Param("l1", "l1 >= 0: the weight of the magnitudes", required=True),
        Param("l2", "l2 >= 0: the weight of the squares", required=True),
        regularization.STEP,
    ),
    dials=(regularization.HALF, regularization.ZERO_SIGN),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=WHY,
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    dialects={"tensorflow": {"half": True, "zero_sign": "of_weight", "subnormals": "flush"}},
)
