"""``layer.leaky_relu``: the rectified linear unit with a slope below 0, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, Cases, Stream, tensor
from conformance.exact import Real, Reject, ctx, each, exact, real
from conformance.formats import round_exact
from conformance.operation import Dial, Flag, Mistake, Operation, Param, Value
from conformance.operations import _dtype_cases
from conformance.oracle.layers import check_dtypes, check_shape

Tensors = dict[str, Any]


def _slope(settings: Tensors) -> Real:
    slope = float(settings["slope"])
    if not np.isfinite(slope):
        raise Reject(f"slope must be finite, got {slope}")
    narrow = settings["hyperparameters"] == "float32"
    return real(round_exact(real(slope), "float32")) if narrow else real(slope)


def oracle(inputs: Tensors, settings: Tensors) -> Tensors:
    """y = x where x > 0, else slope·x;  dx = dy where x > 0, else slope·dy."""
    check_dtypes(**inputs)
    slope, at_zero = _slope(settings), settings["at_zero"] == "one"
    check_shape("dy", inputs["dy"], inputs["x"].shape)
    x, dtype = exact(inputs["x"]), inputs["x"].dtype.name
    y = each(lambda a: a if a > 0 else slope * a, x)
    dx = each(
        lambda a, d: d if a > 0 or (at_zero and a == 0) else slope * d, x, exact(inputs["dy"])
    )
    return {"y": Value(y, dtype), "dx": Value(dx, dtype)}


def tolerance(inputs: Tensors, settings: Tensors) -> dict[str, int]:
    """The slope may be rounded to the format, and the product is."""
    return {"y": 2, "dx": 2}


def _wrong(output: str, function: Any) -> Any:
    """Return a mistake in one output: a function of x, dy and the slope, of exact numbers."""

    def mistaken(inputs: Tensors, settings: Tensors) -> Tensors:
        result, slope = oracle(inputs, settings), _slope(settings)
        wrong = each(lambda a, d: function(a, d, slope), exact(inputs["x"]), exact(inputs["dy"]))
        return result | {output: Value(wrong, inputs["x"].dtype.name)}

    return mistaken


def _with(slope: float) -> Any:
    return lambda inputs, settings: oracle(inputs, settings | {"slope": slope})


def from_output(inputs: Tensors, settings: Tensors) -> Tensors:
    """The backward pass reads the sign from y, which a negative slope turns around."""
    right = oracle(inputs, settings)
    slope = _slope(settings)
    dx = each(lambda v, d: d if v > 0 else slope * d, right["y"].exact, exact(inputs["dy"]))
    return right | {"dx": Value(dx, right["dx"].dtype)}


def by_maximum(inputs: Tensors, settings: Tensors) -> Tensors:
    """y = max(x, slope·x), right only for slopes up to 1."""
    slope = _slope(settings)
    right = oracle(inputs, settings)
    y = each(lambda a: a if a != a else max(a, slope * a), exact(inputs["x"]))
    return right | {"y": Value(y, right["y"].dtype)}


def all_gradients(inputs: Tensors, settings: Tensors) -> Tensors:
    """With slope 0 every dy passes."""
    result = oracle(inputs, settings)
    return (
        result
        if _slope(settings)
        else result | {"dx": Value(exact(inputs["dy"]), result["dx"].dtype)}
    )


MISTAKES = (
    Mistake("slope ignored", "the slope is 0.01 whatever is asked for", _with(0.01)),
    Mistake("another default", "the slope is 0.2 whatever is asked for", _with(0.2)),
    Mistake("plain", "the slope is 0: relu", _with(0.0)),
    Mistake("sign read from the output", "a negative slope turns the gradient's choice around",
            from_output, ("pytorch/pytorch#31938",)),
    Mistake("maximum of both", "y = max(x, slope·x), wrong for slopes above 1", by_maximum),
    Mistake("slope 0 lets all pass", "dx = dy everywhere for slope 0", all_gradients,
            ("chainer/chainer#5898",)),
    Mistake("slope in one pass", "the backward pass is that of relu",
            _wrong("dx", lambda x, dy, s: dy if x > 0 else 0 * dy)),
    Mistake("sign of dy", "the slope applies where dy is negative",
            _wrong("dx", lambda x, dy, s: dy if dy > 0 else s * dy)),
    Mistake("upstream gradient ignored", "dx is 1 or the slope",
            _wrong("dx", lambda x, dy, s: ctx.mpf(1) if x > 0 else s)),
    Mistake("slope squared", "dx is slope²·dy below 0",
            _wrong("dx", lambda x, dy, s: dy if x > 0 else s * s * dy)),
    Mistake("slope on both sides", "y = slope·x", _wrong("y", lambda x, dy, s: s * x)),
    Mistake("slope inverted", "y = x/slope below 0, as if it were a divisor",
            _wrong("y", lambda x, dy, s: x if x > 0 or not s else x / s)),
)  # fmt: skip

CONSTRAINTS = {
    "C1": "y is x where x > 0, and slope·x elsewhere, in IEEE arithmetic.",
    "C2": "dx is dy where x > 0, and slope·dy elsewhere: at 0 and at NaN too.",
    "C3": "The slope is any finite number: 0, 1, above 1 and below 0 included. Others are refused.",
    "C4": "NaN and infinities follow the same formula: 0 times an infinity is NaN.",
    "C5": "Any shape, 0-d and empty ones included; both outputs have the dtype of x; dy has its shape.",
    "C6": _dtype_cases.CONSTRAINT,
}

FLAGS = {
    "basic": Flag("BASIC", "Both signs; uneven upstream gradient."),
    "zero": Flag("EDGE_CASE", "Elements at 0 of either sign, where the derivative is a convention."),
    "slope-zero": Flag(
        "KNOWN_BUG", "Slope 0: relu, but for what multiplying does to infinities.",
        ("chainer/chainer#5898", "pytorch/pytorch#37345"),
    ),
    "slope-negative": Flag(
        "KNOWN_BUG", "A negative slope: y does not tell the sign of x.", ("pytorch/pytorch#31938",)
    ),
    "slope-large": Flag("EDGE_CASE", "A slope of 1 or more."),
    "slope-inexact": Flag("PRECISION", "A slope that no binary format has."),
    "bad-slope": Flag("EDGE_CASE", "A slope that is not a finite number."),
    "nan": Flag("EDGE_CASE", "NaN elements."),
    "infinite": Flag("EDGE_CASE", "Infinite elements, of x or of dy."),
    "shapes": Flag("EDGE_CASE", "0-d, empty and four-dimensional tensors."),
    "bad-shape": Flag("EDGE_CASE", "A dy that does not fit."),
    "bad-dtype": _dtype_cases.FLAG,
}  # fmt: skip


def cases(c: Cases) -> None:
    """Write the cases."""
    random = Stream(123)
    nan, inf = np.nan, np.inf

    def add(
        name: str,
        flags: str,
        labels: str,
        x: Any,
        dy: Any = None,
        slope: Any = 0.25,
        dtypes: Any = ALL,
    ) -> None:
        dy = random.uniform(*x.shape, low=-3.0, high=3.0) if dy is None else dy
        c.add(name, flags, labels, {"x": x, "dy": dy}, {"slope": slope}, dtypes)

    mixed = tensor([-4, 0.5, 3], [-0.25, -7, 2])
    add("basic", "basic", "C1 C2", random.uniform(3, 5, low=-9.0, high=9.0))
    add("by-hand", "basic", "C1 C2", mixed, tensor([2, -4, 0.5], [-8, 1, -6]))
    add(
        "inexact",
        "basic slope-inexact",
        "C1 C2",
        random.uniform(3, 4, low=-5.0, high=5.0),
        slope=0.1,
    )
    add("hundredth", "slope-inexact", "C1 C2", random.uniform(2, 3, low=-5.0, high=5.0), slope=0.01)
    add("third", "slope-inexact", "C1 C2", random.uniform(5, low=-5.0, high=5.0), slope=1 / 3)
    add("fifth", "slope-inexact", "C1 C2", random.uniform(2, 3, low=-5.0, high=5.0), slope=0.2)
    add("all-negative", "basic", "C1 C2", random.uniform(4, low=-2.0, high=-0.1), slope=0.5)
    add("all-positive", "basic", "C1 C2", random.uniform(2, 3, low=0.1, high=9.0), slope=0.5)
    add("zeros", "zero", "C2", tensor(0, -1, 0, 2), tensor(3, -2, -5, 0.5))
    add("negative-zero", "zero", "C2", tensor(-0.0, 0.0, -0.0), tensor(1, -2, 3))
    add("only-zeros", "zero", "C2", np.zeros((2, 3)), slope=0.1)
    add(
        "zeros-negative-slope",
        "zero slope-negative",
        "C2 C3",
        tensor(0, -1, 2),
        tensor(3, 5, -7),
        -0.5,
    )
    add("slope-zero", "slope-zero", "C1 C2 C3", mixed, tensor([2, -4, 0.5], [-8, 1, -6]), 0.0)
    add("slope-zero-at-zero", "slope-zero zero", "C2 C3", tensor(0, -1, 1), tensor(2, 3, 4), 0.0)
    add(
        "slope-zero-infinite",
        "slope-zero infinite",
        "C3 C4",
        tensor(-inf, inf, -1),
        tensor(2, 3, 4),
        0.0,
    )
    add(
        "slope-zero-infinite-upstream",
        "slope-zero infinite",
        "C3 C4",
        tensor(-1, 2, -3),
        tensor(inf, inf, 1),
        0.0,
    )
    add(
        "slope-negative",
        "slope-negative",
        "C1 C2 C3",
        mixed,
        tensor([2, -4, 0.5], [-8, 1, -6]),
        -2.0,
    )
    add("slope-minus-one", "slope-negative", "C1 C2 C3", mixed, None, -1.0)
    add("slope-negative-small", "slope-negative slope-inexact", "C1 C2 C3", mixed, None, -0.1)
    add("slope-one", "slope-large", "C1 C2 C3", mixed, None, 1.0)
    add("slope-two", "slope-large", "C1 C2 C3", mixed, None, 2.0)
    add("slope-hundred", "slope-large", "C1 C2 C3", mixed, None, 100.0)
    add("nan", "nan", "C2 C4", tensor(nan, 1, -1, nan), tensor(2, -3, 4, -5))
    add("nan-slope-zero", "nan slope-zero", "C2 C4", tensor([nan, -2], [3, nan]), None, 0.0)
    add("nan-upstream", "nan", "C2 C4", tensor(-1, 0, 2), tensor(nan, nan, nan))
    add("infinities", "infinite", "C1 C4", tensor(inf, -inf, 1, -1), tensor(2, 3, -4, 5))
    add(
        "infinities-negative-slope",
        "infinite slope-negative",
        "C1 C4",
        tensor(inf, -inf, -1),
        tensor(2, 3, -4),
        -0.5,
    )
    add("infinite-upstream", "infinite", "C4", tensor(-1, 2, -3), tensor(inf, -inf, 1))
    add("zero-dimensional", "shapes", "C5", np.array(-3.5), np.array(-2.0))
    add("empty", "shapes", "C5", np.zeros((0, 3)))
    add(
        "image",
        "shapes basic",
        "C1 C2 C5",
        random.uniform(2, 2, 3, 2, low=-1.0, high=1.0),
        None,
        0.3,
    )
    for name, slope in (("nan", "nan"), ("infinite", "inf"), ("minus-infinite", "-inf")):
        add(f"bad-slope-{name}", "bad-slope", "C3", mixed, None, slope, ("float32",))
    add(
        "upstream-mismatch",
        "bad-shape",
        "C5",
        random.uniform(2, 3),
        random.uniform(3, 2),
        0.1,
        ("float32",),
    )
    add(
        "upstream-missing-axis",
        "bad-shape",
        "C5",
        random.uniform(2, 3),
        random.uniform(3),
        0.1,
        ("float32",),
    )
    add(
        "upstream-one-number",
        "bad-shape",
        "C5",
        random.uniform(2),
        random.uniform(1),
        0.1,
        ("float32",),
    )
    _dtype_cases.refused(
        c, "C6",
        {"x": random.uniform(2, 3, low=-2.0, high=2.0), "dy": random.uniform(2, 3)},
        {"slope": 0.25},
    )  # fmt: skip


OPERATION = Operation(
    id="layer.leaky_relu",
    summary="The rectified linear unit that lets a share of the negative side through, with its gradient.",
    formula="y = x if x > 0 else slope·x;  dx = dy if x > 0 else slope·dy",
    sources=(
        "A. L. Maas, A. Y. Hannun, A. Y. Ng: Rectifier nonlinearities improve neural network acoustic"
        " models. ICML 2013",
    ),
    constraints=CONSTRAINTS,
    inputs={"x": "float tensor of any shape", "dy": "like x: the upstream gradient, dL/dy"},
    outputs={"y": "like x", "dx": "like x"},
    params=(Param("slope", "the slope below 0, any finite number", required=True),),
    dials=(
        Dial("at_zero", "slope", "the derivative at 0: the slope, or one", ("one",)),
        Dial(
            "hyperparameters", "exact", "float32: the slope passes through float32, whatever x is",
            ("float32",),
        ),
    ),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=(
        "Above 0 both outputs are selections. Below, the slope may be rounded to the format (u) and the"
        " product is (u); one ULP of a number is at least u times it."
    ),
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    dialects={"tensorflow": {"hyperparameters": "float32", "subnormals": "flush"}, "mlx": {"at_zero": "one"}},
)  # fmt: skip
