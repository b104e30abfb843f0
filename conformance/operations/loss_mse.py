"""``loss.mse``: squared error against targets, with the gradient of the outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from conformance.cases import ALL, Cases, Stream, tensor
from conformance.exact import NAN, Reject, exact, full, magnitude, total
from conformance.operation import Dial, Flag, Mistake, Operation, Param, Value
from conformance.operations import _dtype_cases
from conformance.oracle import layers

Tensors = dict[str, Any]


def oracle(inputs: Tensors, settings: Tensors) -> Tensors:
    """loss = Σ (x - t)² / n;  dx = 2 (x - t) / n;  n = 1 for a sum."""
    layers.check_dtypes(**inputs)
    x, targets = inputs["x"], inputs["targets"]
    layers.check_shape("targets", targets, x.shape)
    if x.size == 0 and settings["reduction"] == "mean":
        if settings["empty_mean"] == "reject":
            raise Reject("the mean over no element is undefined")
        return _results(inputs, settings, NAN, exact(x))
    loss, context = layers.mse_forward(exact(x), exact(targets), settings["reduction"])
    dx = layers.mse_backward(context)
    rows = settings["reduction"] == "sum" and settings["sum_of"] == "row_means"
    width = max(x.shape[-1], 1) if rows and x.ndim else 1
    return _results(inputs, settings, loss / width, dx / width)


def _results(inputs: Tensors, settings: Tensors, loss: Any, dx: Any) -> Tensors:
    dtype = inputs["x"].dtype.name
    return {
        "loss": Value(full((), loss), layers.loss_dtype(inputs, settings)),
        "dx": Value(np.asarray(dx, dtype=object), dtype),
    }


def tolerance(inputs: Tensors, settings: Tensors) -> dict[str, int]:
    """All terms of the loss have one sign, so that its ULP are those of the loss itself."""
    return {"loss": inputs["x"].size + 5, "dx": 4}


def _scaled(
    loss: Callable[[Tensors, Tensors], float], dx: Callable[[Tensors, Tensors], float]
) -> Callable[[Tensors, Tensors], Tensors]:
    """Return a mistake that is wrong by a factor."""

    def mistaken(inputs: Tensors, settings: Tensors) -> Tensors:
        right = oracle(inputs, settings)
        return _results(
            inputs,
            settings,
            right["loss"].exact.item() * loss(inputs, settings),
            right["dx"].exact * dx(inputs, settings),
        )

    return mistaken


def _one(inputs: Tensors, settings: Tensors) -> float:
    return 1


def _half(inputs: Tensors, settings: Tensors) -> float:
    return 0.5


def _count(inputs: Tensors, settings: Tensors) -> float:
    return inputs["x"].size or 1 if settings["reduction"] == "mean" else 1


def _rest(inputs: Tensors, settings: Tensors) -> float:
    x = inputs["x"]
    return x.size // len(x) if settings["reduction"] == "mean" and x.ndim and x.size else 1


def absolute_error(inputs: Tensors, settings: Tensors) -> Tensors:
    """The loss is the mean of |x - t|."""
    right = oracle(inputs, settings)
    residual = magnitude(exact(inputs["x"]) - exact(inputs["targets"]))
    loss = total(residual.ravel()) / _count(inputs, settings)
    return right | {"loss": Value(full((), loss), right["loss"].dtype)}


def reversed_sign(inputs: Tensors, settings: Tensors) -> Tensors:
    """dx is the gradient of the targets."""
    right = oracle(inputs, settings)
    return _results(inputs, settings, right["loss"].exact.item(), -right["dx"].exact)


def broadcast(inputs: Tensors, settings: Tensors) -> Tensors:
    """(n, 1) against (n,) gives n² differences."""
    x, targets = inputs["x"], inputs["targets"]
    try:
        shape = np.broadcast_shapes(x.shape, targets.shape)
    except ValueError:
        return oracle(inputs, settings)
    if shape == x.shape == targets.shape:
        return oracle(inputs, settings)
    wide = {"x": np.broadcast_to(x, shape), "targets": np.broadcast_to(targets, shape)}
    result = oracle(wide, settings)
    axes = tuple(range(len(shape) - x.ndim)) + tuple(
        len(shape) - x.ndim + axis
        for axis in range(x.ndim)
        if x.shape[axis] != shape[len(shape) - x.ndim + axis]
    )
    dx = result["dx"].exact.sum(axis=axes).reshape(x.shape)
    return result | {"dx": Value(dx, x.dtype.name)}


MISTAKES = (
    Mistake("halved", "loss and gradient are those of (x - t)²/2", _scaled(_half, _half)),
    Mistake("gradient lacks the 2", "dx = (x - t)/n", _scaled(_one, _half)),
    Mistake("sum for mean", "nothing is divided by n", _scaled(_count, _count)),
    Mistake("gradient not averaged", "the loss is a mean, dx belongs to the sum", _scaled(_one, _count)),
    Mistake("mean over the batch only", "the mean divides by N, not by all elements", _scaled(_rest, _rest)),
    Mistake("absolute error", "the loss is the mean of |x - t|", absolute_error),
    Mistake("gradient of the targets", "dx has the sign of t - x", reversed_sign),
    Mistake("shapes broadcast", "(n, 1) against (n,) gives n² differences", broadcast),
)  # fmt: skip

CONSTRAINTS = {
    "C1": "`mean`: loss = Σ (x - t)² / n and dx = 2 (x - t) / n, n the number of all elements.",
    "C2": "`sum`: loss = Σ (x - t)² and dx = 2 (x - t).",
    "C3": "x and targets have one shape: nothing is broadcast, anything else is refused.",
    "C4": "loss is 0-d, float64 if x is float64, else float32; dx has the dtype and shape of x.",
    "C5": "An infinite or NaN difference makes the loss so, and only its own element of dx.",
    "C6": "The mean over no element is refused; the sum is 0.",
    "C7": "A square beyond the range of the dtype makes the loss infinite, and leaves dx finite.",
    "C8": _dtype_cases.CONSTRAINT,
}

FLAGS = {
    "basic": Flag("BASIC", "Differences of either sign, all different."),
    "sum": Flag("BASIC", "reduction = sum."),
    "shapes": Flag("EDGE_CASE", "One to four axes, extents of 1, one element."),
    "equal": Flag("EDGE_CASE", "Outputs that equal their targets."),
    "close": Flag(
        "PRECISION", "Outputs next to their targets: the difference is small, and exact."
    ),
    "wide-range": Flag("PRECISION", "Magnitudes far apart, or many terms."),
    "range": Flag("OVERFLOW", "Squares beyond the dtype, or near its ends."),
    "nonfinite": Flag("EDGE_CASE", "NaN or infinities."),
    "shape-mismatch": Flag(
        "EDGE_CASE",
        "Shapes that differ; (n, 1) against (n,) broadcasts to n² differences without an error.",
    ),
    "empty": Flag("EDGE_CASE", "No element."),
    "bad-dtype": _dtype_cases.FLAG,
}


def cases(c: Cases) -> None:
    """Write the cases."""
    random = Stream(110)
    inf, nan = np.inf, np.nan

    def add(
        name: str, flags: str, labels: str, x: Any, targets: Any = None, reduction: str = "mean",
        dtypes: Any = ("float64", "float32"),
    ) -> None:  # fmt: skip
        x = random.uniform(*x, low=-4.0, high=4.0) if isinstance(x, tuple) else x
        targets = random.uniform(*x.shape, low=-4.0, high=4.0) if targets is None else targets
        c.add(name, flags, labels, {"x": x, "targets": targets}, {"reduction": reduction}, dtypes)

    add("basic", "basic", "C1 C4", (3, 4), dtypes=ALL)
    add("basic-sum", "basic sum", "C2 C4", (3, 4), reduction="sum", dtypes=ALL)
    add("by-hand", "basic", "C1", tensor([1, 2], [3, 5]), tensor([0.5, 4], [3, -1]), dtypes=ALL)
    add("by-hand-sum", "basic sum", "C2", tensor([1, 2], [3, 5]), tensor([0.5, 4], [3, -1]), "sum")
    add("against-zeros", "basic", "C1", tensor([1, 2], [3, 4]), np.zeros((2, 2)))
    add("vector", "shapes", "C1", (5,))
    add("vector-sum", "shapes sum", "C2", (5,), reduction="sum")
    add("column", "shapes", "C1", (4, 1))
    add("row", "shapes", "C1", (1, 4))
    add("image", "shapes", "C1", (2, 3, 2, 2))
    add("one-element", "shapes", "C1 C4", tensor([3.0]), tensor([1.5]))
    add("zero-dimensional", "shapes", "C1 C4", np.array(3.0), np.array(-1.5))
    add("equal", "equal", "C1", tensor([1, -2, 3]), tensor([1, -2, 3]))
    add("equal-but-one", "equal", "C1", tensor([0.1, -2], [0.3, 7]), tensor([0.1, -2], [0.5, 7]))
    add("equal-sum", "equal sum", "C2", tensor([1e30, 2.0]), tensor([1e30, 2.0]), "sum")
    near = 1000.0 + random.uniform(3, 3)
    add("close", "close", "C1", near, near + random.uniform(3, 3) / 64)
    add("close-sum", "close sum", "C2", near, near - random.uniform(3, 3) / 4096, "sum")
    add(
        "close-neighbours",
        "close",
        "C1",
        tensor(1, 2, 4),
        tensor(1 + 2.0**-23, 2 - 2.0**-23, 4 + 2.0**-21),
    )
    add("column-sum", "shapes sum", "C2", tensor([2], [-1], [0.5]), tensor([-1], [1], [4]), "sum")
    add("wide-range", "wide-range", "C1", random.spread(4, 3), random.spread(4, 3))
    add("wide-range-sum", "wide-range sum", "C2", random.spread(2, 7), random.spread(2, 7), "sum")
    add("many", "wide-range", "C1", (12, 25))
    add(
        "square-overflow",
        "range",
        "C7",
        tensor([1e25, 1], [2, -3]),
        np.zeros((2, 2)),
        "mean",
        ("float32",),
    )
    add(
        "square-overflow",
        "range",
        "C7",
        tensor([1e200, 1], [2, -3]),
        np.zeros((2, 2)),
        "mean",
        ("float64",),
    )
    add("large", "range", "C1", tensor([1e18, -2e18]), tensor([3e17, 1e18]))
    add("small", "range", "C1", tensor([1e-15, -2e-15]), tensor([3e-16, 1e-15]))
    add("nan-output", "nonfinite", "C5", tensor([nan, 1], [2, 3]), tensor([0, 0.5], [-1, 7]))
    add(
        "nan-target",
        "nonfinite sum",
        "C5",
        tensor([0, 1], [2, 3]),
        tensor([0, nan], [-1, 7]),
        "sum",
    )
    add("infinite-output", "nonfinite", "C5", tensor([inf, 1, -inf]), tensor([0, 0.5, 2]))
    add("infinite-both", "nonfinite", "C5", tensor([inf, 1]), tensor([inf, 0.5]))
    add("column-against-vector", "shape-mismatch", "C3", tensor([1.0], [2.0]), tensor(0, 1))
    add(
        "vector-against-column",
        "shape-mismatch",
        "C3",
        tensor(0, 1, 4),
        tensor([1.0], [2.0], [-1.0]),
    )
    add("lengths-differ", "shape-mismatch", "C3", tensor(1, 2), tensor(1, 2, 3))
    add("row-against-matrix", "shape-mismatch", "C3", tensor([1, 2], [3, 5]), tensor([0.5, 1]))
    add("empty", "empty", "C6", np.zeros((0, 3)))
    add("empty-sum", "empty sum", "C6", np.zeros((0, 3)), reduction="sum")
    _dtype_cases.refused(
        c, "C8",
        {"x": random.uniform(2, 3, low=-2.0, high=2.0), "targets": random.uniform(2, 3)},
    )  # fmt: skip


OPERATION = Operation(
    id="loss.mse",
    summary="The mean (or sum) of squared differences, and its gradient.",
    formula="loss = Σ (x - t)² / n;  dx = 2 (x - t) / n",
    sources=("C. F. Gauss: Theoria combinationis observationum erroribus minimis obnoxiae. 1823",),
    constraints=CONSTRAINTS,
    inputs={"x": "the outputs, any shape", "targets": "like x"},
    outputs={"loss": "0-d", "dx": "like x"},
    params=(Param("reduction", "mean over all elements, or sum", default="mean"),),
    dials=(
        Dial("empty_mean", "reject", "the mean over no element: refused, or NaN", ("undefined",)),
        layers.LOSS_DTYPE,
        Dial(
            "sum_of", "elements", "what a sum adds: squares, or their means over the last axis",
            ("row_means",),
        ),
    ),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=(
        "A difference has a relative error of u, however close its terms are; its square 3u. The sum of n"
        " squares adds (n - 1)u and the division (or a product with 1/n) 2u: n + 4, and 1 for means of"
        " means. The gradient: the difference, the factors 2 and 1/n in any order: at most 4u."
    ),
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    dialects={
        "torch": {"empty_mean": "undefined", "loss_dtype": "input_dtype"},
        "tensorflow": {"empty_mean": "undefined", "sum_of": "row_means", "loss_dtype": "input_dtype",
                       "subnormals": "flush"},
    },
)  # fmt: skip
