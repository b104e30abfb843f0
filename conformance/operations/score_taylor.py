"""``score.taylor``: what the loss changes by, to first order, if a weight is set to zero."""

from __future__ import annotations

from typing import Any

from conformance.cases import Cases
from conformance.exact import Exact
from conformance.operation import Dial, Mistake, Operation
from conformance.operations import _score_cases
from conformance.oracle import scores

Settings = dict[str, Any]


def scoring(entries: list[list[Exact]], settings: Settings) -> list[Exact]:
    """s = |g·w|, or its square."""
    products = [scores.saliency(w, g) for w, g in entries]
    return [s * s for s in products] if settings["form"] == "squared" else products


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """ULP allowed; the derivation is in TOLERANCE_WHY."""
    return {"scores": 3 if settings["form"] == "squared" else 1}


TOLERANCE_WHY = (
    "One product, rounded once: 1 ULP (an error of half an ULP, and one more rounding from float32 to 16 bits)."
    " Squared, the error of the product counts twice and the square is rounded too: 3 ULP."
)


def _change_in_tensor(w: Exact, g: Exact) -> Exact:
    products = g * w
    return 0 * products + (abs(products.sum()) if products.size else 0)


MISTAKES = (
    Mistake("no absolute value", "the score is g·w, so weights that pay for themselves go first or last",
            scores.oracle(lambda w, g: g * w), ("intel/neural-compressor#592",)),
    Mistake("weight ignored", "the score is |g|", scores.oracle(lambda w, g: abs(g) + 0 * w)),
    Mistake("gradient ignored", "the score is |w|", scores.oracle(lambda w, g: abs(w) + 0 * g)),
    Mistake("second order", "the score is |g·w²|", scores.oracle(lambda w, g: abs(g * w * w))),
    Mistake("summed over the tensor", "all weights share |Σ g·w|, the score of the whole filter",
            scores.oracle(_change_in_tensor)),
    *scores.shared(scores.each(scores.saliency)),
)  # fmt: skip


def cases(c: Cases) -> None:
    """Write the cases."""
    _score_cases.pairs(c, "grads", 51)


OPERATION = Operation(
    id="score.taylor",
    summary="Score each weight by what removing it does to the loss, to first order.",
    formula="s = |g·w|",
    sources=(
        "P. Molchanov, S. Tyree, T. Karras, T. Aila, J. Kautz: Pruning convolutional neural networks for"
        " resource efficient inference. ICLR 2017",
        "P. Molchanov, A. Mallya, S. Tyree, I. Frosio, J. Kautz: Importance estimation for neural network"
        " pruning. CVPR 2019 (squared)",
    ),
    constraints={"C1": "Each score is |g·w|, never negative.", **_score_cases.CONSTRAINTS},
    inputs=scores.WEIGHTS | scores.GRADS,
    outputs=scores.OUTPUTS,
    params=(),
    dials=(
        Dial("form", "absolute", "squared: (g·w)², which ranks alike within a tensor list", ("squared",)),
    ),
    oracle=scores.scoring_oracle(scoring),
    tolerance=tolerance,
    tolerance_why=TOLERANCE_WHY,
    flags=_score_cases.FLAGS,
    cases=cases,
    mistakes=MISTAKES,
)  # fmt: skip
