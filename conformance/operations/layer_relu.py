"""``layer.relu``: the rectified linear unit, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, Cases, Stream, tensor
from conformance.exact import exact
from conformance.operation import Dial, Flag, Mistake, Operation, Value
from conformance.operations import _dtype_cases
from conformance.oracle import layers

Tensors = dict[str, Any]


def oracle(inputs: Tensors, settings: Tensors) -> Tensors:
    """y = max(x, 0);  dx = dy where x > 0, else 0."""
    layers.check_dtypes(**inputs)
    layers.check_shape("dy", inputs["dy"], inputs["x"].shape)
    y, context = layers.relu_forward(exact(inputs["x"]), settings["nan"])
    dx = layers.relu_backward(context, exact(inputs["dy"]))
    dtype = inputs["x"].dtype.name
    return {"y": Value(y, dtype), "dx": Value(dx, dtype)}


def tolerance(inputs: Tensors, settings: Tensors) -> dict[str, int]:
    """Both outputs are selections; see TOLERANCE_WHY for the one ULP."""
    return {"y": 1, "dx": 1}


def _gradient(function: Any) -> Any:
    """Return a mistake whose dx is a function of x, y and dy."""

    def mistaken(inputs: Tensors, settings: Tensors) -> Tensors:
        result, x = oracle(inputs, settings), inputs["x"]
        with np.errstate(all="ignore"):
            dx = function(x, np.where(x <= 0, 0, x), inputs["dy"])
        return result | {"dx": Value(exact(np.asarray(dx, dtype=x.dtype)), x.dtype.name)}

    return mistaken


def _value(function: Any) -> Any:
    """Return a mistake whose y is a function of x and the right y."""

    def mistaken(inputs: Tensors, settings: Tensors) -> Tensors:
        result, x = oracle(inputs, settings), inputs["x"]
        with np.errstate(all="ignore"):
            y = function(x, np.where(x <= 0, 0, x))
        return result | {"y": Value(exact(np.asarray(y, dtype=x.dtype)), x.dtype.name)}

    return mistaken


MISTAKES = (
    Mistake(
        "gradient at zero", "x = 0 lets dy pass (>= for >)",
        _gradient(lambda x, y, dy: np.where(x < 0, 0, dy)),
    ),
    Mistake(
        "half a gradient at zero", "x = 0 lets half of dy pass",
        _gradient(lambda x, y, dy: np.where(x < 0, 0, np.where(x == 0, dy / 2, dy))),
    ),
    Mistake(
        "upstream gradient ignored", "dx is the step function",
        _gradient(lambda x, y, dy: np.where(x > 0, 1, 0)),
    ),
    Mistake(
        "multiplied by the output", "dx = dy·y, right only for an output of ones",
        _gradient(lambda x, y, dy: dy * y),
    ),
    Mistake(
        "mask multiplied", "dx = dy·[x > 0] makes NaN of a blocked infinity",
        _gradient(lambda x, y, dy: dy * ((x > 0) | (x != x)).astype(x.dtype)),
    ),
    Mistake("upstream rectified", "dy is clipped at 0 too", _gradient(
        lambda x, y, dy: np.where((x > 0) & (dy > 0), dy, 0))),
    Mistake("leaky", "negative elements keep a hundredth", _value(
        lambda x, y: np.where(x < 0, x / 100, y))),
    Mistake("capped at 6", "y = min(max(x, 0), 6)", _value(lambda x, y: np.where(y > 6, 6, y))),
    Mistake("absolute value", "y = |x|", _value(lambda x, y: np.abs(x))),
)  # fmt: skip

CONSTRAINTS = {
    "C1": "y is x where x > 0 (bit for bit, subnormal numbers and infinity included), and 0 elsewhere. The"
    " sign of a zero is free: implementations differ on max(-0, 0).",
    "C2": "dx is dy where x > 0, bit for bit, and 0 where x <= 0: at 0 itself too.",
    "C3": "A blocked dy leaves 0, whatever it is: an infinity or a NaN does not get through.",
    "C4": "y is NaN where x is, and dy passes there, since NaN is not at or below 0.",
    "C5": "Any shape, 0-d and empty ones included; both outputs have the dtype of x.",
    "C6": _dtype_cases.CONSTRAINT,
}

FLAGS = {
    "basic": Flag("BASIC", "Both signs, and values above 6; uneven upstream gradient."),
    "zero": Flag("EDGE_CASE", "Elements at exactly 0, where the derivative is a convention."),
    "negative-zero": Flag("EDGE_CASE", "Elements of -0."),
    "nan": Flag("EDGE_CASE", "NaN elements."),
    "infinite": Flag("EDGE_CASE", "Infinite elements."),
    "nonfinite-upstream": Flag("EDGE_CASE", "An infinite or NaN dy where x blocks it."),
    "subnormal": Flag("EDGE_CASE", "Subnormal numbers are positive too."),
    "shapes": Flag("EDGE_CASE", "0-d, empty and four-dimensional tensors."),
    "bad-dtype": _dtype_cases.FLAG,
}


def cases(c: Cases) -> None:
    """Write the cases."""
    random = Stream(106)
    nan, inf = np.nan, np.inf

    def add(name: str, flags: str, labels: str, x: Any, dy: Any = None, dtypes: Any = ALL) -> None:
        dy = random.uniform(*x.shape, low=-3.0, high=3.0) if dy is None else dy
        c.add(name, flags, labels, {"x": x, "dy": dy}, {}, dtypes)

    add("basic", "basic", "C1 C2", random.uniform(3, 5, low=-9.0, high=9.0))
    add(
        "by-hand",
        "basic",
        "C1 C2",
        tensor([-1.5, 2, 7], [0.5, -3, 8]),
        tensor([2, -4, 0.5], [3, 1, -6]),
    )
    add("all-negative", "basic", "C1 C2", random.uniform(4, low=-2.0, high=-0.1))
    add("all-positive", "basic", "C1 C2", random.uniform(2, 3, low=0.1, high=9.0))
    add("zeros", "zero", "C1 C2", tensor(0, -1, 0, 2), tensor(3, -2, -5, 0.5))
    add("only-zeros", "zero", "C1 C2", np.zeros((2, 3)))
    add(
        "zero-among",
        "zero",
        "C1 C2",
        tensor([0, 1], [-1, 0], [0, 0]),
        tensor([-1, 2], [3, 4], [5, -6]),
    )
    add("negative-zero", "negative-zero zero", "C1 C2", tensor(-0.0, 0.0, -0.0), tensor(1, -2, 3))
    add("negative-zero-among", "negative-zero", "C1 C2", tensor([1, -0.0], [-0.0, -2]))
    add("negative-zero-alone", "negative-zero shapes", "C1 C2 C5", np.array(-0.0), np.array(2.0))
    add("nan", "nan", "C4", tensor(nan, 1, -1, nan), tensor(2, -3, 4, -5))
    add("all-nan", "nan", "C4", tensor([nan, nan]), tensor([0.5, -1]))
    add("nan-beside-zero", "nan zero", "C2 C4", tensor(0, nan, -2), tensor(1.5, 2.5, 3.5))
    add("infinities", "infinite", "C1 C2", tensor(inf, -inf, 1, -1), tensor(2, 3, -4, 5))
    add("infinity-and-nan", "infinite nan", "C1 C4", tensor([-inf, nan], [inf, 3]))
    add("largest", "infinite basic", "C1", tensor(6e4, -6e4, inf), tensor(-1, 2, -3))
    add(
        "infinite-upstream",
        "nonfinite-upstream",
        "C3",
        tensor(-1, 0, 2, -3),
        tensor(inf, -inf, inf, 1),
    )
    add("nan-upstream", "nonfinite-upstream", "C3", tensor(-1, 0, 2), tensor(nan, nan, nan))
    add("nan-upstream-nan", "nonfinite-upstream nan", "C3 C4", tensor(nan, -1), tensor(inf, nan))
    for name, dtype, tiny in (
        ("double", "float64", 1e-310), ("single", "float32", 1e-40),
        ("brain", "bfloat16", 5e-39), ("half", "float16", 1e-5),
    ):  # fmt: skip
        x = tensor(tiny, -tiny, 5 * tiny, 1)
        add(f"subnormal-{name}", "subnormal", "C1 C2", x, tensor(2, 3, -4, 5), (dtype,))
    add("zero-dimensional", "shapes", "C5", np.array(3.5), np.array(-2.0))
    add("empty", "shapes", "C5", np.zeros((0, 3)))
    add("image", "shapes basic", "C1 C2 C5", random.uniform(2, 2, 3, 2, low=-1.0, high=1.0))
    _dtype_cases.refused(
        c, "C6",
        {"x": random.uniform(2, 3, low=-2.0, high=2.0), "dy": random.uniform(2, 3)},
    )  # fmt: skip


OPERATION = Operation(
    id="layer.relu",
    summary="The rectified linear unit, with its gradient.",
    formula="y = max(x, 0);  dx = dy · [x > 0]",
    sources=(
        "V. Nair, G. E. Hinton: Rectified linear units improve restricted Boltzmann machines. ICML 2010",
    ),
    constraints=CONSTRAINTS,
    inputs={"x": "float tensor of any shape", "dy": "like x: the upstream gradient, dL/dy"},
    outputs={"y": "like x", "dx": "like x"},
    params=(),
    dials=(
        Dial(
            "nan", "propagate", "NaN: y is NaN and dy passes, y is NaN and dx 0, or both are 0",
            ("no_gradient", "zero"),
        ),
    ),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=(
        "Both outputs are selections, without arithmetic: the same bits. One ULP is allowed because only"
        " then a zero may have either sign, as it has where a mask is multiplied."
    ),
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    dialects={
        "tensorflow": {"nan": "no_gradient", "subnormals": "flush"},
    },
)  # fmt: skip
