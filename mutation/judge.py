"""The suite as the only judge of ``refimpl``, in one process: what a mutant must get past to survive.

Each operation is asked all its cases, canonically and in each named dialect, and with each dial set by itself
those whose answer the dial changes. It is asked three times: of the fast forms on NumPy arrays, of the readable
ones, and of these on the arrays of ``array-api-strict`` on a device that is not the default one; but in a
dialect that changes nothing once. Convolutions are asked a fourth time, of a fast form that takes the cache for
so small that it divides the rows of small images: a case with a large one would keep the oracle for minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, get_args

import numpy as np

from adapters import array_api_strict as strict_arrays
from adapters import refimpl as numpy_arrays
from adapters.base import WITH_COMPLEX, Adapter
from conformance import fixtures
from conformance.cases import Case
from conformance.compare import compare
from conformance.formats import name_of
from conformance.judge import map_outputs, stand_in
from conformance.operation import Expectation, Leaf, Operation, Setting, leaves, sizes
from conformance.operations import load, names
from conformance.runner import request
from refimpl import arrays, numpy_products
from refimpl.layers import conv2d_in_cache, in_cache

SMALL = 600
"""Elements: the oracle is asked about settings that are not frozen only where it answers soon."""

Form = Literal["fast", "readable", "strict", "divided"]
FORMS: tuple[Form, ...] = get_args(Form)
DIVIDED = ("layer.conv2d", "train.trajectory")
"""The operations whose fast form divides its work."""
LIMITS: dict[tuple[Any, str], int] = {
    (conv2d_in_cache, "CACHE"): 700,
    (conv2d_in_cache, "LONG"): 25,
    (numpy_products, "DEEP"): 2,
    (in_cache, "THREADED_FROM"): 0,
}
"""By what the fast form divides its work, and how small that is for the form ``divided``."""
USUAL = {(module, name): getattr(module, name) for module, name in LIMITS}


@dataclass(frozen=True, eq=False)
class Trial:
    """One question to one form of ``refimpl``, and what must come back."""

    operation: Operation
    case: Case
    setting: Setting
    form: Form
    asked: dict[str, Any]
    expected: Expectation

    def __str__(self) -> str:
        return f"{self.case.full_id} {self.setting} ({self.form})"


def settings(operation: Operation) -> Iterator[tuple[Setting, bool]]:
    """Yield the canonical setting, the named dialects, and each dial by itself; whether all cases are asked.

    Where one setting stands for many behaviours, only the canonical one.
    """
    if not operation.attributed:
        yield {}, True
        return
    seen = set()
    named = [{}, *operation.dialects.values()]
    singles = [
        {**dial.context, dial.name: value} for dial in operation.dials for value in dial.others
    ]
    for number, setting in enumerate([*named, *singles]):
        shown = {k: v for k, v in setting.items() if k not in ("in_place", "subnormals")}
        key = operation.key(shown)
        if key not in seen:
            seen.add(key)
            yield shown, number < len(named)


def judged() -> list[str]:
    """Return the ids of the operations, those last of which one setting stands for many behaviours."""
    return sorted(names(), key=lambda name: not load(name).attributed)


def trials(name: str, each: int | None = None) -> Iterator[Trial]:
    """Yield the cases of an operation under every setting, for each form.

    ``each``: about how many cases of a setting, chosen at random; four times as many of the canonical one.
    """
    operation = load(name)
    defaults = {param.name: param.default for param in operation.params if not param.required}
    cases = fixtures.read(operation)
    requests = {case.id: request(case) for case in cases}
    formats = {case.id: _formats(case) for case in cases}
    forms = [form for form in FORMS if form != "divided" or name in DIVIDED]
    if not operation.attributed:
        forms = ["fast", "divided"]
    canonical = {case.id: fixtures.expectation(operation, case, {}) for case in cases}
    for setting, all_cases in settings(operation):
        key = operation.key(setting)
        left = len(cases) if each is None else each if setting else 4 * each
        chosen = [
            case for case in cases if key in case.frozen["expected"] or sizes(case.inputs) <= SMALL
        ]
        if each is not None:
            Random(key).shuffle(chosen)
            del chosen[4 * each :]
        for case in chosen:
            expected = fixtures.expectation(operation, case, setting)
            matters = not setting or not _same(expected, canonical[case.id])
            if not (matters or all_cases) or left == 0:
                continue
            left -= 1
            for form in forms if matters else forms[:1]:
                if not formats[case.id] <= set(_adapter(form).dtypes[name]):
                    continue
                # The fast forms are asked without the parameters that have their default.
                left_out = defaults if form in ("fast", "divided") else {}
                given = requests[case.id]["params"].items()
                params = {k: v for k, v in given if k not in left_out or v != left_out[k]}
                params |= fixtures.parameters(setting)
                asked = requests[case.id] | {"params": params}
                yield Trial(operation, case, setting, form, asked, expected)


def _same(one: Expectation, other: Expectation) -> bool:
    if (one.rejects is None) != (other.rejects is None):
        return False
    mine, theirs = list(leaves(one.outputs)), list(leaves(other.outputs))
    return len(mine) == len(theirs) and all(
        a is b or (a is not None and b is not None and _bits(a) == _bits(b))
        for (_, a), (_, b) in zip(mine, theirs, strict=True)
    )


def _bits(leaf: Leaf) -> tuple[str, tuple[int, ...], bytes]:
    return leaf.tensor.dtype.name, leaf.tensor.shape, leaf.tensor.tobytes()


def fault(trial: Trial) -> str | None:
    """Return what is wrong with the answer to a trial, or ``None``."""
    arrays.FAST_FORMS = trial.form in ("fast", "divided")
    for (module, name), limit in (LIMITS if trial.form == "divided" else USUAL).items():
        setattr(module, name, limit)
    # One that was made for an earlier trial would hide a mistake in making it.
    in_cache.kept = in_cache.Kept()
    expected = trial.expected
    with np.errstate(all="ignore"):
        answer = _adapter(trial.form).run(trial.asked)
        if expected.rejects is not None:
            return None if "rejected" in answer else "must be refused"
        if "outputs" not in answer:
            return str(answer)
        if "mutated" in answer:
            return "wrote to the caller's arrays"
        outputs = map_outputs(answer["outputs"])
        outputs = stand_in(trial.operation, trial.case, trial.setting, outputs)
        difference = compare(outputs, expected).difference
    return None if difference is None else str(difference)


def _adapter(form: Form) -> Adapter:
    return (strict_arrays if form == "strict" else numpy_arrays).adapter


def _formats(case: Case) -> set[str]:
    return {
        name_of(leaf.dtype) for _, leaf in leaves(case.inputs) if isinstance(leaf, np.ndarray)
    } & set(WITH_COMPLEX)
