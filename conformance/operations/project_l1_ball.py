"""``project.l1_ball``: the nearest point whose magnitudes add up to at most a radius."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Cases, Stream, tensor
from conformance.exact import Real, each, exact, magnitude, real, total
from conformance.operation import Flag, Mistake, Operation, Value, map_tensors
from conformance.operations import _regularization_cases as common
from conformance.oracle import projections, regularization
from conformance.oracle.regularization import Settings, sign, soft


def oracle(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """sign(w)·max(|w| - θ, 0) with the θ >= 0 that makes the 1-norm the radius, if it exceeds it."""
    regularization.real_floats(inputs["weights"])
    return {"weights": map_tensors(lambda w: projections.l1_ball(w, settings), inputs["weights"])}


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """ULP allowed (see L1_WHY)."""
    sizes = [projections.l1_ulps(w) for w in inputs["weights"] if w is not None]
    return {"weights": max(sizes, default=0)}


def _outside(change: Any) -> Any:
    """Return a mistake in what happens outside: a map of a tensor's values, magnitudes and radius."""

    def mistaken(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        radius = float(settings["radius"])

        def one(w: Any) -> Any:
            values = exact(w)
            sizes = magnitude(values).ravel()
            norm = total(sizes)
            if not radius < 1e300 or not norm < 1e300 or radius < 0 or norm <= radius:
                return projections.l1_ball(w, settings)
            return Value(change(values, sizes, real(radius)), w.dtype.name)

        return {"weights": map_tensors(one, inputs["weights"])}

    return mistaken


def _thresholded(theta: Any) -> Any:
    def change(values: Any, sizes: Any, r: Real) -> Any:
        t = theta(sizes, r)
        return each(lambda x: soft(x, t), values)

    return _outside(change)


def _one_fewer(sizes: Any, r: Real) -> Real:
    """θ from one magnitude fewer than exceed it."""
    _, rho, _ = projections.threshold_of(sizes, r)
    used = max(rho - 1, 1)
    return (total(sorted(sizes, reverse=True)[:used]) - r) / used


def _simplex(values: Any, sizes: Any, r: Real) -> Any:
    """Project the signed values: negative ones become zero."""
    theta, _, _ = projections.threshold_of(values.ravel(), r)
    return each(lambda x: max(x - theta, 0 * x), values)


def _always(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Points inside are moved to the sphere as well, by a negative θ."""

    def one(w: Any) -> Any:
        values, r = exact(w), float(settings["radius"])
        sizes = magnitude(values).ravel()
        if not 0 <= r < 1e300 or not total(sizes) < min(r, 1e300) or not w.size:
            return projections.l1_ball(w, settings)
        theta = (total(sizes) - real(r)) / w.size
        return Value(each(lambda x: sign(x) * (abs(x) - theta), values), w.dtype.name)

    return {"weights": map_tensors(one, inputs["weights"])}


def _squared(values: Any, sizes: Any, r: Real) -> Any:
    n = total(x * x for x in sizes) ** real(0.5)
    return values if n <= r else each(lambda x: x * r / n, values)


def _jointly(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """All tensors are one vector."""
    given = [w for w in inputs["weights"] if w is not None]
    if len({w.dtype for w in given}) != 1:
        return oracle(inputs, settings)
    joined = projections.l1_ball(np.concatenate([w.ravel() for w in given]), settings)
    values = exact(joined) if isinstance(joined, np.ndarray) else joined.exact
    parts = iter(np.split(values, np.cumsum([w.size for w in given])[:-1]))
    return {
        "weights": map_tensors(
            lambda w: Value(next(parts).reshape(w.shape), w.dtype.name), inputs["weights"]
        )
    }


MISTAKES = (
    Mistake("rescaled", "w·radius/‖w‖₁: on the ball, but not the nearest point",
            _outside(lambda v, s, r: each(lambda x: x * r / total(s), v))),
    Mistake("2-norm", "the ball of the 2-norm", _outside(_squared)),
    Mistake("all count", "θ = (‖w‖₁ - radius)/N, whoever exceeds it",
            _thresholded(lambda s, r: (total(s) - r) / len(s))),
    Mistake("one fewer", "θ from one magnitude fewer than exceed it", _thresholded(_one_fewer)),
    Mistake("radius ignored", "the ball of radius 1",
            lambda i, s: oracle(i, s | {"radius": 1.0}) if float(s["radius"]) >= 0 else oracle(i, s)),
    Mistake("radius for θ", "the soft threshold at the radius", _thresholded(lambda s, r: r)),
    Mistake("simplex", "negative weights become zero", _outside(_simplex)),
    Mistake("sign lost", "magnitudes are returned",
            _outside(lambda v, s, r: each(lambda x: soft(x, projections.threshold_of(s, r)[0]),
                                          magnitude(v)))),
    Mistake("always on the sphere", "points inside move outwards", _always),
    Mistake("one ball for all tensors", "the tensors share one radius", _jointly),
)  # fmt: skip

CONSTRAINTS = {
    "B1": "Outside, each tensor becomes the nearest point with 1-norm = radius: the soft threshold"
    " sign(w)·max(|w| - θ, 0) with one θ > 0.",
    "B2": "Inside, Σ|w| <= radius, equality included, the output is the input bit for bit.",
    "B3": "What θ reaches becomes +0.0, whatever the sign of the weight.",
    "B4": "Each tensor is projected by itself, all its axes together.",
    "B5": "radius = 0 gives zeros, radius = inf the input.",
    "B6": "Each output has the dtype and shape of its weight; 16 bits are computed in float32.",
    "B7": "An absent weight stays absent; empty and 0-d tensors are allowed.",
    "B8": "radius is >= 0, else a refusal.",
    "B9": "A NaN, or an infinite weight against a finite radius, makes its whole tensor NaN.",
}

FLAGS = {
    "basic": Flag("BASIC", "Tensors outside the ball."),
    "inside": Flag("EDGE_CASE", "Tensors inside: every bit stays."),
    "norm-at-radius": Flag("EDGE_CASE", "Tensors whose 1-norm is the radius exactly."),
    "exact": Flag("EDGE_CASE", "Nothing is rounded, so every bit counts, the sign of zero included."),
    "ties": Flag("EDGE_CASE", "Equal magnitudes, some of the size of θ."),
    "rho": Flag("ORDER", "How many magnitudes exceed θ: one, some, all."),
    "radius-edge": Flag("EDGE_CASE", "A radius of 0 or infinity."),
    "two-tensors": Flag("BASIC", "Several tensors, each with its own θ."),
    "cancellation": Flag("PRECISION", "Weights large against the radius."),
    **common.FLAGS,
}  # fmt: skip


def cases(c: Cases) -> None:
    """Write the cases."""
    # fmt: off

    def add(name: str, flags: str, labels: str, weights: Any, radius: Any, dtypes: Any = ALL) -> None:
        c.add(name, flags, labels, {"weights": weights}, {"radius": radius}, dtypes)

    random = Stream(78)
    add("basic", "basic rho", "B1", [tensor([3, -1, 0.5])], 1.0)
    add("matrix", "basic", "B1 B4", [tensor([3, -4, 0.5], [0.25, -1, 2])], 5.3)
    add("random", "basic", "B1 B4", [random.uniform(5, 6)], 2.7)
    add("random-small-radius", "basic", "B1", [random.uniform(17)], 0.3)
    add("two-tensors", "two-tensors basic", "B1 B4", [random.uniform(3, 4), random.uniform(5)], 1.3)
    add("one-inside", "two-tensors inside", "B1 B2 B4", [tensor([3, -4], [1, 0.5]), tensor(-0.25, 0.5)], 1.7)
    add("two-outside", "two-tensors exact", "B1 B3 B4", [tensor(3, -1, 0.25), tensor([-5], [4.0])], 3.0)
    add("exact", "exact rho", "B1 B3", [tensor(3, -1, 0.5)], 2.0)
    add("exact-two", "exact rho", "B1 B3", [tensor([4, -3, 1], [-0.5, 0.25, 0])], 2.0)
    add("exact-four", "exact rho", "B1", [tensor(3, -4, 3.5, -3)], 5.5)
    add("exact-signs", "exact", "B1 B3", [tensor(-8, -0.5, -0.0, 0.5)], 3.0)
    add("rho-one", "rho exact", "B1 B3", [tensor(-7, 1, 2)], 4.0)
    add("rho-all", "rho", "B1", [tensor(3, -3.5, 4)], 9.3)
    add("rho-three-of-five", "rho", "B1", [tensor(3, -3.5, 4, 0.5, -0.25)], 3.1)
    add("ties", "ties exact", "B1", [tensor(1, -1, 1, -1)], 2.0)
    add("ties-at-threshold", "ties exact", "B1 B3", [tensor(3, -2, 2, 1)], 1.0)
    add("ties-random", "ties", "B1", [np.round(4 * random.uniform(5, 4)) / 4], 3.3)
    add("at-radius", "norm-at-radius inside", "B2", [tensor([3, -1, 0.5], [-0.0, 0.25, -0.25])], 5.0)
    add("at-radius-one", "norm-at-radius inside", "B2", [tensor(-0.5, 0.25, 0.25)], 1.0)
    add("at-radius-of-one", "norm-at-radius two-tensors", "B1 B2", [tensor(-1, 0.5), tensor(3, -1)], 1.5)
    add("inside", "inside", "B2", [random.uniform(3, 4)], 100.0)
    add("inside-decimals", "inside", "B2", [tensor(0.1, -0.7, -0.0, 0.3)], 1.5)
    add("only-zeros", "inside", "B2", [tensor([0, -0.0])], 0.5)
    add("zeros-zero-radius", "inside radius-edge", "B2 B5", [tensor([0, -0.0])], 0.0)
    add("zero-radius", "radius-edge", "B5", [tensor([3, -0.7], [0.5, -0.0])], 0.0)
    add("infinite-radius", "radius-edge inside", "B2 B5", [tensor(3, -0.7, np.inf, np.nan)], "inf")
    add("small-radius", "cancellation", "B1", [tensor(1000, -999.5, 3)], 1.0)
    add("large-weights", "cancellation", "B1", [tensor(3e4, -2e4, 1)], 7.0)
    add("equal-large", "cancellation ties", "B1", [tensor(1024, -1024, 1024)], 0.75)
    add("nan-weight", "nonfinite", "B9", [tensor(np.nan, -4, 0.5)], 1.3)
    add("infinite-weight", "nonfinite", "B9", [tensor(np.inf, -4, -np.inf)], 1.3)
    add("nan-in-another", "nonfinite two-tensors", "B4 B9", [tensor(1, 2), tensor(np.nan, -4)], 1.3, WIDE)
    add("nan-small", "nonfinite", "B9", [tensor(np.nan, 0.25)], 7.3)
    add("wide-range", "wide-range", "B1", [random.spread(37), random.spread(5, 7)], 30.0)
    add("wide-range-small", "wide-range", "B1", [random.spread(20)], 0.7)
    add("wider-range", "wide-range", "B1", [random.spread(20, low=1e-10, high=1e10)], 3e9, WIDE)
    given: dict[str, Any] = {"radius": 1.3}
    common.add_dtypes_and_absence(common.bound(c, "B6 B7", **given))
    common.add_shapes(common.bound(c, "B1 B4 B7", **given), random)
    add("zero-dimensional", "shapes", "B1 B7", [np.array(-3.0), np.array(0.5)], 1.25)
    common.add_refusals(common.bound(c, "B8"), given, "radius", infinite=False)
    add("radius-minus-infinite", "range", "B8", [tensor(3, -4)], "-inf", WIDE)
    # fmt: on


OPERATION = Operation(
    id="project.l1_ball",
    summary="Move each tensor to the nearest point whose magnitudes add up to at most the radius.",
    formula="w ← sign(w)·max(|w| - θ, 0),  θ = (Σ of the ρ largest |w| - radius)/ρ, if Σ|w| > radius",
    sources=(
        "J. Duchi, S. Shalev-Shwartz, Y. Singer, T. Chandra: Efficient projections onto the l1-ball for"
        " learning in high dimensions. ICML 2008",
    ),
    constraints=CONSTRAINTS,
    inputs=regularization.INPUTS,
    outputs={"weights": "the list of projected weights, each with its shape and dtype"},
    params=(projections.RADIUS,),
    dials=(regularization.ZERO_SIGN,),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=projections.L1_WHY,
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
)
