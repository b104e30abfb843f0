"""``layer.tanh``: the hyperbolic tangent, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, Cases, Stream, tensor
from conformance.exact import NAN, ONE, ctx, each, exact, full, magnitude
from conformance.operation import Flag, Mistake, Operation, Value
from conformance.operations import _dtype_cases
from conformance.oracle import activations

Tensors = dict[str, Any]


def scales(y: Any, dtype: str) -> tuple[Any, Any]:
    """Return the magnitudes that errors are measured against: |y|, and 1 for 1 - y²."""
    return magnitude(y), full(y.shape, ONE)


oracle = activations.s_shaped(ctx.tanh, lambda y: ONE - y * y, scales)


def tolerance(inputs: Tensors, settings: Tensors) -> dict[str, int]:
    """ULP of y, and of |dy|; see TOLERANCE_WHY."""
    return {"y": 5, "dx": 14}


def overflowing(inputs: Tensors, settings: Tensors) -> Tensors:
    """y = (e^x - e^-x)/(e^x + e^-x), which is NaN where an exponential overflows."""
    result, x = oracle(inputs, settings), exact(inputs["x"])
    working = "float64" if inputs["x"].dtype.name == "float64" else "float32"
    limit = ctx.log(ctx.mpf(float(np.finfo(working).max)))
    y = each(lambda a, b: NAN if abs(a) > limit else b, x, result["y"].exact)
    return result | {"y": Value(y, result["y"].dtype)}


def _cancelling(inputs: Tensors, settings: Tensors) -> Tensors:
    """y = 2/(1 + exp(-2x)) - 1 in the format of x: next to 0 the difference keeps no digits."""
    result, x = oracle(inputs, settings), inputs["x"]
    working = np.float64 if x.dtype.name == "float64" else np.float32
    with np.errstate(all="ignore"):
        y = 2 / (1 + np.exp(-2 * x.astype(working))) - 1
    return result | {"y": Value(exact(y.astype(x.dtype)), x.dtype.name)}


MISTAKES = (
    Mistake("overflow", "the quotient of differences of exponentials is infinity over infinity", overflowing),
    Mistake("digits lost next to 0", "y = 2σ(2x) - 1, which cancels", _cancelling),
    *activations.mistakes(oracle, (
        ("upstream gradient ignored", "dx = 1 - y²", "dx", lambda x, y, dy: ONE - y * y),
        ("upstream gradient squared", "dy enters twice", "dx", lambda x, y, dy: dy * dy * (ONE - y * y)),
        ("derivative at y", "tanh' is taken at y, where x is meant", "dx",
         lambda x, y, dy: dy * (ONE - ctx.tanh(y) ** 2)),
        ("derivative at x", "dx = dy(1 - x²): the input is taken for the output", "dx",
         lambda x, y, dy: dy * (ONE - x * x)),
        ("derivative of the sigmoid", "dx = dy·y(1 - y)", "dx", lambda x, y, dy: dy * y * (ONE - y)),
        ("not squared", "dx = dy(1 - y)", "dx", lambda x, y, dy: dy * (ONE - y)),
        ("sigmoid", "y = 1/(1 + exp(-x))", "y", lambda x, y, dy: activations.sigmoid(x)),
        ("hard tanh", "y is x between -1 and 1", "y",
         lambda x, y, dy: x if x != x else min(max(x, -ONE), ONE)),
        ("scaled", "y = 1.7159 tanh(2x/3)", "y",
         lambda x, y, dy: ctx.mpf("1.7159") * ctx.tanh(2 * x / 3)),
    )),
)  # fmt: skip

CONSTRAINTS = {
    "C1": "y = tanh(x), with all its digits where it is next to 0 too: there y is x.",
    "C2": "dx = dy·(1 - y²). Computed from y, it keeps no more digits of 1 - y² than y has.",
    "C3": "Nothing overflows: at large |x| y is -1 or 1 and dx is 0, never NaN.",
    "C4": "At -inf and +inf y is -1 and 1, and dx is 0; NaN gives NaN in both, at its own place only.",
    "C5": "Any shape, 0-d and empty ones included; both outputs have the dtype of x; dy has its shape.",
    "C6": _dtype_cases.CONSTRAINT,
}

FLAGS = {
    "basic": Flag("BASIC", "Both signs; uneven upstream gradient."),
    "zero": Flag("EDGE_CASE", "Elements of 0 of either sign: y is 0, dx is dy."),
    "small": Flag("PRECISION", "Elements next to 0, where y is x and 1 - exp cancels."),
    "saturated": Flag("EDGE_CASE", "Elements at which |y| is 1, or next to it."),
    "overflow": Flag("OVERFLOW", "Elements whose exponential overflows."),
    "subnormal": Flag("EDGE_CASE", "Subnormal elements."),
    "nan": Flag("EDGE_CASE", "NaN elements."),
    "infinite": Flag("EDGE_CASE", "Infinite elements, of x or of dy."),
    "uneven-upstream": Flag("EDGE_CASE", "dy differs by orders of magnitude, and is zero in places."),
    "shapes": Flag("EDGE_CASE", "0-d, empty and four-dimensional tensors."),
    "bad-shape": Flag("EDGE_CASE", "A dy that does not fit."),
    "bad-dtype": _dtype_cases.FLAG,
}  # fmt: skip


def cases(c: Cases) -> None:
    """Write the cases."""
    random = Stream(122)
    nan, inf = np.nan, np.inf

    def add(name: str, flags: str, labels: str, x: Any, dy: Any = None, dtypes: Any = ALL) -> None:
        dy = random.uniform(*x.shape, low=-3.0, high=3.0) if dy is None else dy
        c.add(name, flags, labels, {"x": x, "dy": dy}, {}, dtypes)

    add("basic", "basic", "C1 C2", random.uniform(3, 5, low=-3.0, high=3.0))
    add(
        "by-hand",
        "basic",
        "C1 C2",
        tensor([np.log(3), 0], [-np.log(2), 1]),
        tensor([25, -2], [5, 0.5]),
    )
    add("all-negative", "basic", "C1 C2", random.uniform(4, low=-2.0, high=-0.25))
    add("all-positive", "basic", "C1 C2", random.uniform(2, 3, low=0.25, high=2.0))
    add("zeros", "zero", "C1 C2", tensor([0, -0.0, 1], [0, -1, 0]))
    add("zero-alone", "zero shapes", "C1 C5", np.array(-0.0), np.array(2.0))
    add("small", "small", "C1 C2", tensor(1e-2, -1e-3, 3e-4, -2e-2), tensor(3, -2, 5, 0.5))
    add(
        "small-single",
        "small",
        "C1",
        tensor(1e-7, -1e-10, 3e-20, -1e-30),
        tensor(3, -2, 5, 0.5),
        ("float64", "float32", "bfloat16"),
    )
    add("small-spread", "small", "C1 C2", random.spread(3, 4, low=1e-3, high=1.0))
    add("saturated", "saturated", "C2 C3", tensor(4, -5, 8, -9.5), tensor(2, -3, 0.5, 7))
    add("saturated-wholly", "saturated", "C3", tensor([20, -30], [-60, 44]))
    add("saturated-edge", "saturated", "C1 C2", tensor(7.5, 7.875, 8.5, 9), tensor(1, -2, 3, 4))
    add("overflow", "overflow", "C3", tensor(90, -100, 1000, -5e4), tensor(2, -3, 4, 5))
    add("overflow-double", "overflow", "C3", tensor(-800, 750, 1e5), tensor(2, -3, 4), ("float64",))
    add(
        "overflow-largest",
        "overflow",
        "C3",
        tensor([6e4, -6e4], [1, 400]),
        tensor([-1, 3], [2, 0.5]),
    )
    for name, dtype, tiny in (
        ("double", "float64", 1e-310),
        ("single", "float32", 1e-40),
        ("brain", "bfloat16", 5e-39),
        ("half", "float16", 1e-5),
    ):
        x = tensor(tiny, -tiny, 5 * tiny, 1)
        add(f"subnormal-{name}", "subnormal small", "C1", x, tensor(2, 3, -4, 5), (dtype,))
    add("nan", "nan", "C4", tensor(nan, 1, -1, nan), tensor(2, -3, 4, -5))
    add("nan-one", "nan", "C4", tensor([0.5, nan], [-2, 3]))
    add("infinities", "infinite", "C4", tensor(inf, -inf, 1, -1), tensor(2, 3, -4, 5))
    add(
        "infinity-and-nan",
        "infinite nan",
        "C4",
        tensor([-inf, nan], [inf, 3]),
        tensor([1, 2], [3, 4]),
    )
    add("infinite-upstream", "infinite", "C2", tensor(0.5, -1, 2), tensor(inf, -inf, 3))
    add("nan-upstream", "nan", "C2", tensor(0.5, -1, 2), tensor(1, nan, 3))
    add(
        "uneven-upstream",
        "uneven-upstream",
        "C2",
        random.uniform(2, 4, low=-2.0, high=2.0),
        tensor([1e3, 0, -1e-3, 2], [0, -5, 1e-2, 7]),
    )
    add(
        "zero-upstream",
        "uneven-upstream",
        "C2",
        random.uniform(2, 3, low=-2.0, high=2.0),
        np.zeros((2, 3)),
    )
    add("zero-dimensional", "shapes", "C5", np.array(1.5), np.array(-2.0))
    add("empty", "shapes", "C5", np.zeros((0, 3)))
    add("image", "shapes basic", "C1 C2 C5", random.uniform(2, 2, 3, 2, low=-2.0, high=2.0))
    add(
        "upstream-mismatch",
        "bad-shape",
        "C5",
        random.uniform(2, 3),
        random.uniform(3, 2),
        ("float32",),
    )
    add(
        "upstream-missing-axis",
        "bad-shape",
        "C5",
        random.uniform(2, 3),
        random.uniform(3),
        ("float32",),
    )
    add(
        "upstream-one-number", "bad-shape", "C5", random.uniform(2), random.uniform(1), ("float32",)
    )
    _dtype_cases.refused(
        c, "C6",
        {"x": random.uniform(2, 3, low=-2.0, high=2.0), "dy": random.uniform(2, 3)},
    )  # fmt: skip


OPERATION = Operation(
    id="layer.tanh",
    summary="The hyperbolic tangent, with its gradient.",
    formula="y = tanh(x);  dx = dy · (1 - y²)",
    sources=(
        "Y. LeCun, L. Bottou, G. B. Orr, K.-R. Müller: Efficient BackProp. In: Neural Networks: Tricks of the"
        " Trade, 1998",
    ),
    constraints=CONSTRAINTS,
    inputs={"x": "float tensor of any shape", "dy": "like x: the upstream gradient, dL/dy"},
    outputs={"y": "like x", "dx": "like x"},
    params=(),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=(
        "tanh is good to 4u, one more for rounding a 16-bit result: 5u, and one ULP of a number is at least"
        " u times it. dx is computed from that y, whose error passes through 1 - y² with a factor 2|y| of"
        " at most 2: 10u of |dy|; the square, the difference, the product and a rounding to 16 bits add 4u."
    ),
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    dialects={"tensorflow": {"subnormals": "flush"}},
)  # fmt: skip
