"""``layer.sigmoid``: the logistic function, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, Cases, Stream, tensor
from conformance.exact import NAN, ONE, Real, ctx, each, exact
from conformance.operation import Flag, Mistake, Operation, Value
from conformance.operations import _dtype_cases
from conformance.oracle import activations
from conformance.oracle.activations import finite, floored

Tensors = dict[str, Any]


def scales(y: Any, dtype: str) -> tuple[Any, Any]:
    """Return the magnitudes that errors are measured against: y for y, and y for y(1 - y) too."""
    return floored(y, dtype), floored(y, dtype)


oracle = activations.s_shaped(activations.sigmoid, lambda y: y * (ONE - y), scales)


def tolerance(inputs: Tensors, settings: Tensors) -> dict[str, int]:
    """ULP of y, and of |dy|·y; see TOLERANCE_WHY."""
    return {"y": 8, "dx": 12}


def overflowing(inputs: Tensors, settings: Tensors) -> Tensors:
    """dx = dy·e/(1 + e)² with e = exp(-x), which is infinity over infinity where it overflows."""
    result = oracle(inputs, settings)
    x = exact(inputs["x"])
    limit = ctx.log(ctx.mpf(float(np.finfo(_working(inputs["x"].dtype.name)).max)))
    dx = each(lambda a, d: NAN if -a > limit else d, x, result["dx"].exact)
    return result | {"dx": Value(dx, result["dx"].dtype)}


def _working(dtype: str) -> str:
    return "float64" if dtype == "float64" else "float32"


def _hard(x: Real, y: Real, dy: Real) -> Real:
    return min(max(x / 6 + ctx.mpf(0.5), ctx.mpf(0)), ctx.mpf(1)) if x == x else x


def _from_tanh(inputs: Tensors, settings: Tensors) -> Tensors:
    """y = (1 + tanh(x/2))/2 in the format of x: next to 0 the sum keeps no digits."""
    result, x = oracle(inputs, settings), inputs["x"]
    with np.errstate(all="ignore"):
        wide = x.astype(_working(x.dtype.name))
        y = (wide.dtype.type(0.5) * (1 + np.tanh(wide * wide.dtype.type(0.5)))).astype(x.dtype)
    return result | {"y": Value(exact(y), x.dtype.name, finite(exact(np.abs(y))))}


MISTAKES = (
    Mistake("gradient overflows", "exp(-x) is squared, and infinity over infinity is NaN", overflowing,
            ("tracel-ai/burn#1139",)),
    Mistake("digits lost next to 0", "y = (1 + tanh(x/2))/2, which cancels", _from_tanh),
    *activations.mistakes(oracle, (
        ("upstream gradient ignored", "dx = y(1 - y)", "dx", lambda x, y, dy: y * (ONE - y)),
        ("upstream gradient squared", "dy enters twice", "dx", lambda x, y, dy: dy * dy * y * (ONE - y)),
        ("derivative at y", "σ' is taken at y, where x is meant", "dx",
         lambda x, y, dy: dy * (s := activations.sigmoid(y)) * (ONE - s)),
        ("derivative of tanh", "dx = dy(1 - y²)", "dx", lambda x, y, dy: dy * (ONE - y * y)),
        ("derivative is y", "dx = dy·y", "dx", lambda x, y, dy: dy * y),
        ("sign", "y = 1/(1 + exp(x))", "y", lambda x, y, dy: ONE - y),
        ("tanh", "y = tanh(x)", "y", lambda x, y, dy: ctx.tanh(x)),
        ("hard sigmoid", "y is a ramp between -3 and 3", "y", _hard),
    )),
)  # fmt: skip

CONSTRAINTS = {
    "C1": "y = 1/(1 + exp(-x)), with all its digits where it is next to 0 too.",
    "C2": "dx = dy·y·(1 - y). Computed from y, it keeps no more digits of 1 - y than y has.",
    "C3": "Nothing overflows: at large |x| y is 0 or 1 and dx is 0, never NaN.",
    "C4": "Where y would be subnormal it may also be 0 (1 over an exp(-x) that overflows).",
    "C5": "At -inf and +inf y is 0 and 1, and dx is 0; NaN gives NaN in both, at its own place only.",
    "C6": "Any shape, 0-d and empty ones included; both outputs have the dtype of x; dy has its shape.",
    "C7": _dtype_cases.CONSTRAINT,
}

FLAGS = {
    "basic": Flag("BASIC", "Both signs; uneven upstream gradient."),
    "zero": Flag("EDGE_CASE", "Elements of 0 of either sign: y = 1/2."),
    "overflow": Flag(
        "KNOWN_BUG",
        "Elements so negative that exp(-x) overflows: the gradient is 0 and not NaN.",
        ("tracel-ai/burn#1139", "huggingface/candle#1722", "clab/dynet#1525", "jeshraghian/snntorch#427"),
    ),
    "saturated": Flag("EDGE_CASE", "Elements at which y is 1, or next to it."),
    "small": Flag("PRECISION", "Very negative elements: y is tiny, and keeps its digits."),
    "underflow": Flag("EDGE_CASE", "Elements at which y is subnormal."),
    "nan": Flag("EDGE_CASE", "NaN elements."),
    "infinite": Flag("EDGE_CASE", "Infinite elements, of x or of dy."),
    "uneven-upstream": Flag("EDGE_CASE", "dy differs by orders of magnitude, and is zero in places."),
    "shapes": Flag("EDGE_CASE", "0-d, empty and four-dimensional tensors."),
    "bad-shape": Flag("EDGE_CASE", "A dy that does not fit."),
    "bad-dtype": _dtype_cases.FLAG,
}  # fmt: skip


def cases(c: Cases) -> None:
    """Write the cases."""
    random = Stream(121)
    nan, inf = np.nan, np.inf

    def add(name: str, flags: str, labels: str, x: Any, dy: Any = None, dtypes: Any = ALL) -> None:
        dy = random.uniform(*x.shape, low=-3.0, high=3.0) if dy is None else dy
        c.add(name, flags, labels, {"x": x, "dy": dy}, {}, dtypes)

    add("basic", "basic", "C1 C2", random.uniform(3, 5, low=-6.0, high=6.0))
    add(
        "by-hand",
        "basic",
        "C1 C2",
        tensor([np.log(3), 0], [-np.log(4), 2]),
        tensor([8, -2], [25, 0.5]),
    )
    add("all-negative", "basic", "C1 C2", random.uniform(4, low=-3.0, high=-0.5))
    add("all-positive", "basic", "C1 C2", random.uniform(2, 3, low=0.5, high=3.0))
    add("zeros", "zero", "C1 C2", tensor([0, -0.0, 1], [0, -1, 0]))
    add("next-to-zero", "zero", "C1 C2", tensor(1e-4, -1e-4, 0, 2e-3), tensor(3, -2, 5, 0.5))
    add("zero-alone", "zero shapes", "C1 C6", np.array(0.0), np.array(-3.0))
    add("saturated", "saturated", "C2 C3", tensor(10, 15, 20, 30), tensor(2, -3, 0.5, 7))
    add("saturated-wholly", "saturated", "C3", tensor([100, 1000], [5e4, 40]))
    add("small", "small", "C1 C2", tensor(-5, -7, -9), tensor(3, -2, 0.25))
    add(
        "small-single",
        "small",
        "C1 C2",
        tensor(-20, -40, -60, -80),
        tensor(2, -3, 40, 0.5),
        ("float64", "float32", "bfloat16"),
    )
    add(
        "small-double",
        "small",
        "C1 C2",
        tensor(-200, -400, -600, -700),
        tensor(2, -3, 40, 0.5),
        ("float64",),
    )
    add("overflow", "overflow", "C3 C4", tensor(-90, -1000, -5e4, 2), tensor(2, -3, 4, 5))
    add("overflow-all", "overflow", "C3", tensor([-200, -548.25], [-750, -1e4]))
    add(
        "overflow-list",
        "overflow saturated",
        "C3",
        tensor(-1662.75, 3212.5, -1093.75, 2063.75, 91.375, 0, -0.5),
    )
    add("overflow-largest", "overflow", "C3", tensor(-6e4, 6e4), tensor(-1, 3))
    add(
        "underflow-single",
        "underflow small",
        "C4",
        tensor(-87, -89, -95, -103),
        tensor(1, -2, 3, 4),
        ("float32", "bfloat16"),
    )
    add(
        "underflow-double",
        "underflow small",
        "C4",
        tensor(-708, -710, -730, -745),
        tensor(1, -2, 3, 4),
        ("float64",),
    )
    add(
        "underflow-half",
        "underflow small",
        "C1 C4",
        tensor(-9.5, -11, -13, -16),
        tensor(1, -2, 3, 4),
        ("float16",),
    )
    add("nan", "nan", "C5", tensor(nan, 1, -1, nan), tensor(2, -3, 4, -5))
    add("nan-one", "nan", "C5", tensor([0.5, nan], [-2, 3]))
    add("infinities", "infinite", "C5", tensor(inf, -inf, 1, -1), tensor(2, 3, -4, 5))
    add(
        "infinity-and-nan",
        "infinite nan",
        "C5",
        tensor([-inf, nan], [inf, 3]),
        tensor([1, 2], [3, 4]),
    )
    add("infinite-upstream", "infinite", "C2", tensor(0.5, -1, 2), tensor(inf, -inf, 3))
    add("nan-upstream", "nan", "C2", tensor(0.5, -1, 2), tensor(1, nan, 3))
    add(
        "uneven-upstream",
        "uneven-upstream",
        "C2",
        random.uniform(2, 4, low=-3.0, high=3.0),
        tensor([1e3, 0, -1e-3, 2], [0, -5, 1e-2, 7]),
    )
    add(
        "zero-upstream",
        "uneven-upstream",
        "C2",
        random.uniform(2, 3, low=-3.0, high=3.0),
        np.zeros((2, 3)),
    )
    add("zero-dimensional", "shapes", "C6", np.array(1.5), np.array(-2.0))
    add("empty", "shapes", "C6", np.zeros((0, 3)))
    add("image", "shapes basic", "C1 C2 C6", random.uniform(2, 2, 3, 2, low=-4.0, high=4.0))
    add(
        "upstream-mismatch",
        "bad-shape",
        "C6",
        random.uniform(2, 3),
        random.uniform(3, 2),
        ("float32",),
    )
    add(
        "upstream-missing-axis",
        "bad-shape",
        "C6",
        random.uniform(2, 3),
        random.uniform(3),
        ("float32",),
    )
    add(
        "upstream-one-number", "bad-shape", "C6", random.uniform(2), random.uniform(1), ("float32",)
    )
    _dtype_cases.refused(
        c, "C7",
        {"x": random.uniform(2, 3, low=-2.0, high=2.0), "dy": random.uniform(2, 3)},
    )  # fmt: skip


OPERATION = Operation(
    id="layer.sigmoid",
    summary="The logistic function, with its gradient.",
    formula="y = 1/(1 + exp(-x));  dx = dy · y · (1 - y)",
    sources=(
        "P.-F. Verhulst: Recherches mathématiques sur la loi d'accroissement de la population. 1845",
        "D. E. Rumelhart, G. E. Hinton, R. J. Williams: Learning representations by back-propagating"
        " errors. Nature 323, 1986",
    ),
    constraints=CONSTRAINTS,
    inputs={"x": "float tensor of any shape", "dy": "like x: the upstream gradient, dL/dy"},
    outputs={"y": "like x", "dx": "like x"},
    params=(),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=(
        "exp is good to 4u, and the sum, the quotient and one more rounding to the format add 3u: y is good"
        " to 8u, and one ULP of a number is at least u times it. dx is computed from that y: its error"
        " passes through y(1 - y) with a factor |1 - 2y| of at most 1, so by 8u of |dy|·y, and the"
        " difference and two products add 3u; 16-bit libraries that round each step, one more. Where y is"
        " below four times the smallest normal number, one ULP is taken to be that number: implementations"
        " that divide by 1 + exp(-x) flush it."
    ),
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    dialects={"tensorflow": {"subnormals": "flush"}},
)  # fmt: skip
