"""The cases of ``loss.binary_cross_entropy``."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, Cases, Stream, tensor
from conformance.operations import _dtype_cases


def cases(c: Cases) -> None:
    """Write the cases."""
    random = Stream(133)
    inf, nan = np.inf, np.nan

    def add(
        name: str,
        flags: str,
        labels: str,
        x: Any,
        targets: Any = None,
        reduction: str = "mean",
        dtypes: Any = ("float64", "float32"),
    ) -> None:
        x = random.uniform(*x, low=-4.0, high=4.0) if isinstance(x, tuple) else x
        if targets is None:
            targets = np.round(random.uniform(*x.shape, low=0.0, high=4.0)) / 4
        both = {"x": x, "targets": np.asarray(targets, dtype=np.float64)}
        c.add(name, flags, labels, both, {"reduction": reduction}, dtypes)

    add("basic", "basic", "C1 C2 C10", (4, 3), dtypes=ALL)
    add("basic-sum", "basic sum", "C1 C2", (3, 4), None, "sum", ALL)
    add(
        "by-hand",
        "basic",
        "C1 C2",
        tensor([np.log(3), 0], [-np.log(4), np.log(9)]),
        tensor([1, 0.5], [0, 1]),
    )
    add(
        "hard-targets",
        "basic",
        "C1 C2",
        (2, 5),
        tensor([1, 0, 0, 1, 1], [0, 0, 1, 1, 0]),
        dtypes=ALL,
    )
    add(
        "hard-targets-sum",
        "basic sum",
        "C1 C2",
        (5, 2),
        tensor([1, 0], [0, 0], [1, 1], [0, 1], [1, 0]),
        "sum",
    )
    add("vector", "basic shapes", "C1 C2", (7,))
    add("column", "basic shapes", "C1 C2", (5, 1))
    add("image", "shapes", "C1 C2", (2, 3, 2, 2))
    add("one-number", "shapes", "C1 C2", np.array(1.25), np.array(0.25))
    add("one-number-sum", "shapes sum", "C1 C2", np.array(-0.5), np.array(1.0), "sum")
    add("many", "basic", "C1 C2", (150,))
    add("many-sum", "basic sum", "C1 C2", (30, 4), None, "sum")
    add("soft", "soft-targets", "C4", (3, 3), random.uniform(3, 3, low=0.0, high=1.0))
    add(
        "soft-sum", "soft-targets sum", "C4", (2, 4), random.uniform(2, 4, low=0.0, high=1.0), "sum"
    )
    add("soft-small", "soft-targets", "C4", (4,), tensor(1e-3, 0.999, 1e-6, 0.3))
    add(
        "matched",
        "soft-targets",
        "C2 C4",
        tensor(0, np.log(3), -np.log(3)),
        tensor(0.5, 0.75, 0.25),
    )
    add("zero-logits", "zero-logit", "C1 C2", tensor(0, 0, 0), tensor(0, 1, 0.5))
    add("negative-zero", "zero-logit", "C2", tensor(-0.0, 0, -1), tensor(1, 0, 0.25))
    add(
        "zero-logits-sum",
        "zero-logit sum",
        "C1 C2",
        np.zeros((2, 3)),
        tensor([1, 0, 0.25], [0.75, 1, 0]),
        "sum",
    )
    add("next-to-zero", "zero-logit", "C1 C2", tensor(1e-6, -1e-6, 1e-4), tensor(0.5, 0.5, 0))
    add("large-right", "large-logits certain", "C3", tensor(1000, -1000, 200), tensor(1, 0, 1))
    add("large-wrong", "large-logits", "C3", tensor(1000, -1000, 200), tensor(0, 1, 0))
    add(
        "large-mixed",
        "large-logits",
        "C3",
        tensor([1000, -500], [3, -90]),
        tensor([0.25, 0.5], [1, 0.75]),
    )
    add(
        "large-sum", "large-logits sum", "C3", tensor(300, -800, 17, -20), tensor(0, 1, 0, 1), "sum"
    )
    add("rounds-to-one", "large-logits", "C3", tensor(17, 20, 37, 40), tensor(0, 0, 0, 0))
    add("overflows", "large-logits", "C3", tensor(-89, -104, -710, 2), tensor(1, 0.5, 1, 0))
    add("largest", "large-logits", "C3", tensor(1e37, -1e37), tensor(0.5, 1))
    add("clipped", "large-logits", "C1 C3", tensor(18, -19, 25), tensor(0, 1, 0.25))
    add("certain", "certain", "C1 C2", tensor(8, -9, 12), tensor(1, 0, 1))
    add("certain-one", "certain", "C1 C2", tensor(5.0), tensor(1.0))
    add(
        "certain-sum",
        "certain sum",
        "C1 C2",
        tensor([20, -30], [40, -15]),
        tensor([1, 0], [1, 0]),
        "sum",
    )
    add("infinite-right", "infinite", "C5", tensor(inf), tensor(1.0))
    add("infinite-wrong", "infinite", "C5", tensor(inf), tensor(0.0))
    add("minus-infinite-right", "infinite", "C5", tensor(-inf), tensor(0.0))
    add("minus-infinite-wrong", "infinite", "C5", tensor(-inf), tensor(1.0))
    add("infinite-soft", "infinite soft-targets", "C5", tensor(inf, 1), tensor(0.5, 0.25))
    add(
        "infinite-among",
        "infinite sum",
        "C5",
        tensor([inf, 1], [-2, -inf]),
        tensor([1, 0.5], [1, 0]),
        "sum",
    )
    add("nan", "nan", "C7", tensor(nan, 0, 1), tensor(1, 0.5, 0))
    add("nan-sum", "nan sum", "C7", tensor([1, nan], [2, -3]), tensor([0, 0], [1, 0.25]), "sum")
    add("nan-and-infinity", "nan infinite", "C7", tensor(nan, inf), tensor(0.5, 0))
    add("target-two", "outside-targets", "C6", tensor(0.5, -1), tensor(2, 0))
    add(
        "target-negative",
        "outside-targets",
        "C6",
        tensor([0.5, -1], [2, 3]),
        tensor([1, -1], [0, 0.5]),
        "sum",
    )
    add("target-slightly-above", "outside-targets", "C6", tensor(0.5, -1, 2), tensor(1, 1.125, 0))
    add("target-nan", "outside-targets nan", "C6", tensor(0.5, -1), tensor(nan, 0))
    add("column-against-vector", "shape-mismatch", "C8", tensor([1.0], [2.0]), tensor(0, 1))
    add(
        "vector-against-column",
        "shape-mismatch",
        "C8",
        tensor(0, 1, 4),
        tensor([1.0], [0.0], [1.0]),
    )
    add("row-against-matrix", "shape-mismatch", "C8", tensor([1, 2], [3, 5]), tensor([0.5, 1]))
    add("lengths-differ", "shape-mismatch", "C8", tensor(1, 2), tensor(1, 0, 1))
    add("empty", "empty", "C9", np.zeros((0, 3)))
    add("empty-sum", "empty sum", "C9", np.zeros((0, 3)), reduction="sum")
    add("empty-vector", "empty", "C9", np.zeros(0))
    _dtype_cases.refused(
        c, "C11",
        {"x": random.uniform(2, 3, low=-2.0, high=2.0),
         "targets": tensor([0.25, 1, 0.5], [0.75, 0.125, 1])},
    )  # fmt: skip
