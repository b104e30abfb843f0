"""``project.max_norm``: scale every group of weights whose norm exceeds a limit back to it."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Cases, Stream, tensor
from conformance.exact import ZERO, each, exact, full, real, total
from conformance.formats import FLOATS
from conformance.operation import Flag, Mistake, Operation, Value, map_tensors
from conformance.operations import _regularization_cases as common
from conformance.oracle import groups, projections, regularization
from conformance.oracle.regularization import Settings


def oracle(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """w·min(1, c/‖w_group‖), group by group."""
    regularization.real_floats(inputs["weights"])
    projections.limit_of(settings)
    return {"weights": map_tensors(lambda w: projections.max_norm(w, settings), inputs["weights"])}


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """ULP allowed (see WHY)."""
    given = [w for w in inputs["weights"] if w is not None]
    wide = max((FLOATS[w.dtype.name].precision for w in given), default=24)
    return {"weights": groups.norm_ulps(inputs, settings) + 5 if wide >= 24 else 4}


WHY = (
    f"{groups.NORM_WHY} Rounding the limit, adding eps, dividing, multiplying and one more rounding for 16"
    " bits add 5. The norms of 16-bit weights are computed in float32; their factor may be rounded to 16"
    " bits before it multiplies."
)


def _maps(change: Any) -> Any:
    """Return a mistake: another factor, as a function of a group's norm and the limit."""

    def mistaken(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        limit = projections.limit_of(settings)

        def one(w: Any) -> Any:
            n = groups.norms(w, settings)
            if not w.size or not limit < 1e300 or not all(x < 1e300 for x in n.ravel()):
                return projections.max_norm(w, settings)
            values = each(lambda x, m: x * change(m, real(limit)), exact(w), n)
            return Value(values, w.dtype.name)

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


def _jointly(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """One norm over all tensors."""
    limit = projections.limit_of(settings)
    given = [w for w in inputs["weights"] if w is not None]
    n = total(x * x for w in given for x in exact(w).ravel()) ** real(0.5)
    if not n < 1e300 or not limit < 1e300 or n <= limit:
        return oracle(inputs, settings)
    return {
        "weights": map_tensors(
            lambda w: Value(
                exact(w) * (real(limit) / n) if w.size else full(w.shape), w.dtype.name
            ),
            inputs["weights"],
        )
    }


def _clamped(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    limit = real(projections.limit_of(settings))
    clamp = lambda x: x if x != x else max(min(x, limit), -limit)  # noqa: E731
    return {
        "weights": map_tensors(
            lambda w: Value(each(clamp, exact(w)), w.dtype.name), inputs["weights"]
        )
    }


MISTAKES = (
    Mistake("other axes", "the norms run over the axis that indexes the groups",
            _scope(lambda w, axes: [a for a in range(w.ndim) if a not in axes]),
            ("SlopDotCash/asi#439",)),
    Mistake("one norm for the tensor", "each tensor is one group", _scope(lambda w, axes: []),
            ("karpathy/nanochat#162",)),
    Mistake("one norm for all tensors", "the tensors share one norm", _jointly),
    Mistake("element-wise", "each weight is limited by itself", _clamped),
    Mistake("always normalised", "groups inside grow to the limit",
            _maps(lambda n, c: ZERO if n == 0 else c / n)),
    Mistake("no effect", "the constraint is accepted and unused", _maps(lambda n, c: 1 + ZERO),
            ("tensorflow/tensorflow#33929",)),
    Mistake("unit norm", "groups outside get norm 1",
            _maps(lambda n, c: 1 + ZERO if n <= c else 1 / n)),
    Mistake("squared norm", "the limit meets the squared norm",
            _maps(lambda n, c: 1 + ZERO if n * n <= c else c / (n * n))),
    Mistake("zero over zero", "a zero group becomes NaN",
            _maps(lambda n, c: c / n if n > c else real(float("nan")) if n == 0 else 1 + ZERO),
            ("google-deepmind/optax#1752",)),
    Mistake("infinity hidden", "an infinite norm makes zeros of a group's other weights",
            lambda i, s: oracle(i, s | {"nonfinite": "multiply"}), ("tensorflow/tensorflow#21363",)),
)  # fmt: skip

CONSTRAINTS = {
    "M1": "A group with norm n > max_norm = c is multiplied by c/n: its direction stays.",
    "M2": "A group with n <= c stays bit for bit, n = c and a zero group included.",
    "M3": "axis indexes the groups, the norms run over all other axes; negative axes count from the end; no"
    " axis makes the tensor one group, every axis each element.",
    "M4": "c = 0 gives zeros, c = inf the input.",
    "M5": "Each output has the dtype and shape of its weight; 16 bits are computed in float32. A norm is"
    " right whenever it is representable, squares that are not notwithstanding.",
    "M6": "An absent weight stays absent; empty tensors are allowed.",
    "M7": "c is >= 0 and every axis exists, once, else a refusal.",
    "M8": "A NaN or infinite norm makes its whole group NaN; other groups do not see it.",
}

FLAGS = {
    "basic": Flag("BASIC", "Groups inside and outside."),
    "axes": Flag("KNOWN_BUG", "Which axes the norm runs over: negative ones, several, none, all.",
                 ("SlopDotCash/asi#439", "google-deepmind/optax#906")),
    "norm-at-limit": Flag("EDGE_CASE", "Groups whose norm is the limit exactly."),
    "inside": Flag("EDGE_CASE", "Nothing to do: every bit stays."),
    "zero-group": Flag("KNOWN_BUG", "A group of zeros, where 0/0 lurks.", ("google-deepmind/optax#1752",)),
    "limit-edge": Flag("EDGE_CASE", "A limit of 0 or infinity."),
    "extreme": Flag("OVERFLOW", "Norms whose squares are not representable."),
    "small-limit": Flag("DIALECT", "Small norms and limits, where eps shows."),
    **common.FLAGS,
}  # fmt: skip


def cases(c: Cases) -> None:
    """Write the cases."""
    # fmt: off

    def add(name: str, flags: str, labels: str, weights: Any, max_norm: Any, axis: Any = 0,
            dtypes: Any = ALL) -> None:
        c.add(name, flags, labels, {"weights": weights}, {"max_norm": max_norm, "axis": axis}, dtypes)

    random = Stream(77)
    matrix = tensor([3, -4, 0.25], [0.1, -0.2, 0.1])
    add("rows", "basic", "M1 M2 M3", [matrix], 1.0)
    add("columns", "basic", "M1 M2 M3", [matrix], 0.7, 1)
    add("three-four-five", "basic", "M1", [tensor([3, -4], [0.3, 0.4])], 1.0)
    add("two-tensors", "basic", "M1 M2", [random.uniform(3, 4), random.uniform(4, 2)], 0.9)
    add("two-tensors-columns", "basic", "M1 M2", [random.uniform(3, 5), random.uniform(4, 2)], 0.8, 1)
    add("dense", "basic axes", "M1 M3", [random.uniform(6, 3)], 1.25, 1)
    add("kernel", "axes", "M1 M3", [random.uniform(2, 3, 2, 4)], 1.5, 3)
    add("last-axis", "axes", "M3", [random.uniform(2, 3, 4)], 1.1, -1)
    add("middle-axis", "axes", "M3", [random.uniform(2, 3, 4)], 1.3, 1)
    add("two-axes", "axes", "M3", [random.uniform(2, 3, 4)], 0.9, [0, 2])
    add("two-axes-negative", "axes", "M3", [random.uniform(3, 2, 2)], 0.9, [-1, 0])
    add("no-axis", "axes", "M3", [tensor([3, -4], [12, 0.5])], 2.0, [])
    add("every-axis", "axes", "M3", [tensor([3, -4], [0, 0.5])], 0.75, [0, 1])
    add("vector", "axes", "M3", [tensor(3, -4, 0.1)], 0.7)
    add("square", "axes", "M3", [tensor([3, 0.5, -1], [-4, 0.25, 2], [1, 6, 0.1])], 2.0)
    add("square-columns", "axes", "M3", [tensor([3, 0.5, -1], [-4, 0.25, 2], [1, 6, 0.1])], 2.0, 1)
    add("at-limit", "norm-at-limit inside", "M2", [tensor([3, -4], [-0.5, 0.25])], 5.0)
    add("at-limit-columns", "norm-at-limit inside", "M2", [tensor([0.75, 3], [-1, -4])], 5.0, 1)
    add("at-limit-thirteen", "norm-at-limit inside", "M2", [tensor([3, -4, 12], [-2, 3, 6])], 13.0)
    add("at-limit-and-above", "norm-at-limit", "M1 M2", [tensor([3, -4], [6, -8])], 5.0)
    add("inside", "inside", "M2", [random.uniform(3, 4), random.uniform(2, 2)], 7.0)
    add("inside-decimals", "inside", "M2", [tensor([0.1, -0.7], [0.3, -0.0])], 3.0, 1)
    add("zero-group", "zero-group", "M1 M2", [tensor([0, -0.0], [3, -4])], 1.0)
    add("only-zeros", "zero-group inside", "M2", [np.zeros((3, 2))], 0.5, 1)
    add("zero-group-zero-limit", "zero-group limit-edge", "M4", [tensor([0, 0], [3, -1])], 0.0)
    add("zero-limit", "limit-edge", "M4", [matrix], 0.0)
    add("infinite-limit", "limit-edge inside", "M4", [tensor([3, -4, np.inf], [0.1, np.nan, -0.0])], "inf")
    add("infinite-limit-finite", "limit-edge inside", "M4", [matrix, tensor([0.0, 1e-3])], "inf", 0)
    add("squares-overflow", "extreme", "M5", [tensor([3e30, -4e30], [0.5, 1])], 0.25, 0,
        ("float32", "bfloat16"))
    add("squares-overflow", "extreme", "M5", [tensor([3e200, -4e200], [0.5, 1])], 0.25, 0, ("float64",))
    add("squares-underflow", "extreme", "M5", [tensor([3e-30, -4e-30], [1e-30, 1e-30])], 2.5e-30, 0,
        ("float32", "bfloat16"))
    add("squares-underflow", "extreme", "M5", [tensor([3e-200, -4e-200], [1e-200, 0])], 2.5e-200, 0,
        ("float64",))
    add("squares-beyond-float16", "extreme", "M5", [tensor([300, -400, 9], [0.5, 2, -1])], 3.0)
    add("far-above", "extreme", "M1 M5", [tensor([3e30, -4e30], [0.5, 1])], 2.5e-30, 0, ("float32", "bfloat16"))
    add("far-above", "extreme", "M1 M5", [tensor([3e200, -4e200], [0.5, 1])], 2.5e-200, 0, ("float64",))
    add("small-limit", "small-limit", "M1 M2", [tensor([0.003, -0.004], [1e-4, 2e-4])], 1e-3)
    add("smaller-limit", "small-limit", "M1", [tensor([3e-6, -4e-6], [1e-3, 2e-4])], 1e-6, 0, WIDE)
    add("small-inside", "small-limit inside", "M2", [tensor([0.003, -0.004], [1e-4, 2e-4])], 0.1)
    for name, value in (("negative", -1.0), ("nan", "nan"), ("minus-infinite", "-inf")):
        add(f"limit-{name}", "range", "M7", [tensor([3, -4], [0.5, 2])], value, 0, WIDE)
    for name, axis in (("beyond", 2), ("before", -3), ("twice", [0, -2])):
        add(f"axis-{name}", "range axes", "M7", [tensor([3, -4], [0.5, 2])], 1.0, axis, WIDE)
    add("axis-of-zero-dimensional", "range axes", "M7", [np.array(3.0)], 1.0, 0, WIDE)
    add("nan-weight", "nonfinite", "M8", [tensor([np.nan, -4], [3, -1])], 2.0)
    add("infinite-weight", "nonfinite", "M8", [tensor([np.inf, -4], [3, -1])], 2.0)
    add("nan-columns", "nonfinite", "M8", [tensor([np.nan, -4, 1], [3, -1, np.inf])], 2.0, 1)
    add("nan-inside", "nonfinite", "M8", [tensor([np.nan, 0.25], [0.5, -1])], 2.0, 0, WIDE)
    add("wide-range", "wide-range", "M1 M2", [random.spread(5, 7), random.spread(3, 4)], 30.0)
    add("wide-range-columns", "wide-range", "M1 M2", [random.spread(6, 5)], 30.0, 1)
    add("wider-range", "wide-range", "M1 M2", [random.spread(9, 3, low=1e-10, high=1e10)], 3.0, 0, WIDE)
    given: dict[str, Any] = {"max_norm": 1.3, "axis": 0}
    common.add_dtypes_and_absence(common.bound(c, "M5 M6", **given))
    common.add_shapes(common.bound(c, "M1 M2 M6", **(given | {"axis": 1})), random)
    # fmt: on


OPERATION = Operation(
    id="project.max_norm",
    summary="Scale every group of weights back onto a ball of the 2-norm.",
    formula="w ← w·min(1, c/‖w_group‖)",
    sources=(
        "N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov: Dropout. JMLR 15, 2014,"
        " section 5.1",
    ),
    constraints=CONSTRAINTS,
    inputs=regularization.INPUTS,
    outputs={"weights": "the list of projected weights, each with its shape and dtype"},
    params=(projections.MAX_NORM, groups.AXIS),
    dials=projections.MAX_NORM_DIALS,
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=WHY,
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    dialects={
        "torch": {"eps": 1e-7, "norm": "naive", "nonfinite": "nan_below"},
        "tensorflow": {
            "eps": 1e-7, "below_limit": "rescaled", "nonfinite": "multiply", "norm": "naive",
            "infinite_limit": "multiply", "negative_limit": "zeros", "nan_limit": "all_nan",
            "subnormals": "flush",
        },
    },
)  # fmt: skip
