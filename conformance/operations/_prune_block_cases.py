"""The cases of ``prune.block``."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Cases, Stream, fixed, tensor


def mask_like(shape: tuple[int, ...], bits: str) -> Any:
    """Return a boolean mask from a string of 0 and 1, in C order."""
    return fixed(np.array([bit == "1" for bit in bits]).reshape(shape), "bool")


def separated(random: Stream, shape: tuple[int, ...], block: tuple[int, ...]) -> Any:
    """Return weights whose blocks differ by far more than a rounding, in their mean and their maximum.

    Magnitudes of block i lie in [1, 1.25) · 1.5^rank.
    """
    places = np.zeros(shape, dtype=np.int64)
    for index, size, length in zip(np.indices(shape), block, shape, strict=True):
        places = places * -(-length // size) + index // size
    count = int(places.max()) + 1
    ranks = np.array(random.permutation(count), dtype=np.float64)[places]
    signs = np.where(random.uniform(*shape) < 0, -1.0, 1.0)
    return signs * random.uniform(*shape, low=1.0, high=1.25) * 1.5 ** (ranks - count // 2)


def cases(c: Cases) -> None:
    """Write the cases."""
    random = Stream(63)

    def add(
        name: str,
        flags: str,
        labels: str,
        weights: Any,
        block: Any,
        amount: Any,
        scores: Any = None,
        dtypes: Any = WIDE,
        previous: str = "",
        **p: Any,
    ) -> None:
        inputs = {
            "weights": weights,
            "scores": np.asarray(np.abs(weights)) if scores is None else scores,
        }
        if previous:
            inputs["previous"] = mask_like(weights.shape, previous)
        c.add(name, flags, labels, inputs, {"block": list(block), "amount": amount, **p}, dtypes)

    # fmt: off
    one_by_four = tensor([1, -2, 3, 4, 5, -6, 7, 8], [-8, 0, 0, 0, 2, -2, 2, 2])
    for pool in ("mean", "max"):
        add(f"one-by-four-{pool}", "basic pool", "C1 C2 C3", one_by_four, (1, 4), 0.5, pool=pool, dtypes=ALL)
        add(f"two-by-two-{pool}", "pool", "C1 C2 C3", one_by_four, (2, 2), 0.5, pool=pool, dtypes=ALL)
        add(f"two-by-one-{pool}", "pool", "C2 C3", tensor([4, 1, 2, 6], [0, -3.5, 2.5, -1]), (2, 1), 0.5,
            pool=pool)
        add(f"sparse-or-dense-{pool}", "pool", "C2", tensor([3, 0, 0, 0], [1, 1, 1, 1]), (1, 4), 0.5,
            pool=pool, dtypes=ALL)
        add(f"width-6-{pool}", "cut-off pool", "C1 C2 C8", tensor([1, 2, 0.5, 1, 4, -1], [3, 4, 3, 5, -2,
            0.5]), (1, 4), 0.5, pool=pool, dtypes=ALL)
        add(f"random-{pool}", "basic", "C1 C2 C3", separated(random, (6, 8), (2, 4)), (2, 4), 0.5, pool=pool,
            dtypes=ALL)
    for n, b in ((4, 3), (7, 3), (5, 4), (9, 4), (9, 8), (5, 3)):
        rows = separated(random, (n, 2), (b, 1))
        add(f"rows-{n}-of-{b}", "cut-off", "C1 C2 C3 C8", rows, (b, 1), 0.5)
        add(f"columns-{n}-of-{b}", "cut-off", "C1 C3 C8", np.ascontiguousarray(rows.T), (1, b), 0.5, pool="max")
    add("both-cut-off", "cut-off", "C1 C2 C3", separated(random, (5, 7), (2, 3)), (2, 3), 0.4, dtypes=ALL)
    # the last block is a single 3: its mean is 3 and not 1.5
    add("small-rest", "cut-off pool", "C2", tensor([2, 2, 2.5, 2.5, 3]), (1, 2), 1 / 3, dtypes=ALL)
    add("small-rest-3", "cut-off pool", "C2", tensor([3, 1, 1, 2.5, 2.5, 2.5, 2]), (1, 3), 1 / 3)

    add("transposed", "block-shapes", "C1", separated(random, (6, 6), (3, 2)), (3, 2), 0.5, dtypes=ALL)
    add("rows", "block-shapes", "C1", separated(random, (5, 3), (1, 3)), (1, 3), 0.4)
    add("single-weights", "block-shapes", "C1", separated(random, (3, 4), (1, 1)), (1, 1), 0.5)
    add("vector", "block-shapes", "C1", separated(random, (11,), (4,)), (4,), 0.34, dtypes=ALL)
    add("kernel", "block-shapes", "C1 C2", separated(random, (3, 3, 4, 6), (3, 3, 2, 2)), (3, 3, 2, 2), 0.5,
        dtypes=("float32", "bfloat16"))
    add("kernel-channels", "block-shapes cut-off", "C1 C2", separated(random, (2, 3, 4, 5), (1, 1, 4, 2)), (1,
        1, 4, 2), 0.4, dtypes=("float32",))
    add("three-axes", "block-shapes cut-off", "C1", separated(random, (3, 4, 5), (2, 2, 2)), (2, 2, 2), 0.5)
    add("larger-than-the-tensor", "block-shapes cut-off", "C1 C3", tensor([1, 2], [3, 4]), (4, 3), 0.5)
    add("larger-than-the-tensor-all", "block-shapes cut-off", "C1 C3", tensor([1, 2], [3, 4]), (4, 3), 0.6)

    for n, amount in ((3, 0.5), (5, 0.5), (7, 0.5), (10, 0.25), (10, 0.35), (5, 0.1), (5, 0.8), (4, 0.999)):
        name = f"round-{n}-of-{str(amount).replace('.', '-')}"
        add(name, "rounding", "C3", separated(random, (n, 2), (1, 2)), (1, 2), amount)
    add("round-100-of-0-575", "rounding", "C3", separated(random, (2, 100), (2, 1)), (2, 1), 0.575,
        dtypes=("float32",))
    add("round-cut-off", "rounding cut-off", "C3", separated(random, (3, 5), (2, 2)), (2, 2), 0.25)

    equal = tensor([1, -1, 2, 2, 1, 1], [-1, 1, 2, 2, -1, 1])
    add("equal-blocks", "ties", "C4", equal, (2, 2), 1 / 3, dtypes=ALL)
    add("negative-cut-off-max", "signs cut-off pool", "C2", tensor([9, 8, 1, -2, 3]), (1, 2), 0.34,
        scores=tensor([-5, -1, -3, -2, -4]), pool="max")
    for huge, dtype in ((2.0**80, "float32"), (2.0**800, "float64")):
        far = tensor([huge, -huge / 2, 3, 1, 1 / huge, 2 / huge])
        for amount in (0.34, 0.67):
            add(f"magnitudes-far-apart-{amount}", "pool", "C2", far, (1, 2), amount, dtypes=(dtype,))
    add("equal-blocks-max", "ties pool", "C4", equal, (2, 2), 1 / 3, pool="max")
    add("all-equal", "ties", "C3 C4", np.ones((4, 4)) * tensor([1, -1, 1, -1]), (2, 2), 0.5, dtypes=ALL)
    add("all-zero", "ties", "C4", np.zeros((2, 6)), (2, 2), 0.5)
    add("equal-means", "ties pool", "C2 C4", tensor([1, 3, 2, 2, 4, 0, 5, 5]), (1, 2), 0.5)
    add("equal-maxima", "ties pool", "C2 C4", tensor([3, 1, 0, 3, 3, 2, 4, 4]), (1, 2), 0.5, pool="max")
    add("equal-cut-off", "ties cut-off", "C2 C4", tensor([2, 2, 3, 1, 2]), (1, 2), 1 / 3, dtypes=ALL)
    add("equal-cut-off-max", "ties cut-off pool", "C2 C4", tensor([2, 1, 4, 3, 2]), (1, 2), 1 / 3, pool="max")
    add("order-of-blocks", "ties", "C4", np.ones((4, 6)), (2, 3), 0.75)

    add("amount-0", "amount-edge", "C5 C8", one_by_four, (1, 4), 0.0, dtypes=ALL)
    add("amount-1", "amount-edge", "C5 C8", one_by_four, (1, 4), 1.0, dtypes=ALL)
    add("amount-1-integer", "amount-edge cut-off", "C5", tensor([1, 2, 3]), (1, 2), 1)
    for name, value in (("negative", -0.1), ("above-1", 1.5), ("nan", "nan"), ("inf", "inf")):
        add(f"amount-{name}", "bad-argument amount-edge", "C5", one_by_four, (1, 4), value)

    add("previous-block", "previous", "C6", one_by_four, (1, 4), 0.5, previous="1111111100001111", dtypes=ALL)
    add("previous-two-blocks", "previous rounding", "C6", one_by_four, (1, 4), 0.5, previous="0000111100001111")
    add("previous-all", "previous amount-edge", "C6", one_by_four, (1, 4), 0.5, previous="0" * 16)
    # without the 8 that is pruned already, the first block has the lowest mean and the lowest maximum
    partly = tensor([8, 1, 1, 1], [4, 3, 4, 3], [2, 2, 3, 2])
    for pool in ("mean", "max"):
        add(f"previous-part-{pool}", "previous pool", "C6", partly, (1, 4), 1 / 3, pool=pool,
            previous="0" + "1" * 11, dtypes=ALL)
    add("previous-part-cut-off", "previous cut-off", "C6", tensor([8, 1, 2, 5, 3, 7, 0.5]), (1, 3), 0.34,
        previous="0111101")
    add("previous-negative-scores", "previous signs", "C6", tensor([1, 2, 3, 4]), (1, 2), 0.5,
        scores=tensor([-1, -4, -2, -3]), pool="max", previous="0111")
    add("previous-nan", "previous nonfinite", "C6 C7", tensor([np.nan, 1, 2, 5]), (1, 2), 0.5,
        previous="0111", dtypes=ALL)

    add("large-negative", "signs", "C2 C8", tensor([-9, -8, 1, 2]), (1, 2), 0.5, dtypes=ALL)
    add("scores-not-magnitudes", "basic signs", "C2", tensor([9, 8, 1, -2]), (1, 2), 0.5, scores=tensor([0.5,
        0.25, 2, 3]), dtypes=ALL)
    add("negative-scores", "signs", "C2", tensor([9, 8, 1, -2, 3]), (1, 2), 0.34, scores=tensor([-5, 1, -1,
        -2, -0.5]), dtypes=ALL)
    add("negative-scores-max", "signs pool", "C2", tensor([9, 8, 1, -2, 3]), (1, 2), 0.34,
        scores=tensor([-5, -1, -3, -2, -0.5]), pool="max", dtypes=ALL)
    add("non-finite-pruned", "masked-value", "C8", tensor([np.nan, -np.inf, -3, 4], [-0.0, -1, 2, -2]), (1,
        2), 0.5, scores=tensor([1, 2, 7, 8], [3, 2, 5, 9]), dtypes=ALL)
    add("non-finite-kept", "masked-value", "C8", tensor([np.nan, -np.inf, -3, -4]), (1, 2), 0.5,
        scores=tensor([5, 6, 2, 1]))
    for pool in ("mean", "max"):
        add(f"infinite-{pool}", "nonfinite pool", "C7", tensor([1, 2, 3, 4, 5, 6]), (1, 2), 0.34, pool=pool,
            scores=tensor([-np.inf, 9, np.inf, 1, 2, 3]), dtypes=ALL)
        add(f"nan-{pool}", "nonfinite pool", "C7", tensor([1, 2, 3, 4, 5, 6]), (1, 2), 0.34, pool=pool,
            scores=tensor([1, np.nan, 5, 6, 2, 3]), dtypes=ALL)
        add(f"nan-nothing-pruned-{pool}", "nonfinite pool amount-edge", "C7", tensor([1, 2]), (1, 2), 0.0,
            pool=pool, scores=tensor([1, np.nan]))
    add("infinities-that-cancel", "nonfinite", "C7", tensor([1, 2, 3, 4]), (1, 2), 0.5,
        scores=tensor([np.inf, -np.inf, 1, 2]))
    add("sums-overflow", "extreme", "C10", 1e38 * tensor([3, 3, 3.2, 3.3, 2.9, 3]), (1, 2), 0.67,
        dtypes=("float32", "bfloat16"))
    add("sums-overflow", "extreme", "C10", 1e308 * tensor([1.5, 1.5, 1.7, 1.75, 1.2, 1.3]), (1, 2), 0.67,
        dtypes=("float64",))
    add("sums-overflow", "extreme", "C10", 1e4 * tensor([6, 6, 6.3, 6.4, 5, 5.5]), (1, 2), 0.67,
        dtypes=("float16",))
    add("squares-vanish", "extreme", "C10", 1e-30 * tensor([2, 3, 8, 9, 4, 5]), (1, 2), 0.34,
        dtypes=("float32",))
    add("squares-vanish-last", "extreme", "C10", 1e-30 * tensor([8, 3, 8, 9, 4, 5]), (1, 2), 0.34,
        dtypes=("float32",))
    add("means-vanish", "extreme", "C10", 2.0**-149 * tensor([3, 2, 8, 9, 4, 5, 1, 1]), (1, 2), 0.5,
        dtypes=("float32",))

    add("empty", "shapes", "C8", np.zeros((3, 0)), (2, 2), 0.5)
    add("no-rows", "shapes", "C8", np.zeros((0, 4)), (2, 2), 0.5)
    add("zero-dimensional", "shapes", "C1", np.array(-3.0), (), 1.0)
    add("zero-dimensional-half", "shapes rounding", "C3", np.array(-3.0), (), 0.5)
    add("block-too-short", "bad-argument block-shapes", "C9", one_by_four, (4,), 0.5)
    add("block-too-long", "bad-argument block-shapes", "C9", one_by_four, (1, 4, 1), 0.5)
    add("block-0", "bad-argument", "C9", one_by_four, (0, 4), 0.5)
    add("block-negative", "bad-argument", "C9", one_by_four, (1, -4), 0.5)
    add("pool-sum", "bad-argument pool", "C9", one_by_four, (1, 4), 0.5, pool="sum")
    add("other-shape", "bad-argument", "C9", one_by_four, (1, 4), 0.5, scores=np.ones((8, 2)))
    c.add("other-mask-shape", "bad-argument previous", "C9", {"weights": one_by_four, "scores": one_by_four,
        "previous": mask_like((2, 1), "10")}, {"block": [1, 4], "amount": 0.5})
    # fmt: on
