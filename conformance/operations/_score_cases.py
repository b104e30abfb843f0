"""Constraints, flags and cases that the scores of two tensors (weights and one more) share."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, Cases, Stream, fixed, tensor
from conformance.operation import Flag

CONSTRAINTS = {
    "C2": "A score has the shape and dtype of its weight, 0-d and empty ones included.",
    "C3": "It is computed in float32 or wider and rounded once: a product that float16 cannot hold is no 0.",
    "C4": "A tensor that is absent in either list has no scores: that is not the same as a gradient of zero.",
    "C5": "NaN gives NaN, infinity times zero too; no score is patched up.",
    "C6": "Lists of different lengths, or tensors of different shapes, are refused, not broadcast.",
}

FLAGS = {
    "basic": Flag("BASIC", "Several tensors, both signs."),
    "observed": Flag("BASIC", "Weights and gradients that several libraries were run on."),
    "signs": Flag("EDGE_CASE", "All four combinations of signs."),
    "zeros": Flag("EDGE_CASE", "Zeros of either sign."),
    "non-finite": Flag("EDGE_CASE", "NaN and infinities."),
    "small": Flag("OVERFLOW", "Products that underflow in the dtype of the weights, or nearly."),
    "large": Flag("OVERFLOW", "Products that overflow in the dtype of the weights, or nearly."),
    "shapes": Flag("EDGE_CASE", "0-d, empty and many-dimensional tensors."),
    "absent": Flag("EDGE_CASE", "Absent tensors, or none at all."),
    "mixed-dtypes": Flag("EDGE_CASE", "Several dtypes in one list, or in one pair."),
    "mismatch": Flag("EDGE_CASE", "Lists or shapes that do not fit each other."),
}


def pairs(c: Cases, second: str, seed: int, extremes: bool = True) -> None:
    """Write the cases; ``extremes`` are those whose scores are themselves very large or small."""
    random = Stream(seed)

    def add(name: str, flags: str, labels: str, w: Any, other: Any, dtypes: Any = ALL) -> None:
        c.add(name, flags, labels, {"weights": w, second: other}, dtypes=dtypes)

    nan, inf = np.nan, np.inf
    add("four", "observed signs", "C1", [tensor(1, 2, -3, -4)], [tensor(4, -3, 2, -1)])
    add("second-batch", "observed zeros", "C1", [tensor(1, 2, -3, -4)], [tensor(0, 1, 2, -3)])
    add("two-tensors", "basic signs", "C1 C2", [random.uniform(3, 4), random.uniform(5, low=-9)],
        [random.uniform(3, 4, high=4), random.uniform(5)])  # fmt: skip
    add("three-tensors", "basic", "C1 C2", [random.uniform(2, 1, 3), random.uniform(4), tensor(-0.3)],
        [random.uniform(2, 1, 3), random.uniform(4, low=-6), tensor(7)])  # fmt: skip
    add("moderate-range", "basic", "C1", [random.spread(3, 5, low=1e-2, high=1e2), random.spread(4)],
        [random.spread(3, 5, low=1e-1, high=10), random.spread(4, low=1e-1, high=10)])  # fmt: skip
    add("zeros", "zeros signs", "C1", [tensor([0, -0.0, 1], [-1, 2, -0.0])],
        [tensor([3, -2, 0], [-0.0, 0.5, -0.0])])  # fmt: skip
    add("non-finite", "non-finite", "C5", [tensor(1, -2, 3, nan, inf, 0)],
        [tensor(nan, inf, -inf, 1, -0.5, inf)])  # fmt: skip
    add("one-nan-of-two", "non-finite", "C5", [tensor(2, -1), tensor([3.0], [-4])],
        [tensor(0.5, nan), tensor([-1.0], [0.25])])  # fmt: skip
    add(
        "zero-times-infinity",
        "non-finite zeros",
        "C5",
        [tensor(0, -0.0, 2)],
        [tensor(inf, -inf, 1)],
    )
    add("halves-underflow", "small", "C3", [tensor(1e-4, -2e-3, 0.5, 3e-5)],
        [tensor(-3e-4, 1e-5, 0.25, 5e-4)], ("float16",))  # fmt: skip
    add("halves-overflow", "large", "C3", [tensor(300, -200, 500, 2)],
        [tensor(-2, 100, 90, 3000)], ("float16",))  # fmt: skip
    if extremes:
        add("barely-normal", "small", "C1", [tensor(1e-18, -3e-19, 2e-20)],
            [tensor(-2e-19, 5e-19, 3e-18)], ("float32", "bfloat16"))  # fmt: skip
        add("subnormal-scores", "small", "C1", [tensor(1e-22, -3e-20, 2e-24)],
            [tensor(-2e-20, 5e-22, 3e-22)], ("float32", "bfloat16"))  # fmt: skip
        add("large-scores", "large", "C1", [tensor(1e18, -3e19, 2e17)],
            [tensor(-2e19, 5e17, 3e18)], ("float32", "bfloat16"))  # fmt: skip
        add("large-doubles", "large", "C1", [tensor(1e150, -3e150, 2e-150)],
            [tensor(-2e153, 5e100, 3e-145)], ("float64",))  # fmt: skip
    add("zero-dimensional", "shapes", "C1 C2", [np.array(-3.0), random.uniform(2, 1, 3)],
        [np.array(0.75), random.uniform(2, 1, 3)])  # fmt: skip
    add(
        "empty",
        "shapes",
        "C2",
        [np.zeros((0, 3)), tensor(-1, 2)],
        [np.zeros((0, 3)), tensor(3, -0.5)],
    )
    add("all-empty", "shapes", "C2", [np.zeros((2, 0))], [np.zeros((2, 0))], ("float32",))
    add("no-gradient", "absent", "C4", [tensor(-1, 2), tensor([0.5, 3], [-2, 1])],
        [None, tensor([2, -1], [0.25, 4])])  # fmt: skip
    add(
        "no-weight",
        "absent",
        "C4",
        [None, tensor(-1, 2), None],
        [tensor(3, 4, 5), tensor(2, 0.5), None],
    )
    add("all-absent", "absent", "C4", [None, tensor(1, 2)], [tensor(3, 1), None], ("float32",))
    add("no-tensors", "absent", "C4", [], [], ("float32",))
    mixed = [fixed([-1.5, 2.0], "float16"), fixed([[-0.1], [3.0]], "float64"), tensor(-7, 7)]
    add("mixed", "mixed-dtypes", "C2", mixed,
        [fixed([0.3, -4.0], "float16"), fixed([[2.5], [-0.7]], "float64"), tensor(0.2, 3)],
        ("float32", "bfloat16"))  # fmt: skip
    add("wider-gradients", "mixed-dtypes", "C2 C3", [tensor(-1.5, 2), tensor([0.1], [-3])],
        [fixed([0.3, -1e-3], "float32"), fixed([[7.0], [0.01]], "float32")],
        ("float16", "bfloat16"))  # fmt: skip
    add("shape-one-for-three", "mismatch", "C6", [tensor([1, 2, 3], [4, 5, 6])],
        [tensor([0.5], [-1])], ("float32",))  # fmt: skip
    add(
        "transposed", "mismatch", "C6", [random.uniform(2, 3)], [random.uniform(3, 2)], ("float32",)
    )
    add(
        "fewer-gradients", "mismatch", "C6", [tensor(1, 2), tensor(3)], [tensor(1, 2)], ("float32",)
    )
    add("more-gradients", "mismatch", "C6", [tensor(1, 2)], [tensor(1, 2), tensor(3)], ("float32",))
