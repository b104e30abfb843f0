"""``schedule.exponential``: the kept share falls by the same factor every step."""

from __future__ import annotations

from typing import Any

from conformance.cases import Case, Cases
from conformance.exact import ONE, Real, Reject, ctx, real
from conformance.operation import Flag, Mistake, Operation
from conformance.operations import _schedule_cases
from conformance.oracle import schedules

Settings = dict[str, Any]


def oracle(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """s(t) = 1 - (1 - initial)^(1 - p)·(1 - final)^p, p = (t - begin)/(end - begin) within [0, 1]."""
    schedules.check(settings)
    if float(settings["final"]) >= 1:
        raise Reject("final must be below 1, which no constant factor reaches")
    values, scales = schedules.exponential(settings)
    return {
        "sparsity": schedules.sparsities(values, scales),
        "updates": schedules.updates(settings),
    }


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """ULP allowed; the derivation is in TOLERANCE_WHY."""
    return {"sparsity": 6, "updates": 0}


TOLERANCE_WHY = (
    "With d the density, L = |ln(1 - initial)| + |ln(1 - final)| and t' steps since begin: by two powers, the"
    " differences, the quotient and the powers leave (5 + L) roundoffs in d, the product one more; by exp and"
    " log, (4 + 2L); by multiplying one factor t' times, whose power is rounded and its exponent too,"
    " (2t' + 4 + L). The last difference adds one roundoff of s. All are within 6 ULP of s + d·(1 + L + t'),"
    " which is the scale."
)


def _curve(values: list[Real], settings: Settings, curve: Any) -> list[Real]:
    initial, final = (real(float(settings[name])) for name in ("initial", "final"))
    progress = [schedules.progress(t, settings) for t in range(len(values))]
    return [initial + (final - initial) * curve(p) for p in progress]


def _geometric(values: list[Real], settings: Settings) -> list[Real]:
    initial, final = (real(float(settings[name])) for name in ("initial", "final"))
    if initial == 0:
        return values
    return [
        initial * (final / initial) ** schedules.progress(t, settings) for t in range(len(values))
    ]


def _unclipped(values: list[Real], settings: Settings) -> list[Real]:
    begin, end = settings["begin"], settings["end"]
    if begin == end:
        return values
    start, stop = (ONE - real(float(settings[name])) for name in ("initial", "final"))
    shares = [real(t - begin) / (end - begin) for t in range(len(values))]
    return [ONE - start ** (1 - p) * stop**p for p in shares]


WRONG = _schedule_cases.Wrong(oracle, schedules.exponential)
MISTAKES = (
    Mistake("linear", "the sparsity rises by the same amount every step",
            WRONG.sparsity(lambda v, s: _curve(v, s, lambda p: p)), ("neuralmagic/sparseml#1283",)),
    Mistake("cubic", "the polynomial schedule of power 3 instead",
            WRONG.sparsity(lambda v, s: _curve(v, s, lambda p: 1 - (1 - p) ** 3))),
    Mistake("fixed rate", "the approach is 1 - exp(-5p), whose end is not final",
            WRONG.sparsity(lambda v, s: _curve(v, s, lambda p: 1 - ctx.exp(-5 * p)))),
    Mistake("geometric sparsity", "the sparsity, not the kept share, changes by a constant factor",
            WRONG.sparsity(_geometric)),
    Mistake("progress unclipped", "the curve runs on before begin and after end",
            WRONG.sparsity(_unclipped)),
    *WRONG.of_targets(),
    *WRONG.of_progress(),
    *WRONG.of_updates(),
)  # fmt: skip


def cases(c: Cases) -> None:
    """Write the cases."""
    _schedule_cases.common(c)

    def add(name: str, flags: str, labels: str, **params: Any) -> None:
        labelled = tuple(flags.split()), tuple(labels.split())
        c.made.append(Case(c.operation, name, *labelled, {}, params))

    add("eight-epochs", "basic", "C1", steps=11, end=8, final=0.8)
    add("cap", "basic", "C1", steps=5, end=4, final=0.98)
    add("halving", "factor", "C1", steps=5, end=3, final=0.875)
    add("halving-from-half", "factor", "C1", steps=5, end=2, initial=0.5, final=0.875)
    add("same-factor-later", "factor outside", "C1 C2", steps=9, begin=3, end=6, final=0.875)
    add("tiny-density", "factor", "C1", steps=7, end=6, final=1 - 2.0**-50)
    add("tiny-sparsity", "flat", "C1", steps=7, end=6, final=1e-12)
    good = {"steps": 6, "begin": 1, "end": 4}
    add("bad-final-1", "bad", "C10", **good, final=1.0)
    add("bad-final-1-from-1", "bad", "C10", **good, initial=1.0, final=1.0)


OPERATION = Operation(
    id="schedule.exponential",
    summary="Raise the sparsity so that the kept share falls by the same factor every step.",
    formula="s(t) = 1 - (1 - initial)^(1-p)·(1 - final)^p, p = (t - begin)/(end - begin)",
    sources=(
        "OpenVINO NNCF, exponential sparsity schedule; Intel Neural Compressor, iterative schedule 'exp'",
    ),
    constraints={
        "C1": "1 - s(t) = (1 - initial)^(1-p)·(1 - final)^p with p = (t - begin)/(end - begin).",
        **_schedule_cases.CONSTRAINTS,
        "C10": "final is below 1: a density of 0 is no constant factor away.",
    },
    inputs={},
    outputs=schedules.OUTPUTS,
    params=schedules.PARAMS,
    dials=(schedules.FIRST_STEP, *schedules.UPDATE_DIALS),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=TOLERANCE_WHY,
    flags=_schedule_cases.FLAGS | {
        "factor": Flag("BASIC", "Each step keeps the same share of what was left."),
    },
    cases=cases,
    mistakes=MISTAKES,
)  # fmt: skip
