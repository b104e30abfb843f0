"""``layer.dense``: the fully connected layer, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Cases, Stream, tensor
from conformance.operation import Flag, Mistake, Operation, Value
from conformance.operations import _dtype_cases
from conformance.oracle import layers

Tensors = dict[str, Any]


def oracle(inputs: Tensors, settings: Tensors) -> Tensors:
    """y = x W + b;  dx = dy Wᵀ,  dW = xᵀ dy,  db = Σ_n dy_n."""
    x, weight = inputs["x"], inputs["weight"]
    layers.check_dtypes(x=x, weight=weight, bias=inputs["bias"], dy=inputs["dy"])
    layers.check_shape("x", x, ("N", "in"))
    layers.check_shape("weight", weight, (x.shape[1], "out"))
    layers.check_shape("bias", inputs["bias"], (weight.shape[1],))
    return layers.linear(layers.dense_forward, layers.dense_backward, inputs)


def tolerance(inputs: Tensors, settings: Tensors) -> dict[str, int]:
    """ULP of the sum of absolute terms, per output."""
    examples, into = inputs["x"].shape
    out = inputs["weight"].shape[1]
    return {"y": into + 1, "dx": out, "dweight": max(examples, 1), "dbias": max(examples, 1)}


def _on(**changes: Callable[[Tensors], Any]) -> Callable[[Tensors, Tensors], Tensors]:
    """Return a mistake that answers as the oracle does to inputs that it has changed."""

    def mistaken(inputs: Tensors, settings: Tensors) -> Tensors:
        return oracle(inputs | {name: new(inputs) for name, new in changes.items()}, settings)

    return mistaken


def _averaged(*names: str) -> Callable[[Tensors, Tensors], Tensors]:
    def mistaken(inputs: Tensors, settings: Tensors) -> Tensors:
        result, examples = oracle(inputs, settings), max(len(inputs["x"]), 1)
        for name in names:
            if result[name] is not None:
                result[name] = Value(result[name].exact / examples, result[name].dtype)
        return result

    return mistaken


def no_bias_in_output(inputs: Tensors, settings: Tensors) -> Tensors:
    """The bias is not added."""
    without = oracle(inputs | {"bias": None}, settings)
    return oracle(inputs, settings) | {"y": without["y"]}


def transposed(inputs: Tensors, settings: Tensors) -> Tensors:
    """A square weight is taken as (out, in)."""
    rows, columns = inputs["weight"].shape
    if rows != columns:
        return oracle(inputs, settings)
    result = oracle(inputs | {"weight": inputs["weight"].T}, settings)
    dweight = result["dweight"]
    return result | {"dweight": Value(dweight.exact.T, dweight.dtype, dweight.scale.T)}


def untransposed_backward(inputs: Tensors, settings: Tensors) -> Tensors:
    """Backward multiplies by W where Wᵀ is meant; only a square weight lets it."""
    return oracle(inputs, settings) | {"dx": transposed(inputs, settings)["dx"]}


MISTAKES = (
    Mistake(
        "upstream gradient ignored",
        "backward starts from ones instead of dy",
        _on(dy=lambda i: np.ones_like(i["dy"])),
    ),
    Mistake(
        "upstream gradient squared",
        "dy enters twice, which a dy of ones hides",
        _on(dy=lambda i: i["dy"] * i["dy"]),
    ),
    Mistake("bias not added", "y = x W", no_bias_in_output),
    Mistake("bias gradient averaged", "db is the mean over the batch", _averaged("dbias")),
    Mistake(
        "gradients averaged", "dW and db are means over the batch", _averaged("dweight", "dbias")
    ),
    Mistake("weight transposed", "a square weight is taken as (out, in)", transposed),
    Mistake(
        "backward not transposed", "dx = dy W, where the shapes allow it", untransposed_backward
    ),
    Mistake("magnitudes of x", "dW is computed from |x|", _on(x=lambda i: np.abs(i["x"]))),
)

CONSTRAINTS = {
    "C1": "y = x W + b for x (N, in), W (in, out), b (out,); the bias is added to every example.",
    "C2": "dx = dy Wᵀ, dW = xᵀ dy, db = Σ_n dy_n: sums over the batch, never means.",
    "C3": "Without a bias nothing is added, and there is no gradient of one.",
    "C4": "A batch without examples gives an empty y and dx, and zeros for dW and db.",
    "C5": "Infinities and NaN follow IEEE arithmetic, and an example's never reach another's y or dx.",
    "C6": "Shapes that do not fit are refused; nothing is broadcast but the bias over the batch.",
    "C7": "Every output has the dtype of x; the order of the sums is free.",
    "C8": _dtype_cases.CONSTRAINT,
}

FLAGS = {
    "basic": Flag("BASIC", "Different extents along every axis, uneven upstream gradient."),
    "one-wide": Flag(
        "KNOWN_BUG",
        "An extent of 1, where code that guesses an axis from the shape guesses wrong.",
        ("google-deepmind/optax#906",),
    ),
    "square": Flag("EDGE_CASE", "A square weight, where a transposed one would fit too."),
    "no-bias": Flag("EDGE_CASE", "The layer has no bias."),
    "empty-batch": Flag("EDGE_CASE", "No example."),
    "uneven-upstream": Flag(
        "EDGE_CASE", "dy differs by orders of magnitude and in sign, and is zero in places."
    ),
    "cancellation": Flag("PRECISION", "Large terms cancel to a small result."),
    "wide-range": Flag("PRECISION", "Magnitudes from 1e-3 to 1e3, both signs."),
    "long-sum": Flag("PRECISION", "Sums of hundreds of terms."),
    "nonfinite": Flag("EDGE_CASE", "An infinite or NaN element."),
    "bad-shape": Flag("EDGE_CASE", "Shapes that do not fit each other."),
    "bad-dtype": _dtype_cases.FLAG,
}


def cases(c: Cases) -> None:
    """Write the cases."""
    random = Stream(101)

    def add(
        name: str, flags: str, labels: str, sizes: tuple[int, int, int], dtypes: Any = WIDE,
        **given: Any,
    ) -> None:  # fmt: skip
        examples, into, out = sizes
        inputs = {
            "x": random.uniform(examples, into, low=-2.0, high=2.0),
            "weight": random.uniform(into, out),
            "bias": random.uniform(out),
            "dy": random.uniform(examples, out, low=-3.0, high=3.0),
        }
        c.add(name, flags, labels, inputs | given, {}, dtypes)

    add("basic", "basic", "C1 C2 C7", (3, 4, 2), ALL)
    add(
        "by-hand", "basic", "C1 C2", (2, 3, 2), ALL,
        x=tensor([1, 2, 3], [-1, 0.5, 4]), weight=tensor([1, -2], [3, 0.5], [-1, 2]),
        bias=tensor(0.25, -4), dy=tensor([2, -1], [0.5, 3]),
    )  # fmt: skip
    add("wider-than-long", "basic", "C1 C2", (2, 3, 7))
    add("one-example", "one-wide", "C1 C2", (1, 5, 3))
    add("one-input", "one-wide", "C1 C2", (4, 1, 3))
    add("one-output", "one-wide", "C1 C2", (5, 3, 1))
    add("one-by-n", "one-wide", "C1 C2", (2, 1, 6))
    add("one-of-everything", "one-wide", "C1 C2", (1, 1, 1))
    add("square", "square", "C1 C2", (2, 3, 3))
    add("square-batch", "square", "C1 C2", (4, 4, 4), ALL)
    add("square-one-example", "square one-wide", "C1 C2", (1, 2, 2))
    add("no-bias", "no-bias", "C1 C3", (3, 2, 4), ALL, bias=None)
    add("no-bias-square", "no-bias square", "C1 C3", (3, 3, 3), bias=None)
    add("empty-batch", "empty-batch", "C4", (0, 3, 2))
    add("empty-batch-no-bias", "empty-batch no-bias", "C3 C4", (0, 2, 3), bias=None)
    add(
        "uneven-upstream", "uneven-upstream", "C2", (3, 2, 4),
        dy=tensor([1e3, 0, -1e-3, 2], [0, 0, 0, 0], [-5, 1e-2, 7, 0]),
    )  # fmt: skip
    add("zero-upstream", "uneven-upstream", "C2", (2, 3, 4), dy=np.zeros((2, 4)))
    add(
        "one-upstream", "uneven-upstream", "C2", (3, 2, 4),
        dy=tensor([0, 0, 0, 0], [0, 0, -2.5, 0], [0, 0, 0, 0]),
    )  # fmt: skip
    add(
        "cancellation", "cancellation", "C1 C2 C7", (3, 4, 3),
        x=tensor([1e4, 1e4, 0.1, 3], [-1e4, 1e4, 1, 2], [1e4, -1e4, 0.3, 1]),
        weight=tensor([1, 2, 3], [-1, -2.0001, -3], [0.1, 0.2, 0.3], [0.7, -0.7, 0.9]),
    )  # fmt: skip
    add(
        "bias-cancels", "cancellation", "C1 C7", (2, 2, 2),
        x=tensor([1000, 0.1], [1000, 0.3]), weight=tensor([1, -1], [0.5, 0.7]),
        bias=tensor(-1000, 1000),
    )  # fmt: skip
    add(
        "wide-range", "wide-range", "C1 C2 C7", (4, 5, 3),
        x=random.spread(4, 5), weight=random.spread(5, 3), dy=random.spread(4, 3),
    )  # fmt: skip
    add("long-sum", "long-sum", "C1 C7", (2, 200, 2))
    add("long-batch", "long-sum", "C2 C7", (150, 2, 3))
    x = random.uniform(3, 2)
    x[1, 0] = np.inf
    add("infinite-example", "nonfinite", "C5", (3, 2, 3), x=x)
    x = random.uniform(3, 4)
    x[0, 2] = np.nan
    add("nan-example", "nonfinite", "C5", (3, 4, 2), x=x)
    add(
        "infinity-times-zero", "nonfinite", "C5", (2, 2, 2),
        x=tensor([np.inf, 1], [2, 3]), weight=tensor([0, 1], [1, 2]),
    )  # fmt: skip
    dy = random.uniform(2, 3)
    dy[0, 1] = -np.inf
    add("infinite-upstream", "nonfinite", "C5", (2, 2, 3), dy=dy)
    add("inner-mismatch", "bad-shape", "C6", (2, 3, 2), weight=random.uniform(4, 2))
    add("bias-mismatch", "bad-shape", "C6", (2, 3, 2), bias=random.uniform(3))
    add("upstream-mismatch", "bad-shape", "C6", (4, 3, 2), dy=random.uniform(4, 3))
    add(
        "wide-range-weights", "wide-range", "C1 C2 C7", (2, 6, 4),
        x=random.uniform(2, 6), weight=random.spread(6, 4), dy=random.uniform(2, 4),
    )  # fmt: skip
    _dtype_cases.refused(
        c, "C8",
        {"x": random.uniform(3, 2), "weight": random.uniform(2, 4), "bias": random.uniform(4),
         "dy": random.uniform(3, 4, low=-2.0, high=2.0)},
    )  # fmt: skip


OPERATION = Operation(
    id="layer.dense",
    summary="The fully connected layer: a matrix product and a bias, with its gradients.",
    formula="y = x W + b;  dx = dy Wᵀ;  dW = xᵀ dy;  db = Σ_n dy_n",
    sources=(
        "D. E. Rumelhart, G. E. Hinton, R. J. Williams: Learning representations by back-propagating"
        " errors. Nature 323, 1986",
    ),
    constraints=CONSTRAINTS,
    inputs={
        "x": "(N, in)",
        "weight": "(in, out)",
        "bias": "(out,), or null",
        "dy": "(N, out): the upstream gradient, dL/dy",
    },
    outputs={
        "y": "(N, out)",
        "dx": "like x",
        "dweight": "like weight",
        "dbias": "like bias; null without one",
    },
    params=(),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=(
        "A sum of K products has an error of at most K·u times the sum of its absolute terms, in any order"
        " and with or without fused multiply-add: each term is rounded once as a product and at most K-1"
        " times in additions. K is `in` (and one more addition for the bias) for y, `out` for dx, N for dW;"
        " db adds N terms. One ULP of a number is at least u times it."
    ),
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    dialects={"tensorflow": {"subnormals": "flush"}},
)
