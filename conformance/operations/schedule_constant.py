"""``schedule.constant``: one sparsity from a step on."""

from __future__ import annotations

from typing import Any

from conformance.cases import Case, Cases
from conformance.exact import Real, real
from conformance.operation import Mistake, Operation
from conformance.operations import _schedule_cases
from conformance.oracle import schedules

Settings = dict[str, Any]


def values(settings: Settings) -> tuple[list[Real], None]:
    """Return initial before begin and final from it on."""
    initial, final = (real(float(settings[name])) for name in ("initial", "final"))
    return [final if t >= settings["begin"] else initial for t in range(settings["steps"])], None


def oracle(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """s(t) = final for t >= begin, else initial."""
    schedules.check(settings)
    return {
        "sparsity": schedules.sparsities(values(settings)[0]),
        "updates": schedules.updates(settings),
    }


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """Return 0: nothing is computed."""
    return {"sparsity": 0, "updates": 0}


def _linear(given: list[Real], settings: Settings) -> list[Real]:
    initial, final = (real(float(settings[name])) for name in ("initial", "final"))
    steps = range(len(given))
    return [initial + (final - initial) * schedules.progress(t, settings) for t in steps]


WRONG = _schedule_cases.Wrong(oracle, values)
MISTAKES = (
    Mistake("final from the start", "begin only decides on the updates",
            WRONG.sparsity(lambda given, s: [real(float(s["final"]))] * len(given))),
    Mistake("one step late", "final holds after begin, not at it",
            WRONG.shifted(begin=lambda s: s["begin"] + 1)),
    Mistake("linear", "initial and final are the ends of a ramp", WRONG.sparsity(_linear)),
    *WRONG.of_targets(),
    *WRONG.of_updates(),
)  # fmt: skip


def cases(c: Cases) -> None:
    """Write the cases."""
    _schedule_cases.common(c)
    for name, params in (
        ("everything", {"initial": 0.0, "final": 1.0}),
        ("all-pruned-already", {"initial": 1.0, "final": 1.0}),
        ("tenth", {"initial": 0.1, "final": 0.1 + 0.2}),
    ):
        given = {"steps": 6, "begin": 2, "end": 4, **params}
        c.made.append(Case(c.operation, name, ("flat",), ("C1", "C8"), {}, given))


OPERATION = Operation(
    id="schedule.constant",
    summary="Ask for one sparsity from a step on, and recompute the mask now and then.",
    formula="s(t) = final for t >= begin, else initial",
    sources=(
        "M. Zhu, S. Gupta: To prune, or not to prune: exploring the efficacy of pruning for model"
        " compression. 2017 (the updates)",
    ),
    constraints={
        "C1": "The sparsity is final from begin on and initial before it, as the very numbers given.",
        **_schedule_cases.CONSTRAINTS,
        "C2": "Before begin the sparsity is initial; after end it stays final.",
    },
    inputs={},
    outputs=schedules.OUTPUTS,
    params=schedules.PARAMS,
    dials=schedules.UPDATE_DIALS,
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why="Nothing is computed, so the bits are asked for.",
    flags=_schedule_cases.FLAGS,
    cases=cases,
    mistakes=MISTAKES,
)
