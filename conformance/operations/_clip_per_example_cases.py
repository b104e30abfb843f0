"""The cases of ``clip.per_example``."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Cases, Stream, fixed, tensor


def cases(c: Cases) -> None:
    """Write the cases."""
    random = Stream(72)

    def add(
        name: str,
        flags: str,
        labels: str,
        grads: Any,
        max_norm: Any,
        dtypes: Any = WIDE,
        **params: Any,
    ) -> None:
        c.add(name, flags, labels, {"grads": grads}, {"max_norm": max_norm, **params}, dtypes)

    # fmt: off
    # Examples of norm 5, 0.5 and 13 in the first tensor, 12, 1 and 0 in the second.
    w = tensor([[3, -4], [0, 0]], [[0.25, 0], [-0.25, 0.5]], [[0, 5], [12, 0]])
    b = tensor([12, 0], [0.6, -0.8], [0, 0])
    for reduction in ("mean", "sum"):
        add(reduction, "examples", "C1 C2 C3 C4", [w, b], 2.0, ALL, reduction=reduction)
        add(f"{reduction}-per-tensor", "examples per-tensor", "C1 C2 C3 C4", [w, b], 2.0, ALL,
            reduction=reduction, scope="tensor")
        add(f"{reduction}-of-opposites", "clip-then-mean", "C1 C3", [tensor([4, 0.5], [-1, 0.25])], 1.0,
            ALL, reduction=reduction)
    add("published-two-tensors", "examples per-tensor", "C2", [tensor([3], [0.3]), tensor([4], [0.4])],
        1.0, ALL,
        reduction="sum")
    add("published-two-tensors-apart", "examples per-tensor", "C2",
        [tensor([3], [0.3]), tensor([4], [0.4])], 1.0,
        ALL, reduction="sum", scope="tensor")
    add("ten-and-nothing", "clip-then-mean", "C1 C3", [tensor([10], [0])], 1.0, ALL)
    add("four-and-minus-one", "clip-then-mean", "C1 C3", [tensor([4], [-1])], 1.0, ALL)
    for name, limit in (("half", 0.5), ("4", 4.0), ("12-and-half", 12.5)):
        add(f"limit-{name}", "limits examples", "C1", [w, b], limit, ALL)
    add("ten-examples", "actual-batch", "C3", [random.uniform(10, 3), random.uniform(10)], 0.75, ALL)
    add("seventeen-examples", "actual-batch", "C3", [random.uniform(17, 2, low=-3)], 0.75, reduction="mean")
    add("below", "below", "C1 C3", [w, b], 32.0, ALL)
    add("below-sum", "below", "C1 C3", [w, b], 32.0, reduction="sum")
    add("at-threshold", "at-threshold", "C1", [tensor([3, 4], [-5, 0], [6, -8])], 5.0, ALL)
    small = tensor([3, 4], [-5, 0], [8, -6]) * 2.0**-22
    add("at-small-threshold", "at-threshold eps-visible", "C1", [small], 5 * 2.0**-22)
    add("just-below-by-less-than-eps", "below eps-visible", "C1", [small * 0.5], 5.25 * 2.0**-22)
    add("tiny-threshold", "eps-visible", "C1", [tensor([3e-9, 4e-9], [1e-10, 2e-10])], 1e-9, reduction="sum")
    add("micro-threshold", "eps-visible", "C1", [tensor([3e-6, -4e-6], [1e-7, 0])], 1e-6)
    zero = tensor([0, -0.0, 0], [3, 4, -12])
    add("zero-example", "zero-example examples", "C1", [zero], 2.0, ALL)
    add("zero-batch", "zero-example below", "C1", [np.zeros((3, 2))], 2.0)
    add("zero-limit", "zero-limit", "C7", [w, b], 0.0, ALL)
    add("zero-limit-zero-example", "zero-limit zero-example", "C7", [zero], 0.0, ALL)
    add("infinite-limit", "infinite-limit", "C7", [w, b], "inf", ALL)
    add("infinite-limit-per-tensor", "infinite-limit per-tensor", "C7", [w, b], "inf", scope="tensor")
    bad = tensor([3, 4], [np.inf, 4], [-1, 0.5])
    add("infinite-limit-infinite-example", "infinite-limit bad-example", "C7", [bad, b], "inf")
    add("negative-limit", "bad-limit", "C8", [w, b[:, :1] + 1.0], -1.0, ALL)
    add("nan-limit", "bad-limit", "C8", [w, b], "nan")
    add("nan-example", "bad-example", "C6", [tensor([np.nan, 4], [3, 4])], 1.0, ALL)
    add("nan-example-and-others", "bad-example", "C6", [tensor([np.nan, 4], [3, 4], [0, 0]), b], 1.0, ALL)
    add("nan-example-per-tensor", "bad-example per-tensor", "C2 C6", [b, tensor([1, 2], [3, np.nan], [0.5, 4])],
        1.0, ALL, scope="tensor")
    add("infinite-example", "bad-example", "C6", [bad], 1.0, ALL, reduction="sum")
    add("infinite-example-per-tensor", "bad-example per-tensor", "C2 C6", [bad, b], 1.0, scope="tensor")
    add("infinite-example-zero-limit", "bad-example zero-limit", "C6", [bad], 0.0)
    add("one-example", "one-example", "C1 C3", [w[:1], b[:1]], 2.0, ALL)
    add("one-example-below", "one-example below", "C1 C3", [w[1:2], b[1:2]], 2.0, ALL)
    none = [np.zeros((0, 2)), np.zeros((0, 3, 1))]
    add("no-example", "no-example", "C11", none, 1.0)
    add("no-example-sum", "no-example", "C11 C12", none, 1.0, ALL, reduction="sum")
    add("no-example-per-tensor", "no-example per-tensor", "C4 C11", none, 1.0, reduction="sum", scope="tensor")
    large = tensor([3, 4], [1e-20, -2e-20], [-8, 6])
    add("square-overflow", "square-overflow", "C5", [large * 1e20], 2.0, ("float32", "bfloat16"))
    add("square-overflow", "square-overflow", "C5", [large * 1e160], 2.0, ("float64",))
    add("square-overflow-below", "square-overflow below", "C5", [large * 1e20], 1e23, ("float32",))
    add("square-underflow", "square-overflow", "C5", [tensor([3e-30, 4e-30], [-1e-31, 0])], 1e-30,
        ("float32", "bfloat16"))
    add("square-underflow", "square-overflow", "C5", [tensor([3e-170, 4e-170], [-1e-171, 0])], 1e-170,
        ("float64",))
    sixty = np.full((2, 100), 300.0) * tensor([1], [-0.5])
    add("hundred-300", "square-overflow", "C5", [sixty], 1.0, ("float16",))
    add("factor-underflow", "square-overflow", "C1 C5", [tensor([2e38, 1e38], [3, -4])], 1e-6,
        ("float32", "bfloat16"), reduction="sum")
    add("cancellation", "cancellation", "C3", [tensor([3, 4, 1 / 3], [-3, -4, -0.3333], [0.1, -0.01, 0])],
        1.5, ALL,
        reduction="sum")
    add("absent", "absent", "C9", [None, w, None, b], 2.0, ALL)
    add("absent-per-tensor", "absent per-tensor", "C4 C9", [None, w, None, b], 2.0, ALL, scope="tensor")
    add("all-absent", "absent", "C9", [None, None], 2.0, ("float32",))
    add("all-absent-per-tensor", "absent per-tensor", "C9", [None, None], 2.0, ("float32",), scope="tensor")
    add("empty-list", "absent", "C9", [], 2.0, ("float32",))
    add("empty-list-per-tensor", "absent per-tensor", "C9", [], 2.0, ("float32",), scope="tensor")
    shapes = [random.uniform(3), random.uniform(3, 2, 1, 2), np.zeros((3, 0)), random.uniform(3, 1)]
    add("shapes", "shapes", "C12", shapes, 0.75, ALL)
    add("shapes-per-tensor", "shapes per-tensor", "C4 C12", shapes, 0.75, scope="tensor")
    add("numbers", "shapes", "C1 C12", [tensor(2, -0.5, -3)], 1.0, ALL, reduction="sum")
    add("empty-examples", "shapes", "C12", [np.zeros((3, 0, 2))], 1.0)
    add("no-leading-axis", "mismatch", "C10", [w, np.array(2.0)], 1.0, ("float32",))
    add("other-batch", "mismatch", "C10", [w, b[:2]], 1.0, ("float32",))
    add("one-for-many", "mismatch", "C10", [w, b[:1]], 1.0, ("float32",), scope="tensor")
    mixed = [fixed(w, "float16"), b, fixed(b[::-1], "bfloat16")]
    add("mixed-dtypes", "mixed-dtypes", "C4 C12", mixed, 2.0)
    add("mixed-dtypes-per-tensor", "mixed-dtypes per-tensor", "C4 C12", mixed, 2.0, ("float32",),
        scope="tensor")
    add("one-tensor-per-tensor", "per-tensor examples", "C2 C4", [w], 2.0, ALL, scope="tensor")
    wide = [random.spread(5, 7), random.spread(5, 2, 3)]
    add("wide-range", "wide-range", "C1 C3", wide, 10.0)
    add("wide-range-16", "wide-range", "C1 C3 C5", [random.spread(6, 9, high=64), random.spread(6, 4, high=64)],
        10.0, ("float16", "bfloat16"), reduction="sum")
    # fmt: on
