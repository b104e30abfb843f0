"""``score.obd``: what the loss changes by, to second order, if a weight is set to zero at a minimum."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, Cases, tensor
from conformance.exact import Exact, each
from conformance.formats import round_exact
from conformance.operation import Dial, Flag, Mistake, Operation
from conformance.operations import _score_cases
from conformance.oracle import scores

Settings = dict[str, Any]


def formula(w: Exact, h: Exact) -> Exact:
    """s = ½·h·w²."""
    return h * w * w / 2


def scoring(entries: list[list[Exact]], settings: Settings) -> list[Exact]:
    """s = ½·h·w², or h·w²."""
    factor = 1 if settings["half"] else 2
    return [factor * formula(w, h) for w, h in entries]


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """Return 2: two products are rounded."""
    return {"scores": 2}


def _square_first(w: Exact, h: Exact) -> Exact:
    squares = each(lambda x: x if x == 0 or x != x else _in_float32(x * x), w)
    return h * squares / 2


def _in_float32(x: Any) -> Any:
    return x.context.mpf(float(round_exact(x, "float32")))


MISTAKES = (
    Mistake("no half", "the score is h·w²", scores.oracle(lambda w, h: h * w * w)),
    Mistake("weight not squared", "the score is ½·h·w", scores.oracle(lambda w, h: h * w / 2)),
    Mistake("absolute value", "negative curvature counts as positive",
            scores.oracle(lambda w, h: abs(formula(w, h)))),
    Mistake("curvature squared", "h is taken for a gradient: ½·h²·w²",
            scores.oracle(lambda w, h: h * formula(w, h))),
    Mistake("curvature ignored", "the score is ½·w²", scores.oracle(lambda w, h: w * w / 2 + 0 * h)),
    Mistake("square first", "w² overflows or vanishes in float32 before h brings it back",
            scores.oracle(_square_first)),
    *scores.shared(scores.each(formula)),
)  # fmt: skip


def cases(c: Cases) -> None:
    """Write the cases."""
    _score_cases.pairs(c, "hessian", 53, extremes=False)

    def add(name: str, flags: str, labels: str, w: Any, h: Any, dtypes: Any = ALL) -> None:
        c.add(name, flags, labels, {"weights": w, "hessian": h}, dtypes=dtypes)

    add("negative-curvature", "curvature signs", "C1", [tensor(2, -3, 0.5)], [tensor(-0.5, -2, 4)])
    add("flat", "curvature zeros", "C1", [tensor(2, -3, 0.5)], [tensor(0, -0.0, 0)])
    add("equal-weights", "curvature", "C1", [tensor([1, 1], [-1, 1])], [tensor([3, 0.25], [7, -2])])
    add("square-underflows", "small", "C7", [tensor(1e-25, -3e-24, 2e-30)],
        [tensor(1e30, 4e28, -3e36)], ("float32", "bfloat16"))  # fmt: skip
    add("square-overflows", "large", "C7", [tensor(1e25, -3e24, 2e30)],
        [tensor(1e-30, 4e-28, -3e-37)], ("float32", "bfloat16"))  # fmt: skip
    add("square-underflows", "small", "C7", [tensor(1e-200, -3e-180)], [tensor(1e250, 4e120)],
        ("float64",))  # fmt: skip
    add("square-overflows", "large", "C7", [tensor(1e200, -3e160)], [tensor(1e-250, 4e-120)],
        ("float64",))  # fmt: skip
    add("curvature-infinite", "curvature non-finite", "C5", [tensor(2, 0, -1)],
        [tensor(np.inf, np.inf, -np.inf)])  # fmt: skip


OPERATION = Operation(
    id="score.obd",
    summary="Score each weight by what removing it does to the loss at a minimum, to second order.",
    formula="s = ½·h·w²",
    sources=("Y. LeCun, J. S. Denker, S. A. Solla: Optimal brain damage. NeurIPS 1990",),
    constraints={
        "C1": "Each score is ½·h·w², with the sign of the curvature h, which is not patched up.",
        **_score_cases.CONSTRAINTS,
        "C7": "A score that is representable is right even where w² alone is not.",
    },
    inputs=scores.WEIGHTS | {"hessian": "list of the diagonals of the Hessian, of the same shapes"},
    outputs=scores.OUTPUTS,
    params=(),
    dials=(Dial("half", True, "false: h·w²", (False,)),),
    oracle=scores.scoring_oracle(scoring),
    tolerance=tolerance,
    tolerance_why="Two products in any order, each rounded once; the factor ½ is exact.",
    flags=_score_cases.FLAGS | {"curvature": Flag("BASIC", "The curvature decides, its sign included.")},
    cases=cases,
    mistakes=MISTAKES,
)  # fmt: skip
