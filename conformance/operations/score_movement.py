"""``score.movement``: how much a weight moves away from zero as it is trained."""

from __future__ import annotations

from typing import Any

from conformance.cases import Cases
from conformance.exact import Exact
from conformance.operation import Mistake, Operation
from conformance.operations import _score_cases
from conformance.oracle import scores

Settings = dict[str, Any]


def formula(w: Exact, g: Exact) -> Exact:
    """s = -g·w."""
    return -(g * w)


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """Return 1: one product is rounded."""
    return {"scores": 1}


MISTAKES = (
    Mistake("sign forgotten", "the score is g·w, so weights that grow are pruned first",
            scores.oracle(lambda w, g: g * w)),
    Mistake("magnitude", "the score is |g·w|: weights on their way to zero count as much as others",
            scores.oracle(scores.saliency), ("intel/neural-compressor#592",)),
    Mistake("sign of the weight only", "the score is -g·sign(w)",
            scores.oracle(lambda w, g: -g * (w > 0) + g * (w < 0))),
    Mistake("scaled", "the score is multiplied by 0.01, so that thresholds mean something else",
            scores.oracle(lambda w, g: formula(w, g) / 100)),
    Mistake("clipped at zero", "weights that move towards zero all score 0",
            scores.oracle(lambda w, g: (formula(w, g) + scores.saliency(w, g)) / 2)),
    *scores.shared(scores.each(formula)),
)  # fmt: skip


def cases(c: Cases) -> None:
    """Write the cases."""
    _score_cases.pairs(c, "grads", 52)


OPERATION = Operation(
    id="score.movement",
    summary="Score each weight by how fast descent moves it away from zero.",
    formula="s = -g·w",
    sources=(
        "V. Sanh, T. Wolf, A. M. Rush: Movement pruning: Adaptive sparsity by fine-tuning. NeurIPS 2020",
    ),
    constraints={
        "C1": "Each score is -g·w: positive where descent makes the weight larger, negative where it makes"
        " it smaller. One step's contribution; who accumulates adds the scores up.",
        **_score_cases.CONSTRAINTS,
    },
    inputs=scores.WEIGHTS | scores.GRADS,
    outputs=scores.OUTPUTS,
    params=(),
    oracle=scores.oracle(formula),
    tolerance=tolerance,
    tolerance_why="One product, rounded once, from float32 for 16 bits; a sign costs nothing.",
    flags=_score_cases.FLAGS,
    cases=cases,
    mistakes=MISTAKES,
)
