"""The cases of ``prune.fraction``."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Cases, Stream, fixed, tensor


def magnitudes(weights: Any) -> Any:
    """Return the magnitudes of float64 tensors."""
    return [None if w is None else np.asarray(np.abs(w)) for w in weights]


def flags_of(*masks: str) -> Any:
    """Return boolean masks from strings of 0 and 1; ``None`` from an empty one."""
    return [fixed([c == "1" for c in mask], "bool") if mask else None for mask in masks]


def ramp(random: Stream, count: int) -> Any:
    """Return ±1 … ±count in random order."""
    signs = np.where(random.uniform(count) < 0, -1.0, 1.0)
    return signs * (1.0 + np.array(random.permutation(count), dtype=np.float64))


def cases(c: Cases) -> None:
    """Write the cases."""
    random = Stream(44)

    def add(
        name: str,
        flags: str,
        labels: str,
        weights: Any,
        scores: Any = None,
        dtypes: Any = WIDE,
        previous: Any = None,
        **params: Any,
    ) -> None:
        scores = magnitudes(weights) if scores is None else scores
        inputs = {"weights": weights, "scores": scores}
        if previous is not None:
            inputs["previous"] = previous
        c.add(name, flags, labels, inputs, params, dtypes)

    # fmt: off
    two = [tensor([3, -1, 0.25], [-0.5, 2, -4]), tensor(-0.75, 0.625, 1, -8)]
    add("two-tensors", "basic signs", "C1 C4 C7 C10", two, dtypes=ALL, amount=0.5)
    add("two-tensors-global", "global basic", "C1 C4 C7", two, dtypes=ALL, amount=0.5, scope="global")
    spread = [random.spread(4, 5), random.spread(7), random.spread(2, 1, 3)]
    add("wide-range", "basic", "C1 C4", spread, dtypes=ALL, amount=0.4)
    add("wide-range-global", "global scales", "C1 C4", spread, dtypes=ALL, amount=0.4, scope="global")
    add("large-negative", "signs", "C1 C7", [tensor(-5, 1, 2)], dtypes=ALL, amount=1 / 3)

    # (n, amount): the pairs of which libraries make different counts
    pairs = ((3, 0.5), (5, 0.5), (7, 0.5), (9, 0.5), (1, 0.5), (2, 0.25), (2, 0.75), (5, 0.1), (7, 0.3),
        (10, 0.05), (10, 0.15), (10, 0.25), (10, 0.35), (10, 0.7), (5, 0.8), (10, 0.9), (4, 0.999))
    for n, amount in pairs:
        name = f"count-{n}-of-{str(amount).replace('.', '-')}"
        labels = "C1 C2" if n > 2 else "C2"
        add(name, "rounding", labels, [ramp(random, n)], amount=amount)
    for n, amount in ((100, 0.29), (100, 0.57), (100, 0.575), (100, 0.145), (100, 0.07)):
        name = f"count-{n}-of-{str(amount).replace('.', '-')}"
        add(name, "rounding many", "C1 C2", [ramp(random, n)], dtypes=("float32",), amount=amount)
    add("count-3-and-5-of-0-5", "rounding", "C2 C4", [ramp(random, 3), ramp(random, 5)], dtypes=ALL,
        amount=0.5)
    add("count-3-and-5-global", "rounding global", "C2 C4", [ramp(random, 3), -0.9 * ramp(random, 5)],
        amount=0.3125, scope="global")

    ones = [np.where(random.uniform(10) < 0, -1.0, 1.0)]
    add("all-equal-10", "ties", "C1 C3", ones, dtypes=ALL, amount=0.5)
    add("all-equal-4", "ties", "C1 C3", [tensor([1, -1], [1, -1])], amount=0.5)
    add("all-zero", "ties", "C1 C3", [tensor(0, -0.0, 0, -0.0)], amount=0.5, dtypes=ALL)
    add("ties-in-the-middle", "ties", "C3", [tensor(2, 1, -1, 1, 3)], amount=0.4, dtypes=ALL)
    add("ties-at-the-ends", "ties", "C3", [tensor(3, 1, -2, 1, 1)], amount=0.4)
    add("ties-by-sign", "ties signs", "C3", [tensor(1, -1, 1, -1, 2)], amount=0.4, dtypes=ALL)
    add("ties-not-split", "ties", "C1 C3", [tensor(5, 1, 7, -1, 9, 3)], amount=1 / 3)
    add("signed-zero-ties", "ties", "C3 C9", [tensor(3, -4, 5, 6)], [tensor(0, -0.0, 0, 1)], amount=0.5,
        dtypes=ALL)
    add("zeros-and-one", "ties", "C3 C9", [tensor(0, -0.0, 0, 1)], amount=0.5)
    add("three-zeros", "ties", "C3", [tensor([0, 0], [0, 1])], amount=0.25)
    matrix = [tensor([1, 2, 1], [2, 1, 1], [1, 3, 2])]
    add("ties-in-rows", "ties", "C3 C10", matrix, amount=0.35, dtypes=ALL)
    add("ties-over-tensors", "ties global", "C3 C4", [tensor(2, 1, 4), tensor([1, 8], [1, 1])], amount=0.43,
        scope="global", dtypes=ALL)
    add("all-equal-global", "ties global", "C3 C4", [tensor(1, -1, 1), tensor([-1, 1], [1, -1])],
        amount=0.5, scope="global")

    four = [tensor(4, -2, 3, -1), tensor([5, 0.5])]
    add("amount-0", "amount-edge", "C5 C7", four, amount=0.0, dtypes=ALL)
    add("amount-0-integer", "amount-edge", "C5", four, amount=0)
    add("amount-0-global", "amount-edge global", "C5", four, amount=0.0, scope="global")
    add("amount-1", "amount-edge one", "C5 C7", four, amount=1.0, dtypes=ALL)
    add("amount-1-integer", "amount-edge one", "C5", four, amount=1, dtypes=ALL)
    add("amount-1-global", "amount-edge global one", "C5", four, amount=1.0, scope="global")
    add("amount-1-ties", "amount-edge ties one", "C5", ones, amount=1.0)
    add("amount-tiny", "amount-edge rounding", "C2", four, amount=1e-300)
    add("amount-just-below-1", "amount-edge rounding", "C2", four, amount=1 - 2.0**-53)
    add("amount-subnormal", "amount-edge rounding", "C2", [ramp(random, 3)], amount=5e-324)
    for name, value in (("negative", -0.1), ("above-1", 1.5), ("nan", "nan"), ("inf", "inf"), ("2", 2)):
        add(f"amount-{name}", "bad-amount", "C5", four, amount=value)
    add("minus-infinite-amount", "bad-amount", "C5", four, dtypes=("float32",), amount="-inf")
    add("bad-amount-no-tensors", "bad-amount absent", "C5", [], [], dtypes=("float32",), amount=1.5)

    add("count-2", "count", "C6 C4", [tensor(4, -2, 3, -1), tensor([5, 0.5, -7])], count=2, dtypes=ALL)
    add("count-3-global", "count global", "C6 C4", four, count=3, scope="global", dtypes=ALL)
    add("count-1", "count one", "C6", [tensor(4, -2, 3, -1)], count=1, dtypes=ALL)
    add("count-0", "count amount-edge", "C6", four, count=0)
    add("count-all", "count amount-edge", "C6", [tensor(4, -2, 3, -1)], count=4)
    add("count-all-global", "count amount-edge global", "C6", four, count=6, scope="global")
    add("count-ties", "count ties", "C3 C6", ones, count=3)
    add("count-too-many", "bad-amount count", "C6", [tensor(4, -2, 3, -1)], count=5)
    add("count-too-many-for-one", "bad-amount count", "C6", four, count=3)
    add("count-negative", "bad-amount count", "C6", four, count=-1)
    add("amount-and-count", "bad-amount count", "C6", four, count=1, amount=0.5)
    add("neither", "bad-amount", "C6", four)

    layer = [random.uniform(2, 32), random.uniform(2) * 0.1]
    add("linear-32-2", "global many", "C2 C4", layer, dtypes=("float32",), amount=0.2, scope="global")
    scales = [tensor(1, 2, 3, 4), tensor(0.1, -0.2, 0.3, -0.4)]
    add("other-scales", "global scales", "C4", scales, amount=0.5, scope="global", dtypes=ALL)
    add("other-scales-tensor", "scales", "C4", scales, amount=0.5, dtypes=ALL)
    long_short = [tensor(5, 6, 7, 8, 9, 10, 11), tensor(1, 2), np.array(0.5)]
    add("long-and-short", "global scales", "C4", long_short, amount=0.3, scope="global")
    zero_layer = [tensor(0, 0, 0), tensor(4, -2, 1, 3)]
    add("zero-layer", "global scales ties", "C4", zero_layer, amount=0.5, scope="global")

    pruned_six = [tensor(-7, 10, 3, -1, 9, 2, -8, 5, 4, 6)]
    add("previous-0-58", "previous rounding", "C8", pruned_six, amount=0.58,
        previous=flags_of("1100101001"), dtypes=ALL)
    add("previous-revived", "previous", "C8", [tensor(9, -1, 2, 8, -3)], amount=0.5,
        previous=flags_of("01111"), dtypes=ALL)
    add("previous-half-of-8", "previous", "C8", [ramp(random, 8)], amount=0.5,
        previous=flags_of("10110101"))
    add("previous-one-left", "previous rounding", "C8", [tensor(3, -2, 1)], amount=0.5,
        previous=flags_of("010"))
    add("previous-none-left", "previous amount-edge", "C8", [tensor(3, -2, 1)], amount=0.5,
        previous=flags_of("000"))
    add("previous-global", "previous global", "C4 C8", [tensor(9, -1, 2, 8), tensor(0.5, 7, -6, 4, 3)],
        amount=0.5, scope="global", previous=flags_of("0111", "10110"), dtypes=ALL)
    add("previous-some", "previous global", "C4 C8", [tensor(9, -1, 2, 8), tensor(0.5, 7, -6)], amount=0.5,
        scope="global", previous=flags_of("0101", ""))
    add("previous-count", "previous count", "C6 C8", [ramp(random, 8)], count=2,
        previous=flags_of("11011011"), dtypes=ALL)
    add("previous-count-too-many", "previous count bad-amount", "C6 C8", [ramp(random, 8)], count=4,
        previous=flags_of("10010010"))
    add("previous-ties", "previous ties", "C3 C8", ones, amount=0.5, previous=flags_of("0110111111"))
    add("previous-nan-score", "previous nan-score", "C8 C9", [tensor(4, np.nan, -3, 2)], [tensor(4, np.nan,
        3, 2)], amount=0.5, previous=flags_of("1011"), dtypes=ALL)
    add("previous-infinite", "previous infinite", "C8 C9", [tensor(4, -5, -3, 2)], [tensor(4, np.inf, 3,
        -np.inf)], amount=0.5, previous=flags_of("1010"))
    add("previous-everything-again", "previous amount-edge", "C5 C8", [tensor(4, -5, -3, 2)], amount=1.0,
        previous=flags_of("1010"))

    odd = [tensor(np.nan, -np.inf, np.inf, -3, -0.0, 2)]
    low = [tensor(1, 2, 3, 4, 9, 9.5)]
    add("non-finite-pruned", "masked-value", "C7", odd, low, amount=0.67, dtypes=ALL)
    high = [tensor(9, 8, 7, 1, 6, 2)]
    add("non-finite-kept", "masked-value", "C7", odd, high, amount=0.33, dtypes=ALL)
    add("negative-pruned", "masked-value signs", "C7", [tensor([-1, 2], [-3, 4])], amount=0.5, dtypes=ALL)
    add("nan-score", "nan-score", "C9", [tensor(9, 1, 2, -3)], [tensor(np.nan, 1, 2, 3)], amount=0.5,
        dtypes=ALL)
    add("nan-scores", "nan-score", "C9", [tensor(1, -2, 3, 4)], [tensor(1, np.nan, 2, np.nan)], amount=0.75)
    add("nan-score-nothing-pruned", "nan-score", "C9", [tensor(1, -2)], [tensor(1, np.nan)], amount=0.0)
    add("nan-weights-by-magnitude", "nan-score", "C9", [tensor(np.nan, 1, 2, 3)], amount=0.5)
    add("nan-score-global", "nan-score global", "C9", [tensor(1, -2), tensor(4, 5, 6)], [tensor(1, 2),
        tensor(np.nan, 5, 0.5)], amount=0.4, scope="global")
    add("infinite-scores", "infinite", "C9", [tensor(1, 2, -3, 4)], [tensor(np.inf, 1, -np.inf, 2)],
        amount=0.5, dtypes=ALL)
    add("infinite-weights", "infinite masked-value", "C7 C9", [tensor(np.inf, 1, -np.inf, 2)], amount=0.75)
    add("infinite-scores-global", "infinite global", "C9", [tensor(1, 2, -3), tensor(5, 4)], [tensor(np.inf,
        1, 3), tensor(2, 4)], amount=0.4, scope="global")
    add("squares-underflow", "extreme", "C1", [tensor(1e-25, -1e-30, 1, 2)], amount=0.25,
        dtypes=("float32",))
    add("squares-overflow", "extreme", "C1", [tensor(1e30, -1e25, 1e20, 2)], amount=0.75,
        dtypes=("float32",))
    add("squares-underflow", "extreme", "C1", [tensor(1e-160, -1e-170, 1, 2)], amount=0.25,
        dtypes=("float64",))
    add("subnormal-scores", "extreme", "C1", [tensor(1e-40, -3e-45, 1e-44, 2)], amount=0.5,
        dtypes=("float32",))
    add("neighbours", "extreme", "C1", [tensor(1 + 2.0**-23, -1, 1 + 2.0**-22)], amount=0.34,
        dtypes=("float32",))
    add("signed-scores", "signs", "C13", [tensor(5, -6, 0.1, -0.2, 7)], [tensor(-3, 2, 0.5, -1, -0.5)],
        amount=0.4, dtypes=ALL)
    add("signed-scores-9", "signs", "C13", [tensor(1, 2, 3, 4)], [tensor(-9, 3, 2, 1)], amount=0.5)
    add("scores-against-magnitude", "basic", "C1", [tensor([9, -8, 7], [0.1, 0.2, -0.3])], [tensor([0.125,
        0.5, 0.25], [2, 3, 1])], amount=0.5, dtypes=ALL)

    mixed = [fixed([-1, 2, 3.5], "float16"), fixed([[-4.0], [0.5]], "float64"), tensor(-7, 0.25)]
    mixed_scores = [fixed([1, 2, 3.5], "float32"), fixed([[4.0], [0.5]], "float64"), tensor(7, 0.25)]
    add("mixed", "mixed-dtypes masked-value", "C7 C10 C13", mixed, mixed_scores, ("float32", "bfloat16"),
        amount=0.5)
    add("mixed-global", "mixed-dtypes global", "C10 C13", mixed, mixed_scores, ("float32", "bfloat16"),
        amount=0.43, scope="global")
    close = [fixed([1.0, 3.0], "float32"), fixed([2.0, 5.0], "float32")]
    close_scores = [fixed([0.1, 3.0], "float32"), fixed([0.1, 5.0], "float64")]
    add("float32-tenth-against-float64", "mixed-dtypes global", "C13", close, close_scores, ("float32",),
        count=1, scope="global")
    shapes = [np.array(-0.5), random.uniform(2, 1, 3), np.zeros((0, 4)), random.uniform(2, 2)]
    add("shapes", "shapes", "C10", shapes, amount=0.6, dtypes=ALL)
    add("shapes-global", "shapes global", "C4 C10", shapes, amount=0.6, scope="global", dtypes=ALL)
    add("zero-dimensional", "shapes rounding", "C2 C10", [np.array(-0.5)], amount=0.5)
    add("zero-dimensional-all", "shapes amount-edge", "C5 C10", [np.array(-0.5)], amount=1.0)
    add("empty", "shapes", "C10", [np.zeros((2, 0))], amount=0.5)
    add("empty-count", "shapes count bad-amount", "C6 C10", [np.zeros((2, 0))], count=1)
    absent, absent_scores = [None, tensor(-1, 3, 2), None], [None, tensor(1, 3, 2), None]
    add("absent", "absent", "C11", absent, absent_scores, ALL, amount=0.34)
    add("absent-scores", "absent global", "C4 C11", [tensor(-1, 0.1), tensor(2, -4, 3), tensor([5.0])],
        [None, tensor(2, 4, 3), tensor([5.0])], amount=0.5, scope="global")
    add("absent-scores-previous", "absent previous", "C8 C11", [tensor(-1, 3), tensor(2, -4, 3)], [None,
        tensor(2, 4, 3)], amount=0.34, previous=flags_of("01", ""))
    add("no-tensors", "absent", "C11", [], [], ("float32",), amount=0.5)
    add("no-tensors-global", "absent global", "C11", [], [], ("float32",), amount=0.5, scope="global")
    add("all-absent-global", "absent global", "C11", [None], [None], ("float32",), amount=0.5,
        scope="global")
    add("other-length", "mismatch", "C12", [tensor(1, 2)], [], amount=0.5)
    add("other-shape", "mismatch", "C12", [tensor([1, 2])], [tensor([1], [2])], amount=0.5)
    add("broadcast-shape", "mismatch", "C12", [tensor([1, 2], [3, 4])], [tensor(1, 2)], amount=0.5)
    add("other-mask-shape", "mismatch previous", "C12", [tensor(1, 2, 3)], amount=0.5,
        previous=flags_of("10"))
    add("two-hundred", "many", "C1 C4", [random.uniform(9, 13), random.uniform(83)], amount=0.85,
        dtypes=ALL)
    # fmt: on
