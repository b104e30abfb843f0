"""The diagnosis names the convention or the mistake that was planted, and says when it knows none."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from conformance import calls
from conformance.arrays import named
from conformance.cases import Case
from conformance.commands.snippet import snippet
from conformance.diagnosis import Diagnosis, diagnose
from conformance.judge import Verdict, judge
from conformance.operation import Setting, sizes
from conformance.operations import load, names
from conformance.runner import select

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

NORM = load("clip.global_norm")


@cache
def small_cases(name: str) -> list[Case]:
    narrow = (c for c in select([name]) if c.id.endswith(("-f32", "-c64")))
    return [case for case in narrow if sizes(case.inputs) <= 200]


def verdicts(
    name: str, function: Callable[..., Any], dialect: Setting, cases: list[Case] | None = None
) -> list[Verdict]:
    operation, library = load(name), named("numpy")
    chosen = small_cases(name) if cases is None else cases
    answers = [calls.answer(function, operation, library, case) for case in chosen]
    return [judge(operation, c, dialect, a) for c, a in zip(chosen, answers, strict=True)]


def of(
    function: Callable[..., Any], dialect: Setting | None = None, name: str = "clip.global_norm"
) -> Diagnosis:
    found = diagnose(load(name), dialect or {}, verdicts(name, function, dialect or {}))
    assert found is not None
    return found


# --- a clip written for this test, right or with one thing wrong ----------------------------------


def norm(tensors: list[Any], order: float, real: bool = False) -> float:
    wide = [np.real(t) if real else np.abs(t.astype(np.complex128)) for t in tensors]
    sizes = np.abs(np.concatenate([t.astype(np.float64).ravel() for t in wide] or [np.zeros(0)]))
    top = float(np.max(sizes, initial=0.0))
    if np.isnan(top) or top in (0.0, np.inf) or order == np.inf:
        return top
    n = top * float(np.sum((sizes / top) ** order)) ** (1 / order)
    return n if np.isfinite(np.float32(n)) else np.inf


FACTORS: dict[str, Callable[[float], float]] = {
    "": lambda f: min(1.0, f),
    "max for min": lambda f: max(1.0, f),
    "coefficient unclamped": lambda f: f,
}


def scaled(g: Any, n: float, c: float, factor: Callable[[float], float]) -> Any:
    if c == np.inf:
        return g
    if not np.isfinite(n):
        return np.full_like(g, np.nan)
    f = factor(c / n) if n > 0 else 1.0
    return (
        g
        if f == 1
        else (g.astype(np.complex128 if g.dtype.kind == "c" else np.float64) * f).astype(g.dtype)
    )


def clip(
    grads: list[Any], max_norm: float, ord: float = 2, *, wrong: str = "", eps: float = 0.0
) -> Any:
    if not max_norm >= 0 or not ord > 0:
        raise ValueError("max_norm must be >= 0 and ord > 0")
    present: list[Any] = []
    for g in grads:
        if g is not None and not any(g is other for other in present):
            present.append(g)
    if wrong == "limit in float32":
        with np.errstate(over="ignore"):
            max_norm = float(np.float32(max_norm))
    real = wrong == "imaginary part dropped"
    right = norm(present, 2.0 if wrong == "ord ignored" else ord, real)
    own = [norm([g], ord) for g in present]
    total = {
        "largest norm as total": max(own, default=0.0),
        "sum of norms as total": sum(own),
        "root forgotten": right if ord == np.inf else right**ord,
    }.get(wrong, right)
    divisors = [total + eps if total > 0 else total for _ in grads]
    if wrong == "norm per tensor":
        divisors = [0.0 if g is None else norm([g], ord) for g in grads]
    clipped = [
        None if g is None else scaled(g, n, max_norm, FACTORS.get(wrong, FACTORS[""]))
        for g, n in zip(grads, divisors, strict=True)
    ]
    reported = min(total, max_norm) if wrong == "norm after clipping" else total
    return clipped, np.float32(reported)


def test_the_clip_of_this_test_is_right() -> None:
    found = verdicts("clip.global_norm", clip, {})
    assert [v.message for v in found if v.status == "failed"] == []
    assert sum(v.status == "passed" for v in found) > 60


@pytest.mark.parametrize("mistake", [m.name for m in NORM.mistakes])
def test_every_known_mistake_of_the_global_norm_is_named(mistake: str) -> None:
    found = of(lambda grads, **params: clip(grads, wrong=mistake, **params))
    known = next(m for m in NORM.mistakes if m.name == mistake)
    assert found.mistake == mistake
    link = f" ({known.links[0]})" if known.links else ""
    assert (
        found.sentence == f'behaves like the known mistake "{mistake}": {known.description}{link}'
    )
    assert (found.explained, found.case, found.snippet) == (found.failing, "", "")


def test_an_epsilon_is_a_convention_and_who_shares_it_is_named() -> None:
    found = of(lambda grads, **params: clip(grads, eps=1e-6, **params))
    assert (
        found.sentence
        == "behaves like clip.global_norm with eps = 1e-6 added to the norm (as torch)"
    )
    assert found.setting == {"eps_at": "denominator", "eps": 1e-6}
    assert found.mistake == ""
    json.dumps(found.as_json(), allow_nan=False)


def test_an_epsilon_that_no_dial_lists_is_found() -> None:
    found = of(lambda grads, **params: clip(grads, eps=1e-5, **params))
    assert found.setting == {"eps_at": "denominator", "eps": 1e-5}


def test_a_convention_is_told_as_a_departure_from_what_is_declared() -> None:
    declared = {"eps_at": "denominator", "eps": 1e-6}
    found = of(lambda grads, **params: clip(grads, eps=1e-8, **params), declared)
    assert found.setting == {"eps": 1e-8}
    found = of(clip, declared)
    assert found.setting in ({"eps_at": "none"}, {"eps": 0.0})


def lenient(grads: list[Any], max_norm: float, ord: float = 2) -> Any:
    """0 and negative limits are taken for no clipping: two dials."""
    return clip(grads, max_norm if max_norm > 0 or np.isnan(max_norm) else np.inf, ord)


def test_two_conventions_at_once_are_found() -> None:
    found = of(lenient)
    assert found.setting == {"zero_limit": "disabled", "negative_limit": "ignore"}
    assert found.explained == found.failing


def test_a_mistake_and_two_conventions_at_once_are_found() -> None:
    def both(grads: list[Any], max_norm: float, ord: float = 2) -> Any:
        limit = max_norm if max_norm > 0 or np.isnan(max_norm) else np.inf
        return clip(grads, limit, ord, wrong="ord ignored")

    found = of(both)
    assert found.mistake == "ord ignored"
    assert found.setting == {"zero_limit": "disabled", "negative_limit": "ignore"}


def test_what_is_not_refused_is_said_beside_a_convention() -> None:
    def careless(grads: list[Any], max_norm: float, ord: float = 2) -> Any:
        return clip(grads, max_norm, ord if ord > 0 else 2, eps=1e-6)

    found = of(careless)
    assert found.sentence.startswith(
        "behaves like clip.global_norm with eps = 1e-6 added to the norm (as torch); it does not refuse"
        " what must be refused (4 cases): ord must be > 0 or inf, got "
    )
    assert found.case == ""


def test_what_is_not_refused_says_nothing_against_a_mistake() -> None:
    def careless(
        begin: int, end: int, initial: float, final: float, power: float, frequency: int, steps: int
    ) -> Any:
        at = range(steps)
        progress = [min(max((t - begin) / max(end - begin, 1), 0.0), 1.0) for t in at]
        values = [final + (initial - final) * (1 - p) ** power for p in progress]
        late = [0.0 if t < begin else value for t, value in zip(at, values, strict=True)]
        due = [begin <= t <= end and ((t - begin) % frequency == 0 or t == end) for t in at]
        return {"sparsity": np.array(late), "updates": np.array(due, np.int32)}

    name = "schedule.polynomial"
    found = diagnose(load(name), {}, verdicts(name, careless, {}, select([name])))
    assert found is not None
    assert found.mistake == "zero before begin"
    assert "; it does not refuse what must be refused (14 cases): final must be" in found.sentence
    assert found.sentence.endswith("; and 9 more")
    # What is left is another mistake: a schedule of one step ends at its start.
    assert "begin-is-end" in found.case


def doubled(grads: list[Any], max_norm: float, ord: float = 2) -> Any:
    clipped, total = clip(grads, max_norm, ord)
    return [None if g is None else 2 * g for g in clipped], total


@pytest.fixture
def few() -> list[Case]:
    ids = ("two-tensors-f32", "zero-dimensional-f32", "just-above-f32", "negative-limit-f32")
    return select(["clip.global_norm"], ids)


def test_the_unknown_is_shown_by_its_smallest_case(few: list[Case]) -> None:
    found = diagnose(NORM, {}, verdicts("clip.global_norm", doubled, {}, few))
    assert found is not None
    assert found.sentence == "no known convention or mistake explains 3 cases"
    # One element, -3, clipped to -1.
    assert found.case == "clip.global_norm/zero-dimensional-f32"
    assert found.difference.startswith("grads[0]: got -2.0, expected -1.0")
    assert found.snippet.count("\n") < 10
    scope: dict[str, Any] = {}
    exec(found.snippet, scope)
    (again,) = scope["inputs"]["grads"]
    assert (again.dtype, again.shape, float(again)) == (np.float32, (), -3.0)
    assert doubled([again], **scope["params"])[0][0] == -2


@pytest.mark.parametrize("name", names())
def test_the_snippet_of_any_operation_runs_alone(name: str) -> None:
    for case in select([name])[:6]:
        source = snippet(case, "got 1,\nexpected 2")
        assert source.count("\n") < 10
        assert source.endswith("# got 1, expected 2")
        scope: dict[str, Any] = {}
        exec(source, scope)
        assert scope["inputs"].keys() == case.inputs.keys()
        assert scope["params"].keys() == case.params.keys()


def test_an_answer_that_never_came_is_no_evidence() -> None:
    def falls(grads: list[Any], max_norm: float, ord: float = 2) -> Any:
        if ord == 3:
            raise KeyError("cube")
        return clip(grads, max_norm, ord, wrong="norm per tensor")

    found = of(falls)
    assert found.mistake == "norm per tensor"
    assert "failing cases" in found.sentence
    assert found.case.startswith("clip.global_norm/ord-3")
    assert found.difference == "KeyError: 'cube'"


def test_an_expected_failure_is_neither_explained_nor_evidence() -> None:
    found = verdicts("clip.global_norm", doubled, {})
    failing = [v for v in found if v.status == "failed"]
    for verdict in failing:
        verdict.status = "expected_failure"
    assert diagnose(NORM, {}, found) is None
    failing[0].status = "failed"
    told = diagnose(NORM, {}, found)
    assert told is not None
    assert (told.failing, told.case) == (1, failing[0].case.full_id)


def test_the_search_ends_when_its_time_is_up(few: list[Case]) -> None:
    found = diagnose(NORM, {}, verdicts("clip.global_norm", doubled, {}, few), budget=0.0)
    assert found is not None
    assert found.case == "clip.global_norm/zero-dimensional-f32"


def test_writing_to_the_inputs_is_a_convention() -> None:
    def writes(grads: list[Any], max_norm: float, ord: float = 2) -> Any:
        clipped, total = clip(grads, max_norm, ord)
        for g, c in zip(grads, clipped, strict=True):
            if g is not None:
                g[...] = c
        return clipped, total

    found = of(writes)
    assert found.setting == {"in_place": "documented"}


@pytest.mark.parametrize(
    ("name", "function", "mistake"),
    [
        ("score.magnitude", lambda weights: weights, "no absolute value"),
        ("score.gradient", lambda grads: [None if g is None else g * g for g in grads], "squared"),
        ("clip.value", lambda grads, max, min=-np.inf: [np.minimum(g, max) for g in grads],
         "lower bound forgotten"),
    ],
)  # fmt: skip
def test_mistakes_of_other_operations_are_named(
    name: str, function: Callable[..., Any], mistake: str
) -> None:
    assert of(function, name=name).mistake == mistake
