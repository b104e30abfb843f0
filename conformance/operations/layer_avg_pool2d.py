"""``layer.avg_pool2d``: the average of sliding windows, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Cases, Stream, tensor
from conformance.exact import exact
from conformance.operation import Dial, Flag, Mistake, Operation, Value
from conformance.operations import _dtype_cases
from conformance.oracle import layers, pooling, windows

Tensors = dict[str, Any]


def oracle(inputs: Tensors, settings: Tensors) -> Tensors:
    """y = the sum of each window over the number of its taps that count; dx: dy over that number."""
    layers.check_dtypes(**inputs)
    return _pooled(inputs, settings, settings["count_padding"])


def _pooled(inputs: Tensors, settings: Tensors, counting: Any, backward: Any = None) -> Tensors:
    x = inputs["x"]
    place = windows.place(x.shape, settings["window"], settings)
    values, dy = exact(x), exact(inputs["dy"])
    y, context = layers.avg_pool2d_forward(values, *place, counting)
    layers.check_shape("dy", dy, y.shape)
    y_scale, _ = layers.avg_pool2d_forward(layers.absolute(values), *place, counting)
    context = context if backward is None else (*context[:-1], backward)
    dx = layers.avg_pool2d_backward(context, dy)
    dx_scale = layers.avg_pool2d_backward(context, layers.absolute(dy))
    dtype = x.dtype.name
    return {"y": Value(y, dtype, y_scale), "dx": Value(dx, dtype, dx_scale)}


def tolerance(inputs: Tensors, settings: Tensors) -> dict[str, int]:
    """ULP of the average (or the sum) of magnitudes."""
    rows, columns = windows.place(inputs["x"].shape, settings["window"], settings)
    taps = len(rows.windows[0]) * len(columns.windows[0])
    return {"y": taps + 1, "dx": rows.overlap() * columns.overlap() + 1}


def overhang_counted(inputs: Tensors, settings: Tensors) -> Tensors:
    """The divisor is always the size of the window."""
    return _pooled(inputs, settings, "window")


def backward_by_window(inputs: Tensors, settings: Tensors) -> Tensors:
    """Backward divides by the size of the window, forward does not."""
    return _pooled(inputs, settings, settings["count_padding"], "window")


def undivided(inputs: Tensors, settings: Tensors) -> Tensors:
    """Backward does not divide."""
    return _pooled(inputs, settings, settings["count_padding"], "one")


def summed(inputs: Tensors, settings: Tensors) -> Tensors:
    """Neither pass divides."""
    return _pooled(inputs, settings, "one")


def overwritten(inputs: Tensors, settings: Tensors) -> Tensors:
    """Where windows overlap, the last gradient replaces the earlier ones."""
    result = oracle(inputs, settings)
    rows, columns = windows.place(inputs["x"].shape, settings["window"], settings)
    dy, dx = exact(inputs["dy"]), layers.zeros(inputs["x"].shape, exact(inputs["x"]))
    for (i, j), taps in windows.each_window(rows, columns):
        for _, (r, c) in taps:
            dx[:, r, c, :] = dy[:, i, j, :] / len(taps)
    return result | {"dx": Value(dx, inputs["x"].dtype.name)}


def ones_for_dy(inputs: Tensors, settings: Tensors) -> Tensors:
    """Backward starts from ones."""
    return oracle(inputs | {"dy": np.ones_like(inputs["dy"])}, settings)


MISTAKES = (
    Mistake("window size divides", "overhang and padding count, under any setting", overhang_counted),
    Mistake("backward by window size", "dx is divided by the window's size", backward_by_window),
    Mistake("backward undivided", "dx is dy, not dy over the divisor", undivided),
    Mistake("sum pooling", "neither y nor dx is divided", summed),
    Mistake("gradients overwritten", "overlapping windows replace, not add", overwritten),
    Mistake("upstream gradient ignored", "backward starts from ones instead of dy", ones_for_dy),
    *pooling.mistakes(oracle),
)  # fmt: skip

CONSTRAINTS = {
    "C1": "y is the sum of each window, each channel by itself, divided by the number of taps that count.",
    "C2": "Each element of a window gets dy over the divisor of that window; its gradients add up.",
    "C3": "NaN and infinities reach the windows that hold them, and no gradient.",
    **pooling.CONSTRAINTS,
    "C7": "Padding adds nothing and does not count: the divisor is the number of taps in the image. A window"
    " in which nothing counts gives 0.",
    "C8": "Under count_padding the padding counts as zeros; what overhangs it under ceil_mode never counts.",
    "C10": "Every output has the dtype of x; the order of the sums is free.",
    "C11": _dtype_cases.CONSTRAINT,
}

FLAGS = {
    **pooling.FLAGS,
    "precision": Flag("PRECISION", "Large terms cancel, or magnitudes span 1e-3 to 1e3."),
    "nonfinite": Flag("EDGE_CASE", "NaN and infinities, which must not leak."),
    "bad-dtype": _dtype_cases.FLAG,
}


def cases(c: Cases) -> None:
    """Write the cases."""
    random = Stream(105)

    def add(name: str, flags: str, labels: str, x: Any, dtypes: Any = WIDE, **params: Any) -> None:
        x = random.uniform(*x, low=-4.0, high=4.0) if isinstance(x, tuple) else x
        pooling.add_case(c, random, name, flags, labels, x, dtypes, params)

    two, same = [2, 2], [[1, 1], [1, 1]]
    pooling.add_geometries(add, ALL)
    add(
        "padding-strided",
        "padding overlap",
        "C7 C8",
        (1, 4, 4, 1),
        window=[3, 3],
        stride=two,
        padding=same,
    )
    add("padding-ones", "padding", "C7 C8", np.ones((1, 2, 2, 1)), ALL, window=[3, 3], stride=[1, 1],
        padding=same)  # fmt: skip
    add("window-in-padding", "padding asymmetric", "C7 C8", (1, 2, 2, 2), window=[1, 2], stride=[1, 1],
        padding=[[2, 1], [0, 3]])  # fmt: skip
    add("ceil-overhang-and-padding", "ceil padding", "C5 C7 C8", (1, 5, 4, 1), window=[3, 3],
        stride=[3, 2], padding=[[1, 1], [0, 1]], ceil_mode=True)  # fmt: skip
    add("ceil-all-sides", "ceil padding asymmetric dilation", "C4 C5 C7 C8", (2, 6, 5, 1), window=[3, 2],
        stride=[3, 3], padding=[[0, 2], [1, 1]], dilation=[1, 2], ceil_mode=True)  # fmt: skip
    level = 1e4 + random.uniform(1, 3, 4, 1)
    level[:, :, ::2] *= -1
    add("cancellation", "precision overlap", "C1 C10", level, window=[2, 2], stride=[1, 1])
    add(
        "wide-range",
        "precision overlap",
        "C1 C10",
        random.spread(2, 4, 3, 2),
        window=[3, 2],
        stride=[1, 1],
    )
    add("wide-range-16", "precision", "C1 C10", random.spread(1, 4, 6, 2, high=64.0),
        ("float16", "bfloat16"), window=[4, 3])  # fmt: skip
    for name, value in (("nan", np.nan), ("infinite", np.inf)):
        x = random.uniform(2, 3, 4, 2)
        x[1, 0, 3, 1] = value
        add(f"{name}-pixel", "nonfinite overlap", "C3", x, window=two, stride=[1, 1])
    opposed = tensor([np.inf, -np.inf, 1], [2, 3, np.nan]).reshape(1, 2, 3, 1)
    add("opposed-infinities", "nonfinite", "C3", opposed, window=[1, 2], stride=[1, 1])
    _dtype_cases.refused(
        c, "C11",
        {"x": random.uniform(1, 2, 4, 3, low=-2.0, high=2.0), "dy": random.uniform(1, 1, 2, 3)},
        {"window": [2, 2]},
    )  # fmt: skip


OPERATION = Operation(
    id="layer.avg_pool2d",
    summary="The average of sliding windows of an image, each channel by itself, with its gradient.",
    formula="y[n,i,j,c] = (1/k) Σ over taps (a,b) of x[n, i·s + a·d - top, j·s + b·d - left, c]",
    sources=(
        "Y. LeCun et al.: Gradient-based learning applied to document recognition. Proc. IEEE 86, 1998",
    ),
    constraints=CONSTRAINTS,
    inputs={"x": "(N, H, W, C)", "dy": "(N, OH, OW, C): the upstream gradient, dL/dy"},
    outputs={"y": "(N, OH, OW, C)", "dx": "like x"},
    params=pooling.PARAMS,
    dials=(
        Dial(
            "count_padding", False, "the divisor counts the padding too, but never the overhang", (True,)
        ),
    ),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=(
        "A window of K taps: K - 1 additions and a division (or a reciprocal and a product), each with an error"
        " of u times the average of magnitudes, in the dtype of x or wider. A pixel's gradient sums at most V"
        " such quotients, V the number of windows that read it: V + 1 operations."
    ),
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    dialects={"torch": {"count_padding": True}, "tensorflow": {"subnormals": "flush"}},
)  # fmt: skip
