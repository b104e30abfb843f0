"""The suite's float32 cases where an array library gives less: no float64, no writing to the inputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from adapters._refimpl import canonical
from adapters.base import Adapter
from conformance import runner
from conformance.cases import Case
from conformance.judge import judge
from conformance.operation import leaves
from conformance.operations import load, names
from refimpl.backends import CAPABILITIES

ALLOWED = {"float32", "bool", "int32", "int64"}


def cases(operation: str, every: int = 1) -> list[Case]:
    """Return each so many-th of the cases of an operation that hold no other floats than float32."""
    found = [
        case
        for case in runner.select([operation])
        if {t.dtype.name for _, t in leaves(case.inputs) if isinstance(t, np.ndarray)} <= ALLOWED
    ]
    return found[::every]


def fails(adapter: Adapter, asked: list[Case]) -> list[str]:
    """Return what is wrong with the answers, a line for each that is."""
    assert asked
    verdicts = []
    for case in asked:
        answer = adapter.run(runner.request(case))
        dialect = adapter.dialect.get(case.operation, {})
        verdicts.append(judge(load(case.operation), case, dialect, answer, canonical=False))
    return [f"{v.case.id}: {v.status} {v.message}" for v in verdicts if v.status != "passed"]


def read_only(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    array.flags.writeable = False
    return array


@pytest.mark.long
@pytest.mark.parametrize("operation", names())
def test_read_only_inputs_are_enough(operation: str) -> None:
    adapter = canonical("read-only", np.__version__, read_only, np.asarray, "numpy")
    assert fails(adapter, cases(operation)) == []


@pytest.fixture
def small() -> Iterator[Adapter]:
    """Return the adapter of a device that has no float64 (schedules, by contract float64, are NumPy's)."""
    xp = pytest.importorskip("array_api_strict")
    has = CAPABILITIES["array_api_strict"]
    xp.set_array_api_strict_flags(
        data_dependent_shapes=has.data_dependent_shapes, boolean_indexing=has.boolean_indexing
    )
    device, host = xp.Device("no_float64"), xp.Device("CPU_DEVICE")

    def to_numpy(array: Any) -> np.ndarray[Any, Any]:
        assert array.device == device, f"a result lies on {array.device}"
        return np.asarray(array.to_device(host))

    yield canonical(
        "no_float64",
        xp.__version__,
        lambda array: xp.asarray(array, device=device, copy=True),
        to_numpy,
        "array_api_strict",
    )
    xp.reset_array_api_strict_flags()


@pytest.mark.parametrize("operation", names())
def test_a_device_without_float64_is_enough(operation: str, small: Adapter) -> None:
    assert fails(small, cases(operation, every=8)) == []


@pytest.mark.long
@pytest.mark.parametrize("operation", names())
def test_no_case_needs_float64(operation: str, small: Adapter) -> None:
    assert fails(small, cases(operation)) == []
