"""The cases of ``prune.structured``."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Cases, Stream, fixed, tensor


def mask_like(shape: tuple[int, ...], bits: str) -> Any:
    """Return a boolean mask from a string of 0 and 1, in C order."""
    return fixed(np.array([bit == "1" for bit in bits]).reshape(shape), "bool")


def separated(random: Stream, slices: int, *others: int, axis: int = 0) -> Any:
    """Return weights whose slices along an axis have norms that no rounding can confuse.

    The largest weight of slice i is 1.5^rank, and the rest of it at most a tenth of that.
    """
    flat = random.uniform(slices, int(np.prod(others)))
    ranks = np.array(random.permutation(slices), dtype=np.float64)
    flat = flat * 0.1
    for row in range(slices):
        column = random.bits() % flat.shape[1]
        flat[row, column] = -1.0 if random.bits() % 2 else 1.0
    flat = flat * (1.5**ranks)[:, None]
    return np.ascontiguousarray(np.moveaxis(flat.reshape(slices, *others), 0, axis))


def cases(c: Cases) -> None:
    """Write the cases."""
    random = Stream(61)

    def add(
        name: str,
        flags: str,
        labels: str,
        weights: Any,
        dtypes: Any = WIDE,
        previous: Any = None,
        **p: Any,
    ) -> None:
        inputs = {"weights": weights}
        if previous is not None:
            inputs["previous"] = mask_like(weights.shape, previous)
        c.add(name, flags, labels, inputs, p, dtypes)

    # fmt: off
    rows = tensor([1, -1, 0.5], [0, -3, 2], [2, 2, -0.25], [0.125, 0, -0.5])
    add("rows", "basic", "C1 C2 C10", rows, ALL, axis=0, amount=0.5)
    add("columns", "basic axes", "C1 C2 C10", rows, ALL, axis=1, amount=1 / 3)
    add("last-axis", "axes", "C1 C8", rows, axis=-1, amount=1 / 3)
    add("last-but-one-axis", "axes", "C1 C8", rows, axis=-2, amount=0.5)
    for axis, number in ((0, 3), (1, 3), (2, 5), (3, 4)):
        others = [n for i, n in enumerate((3, 3, 5, 4)) if i != axis]
        kernel = separated(random, number, *others, axis=axis)
        add(f"kernel-axis-{axis}", "axes basic", "C1 C2", kernel, ("float32", "bfloat16"), axis=axis,
            amount=0.4)
    add("three-axes-from-the-end", "axes", "C1 C8", separated(random, 4, 2, 3, axis=1), axis=-2, amount=0.5)

    # the 2-norm prunes row 1, the 1-norm row 0, the largest weight row 2
    order = tensor([4, 0.5, 0.25, 0.5], [2, -2, 2, 2], [3, -3, 0, 1], [8, 0, -8, 1])
    for name, p in (("1", 1), ("2", 2), ("3", 3), ("half", 0.5), ("inf", "inf"), ("1-and-half", 1.5)):
        add(f"ord-{name}", "orders", "C3", order, ALL, axis=0, count=1, ord=p)
    # the 3-norms are 3 and 2.77: more weights beside the largest do not make up for it
    many = tensor([3, 0, 0], [2.2, -2.2, 0], [9, 1, 0])
    add("ord-3-many-smaller", "orders", "C3", many, axis=0, count=1, ord=3)
    edges = tensor([1, 2, 2], [0, 0, 0], [np.inf, 1, 0], [3, 0, -1])
    for count in (1, 3):
        add(f"ord-3-zero-and-infinite-{count}", "orders", "C3", edges, axis=0, count=count, ord=3)
    long = tensor([1, 1, 1, 1, 1, 1, 1, 1], [0, 2.5, 0, 0, 0, 0, 0, 0], [0, 0, 0, -2, -2, 0, 0, 0])
    for name, p in (("1", 1), ("2", 2), ("inf", "inf")):
        add(f"dense-or-sparse-ord-{name}", "orders", "C3", long, axis=0, count=1, ord=p)
    add("signs-cancel", "basic", "C3", tensor([5, -5], [0.5, 0.5], [1, 1]), axis=0, count=1)
    for name, p in (("0", 0), ("negative", -1), ("nan", "nan"), ("minus-inf", "-inf")):
        add(f"ord-{name}", "bad-argument orders", "C3", rows, axis=0, amount=0.5, ord=p)

    pairs = ((3, 0.5), (5, 0.5), (7, 0.5), (10, 0.25), (10, 0.35), (4, 0.3), (5, 0.1), (5, 0.8), (10, 0.7),
        (4, 0.999))
    for n, amount in pairs:
        name = f"round-{n}-of-{str(amount).replace('.', '-')}"
        add(name, "rounding", "C2", separated(random, n, 2), axis=0, amount=amount)
    add("round-8-filters-0-3", "rounding round-to-8", "C2", separated(random, 16, 3), ("float32",), axis=0,
        amount=0.1)
    filters = separated(random, 64, 2)
    add("64-filters", "round-to-8 many", "C2", filters / 1.5**32, ("float32",), axis=0, amount=0.3)
    add("30-filters", "round-to-8 many", "C2", separated(random, 30, 2), ("float32",), axis=0, count=1)
    add("100-columns", "many rounding", "C2", separated(random, 100, 2, axis=1) / 1.5**50, ("float32",), axis=1,
        amount=0.575)

    equal = tensor([1, -1], [-1, 1], [1, 1], [-1, -1])
    add("all-equal", "ties", "C2 C4", equal, ALL, axis=0, amount=0.5)
    add("all-equal-columns", "ties", "C4", np.ascontiguousarray(equal.T), axis=1, amount=0.25)
    add("all-zero", "ties", "C4", np.zeros((4, 3)), axis=0, amount=0.5)
    add("equal-in-the-middle", "ties", "C4", tensor([9, 0], [2, -2], [1, 0], [-2, 2], [2, 2]), ALL, axis=0,
        amount=0.4)
    add("pythagorean", "ties", "C3 C4", tensor([3, 4], [0, -5], [6, 8], [-4, 3]), ALL, axis=0, count=1)
    add("permuted-rows", "ties", "C4", tensor([3, 1, 2], [7, 8, 9], [1, 2, 3], [2, 3, 1]), axis=0, amount=0.5)
    add("equal-1-norms", "ties orders", "C3 C4", tensor([3, -1], [2, 2], [0, 4], [9, 9]), axis=0, count=2,
        ord=1)
    add("equal-largest", "ties orders", "C3 C4", tensor([3, -1], [2, -3], [5, 4], [0, 3]), axis=0, count=2,
        ord="inf")
    near = tensor([2049, 0], [2048, 0], [4096, 8], [2049.5, 0])
    add("equal-in-16-bits", "ties", "C3 C4", near, ("float32",), axis=0, count=1)
    add("norms-round-in-16-bits", "ties", "C3 C4", tensor([2048, 64], [2048, 0], [4096, 8]), ("float16",
        "bfloat16"), axis=0, count=1)

    add("amount-0", "amount-edge", "C5", rows, ALL, axis=0, amount=0.0)
    add("amount-1", "amount-edge", "C5", rows, ALL, axis=0, amount=1.0)
    add("amount-1-integer", "amount-edge", "C5", rows, axis=1, amount=1)
    for name, value in (("negative", -0.1), ("above-1", 1.5), ("nan", "nan"), ("inf", "inf")):
        add(f"amount-{name}", "bad-amount", "C5", rows, axis=0, amount=value)
    add("count-1", "count", "C5", rows, ALL, axis=0, count=1)
    add("count-2-columns", "count", "C5", rows, axis=1, count=2)
    add("count-0", "count amount-edge", "C5", rows, axis=0, count=0)
    add("count-all", "count amount-edge", "C5", rows, axis=0, count=4)
    add("count-too-many", "count bad-amount", "C5", rows, axis=1, count=4)
    add("count-negative", "count bad-amount", "C5", rows, axis=1, count=-1)
    add("amount-and-count", "count bad-amount", "C5", rows, axis=0, count=1, amount=0.25)
    add("neither", "bad-amount", "C5", rows, axis=0)

    add("previous-row", "previous", "C6", rows, ALL, "111111000111", axis=0, amount=1 / 3)
    add("previous-row-1-of-2", "previous rounding", "C6", tensor([9, 8], [0.5, 0]), previous="0011", axis=0,
        amount=0.5)
    add("previous-smallest-row", "previous", "C6", rows, ALL, "111111111000", axis=0, amount=0.34)
    add("previous-half", "previous", "C6", separated(random, 8, 2), previous="1100110011110011", axis=0,
        amount=0.5)
    add("previous-all", "previous amount-edge", "C6", rows, previous="0" * 12, axis=0, amount=0.5)
    add("previous-count-too-many", "previous bad-amount count", "C6", rows, previous="111000000000", axis=0,
        count=2)
    add("previous-count", "previous count", "C6", rows, previous="111000111111", axis=0, count=2)
    # without its pruned weight row 0 is the smallest, with it row 2
    partly = tensor([8, 0.5, 1], [4, -4, 4], [3, 2, -1], [5, 5, 5])
    add("previous-part", "previous", "C7", partly, ALL, "011111111111", axis=0, count=1)
    add("previous-part-amount", "previous", "C6 C7", partly, previous="011111111000", axis=0, amount=0.34)
    add("previous-part-columns", "previous axes", "C7", partly, previous="111110111110", axis=1, amount=0.34)
    add("previous-nan", "previous nonfinite", "C6 C9", tensor([np.nan, 5], [1, 2], [0.5, 4]),
        previous="001111", axis=0, amount=0.5)
    add("previous-nan-in-part", "previous nonfinite", "C7 C9", tensor([np.nan, 5], [1, 2], [0.5, 4]),
        previous="011111", axis=0, amount=0.34)

    odd = tensor([np.inf, -1, 2], [-0.0, -3, -0.5], [1, np.nan, 4], [9, 8, -np.inf])
    add("negative-pruned", "masked-value", "C10", rows, axis=0, count=3)
    add("infinite", "nonfinite", "C9 C10", tensor([np.inf, 1], [4, -2], [-np.inf, 7], [3, 3]), ALL, axis=0,
        count=1)
    add("infinite-pruned", "nonfinite masked-value ties", "C9 C10", tensor([np.inf, -1], [4, -2], [-np.inf,
        7]), axis=0, count=2)
    add("infinite-pruned-ord-inf", "nonfinite masked-value ties", "C9 C10", tensor([np.inf, -1], [4, -2],
        [-np.inf, 7]), axis=0, count=2, ord="inf")
    add("nan", "nonfinite", "C9", tensor([1, 2], [np.nan, 0], [3, -4]), ALL, axis=0, count=1)
    add("nan-beside-infinity", "nonfinite masked-value", "C9", odd, axis=0, amount=0.5)
    add("nan-nothing-pruned", "nonfinite", "C9", odd, axis=1, amount=0.0)

    for suffix, dtypes, large, small in (("", ("float32", "bfloat16"), 1e25, 1e-30), ("", ("float64",), 1e200,
        1e-200)):
        add(f"squares-overflow{suffix}", "extreme", "C3", large * tensor([2, 2], [0, 1], [3, -4]), dtypes,
            axis=0, count=1)
        add(f"squares-overflow-last{suffix}", "extreme", "C3", large * tensor([8, 2], [4, 4], [3, 1]), dtypes,
            axis=0, amount=0.34)
        add(f"squares-vanish{suffix}", "extreme", "C3", small * tensor([2, 2], [4, 0], [0, 1]), dtypes,
            axis=0, count=1)
        add(f"large-and-small{suffix}", "extreme", "C3", tensor([large, 1], [3, 2], [small, 0], [2 * small,
            0]), dtypes, axis=0, count=1)
        add(f"cubes-overflow{suffix}", "extreme orders", "C3", large * tensor([2, 2], [0, 1], [3, -4]),
            dtypes, axis=0, count=1, ord=3)
    add("cubes-of-subnormals", "extreme orders", "C3", 2.0**-149 * tensor([3, 1], [2, 0], [4, 4]), ("float32",),
        axis=0, count=1, ord=3)
    add("norm-beyond-float16", "extreme", "C3", tensor([60000, 60000], [5e4, 5e4], [6e4, 1], [65504, 65504]),
        ("float16",), axis=0, count=2)

    add("vector", "shapes", "C1 C8", tensor(3, -1, 2, 0.5), axis=0, amount=0.5)
    add("vector-from-the-end", "shapes axes", "C1 C8", tensor(3, -1, 2, 0.5), axis=-1, count=1)
    add("one-row", "shapes rounding", "C2", tensor([3, -1, 2]), axis=0, amount=0.5)
    add("column", "shapes", "C1", tensor([3], [-1], [2]), axis=0, amount=0.34)
    add("one-by-one-kernel", "shapes axes", "C1", separated(random, 5, 1, 1, 2, axis=3), ("float32",), axis=3,
        amount=0.4)
    add("no-rows", "shapes", "C10", np.zeros((0, 3)), axis=0, amount=0.5)
    add("empty-rows", "shapes", "C10", np.zeros((3, 0)), axis=0, amount=0.5)
    add("zero-dimensional", "shapes bad-argument", "C8", np.array(3.0), axis=0, amount=0.5)
    add("axis-too-large", "bad-argument axes", "C8", rows, axis=2, amount=0.5)
    add("axis-too-small", "bad-argument axes", "C8", rows, axis=-3, amount=0.5)
    c.add("other-mask-shape", "bad-argument previous", "C11", {"weights": rows, "previous": mask_like((4, 1),
        "1101")}, {"axis": 0, "amount": 0.5})
    add("kernel", "many", "C1 C2 C10", separated(random, 12, 3, 3, 2, axis=0) / 32, ALL, axis=0, amount=0.4)
    # fmt: on
