"""``score.snip``: the share of each weight in the sensitivity of the loss to all weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, Cases, Stream, tensor
from conformance.exact import NAN, ONE, Exact, divide, full, real, total
from conformance.formats import name_of
from conformance.operation import Dial, Flag, Mistake, Operation, leaves, sizes
from conformance.operations import _score_cases
from conformance.oracle import scores

Settings = dict[str, Any]


def scoring(entries: list[list[Exact]], settings: Settings) -> list[Exact]:
    """s = |g·w| / Σ|g·w|, the sum over all entries of all tensors."""
    products = [scores.saliency(w, g) for w, g in entries]
    if settings["normalise"] == "none":
        return products
    divisor = total(x for product in products for x in product.ravel())
    if settings["normalise"] == "mean":
        divisor = divisor / max(1, sum(product.size for product in products))
    if divisor == 0:
        of_nothing = NAN if settings["zero_over_zero"] == "undefined" else real(0)
        return [full(product.shape, of_nothing) for product in products]
    return [divide(product, divisor) for product in products]


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """ULP allowed; the derivation is in TOLERANCE_WHY."""
    if settings["normalise"] == "none":
        return {"scores": 1}
    owners = [w for _, w in leaves(inputs["weights"]) if w is not None]
    narrow = all(name_of(w.dtype) in ("float16", "bfloat16") for w in owners)
    summed = 1 if narrow else sizes(inputs["weights"])
    return {"scores": summed + 3}


TOLERANCE_WHY = (
    "Each product is rounded once, and all terms of the sum are positive, so that n - 1 additions in any order"
    " leave a relative error of at most n roundoffs in it; the score adds its own product and the quotient"
    " (and, under `mean`, a quotient by n): n + 3. In 16 bits the sum is taken in float32, whose error"
    " is far below one roundoff: 4. Without normalisation, 1."
)


def _each_tensor(entries: list[list[Exact]], settings: Settings) -> list[Exact]:
    return [scoring([entry], settings)[0] for entry in entries]


def _signed(entries: list[list[Exact]], settings: Settings) -> list[Exact]:
    divisor = total(abs(x) for w, g in entries for x in (g * w).ravel())
    return [divide(g * w, divisor) if divisor else 0 * w for w, g in entries]


def _cancelling(entries: list[list[Exact]], settings: Settings) -> list[Exact]:
    divisor = abs(total(x for w, g in entries for x in (g * w).ravel()))
    return [divide(abs(g * w), divisor) if divisor else 0 * w for w, g in entries]


def _gradients(entries: list[list[Exact]], settings: Settings) -> list[Exact]:
    return scoring([[w * 0 + ONE, g] for w, g in entries], settings)


def _by_norm(entries: list[list[Exact]], settings: Settings) -> list[Exact]:
    squares = total(x * x for w, g in entries for x in (g * w).ravel())
    root = squares.context.sqrt(squares)
    return [divide(abs(g * w), root) if root else 0 * w for w, g in entries]


def _by_largest(entries: list[list[Exact]], settings: Settings) -> list[Exact]:
    largest = max((abs(x) for w, g in entries for x in (g * w).ravel()), default=ONE)
    return [divide(abs(g * w), largest) if largest else 0 * w for w, g in entries]


MISTAKES = (
    Mistake("not normalised", "the score is |g·w|, which is score.taylor",
            scores.scoring_oracle(lambda e, s: scoring(e, s | {"normalise": "none"}))),
    Mistake("normalised by tensor", "each tensor's scores add up to 1, so small tensors rank high",
            scores.scoring_oracle(_each_tensor)),
    Mistake("no absolute value", "negative products rank lowest", scores.scoring_oracle(_signed),
            ("intel/neural-compressor#592",)),
    Mistake("sum before the absolute value", "products of both signs cancel in the sum",
            scores.scoring_oracle(_cancelling)),
    Mistake("weight ignored", "the score is |g| / Σ|g|", scores.scoring_oracle(_gradients)),
    Mistake("divided by the norm", "the 2-norm stands in the place of the sum",
            scores.scoring_oracle(_by_norm)),
    Mistake("divided by the largest", "the largest score is 1", scores.scoring_oracle(_by_largest)),
    *scores.shared(scoring),
)  # fmt: skip


def cases(c: Cases) -> None:
    """Write the cases."""
    _score_cases.pairs(c, "grads", 55, extremes=False)
    random = Stream(56)

    def add(name: str, flags: str, labels: str, w: Any, g: Any, dtypes: Any = ALL) -> None:
        c.add(name, flags, labels, {"weights": w, "grads": g}, dtypes=dtypes)

    add("two-unequal-tensors", "whole", "C1 C7", [tensor(2, -1), tensor([3.0])],
        [tensor(0.5, 4), tensor([-5.0])])  # fmt: skip
    add("one-weight", "whole", "C7", [tensor(-0.3)], [tensor(0.7)])
    add("cancelling", "whole signs", "C1 C7", [tensor(1, 1, 2), tensor(-3)],
        [tensor(3, -3, 1), tensor(0.75)])  # fmt: skip
    add(
        "all-zero",
        "nothing zeros",
        "C8",
        [tensor(1, -2), tensor([3.0])],
        [tensor(0, -0.0), tensor([0.0])],
    )
    add("zero-weights", "nothing zeros", "C8", [tensor(0, -0.0, 0)], [tensor(3, -1, 0.5)])
    add("zero-tensor", "nothing zeros", "C7", [tensor(1, -2), tensor(3, 0.5)],
        [tensor(0, 0), tensor(1, -4)])  # fmt: skip
    add("infinite-sum", "non-finite", "C5 C7", [tensor(1, -2), tensor([3.0])],
        [tensor(np.inf, 1), tensor([2.0])])  # fmt: skip
    add("many", "whole", "C7", [random.uniform(12, 8), random.uniform(40)],
        [random.spread(12, 8, low=1e-2, high=1), random.uniform(40)])  # fmt: skip
    add("absent-does-not-count", "whole absent", "C4 C7", [tensor(2, -1), tensor(100, 200), tensor(4)],
        [tensor(0.5, 1), None, tensor(-0.5)])  # fmt: skip
    tiny, huge = ("float32", "bfloat16"), ("float32", "bfloat16")
    add(
        "scores-of-small-products",
        "small",
        "C7",
        [tensor(1e-12, -3e-13)],
        [tensor(2e-10, 1e-9)],
        tiny,
    )
    add(
        "scores-of-large-products", "large", "C7", [tensor(1e12, -3e13)], [tensor(2e15, 1e14)], huge
    )
    # Each product is a float32 number, their sum is not: 3e38 + 2.5e38 beyond 3.4e38.
    add("sum-overflows", "large non-finite", "C5 C7", [tensor(1.5e19, -1), tensor([2.5e19])],
        [tensor(2e19, 1), tensor([-1e19])], ("float32",))  # fmt: skip


OPERATION = Operation(
    id="score.snip",
    summary="Score each weight by its share in the sensitivity of the loss.",
    formula="s = |g·w| / Σ|g·w|",
    sources=(
        "N. Lee, T. Ajanthan, P. H. S. Torr: SNIP: Single-shot network pruning based on connection"
        " sensitivity. ICLR 2019, equation 6",
    ),
    constraints={
        "C1": "Each score is |g·w| divided by the sum of all |g·w|.",
        **_score_cases.CONSTRAINTS,
        "C7": "The sum runs over all entries of all tensors that have scores, which then add up to 1.",
        "C8": "Where every product is zero, so is every score.",
    },
    inputs=scores.WEIGHTS | scores.GRADS,
    outputs=scores.OUTPUTS,
    params=(),
    dials=(
        Dial("normalise", "sum", "none: |g·w| alone; mean: divided by its mean over all entries",
             ("none", "mean")),
        Dial("zero_over_zero", "zero", "undefined: NaN where every product is zero", ("undefined",)),
    ),
    oracle=scores.scoring_oracle(scoring),
    tolerance=tolerance,
    tolerance_why=TOLERANCE_WHY,
    flags=_score_cases.FLAGS | {
        "whole": Flag("BASIC", "The sum is that of all tensors, not of each."),
        "nothing": Flag("EDGE_CASE", "Products that are all zero."),
    },
    cases=cases,
    mistakes=MISTAKES,
)  # fmt: skip
