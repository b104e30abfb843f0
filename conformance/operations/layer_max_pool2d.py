"""``layer.max_pool2d``: the maximum of sliding windows, forward and backward."""

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
    """y = the largest element of each window; dx: each dy goes to the element that won."""
    layers.check_dtypes(**inputs)
    x = inputs["x"]
    rows, columns = windows.place(x.shape, settings["window"], settings)
    y, context = layers.max_pool2d_forward(x, rows, columns, settings["ties"], settings["nan"])
    layers.check_shape("dy", inputs["dy"], y.shape)
    dy = exact(inputs["dy"])
    dx = layers.max_pool2d_backward(context, dy)
    scale = layers.max_pool2d_backward(context, layers.absolute(dy))
    return {"y": y, "dx": Value(dx, x.dtype.name, scale)}


def tolerance(inputs: Tensors, settings: Tensors) -> dict[str, int]:
    """A selection is exact; a gradient is a sum over the windows that a pixel won."""
    rows, columns = windows.place(inputs["x"].shape, settings["window"], settings)
    overlap = rows.overlap() * columns.overlap()
    return {"y": 0, "dx": max(overlap - 1, 1) + (settings["ties"] == "split")}


def padded_with_zeros(inputs: Tensors, settings: Tensors) -> Tensors:
    """Padding takes part as zeros, which beat negative elements."""
    right = oracle(inputs, settings)
    if settings["ceil_mode"]:
        return right
    (top, bottom), (left, right_side) = settings["padding"]
    x = np.pad(inputs["x"], ((0, 0), (top, bottom), (left, right_side), (0, 0)))
    bare = oracle(inputs | {"x": x}, settings | {"padding": [[0, 0], [0, 0]]})
    height, width = inputs["x"].shape[1:3]
    inner = slice(None), slice(top, top + height), slice(left, left + width)
    dx = bare["dx"]
    return {"y": bare["y"], "dx": Value(dx.exact[inner], dx.dtype, dx.scale[inner])}


def last_of_equals(inputs: Tensors, settings: Tensors) -> Tensors:
    """Of equal elements the last wins (a comparison with >=)."""
    result = oracle(inputs, settings)
    rows, columns = windows.place(inputs["x"].shape, settings["window"], settings)
    _, (x, winners, _) = layers.max_pool2d_forward(inputs["x"], rows, columns, "all")
    for place, won in winners.items():
        winners[place] = layers.first_winners(won[::-1])
    dx = layers.max_pool2d_backward((x, winners, "first"), exact(inputs["dy"]))
    return result | {"dx": Value(dx, inputs["x"].dtype.name, result["dx"].scale)}


def overwritten(inputs: Tensors, settings: Tensors) -> Tensors:
    """Where windows overlap, the last gradient replaces the earlier ones."""
    result = oracle(inputs, settings)
    rows, columns = windows.place(inputs["x"].shape, settings["window"], settings)
    _, (x, winners, _) = layers.max_pool2d_forward(inputs["x"], rows, columns)
    dx, dy = layers.zeros(x.shape, exact(x)), exact(inputs["dy"])
    for (i, j), won in winners.items():
        for (r, c), mask in won:
            dx[:, r, c, :] = np.where(mask, dy[:, i, j, :], dx[:, r, c, :])
    return result | {"dx": Value(dx, inputs["x"].dtype.name)}


def ones_for_dy(inputs: Tensors, settings: Tensors) -> Tensors:
    """Backward starts from ones."""
    return oracle(inputs | {"dy": np.ones_like(inputs["dy"])}, settings)


MISTAKES = (
    Mistake("padded with zeros", "padding counts as 0 and beats negative elements", padded_with_zeros),
    Mistake("last of equals", "of equal elements the last wins", last_of_equals),
    Mistake("gradients overwritten", "overlapping windows replace, not add", overwritten),
    Mistake("upstream gradient ignored", "backward starts from ones instead of dy", ones_for_dy),
    *pooling.mistakes(oracle),
)  # fmt: skip

CONSTRAINTS = {
    "C1": "y is the largest element of each window, each channel by itself; its bits are those of x.",
    "C2": "Each dy goes to the element that won its window; an element's gradients add up.",
    "C3": "Of equal elements (-0 and 0 are equal) the first in row-major order wins.",
    **pooling.CONSTRAINTS,
    "C7": "Padding counts as -inf and never gets a gradient: a window wholly in it gives -inf, and its dy"
    " goes nowhere. Elements that are -inf themselves can win.",
    "C8": "A window with a NaN gives NaN, and the first NaN is the winner.",
    "C9": "Under nan=ignore a NaN counts as padding: the other elements compete, and a window of nothing"
    " but NaN gives -inf and no gradient.",
    "C10": "Every output has the dtype of x; a gradient may be summed in any order.",
    "C11": _dtype_cases.CONSTRAINT,
}

FLAGS = {
    **pooling.FLAGS,
    "ties": Flag(
        "KNOWN_BUG",
        "Equal elements in one window: who gets the gradient?",
        ("Theano/Theano#4568",),
    ),
    "negative": Flag("EDGE_CASE", "Every element is negative, and there is padding."),
    "nan": Flag("EDGE_CASE", "NaN elements: propagated, or passed over."),
    "infinite": Flag("EDGE_CASE", "Windows of -inf, or with infinities."),
    "bad-dtype": _dtype_cases.FLAG,
}


def cases(c: Cases) -> None:
    """Write the cases."""
    random = Stream(103)
    nan, inf = np.nan, np.inf

    def add(name: str, flags: str, labels: str, x: Any, dtypes: Any = WIDE, **params: Any) -> None:
        x = random.uniform(*x, low=-4.0, high=4.0) if isinstance(x, tuple) else x
        pooling.add_case(c, random, name, flags, labels, x, dtypes, params)

    def image(*rows: Any) -> Any:
        return tensor(*rows).reshape(1, len(rows), len(rows[0]), 1)

    two, same = [2, 2], [[1, 1], [1, 1]]
    pooling.add_geometries(add, ALL)
    add("ties-ones", "ties", "C2 C3", np.ones((1, 2, 2, 1)), ALL, window=two)
    add("ties-all-but-one", "ties", "C2 C3", image([0, 1], [1, 1]), ALL, window=two)
    add(
        "ties-overlapping",
        "ties overlap",
        "C2 C3",
        np.ones((1, 3, 3, 1)),
        ALL,
        window=two,
        stride=[1, 1],
    )
    steps = np.floor(random.uniform(2, 4, 5, 2, low=0.0, high=3.0))
    add("ties-many", "ties overlap", "C2 C3", steps, ALL, window=[3, 2], stride=[1, 2])
    add("ties-padded", "ties padding", "C2 C3 C7", -np.ones((1, 2, 3, 1)), window=two, padding=same)
    add("signed-zeros", "ties", "C1 C3", image([-0.0, 0.0], [-0.0, -0.0]), window=two)
    add("signed-zeros-positive-first", "ties", "C1 C3", image([0.0, -0.0]), window=[1, 2])
    below = random.uniform(2, 3, 4, 2, low=-5.0, high=-1.0)
    add(
        "negative",
        "negative padding",
        "C1 C7",
        below,
        ALL,
        window=[3, 3],
        stride=[2, 1],
        padding=same,
    )
    add(
        "negative-corner",
        "negative padding",
        "C1 C7",
        below[:1],
        window=two,
        padding=[[1, 0], [0, 1]],
    )
    add(
        "negative-dilated", "negative padding dilation", "C4 C7", below[:1], window=two, stride=[1, 1],
        dilation=[2, 3], padding=same,
    )  # fmt: skip
    add(
        "window-in-padding", "negative padding", "C7", below[:1, :2, :2], window=[1, 2], stride=[1, 1],
        padding=[[2, 1], [0, 3]],
    )  # fmt: skip
    for name, x in (
        ("late", image([1, nan], [2, 3])),
        ("first", image([nan, 1], [2, 3])),
        ("last", image([1, 4], [2, nan])),
        ("two", image([1, nan], [nan, 3])),
        ("all", image([nan, nan], [nan, nan])),
        ("and-minus-infinity", image([nan, -inf], [-inf, -inf])),
        ("and-infinity", image([inf, nan], [2, -inf])),
    ):
        add(f"nan-{name}", "nan", "C8 C9", x, ALL if name in ("late", "two") else WIDE, window=two)
    x = random.uniform(1, 4, 4, 2)
    x[0, 1, 2, 0], x[0, 3, 0, 1] = nan, nan
    add("nan-overlapping", "nan overlap", "C2 C8 C9", x, window=two, stride=[1, 1])
    add(
        "nan-padded",
        "nan padding",
        "C7 C8 C9",
        x[:, 1:],
        window=[3, 2],
        stride=[2, 2],
        padding=same,
    )
    add("minus-infinity", "infinite", "C7", np.full((1, 2, 2, 1), -inf), ALL, window=two)
    add("minus-infinity-padded", "infinite padding", "C7", image([-inf, -inf, 2]), window=[1, 2],
        stride=[1, 1], padding=[[0, 0], [1, 1]])  # fmt: skip
    add("infinities", "infinite", "C1 C3", image([1, inf, -inf], [inf, 0, 2]), window=[2, 3])
    _dtype_cases.refused(
        c, "C11",
        {"x": random.uniform(1, 2, 4, 3, low=-2.0, high=2.0), "dy": random.uniform(1, 1, 2, 3)},
        {"window": [2, 2]},
    )  # fmt: skip


OPERATION = Operation(
    id="layer.max_pool2d",
    summary="The maximum of sliding windows of an image, each channel by itself, with its gradient.",
    formula="y[n,i,j,c] = max over taps (a,b) of x[n, i·s + a·d - top, j·s + b·d - left, c]",
    sources=(
        "D. Scherer, A. Müller, S. Behnke: Evaluation of pooling operations in convolutional"
        " architectures for object recognition. ICANN 2010",
    ),
    constraints=CONSTRAINTS,
    inputs={"x": "(N, H, W, C)", "dy": "(N, OH, OW, C): the upstream gradient, dL/dy"},
    outputs={"y": "(N, OH, OW, C)", "dx": "like x"},
    params=pooling.PARAMS,
    dials=(
        Dial(
            "ties", "first", "equal maxima: the first gets dy, all get it, or it is split evenly",
            ("all", "split"),
        ),
        Dial("nan", "propagate", "a NaN is the maximum, or counts as padding", ("ignore",)),
    ),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=(
        "y is a selection: the same bits. A pixel's gradient sums the dy of at most V windows, V the number"
        " that read it: V - 1 additions, each with an error of u times the sum of magnitudes, in the dtype of x"
        " or wider. Splitting among ties divides once more. One ULP is the least, so that a zero"
        " may have either sign."
    ),
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    dialects={"tensorflow": {"nan": "ignore", "subnormals": "flush"}},
)  # fmt: skip
