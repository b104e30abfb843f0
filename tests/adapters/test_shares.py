"""A share of the suite for each library that CI installs, asked as `secateurs verify` asks: as written down.

The whole is for `make verify-all`. Each case comes in four dtypes, one after the other, hence odd numbers.
"""

from __future__ import annotations

import functools

import pytest

from conformance import expected, participants
from conformance.cases import Case
from conformance.operations import names
from conformance.runner import DIFFERENT, Run, run, select

SHARES = {
    "array_api_strict": (7, 58), "keras_tensorflow": (9, 25), "keras_torch": (9, 25),
    "optax": (17, 25), "refimpl": (5, 58), "tensorflow": (9, 30), "torch": (5, 35),
    "torch_foreach": (5, 8), "torch_foreach_false": (5, 8),
}  # fmt: skip
"""Of how many cases one is asked, and how many operations are answered at least."""


@functools.cache
def cases(operation: str) -> list[Case]:
    return select([operation])


def share(name: str, every: int) -> Run:
    module = participants.adapters()[name]
    if missing := participants.lacking(module):
        pytest.skip(f"{missing} is not installed")
    asked = [case for operation in names() for case in cases(operation)[::every]]
    result = run(name, participants.command(name, module), asked, timeout=180)
    assert result.not_started is None
    expected.apply(result, expected.read(name))
    return result


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARES)
def test_a_share_of_the_cases_comes_out_as_written_down(name: str) -> None:
    every, operations = SHARES[name]
    result = share(name, every)
    assert [(v.case.full_id, v.message) for v in result.verdicts if v.status in DIFFERENT] == []
    answered = {v.case.operation for v in result.verdicts if v.status == "passed"}
    assert len(answered) >= operations
