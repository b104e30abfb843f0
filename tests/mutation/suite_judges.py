"""The suite as the only judge of ``refimpl``, in one process: what a mutant must get past to survive.

``make mutants`` runs this file against every mutant; ``docs/mutation.md`` says what survived and why. Each
operation is asked all its cases: canonically, in each named dialect, and with each dial set by itself; and
that three times: of the fast forms on NumPy arrays, of the readable ones, and of these on the arrays of
``array-api-strict`` on a device that is not the default one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

from adapters import array_api_strict as strict_arrays
from adapters import refimpl as numpy_arrays
from adapters.base import WITH_COMPLEX, Adapter
from conformance import fixtures
from conformance.cases import Case
from conformance.compare import compare
from conformance.formats import name_of
from conformance.judge import map_outputs, stand_in
from conformance.operation import Expectation, Operation, leaves, sizes
from conformance.operations import load, names
from conformance.runner import request
from refimpl import arrays

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

SMALL = 600
"""Elements: the oracle is asked about settings that are not frozen only where it answers soon."""
QUICK = [name for name in names() if load(name).attributed]


def settings(operation: Operation) -> Iterator[dict[str, Any]]:
    """Yield the canonical setting, the named dialects, and each dial by itself."""
    seen = set()
    singles = (
        {**dial.context, dial.name: value} for dial in operation.dials for value in dial.others
    )
    for setting in [{}, *operation.dialects.values(), *singles]:
        shown = {k: v for k, v in setting.items() if k not in ("in_place", "subnormals")}
        key = operation.key(shown)
        if key not in seen:
            seen.add(key)
            yield shown


@cache
def trials(name: str) -> list[tuple[Case, dict[str, Any], Expectation]]:
    """Return every case under every setting, with what must come back.

    Computed once, in the process that the mutants are forked from.
    """
    operation = load(name)
    return [
        (case, setting, fixtures.expectation(operation, case, setting))
        for setting in settings(operation)
        for case in fixtures.read(operation)
        if operation.key(setting) in case.frozen["expected"] or sizes(case.inputs) <= SMALL
    ]


def defaults(operation: Operation) -> dict[str, Any]:
    return {param.name: param.default for param in operation.params if not param.required}


def formats(case: Case) -> set[str]:
    return {
        name_of(leaf.dtype) for _, leaf in leaves(case.inputs) if isinstance(leaf, np.ndarray)
    } & set(WITH_COMPLEX)


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("form", ["fast", "readable", "strict"])
def test_the_suite_passes_refimpl(name: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the fast forms without, and the readable ones with, the parameters that have their default."""
    monkeypatch.setattr(arrays, "FAST_FORMS", form == "fast")
    adapter: Adapter = (strict_arrays if form == "strict" else numpy_arrays).adapter
    operation = load(name)
    left_out = defaults(operation) if form == "fast" else {}
    with np.errstate(all="ignore"):
        for case, setting, expected in trials(name):
            if not formats(case) <= set(adapter.dtypes[name]):
                continue
            asked = request(case)
            given = {k: v for k, v in asked["params"].items() if (k, v) not in left_out.items()}
            asked["params"] = given | fixtures.parameters(setting)
            answer = adapter.run(asked)
            where = f"{case.full_id} {setting}"
            if expected.rejects is not None:
                assert "rejected" in answer, f"{where}: must be refused"
                continue
            assert "outputs" in answer, f"{where}: {answer}"
            assert "mutated" not in answer, f"{where}: wrote to the caller's arrays"
            outputs = stand_in(operation, case, setting, map_outputs(answer["outputs"]))
            difference = compare(outputs, expected).difference
            assert difference is None, f"{where}: {difference}"
