"""The cases of ``clip.unitwise``."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Cases, Stream, fixed, tensor


def cases(c: Cases) -> None:
    """Write the cases."""
    random = Stream(71)

    def add(
        name: str,
        flags: str,
        labels: str,
        grads: Any,
        weights: Any,
        clipping: Any,
        unit_axis: Any,
        dtypes: Any = WIDE,
        **params: Any,
    ) -> None:
        given = {"clipping": clipping, "unit_axis": unit_axis, **params}
        c.add(name, flags, labels, {"grads": grads, "weights": weights}, given, dtypes)

    # fmt: off
    # Columns: norms 5, 13, 1 of the gradient and 10, 5, 50 of the weights; rows differ as well.
    g, w = tensor([3, -12, 0.6], [4, 5, -0.8]), tensor([6, 3, -30], [-8, 4, 40])
    bias, gain = tensor(0.6, -0.8, 2), tensor(-1, 2, 2)
    add("dense-in-out", "units layouts", "C1 C2 C3", [g, bias], [w, gain], 0.125, -1, ALL)
    add("dense-out-in", "units layouts", "C1 C2 C3", [g, bias], [w, gain], 0.125, 0, ALL)
    add("dense-positive-axis", "units layouts", "C1 C2", [g.T.copy(), bias], [w.T.copy(), gain], 0.125, 1)
    add("dense-first-from-the-end", "units layouts", "C1 C2", [g, bias], [w, gain], 0.125, -2, ALL)
    add("published-example", "units layouts", "C1 C2 C3", [tensor([6, 0], [8, 1])], [tensor([3, 0], [4,
        1])], 0.1, 1, ALL)
    add("published-example-rows", "units layouts", "C1 C2 C3", [tensor([6, 0], [8, 1])], [tensor([3, 0], [4,
        1])], 0.1, 0, ALL)
    huge = tensor([300, 0.25, -0.125], [-0.5, 0.125, 400], [0.0625, -0.25, 0.5])
    steady = tensor([2, -1, 2], [1, 2, 2], [-4, 4, 2])
    add("one-bad-unit", "one-bad-unit units", "C3", [huge.T.copy()[::-1].copy()], [steady], 0.5, 1, ALL)
    add("one-bad-row", "one-bad-unit units", "C3", [tensor([300, -400], [0.25, 0.5], [-0.5, 0.125])],
        [tensor([3, 1], [2, -1], [1, 4])], 0.5, 0, ALL)
    add("below", "below units", "C4", [g, bias], [w, gain], 8.0, -1, ALL)
    add("never-binding", "below", "C4", [g * (1 / 3), bias / 7], [w, gain], 1e6, 0)
    add("at-limit", "at-limit", "C4", [tensor([3, -4], [6, 8])], [tensor([-6, 8], [12, 16])], 0.5, 0, ALL)
    add("at-limit-and-above", "at-limit units", "C3", [tensor([3, -4], [6, 8])], [tensor([-6, 8], [3, 4])],
        0.5, 0, ALL)
    conv, kernel = random.uniform(2, 3, 2, 4, low=-2), random.uniform(2, 3, 2, 4)
    add("conv-hwio", "units layouts", "C1 C2", [conv, bias], [kernel, gain], 0.5, 3, ALL)
    add("conv-oihw", "units layouts", "C1 C2", [conv, bias], [kernel, gain], 0.5, 0, ALL)
    add("conv-1d", "units ranks", "C1", [random.uniform(3, 2, 4, low=-2)], [random.uniform(3, 2, 4)], 0.5,
        2, ALL)
    five = [random.uniform(2, 1, 3, 2, 3, low=-2)]
    add("conv-3d", "units ranks", "C1", five, [random.uniform(2, 1, 3, 2, 3)], 0.4, -1, ALL)
    add("conv-3d-first", "units ranks", "C1", five, [random.uniform(2, 1, 3, 2, 3)], 0.4, 0)
    six = [random.uniform(2, 1, 2, 1, 2, 3)]
    add("six-axes", "units ranks", "C1", six, [random.uniform(2, 1, 2, 1, 2, 3, low=-0.5)], 0.3, 5)
    heads, of_heads = random.uniform(4, 2, 3, low=-3), random.uniform(4, 2, 3)
    add("two-unit-axes", "several-axes ranks", "C1 C2", [heads], [of_heads], 0.5, [1, 2], ALL)
    add("two-unit-axes-apart", "several-axes ranks", "C1", [heads], [of_heads], 0.5, [0, 2])
    add("two-unit-axes-shuffled", "several-axes ranks", "C1", [heads], [of_heads], 0.5, [-1, 0], ALL)
    add("no-unit-axis", "several-axes", "C1 C5", [g, heads], [w, of_heads], 0.125, [], ALL)
    add("all-axes", "several-axes", "C1", [g], [w], 0.125, [0, 1], ALL)
    add("list-of-one", "several-axes units", "C1", [g], [w], 0.125, [1])
    column, of_column = tensor([6], [-8], [0.5]), tensor([1], [4], [-2])
    add("column", "singleton", "C1 C2", [column], [of_column], 0.1, 0, ALL)
    add("row", "singleton", "C1 C2", [column.T.copy()], [of_column.T.copy()], 0.1, 1, ALL)
    add("row-as-unit", "singleton", "C1 C2", [column.T.copy()], [of_column.T.copy()], 0.1, 0)
    add("one-by-one-kernel", "singleton ranks", "C1", [random.uniform(1, 1, 1, 5)], [random.uniform(1, 1, 1,
        5)], 0.25, 3)
    add("vectors", "vector", "C5", [bias, gain * 3, np.array(-4.0)], [gain, bias, np.array(2.0)], 0.25, 2, ALL)
    add("long-vector", "vector", "C5", [random.uniform(40)], [random.uniform(40)], 0.25, 0)
    zero = tensor([0, 0.0625, 4], [-0.0, 0, -3])
    add("zero-weights", "zero-weights", "C2", [g], [zero], 0.5, 1, ALL)
    add("zero-vector", "zero-weights vector", "C2 C5", [bias], [tensor(0, 0, -0.0)], 0.5, 0, ALL)
    add("eps-large", "zero-weights", "C2", [g], [zero], 0.5, 1, ALL, eps=2.0)
    add("eps-zero", "zero-weights", "C2", [g], [zero], 0.5, 1, eps=0.0)
    add("eps-near-weights", "zero-weights", "C2", [g * 1e-3], [zero * 1e-3], 0.5, 1, eps=2e-3)
    add("zero-gradient", "zero-gradient", "C4", [np.zeros((2, 3)), tensor(0, -0.0)], [w, tensor(1, 2)],
        0.1, 1, ALL)
    add("zero-unit", "zero-gradient units", "C3", [tensor([0, 5, 0], [0, -12, 1])], [w], 0.125, 1, ALL)
    add("zero-gradient-zero-weights", "zero-gradient zero-weights", "C4", [np.zeros((2, 3))], [np.zeros((2,
        3))], 0.1, 1, eps=0.0)
    small = tensor([3e-8, 6e-7], [-4e-8, 8e-7])
    add("tiny-limit", "tiny-limit", "C2 C3", [small], [np.zeros((2, 2))], 1e-3, 1, eps=2e-4)
    add("tiny-limit-below", "tiny-limit below", "C4", [small * 0.125], [np.zeros((2, 2))], 1e-3, 1, eps=2e-4)
    add("tiny-gradient", "mismatch", "C11", [small], [w], 0.1, 1)
    add("tiny-gradient-unclipped", "tiny-limit below", "C4", [small], [w[:, :2].copy()], 0.1, 1)
    add("zero-clipping", "zero-clipping", "C8", [g, bias], [w, gain], 0.0, 1, ALL)
    add("zero-clipping-zero-gradient", "zero-clipping zero-gradient", "C8", [tensor([0, 2], [0, -3])],
        [tensor([1,
        2], [3, 4])], 0.0, 1)
    add("infinite-clipping", "infinite-clipping", "C8", [g, bias], [w, tensor(0, 0, 0)], "inf", 1, ALL)
    bad = tensor([np.inf, 3, 0.5], [2, -4, np.nan])
    add("infinite-clipping-nonfinite", "infinite-clipping nonfinite", "C8", [bad], [w], "inf", 1)
    for name, value in (("negative", -1.0), ("nan", "nan")):
        add(f"clipping-{name}", "bad-clipping", "C9", [g, bias], [w, gain], value, 1, ALL)
    for name, value in (("negative", -1e-3), ("nan", "nan"), ("inf", "inf")):
        add(f"eps-{name}", "bad-clipping", "C9", [g], [w], 0.1, 1, eps=value)
    for name, axis in (("2", 2), ("minus-3", -3), ("5-in-list", [0, 5]), ("twice", [1, 1]),
                       ("twice-from-the-end", [1, -1])):
        add(f"axis-{name}", "bad-axis", "C10", [bias, g], [gain, w], 0.1, axis, ("float32",))
    add("nonfinite-gradient", "nonfinite", "C7", [bad], [w], 0.125, 1, ALL)
    add("minus-infinite-gradient", "nonfinite", "C7", [tensor([1, -np.inf], [2, 3], [4, 0.5])],
        [tensor([1, 2], [-2, 4], [3, 1])], 0.5, 0, ALL)
    add("nonfinite-weights", "nonfinite", "C7 C8", [g], [tensor([np.inf, 3, np.nan], [2, -4, 1])], 0.125,
        1, ALL)
    add("nonfinite-both", "nonfinite", "C8", [tensor([np.inf, 3], [2, -4])],
        [tensor([np.inf, 3], [1, 4])], 0.5, 1)
    add("nan-vector", "nonfinite vector", "C5 C7", [tensor(1, np.nan, 2), g], [gain, w], 0.125, 1, ALL)
    add("square-overflow", "square-overflow", "C6", [tensor([3e20, 1], [4e20, -2])], [tensor([1, 2], [2, 1])],
        0.5, 1, ("float32", "bfloat16"))
    add("square-overflow", "square-overflow", "C6", [tensor([3e160, 1], [4e160, -2])], [tensor([1, 2], [2, 1])],
        0.5, 1, ("float64",))
    add("weights-overflow", "square-overflow", "C6", [tensor([3e20, 1], [4e20, -2])], [tensor([-6e19, 2], [8e19,
        1])], 0.5, 1, ("float32", "bfloat16"))
    add("hundred-300", "square-overflow", "C6", [np.full((100, 2), 300.0) * tensor(1, 0.125)],
        [np.full((100, 2), 1.5) * tensor(2, 1)], 0.125, 1, ("float16",))
    add("square-underflow", "square-overflow", "C6", [tensor([3e-30, 1], [4e-30, -2])],
        [tensor([1e-30, 2], [2e-30,
        1])], 0.5, 1, ("float32", "bfloat16"), eps=1e-34)
    add("absent", "absent", "C11", [None, g, None], [w, w, None], 0.125, 1, ALL)
    add("all-absent", "absent", "C11", [None], [None], 0.125, 1, ("float32",))
    add("empty-list", "absent", "C11", [], [], 0.125, 1, ("float32",))
    add("absent-weights", "mismatch absent", "C11", [g, g], [w, None], 0.125, 1, ("float32",))
    add("other-length", "mismatch", "C11", [g, g], [w], 0.125, 1, ("float32",))
    add("other-shape", "mismatch", "C11", [g], [w.T.copy()], 0.125, 1, ("float32",))
    add("broadcast-shape", "mismatch", "C11", [g], [tensor([1, 2, 3])], 0.125, 1, ("float32",))
    add("shapes", "shapes", "C5 C12", [np.array(-3.0), np.zeros((0, 2)), np.zeros((3, 0)), g],
        [np.array(2.0), np.zeros((0, 2)), np.zeros((3, 0)), w], 0.125, 1, ALL)
    add("halves-of-wide-weights", "mixed-dtypes", "C6 C12", [g, fixed(bias, "bfloat16"), fixed(g, "float32")],
        [fixed(w, "float32"), fixed(gain, "float32"), fixed(w, "float32")], 0.125, 1, ("float16",))
    add("several-dtypes", "mixed-dtypes", "C12", [g, fixed(bias, "float16"), fixed(g, "float32")],
        [w, fixed(gain, "float16"), fixed(w, "float64")], 0.125, 1, ("float64", "bfloat16"))
    add("wide-range", "wide-range", "C2 C3", [random.spread(9, 5), random.spread(7)], [random.spread(9, 5),
        random.spread(7)], 0.3, 1)
    add("wide-range-rows", "wide-range", "C2 C3", [random.spread(6, 8, high=64)],
        [random.spread(6, 8, high=64)],
        0.3, 0, ALL)
    # fmt: on
