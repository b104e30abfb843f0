"""Cases that every penalty, proximal map and projection has: dtypes, shapes, absence, refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Stream, fixed, tensor
from conformance.operation import Flag

Add = Callable[..., None]
"""``add(name, flags, weights, dtypes=ALL, **params)`` with the constraint labels filled in."""

FLAGS = {
    "mixed-dtypes": Flag("EDGE_CASE", "Several dtypes in one list."),
    "integers": Flag("EDGE_CASE", "Integer weights, which have no gradient and are refused."),
    "absent": Flag("EDGE_CASE", "Absent weights."),
    "shapes": Flag("EDGE_CASE", "Empty, one-element and multi-dimensional tensors."),
    "range": Flag("EDGE_CASE", "A parameter without meaning."),
    "nonfinite": Flag("EDGE_CASE", "NaN and infinite weights."),
    "wide-range": Flag("PRECISION", "Magnitudes over many orders."),
}


def add_dtypes_and_absence(add: Add) -> None:
    """Ask for several dtypes in one list, and for absent weights; every weight is a matrix."""
    add(
        "mixed-16-32",
        "mixed-dtypes",
        [
            fixed([[300.0, -0.1]], "float16"),
            fixed([[-2.0], [5.1]], "float32"),
            fixed([[0.5, 3.0]], "bfloat16"),
        ],
        ("float32",),
    )
    add(
        "mixed-32-64",
        "mixed-dtypes",
        [fixed([[3.0, -0.1]], "float32"), fixed([[-2.1, 0.3], [5.1, 0.7]], "float64")],
        ("float64",),
    )
    add(
        "mixed-16-16",
        "mixed-dtypes",
        [fixed([[1.5, -7.0]], "float16"), fixed([[200.0], [-3.0]], "bfloat16")],
        ("float16",),
    )
    matrix = np.array([[3, -4], [1, 7]])
    for name, dtype in (("integers", "int64"), ("integers-32", "int32")):
        add(name, "integers", [fixed(matrix, dtype)], ("float32",))
    among = [tensor([0.5, -2]), fixed(matrix, "int64")]
    add("integers-among", "integers", among, ("float32",))
    add("absent", "absent", [None, tensor([3, -4], [0.5, 7]), None, tensor([-12.0, 0.3])])
    add("absent-last", "absent", [tensor([3, -0.1, 2]), None], WIDE)
    add("absent-and-empty", "absent shapes", [np.zeros((0, 2)), None, tensor([0.5, -6.0])], WIDE)


def add_shapes(add: Add, stream: Stream) -> None:
    """Ask for empty, one-element, narrow, wide and four-dimensional tensors, two axes at least."""
    add("empty-tensor", "shapes", [np.zeros((0, 3)), tensor([3, -4, 0.25])])
    add("empty-second-axis", "shapes", [np.zeros((2, 0)), tensor([3, -4], [-2, 0.5])], WIDE)
    add("one-element", "shapes", [np.array([[-2.5]])])
    add("column-and-row", "shapes", [stream.uniform(5, 1), stream.uniform(1, 4)])
    add("four-dimensional", "shapes", [stream.uniform(2, 3, 1, 4)])


def add_refusals(add: Add, given: dict[str, Any], *names: str, infinite: bool = True) -> None:
    """Ask for negative, NaN and infinite values of each named parameter."""
    values: dict[str, Any] = {"negative": -0.1, "nan": "nan"}
    if infinite:
        values["infinite"] = "inf"
    for name in names:
        for kind, value in values.items():
            params = given | {name: value}
            slug = name.replace("_", "-")
            add(f"{slug}-{kind}", "range", [tensor([3, -4], [0.5, 2])], WIDE, **params)


def bound(c: Any, labels: str, flags: str = "", **defaults: Any) -> Add:
    """Return ``add`` for one set of labels and default parameters."""

    def add(name: str, flag: str, weights: Any, dtypes: Any = ALL, **params: Any) -> None:
        c.add(name, f"{flags} {flag}", labels, {"weights": weights}, defaults | params, dtypes)

    return add
