"""The cases of ``prune.n_m``."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Cases, Stream, fixed, tensor


def mask_like(shape: tuple[int, ...], bits: str) -> Any:
    """Return a boolean mask from a string of 0 and 1, in C order."""
    return fixed(np.array([bit == "1" for bit in bits]).reshape(shape), "bool")


def shuffled(random: Stream, *shape: int) -> Any:
    """Return ±1 … ±count in random order: distinct magnitudes that every format holds."""
    count = int(np.prod(shape))
    signs = np.where(random.uniform(count) < 0, -1.0, 1.0)
    return (signs * (1.0 + np.array(random.permutation(count), dtype=np.float64))).reshape(shape)


def cases(c: Cases) -> None:
    """Write the cases."""
    random = Stream(62)

    def add(
        name: str,
        flags: str,
        labels: str,
        weights: Any,
        n: int,
        m: int,
        axis: int = -1,
        scores: Any = None,
        dtypes: Any = WIDE,
        previous: str = "",
    ) -> None:
        inputs = {
            "weights": weights,
            "scores": np.asarray(np.abs(weights)) if scores is None else scores,
        }
        if previous:
            inputs["previous"] = mask_like(weights.shape, previous)
        c.add(name, flags, labels, inputs, {"n": n, "m": m, "axis": axis}, dtypes)

    # fmt: off
    rising, falling = tensor([1, 2, 3, 4]), tensor([4, 3, 2, 1])
    add("rising", "basic", "C1 C2", rising, 2, 4, dtypes=ALL)
    add("falling", "basic", "C1 C2", falling, 2, 4, dtypes=ALL)
    add("signed", "basic signs", "C2 C8", tensor([-4, 3, -2, 1]), 2, 4, dtypes=ALL)
    add("two-groups", "basic", "C1 C2", shuffled(random, 1, 8), 2, 4, dtypes=ALL)
    matrix = shuffled(random, 4, 8)
    add("matrix-last-axis", "basic axis", "C1 C2 C8", matrix, 2, 4, dtypes=ALL)
    add("matrix-first-axis", "axis", "C1 C2", matrix, 2, 4, 0, dtypes=ALL)
    add("matrix-axis-1", "axis", "C1 C9", matrix, 2, 4, 1)
    add("matrix-axis-minus-2", "axis", "C1 C9", matrix, 2, 4, -2)
    for n, m in ((1, 4), (3, 4), (1, 2), (2, 8), (4, 8), (1, 8), (5, 8)):
        add(f"pattern-{n}-of-{m}", "patterns", "C2 C5", matrix, n, m, 1, dtypes=ALL if n + m == 5 else WIDE)
    add("pattern-1-of-3", "patterns", "C2 C5", shuffled(random, 2, 6), 1, 3)
    add("pattern-2-of-3", "patterns axis", "C2 C5", shuffled(random, 6, 5), 2, 3, 0)
    add("pattern-2-of-16", "patterns", "C2", shuffled(random, 3, 32), 2, 16, dtypes=("float32", "bfloat16"))
    # one group holds all the large scores: a ranking of the whole tensor would empty the other
    add("uneven-groups", "basic", "C1 C2", tensor([9, -8, 7, 10, 0.5, 1, -0.25, 0.75]), 2, 4, 0, dtypes=ALL)
    for axis, shape in ((0, (4, 2, 3, 3)), (1, (2, 4, 3, 3)), (2, (3, 2, 4, 3)), (3, (2, 3, 3, 8))):
        add(f"kernel-axis-{axis}", "axis", "C1 C2", shuffled(random, *shape), 2, 4, axis, dtypes=("float32",
            "bfloat16"))
    add("three-axes", "axis", "C1 C2", shuffled(random, 3, 4, 5), 1, 2, 1, dtypes=ALL)

    add("all-equal", "ties", "C2 C3", tensor([1, -1, 1, 1]), 2, 4, dtypes=ALL)
    add("all-zero", "ties", "C2 C3 C7", tensor([0, -0.0, 0, -0.0]), 2, 4, dtypes=ALL)
    add("three-equal", "ties", "C2 C3", tensor([1, -1, 2, 1]), 2, 4, dtypes=ALL)
    add("three-zeros", "ties", "C3", tensor([0, 0, 5, 0]), 2, 4)
    add("equal-below", "ties", "C2 C3", tensor([1, 3, 1, 4]), 2, 4)
    add("equal-above", "ties", "C2 C3", tensor([3, 1, 3, 3]), 3, 4)
    add("equal-in-columns", "ties axis", "C3", tensor([1, 2], [1, 1], [2, 1], [1, 1]), 2, 4, 0, dtypes=ALL)
    add("equal-in-many-groups", "ties", "C2 C3", tensor([2, 2, 1, 2, 3, 3, 3, 0], [5, 5, 5, 5, 1, 2, 2, 2]),
        1, 4)
    add("signed-zeros", "ties signs", "C3 C7", tensor([3, -4, 5, 6]), 2, 4, scores=tensor([0, -0.0, 0, -0.0]))

    six = tensor([1, 2, 3, 4, 5, 6])
    add("width-6", "remainder", "C4", six, 2, 4, dtypes=ALL)
    add("width-2", "remainder", "C4", tensor([1, 2]), 2, 4)
    add("width-1", "remainder", "C4", tensor([1], [-2]), 2, 4)
    add("two-rows-of-6", "remainder", "C4", tensor([1, 2, 3, 4, 5, 6], [9, 7, 1, 2, 8, 3]), 2, 4, dtypes=ALL)
    add("height-6", "remainder axis", "C4", shuffled(random, 6, 4), 2, 4, 0)
    add("width-7-of-3", "remainder patterns", "C4", shuffled(random, 2, 7), 1, 3)
    add("kernel-6-inputs", "remainder axis", "C4", shuffled(random, 2, 6, 3, 3), 2, 4, 1, dtypes=("float32",
        "float16"))
    add("negative-scores-width-6", "remainder signs", "C4 C7", six, 2, 4, scores=-six)
    add("width-6-n-of-m", "remainder numbers-edge", "C4 C5", six, 4, 4)

    has = "0011" "1010"
    pattern = tensor([9, 8, 1, 2], [0.5, 7, 0.25, 6])
    add("previous-pattern-kept", "previous", "C6", pattern, 2, 4, dtypes=ALL, previous=has)
    add("previous-pattern-other-scores", "previous", "C6", pattern, 2, 4, scores=tensor([8, 9, 2, 1], [1, 9,
        2, 8]), dtypes=ALL, previous="1100" "0101")
    add("previous-one-pruned", "previous", "C6", tensor([9, 8, 1, 2], [5, 7, 3, 6]), 2, 4, dtypes=ALL,
        previous="0111" "1101")
    add("previous-three-pruned", "previous", "C6", tensor([9, 8, 1, 2], [5, 7, 3, 6]), 2, 4,
        previous="0010" "1000")
    add("previous-all-pruned", "previous", "C6", tensor([9, 8, 1, 2]), 2, 4, previous="0000")
    add("previous-in-columns", "previous axis", "C6", matrix, 2, 4, 0, previous="10110111" * 2 + "01111011" * 2)
    add("previous-ties", "previous ties", "C3 C6", tensor([1, 1, -1, 1], [2, 2, 2, -2]), 2, 4,
        previous="0111" "1110")
    add("previous-finer-pattern", "previous patterns", "C6", matrix, 1, 4, previous="11001010" * 4)
    add("previous-nan", "previous nonfinite", "C6 C7", tensor([np.nan, 8, 1, 2]), 2, 4, dtypes=ALL,
        previous="0111")
    add("previous-width-6", "previous remainder", "C4 C6", six, 2, 4, previous="110101")

    add("scores-not-magnitudes", "basic", "C2", tensor([9, -8, 7, 0.5]), 2, 4, scores=tensor([0.125, 3, 0.25,
        2]), dtypes=ALL)
    add("negative-scores", "signs", "C7", tensor([5, 6, 0.5, 7]), 2, 4, scores=tensor([-3, 2, 0.5, -9]),
        dtypes=ALL)
    add("all-negative-scores", "signs", "C7", tensor([5, 6, 0.5, 7]), 1, 2, scores=tensor([-3, -2, -0.5, -9]))
    add("large-negative-weights", "signs", "C2 C8", tensor([-9, 1, -8, 2], [3, -4, -5, 1]), 2, 4, dtypes=ALL)

    add("infinite", "nonfinite masked-value", "C7 C8", tensor([np.inf, -np.inf, 1, 2], [np.inf, -np.inf,
        np.inf, 3]), 2, 4, dtypes=ALL)
    add("infinite-scores", "nonfinite", "C7", rising, 2, 4, scores=tensor([np.inf, 1, -np.inf, 2]), dtypes=ALL)
    add("nan-score", "nonfinite", "C7", tensor([9, 1, 2, 3]), 2, 4, scores=tensor([np.nan, 1, 2, 3]),
        dtypes=ALL)
    add("nan-scores", "nonfinite", "C7", tensor([1, 2, 3, 4]), 1, 2, scores=tensor([np.nan, np.nan, 3, np.nan]))
    add("nan-weight", "nonfinite masked-value", "C7", tensor([np.nan, 1, 2, 3]), 2, 4)
    add("non-finite-pruned", "masked-value", "C8", tensor([np.nan, -np.inf, -3, -0.0]), 1, 4, scores=rising,
        dtypes=ALL)
    add("non-finite-kept", "masked-value", "C8", tensor([np.nan, -np.inf, -3, -0.0]), 2, 4, scores=falling)
    add("squares-vanish", "extreme", "C2", tensor([1e-25, -1e-30, 1e-28, 2e-30]), 2, 4, dtypes=("float32",))
    add("squares-overflow", "extreme", "C2", tensor([1e25, -1e30, 1e20, 2]), 1, 4, dtypes=("float32",))
    add("squares-vanish", "extreme", "C2", tensor([1e-170, -1e-180, 1e-175, 2e-180]), 2, 4, dtypes=("float64",))
    add("neighbouring-scores", "extreme", "C2", tensor([1 + 2.0**-23, -1, 1 + 2.0**-22, 1]), 2, 4,
        dtypes=("float32",))

    add("n-0", "numbers-edge", "C5", matrix, 0, 4)
    add("n-is-m", "numbers-edge", "C5 C8", matrix, 4, 4)
    add("m-1", "numbers-edge", "C5", matrix, 1, 1)
    add("n-0-of-1", "numbers-edge", "C5", rising, 0, 1)
    add("n-above-m", "bad-argument", "C5", matrix, 5, 4)
    add("n-negative", "bad-argument", "C5", matrix, -1, 4)
    add("m-0", "bad-argument", "C5", matrix, 0, 0)
    add("axis-too-large", "bad-argument axis", "C9", matrix, 2, 4, 2)
    add("axis-too-small", "bad-argument axis", "C9", matrix, 2, 4, -3)
    add("other-shape", "bad-argument", "C9", matrix, 2, 4, scores=np.abs(matrix).reshape(8, 4))
    c.add("other-mask-shape", "bad-argument previous", "C9", {"weights": rising, "scores": rising,
        "previous": mask_like((4,), "1101")}, {"n": 2, "m": 4, "axis": -1})

    add("vector", "shapes", "C1 C9", shuffled(random, 12), 2, 4, 0, dtypes=ALL)
    add("empty", "shapes", "C8", np.zeros((3, 0)), 2, 4)
    add("no-rows", "shapes", "C8", np.zeros((0, 4)), 2, 4)
    add("zero-dimensional", "shapes bad-argument", "C9", np.array(3.0), 1, 1, 0)
    c.add("mixed", "masked-value", "C8", {"weights": fixed([-1, 2, 3.5, -0.1], "float16"), "scores": fixed(
        [0.3, 0.1, 0.30000001192092896, 0.2], "float64")}, {"n": 1, "m": 2, "axis": 0}, ("float32",))
    # fmt: on
