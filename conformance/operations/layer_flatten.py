"""``layer.flatten``: all axes but the first become one, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, Cases, Stream, tensor
from conformance.exact import Reject
from conformance.operation import Flag, Mistake, Operation
from conformance.operations import _dtype_cases
from conformance.oracle import layers

Tensors = dict[str, Any]


def oracle(inputs: Tensors, settings: Tensors) -> Tensors:
    """y (N, rest) lists the elements of each example, last axis fastest; dx is dy shaped as x."""
    layers.check_dtypes(**inputs)
    if inputs["x"].ndim == 0:
        raise Reject("x must have a leading batch axis, got a 0-d tensor")
    y, context = layers.flatten_forward(inputs["x"])
    layers.check_shape("dy", inputs["dy"], y.shape)
    return {"y": y, "dx": layers.flatten_backward(context, inputs["dy"])}


def tolerance(inputs: Tensors, settings: Tensors) -> dict[str, int]:
    """Nothing is computed."""
    return {"y": 0, "dx": 0}


def _reordered(order: Any) -> Any:
    """Return a mistake that permutes the axes of each example before it flattens."""

    def mistaken(inputs: Tensors, settings: Tensors) -> Tensors:
        oracle(inputs, settings)
        x, dy = inputs["x"], inputs["dy"]
        axes = (0, *order(x.ndim))
        moved = x.transpose(axes)
        back = [axes.index(axis) for axis in range(x.ndim)]
        return {"y": moved.reshape(dy.shape), "dx": dy.reshape(moved.shape).transpose(back)}

    return mistaken


def batch_flattened(inputs: Tensors, settings: Tensors) -> Tensors:
    """The batch axis is flattened too."""
    result = oracle(inputs, settings)
    return result | {"y": result["y"].reshape(-1)}


def left_flat(inputs: Tensors, settings: Tensors) -> Tensors:
    """The backward pass does not restore the shape."""
    return oracle(inputs, settings) | {"dx": inputs["dy"]}


def last_pair_only(inputs: Tensors, settings: Tensors) -> Tensors:
    """Only the last two axes become one."""
    result, shape = oracle(inputs, settings), inputs["x"].shape
    merged = (*shape[:-2], shape[-2] * shape[-1]) if len(shape) > 2 else shape
    return result | {"y": inputs["x"].reshape(merged)}


MISTAKES = (
    Mistake("first axis fastest", "each example is listed in Fortran order",
            _reordered(lambda ndim: range(ndim - 1, 0, -1))),
    Mistake("channels first", "NHWC becomes NCHW before it is flattened",
            _reordered(lambda ndim: (ndim - 1, *range(1, ndim - 1)) if ndim > 1 else ())),
    Mistake("batch flattened", "the batch axis is flattened too", batch_flattened),
    Mistake("gradient left flat", "dx has the shape of y", left_flat),
    Mistake("last two axes only", "the axes before the last two stay", last_pair_only),
)  # fmt: skip

CONSTRAINTS = {
    "C1": "y is (N, rest): the elements of each example with the last axis running fastest, bit for bit.",
    "C2": "dx is dy in the shape of x, bit for bit.",
    "C3": "(N,) becomes (N, 1); an empty batch keeps the product of its other extents.",
    "C4": "A 0-d tensor, which has no batch axis, is refused.",
    "C5": "Every bit pattern passes: NaN, infinities, -0 and subnormal numbers.",
    "C6": _dtype_cases.CONSTRAINT,
}

FLAGS = {
    "basic": Flag("BASIC", "Different extents along every axis, all elements different."),
    "image": Flag("BASIC", "Images NHWC: another layout would give another order."),
    "already-flat": Flag("EDGE_CASE", "One or two axes."),
    "extent-one": Flag("EDGE_CASE", "Extents of 1."),
    "empty": Flag("EDGE_CASE", "An empty batch, or empty examples."),
    "special-values": Flag("EDGE_CASE", "NaN, infinities and -0."),
    "no-batch-axis": Flag("EDGE_CASE", "A 0-d tensor."),
    "bad-dtype": _dtype_cases.FLAG,
}


def cases(c: Cases) -> None:
    """Write the cases."""
    random = Stream(107)

    def add(name: str, flags: str, labels: str, x: Any, dtypes: Any = ALL) -> None:
        x = random.uniform(*x, low=-8.0, high=8.0) if isinstance(x, tuple) else x
        width = int(np.prod(x.shape[1:]))
        dy = random.uniform(*x.shape[:1], width, low=-3.0, high=3.0)
        c.add(name, flags, labels, {"x": x, "dy": dy}, {}, dtypes)

    add("three-axes", "basic", "C1 C2", (2, 3, 4))
    add("five-axes", "basic", "C1 C2", (2, 1, 3, 2, 2))
    add("long-batch", "basic", "C1 C2", (7, 2, 3))
    add("image", "image", "C1 C2", (2, 3, 4, 2))
    add("image-one-example", "image", "C1 C2", (1, 2, 3, 3))
    add("image-square", "image", "C1 C2", (2, 2, 2, 2))
    add("matrix", "already-flat", "C1 C2", (3, 4))
    add("vector", "already-flat", "C3", (5,))
    add("one-number", "already-flat extent-one", "C3", (1,))
    add("ones-inside", "extent-one", "C1 C2", (2, 1, 3, 1))
    add("ones-everywhere", "extent-one", "C1 C2", (1, 1, 1))
    add("empty-batch", "empty", "C3", (0, 3, 2))
    add("empty-examples", "empty", "C3", (2, 0, 3))
    add("empty-vector", "empty already-flat", "C3", (0,))
    special = tensor([[np.nan, -0.0, 1], [np.inf, -np.inf, 0]], [[0, 5, -0.0], [2, np.nan, -3]])
    add("special-values", "special-values", "C1 C5", special)
    add("zero-dimensional", "no-batch-axis", "C4", np.array(2.0), ALL)
    _dtype_cases.refused(
        c, "C6",
        {"x": random.uniform(3, 2, 2, low=-2.0, high=2.0), "dy": random.uniform(3, 4)},
    )  # fmt: skip


OPERATION = Operation(
    id="layer.flatten",
    summary="Make one axis of all axes but the batch axis, and back.",
    formula="y[n, (…(i·B + j)·C + k)…] = x[n, i, j, k, …];  dx = dy in the shape of x",
    sources=("C order (last axis fastest), as in ISO C arrays and numpy.reshape",),
    constraints=CONSTRAINTS,
    inputs={"x": "(N, …)", "dy": "(N, rest): the upstream gradient, dL/dy"},
    outputs={"y": "(N, rest)", "dx": "like x"},
    params=(),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why="Nothing is computed: the same bits.",
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    dialects={"tensorflow": {"subnormals": "flush"}},
)
