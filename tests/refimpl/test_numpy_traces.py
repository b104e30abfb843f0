"""Formulas that are evaluated once, for elements that note the operations, and then block by block."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from refimpl import numpy_forms
from refimpl.numpy_traces import traced

FORMULAS: dict[str, tuple[Callable[..., Any], int, int]] = {
    "one after the other": (lambda a, b, c: ((a + b) * c - 2.5,), 3, 1),
    "what is between": (lambda a, b, c: ((a * b) + (b * c), (a - b) / c), 5, 2),
    "a result that is read": (lambda a, b, c: (s := a + 1, s * s - b), 3, 1),
    "a result twice": (lambda a, b, c: (s := -a, s, c), 3, 0),
    "what was given": (lambda a, b, c: (c, a), 2, 0),
    "what nobody reads": (lambda a, b, c: (a * 2, b * 3)[:1], 2, 1),
    "flags": (lambda a, b, c: (flags := a > b, flags, ~flags), 3, 0),
    "itself twice": (lambda a, b, c: ((t := a * b) * t, np.sqrt(t * t) ** 2), 5, 2),
    "functions and constants": (
        lambda a, b, c: (np.maximum(np.exp(-abs(a)), np.float32(0.3)), 1 / (b * b + 1)),
        7,
        1,
    ),
}
"""Each with how many operations and how many arrays between it takes at most."""


def arrays(size: int = 23, dtype: Any = np.float32) -> list[Any]:
    rng = np.random.default_rng(5)
    return [rng.standard_normal(size).astype(dtype) for _ in range(3)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numpy_forms, "BLOCK", 7)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_formula_in_blocks_has_the_same_bits(name: str, dtype: Any) -> None:
    formula, calls, between = FORMULAS[name]
    given = arrays(dtype=dtype)
    before = [array.copy() for array in given]
    trace = traced(formula, [array[:1] for array in given])
    assert trace is not None
    assert (len(trace.calls) <= calls, len(trace.between) <= between) == (True, True)
    found = numpy_forms.elementwise(formula, given)
    for one, other in zip(found, formula(*given), strict=True):
        assert (one.dtype, one.tobytes()) == (other.dtype, other.tobytes())
    for one, other in zip(given, before, strict=True):
        assert one.tobytes() == other.tobytes()
    assert not any(np.shares_memory(result, array) for result in found for array in given)


def test_two_dtypes_have_arrays_of_their_own() -> None:
    def formula(a: Any, b: Any, c: Any) -> Any:
        return (a * b + 1) * (c * 2), a * b

    one, other, _ = arrays()
    wide = arrays(dtype=np.float64)[2]
    trace = traced(formula, [one[:1], other[:1], wide[:1]])
    assert trace is not None
    assert trace.results == [np.float64, np.float32]
    for got, known in zip(
        numpy_forms.elementwise(formula, [one, other, wide]), formula(one, other, wide), strict=True
    ):
        assert (got.dtype, got.tobytes()) == (known.dtype, known.tobytes())


@pytest.mark.parametrize(
    "formula",
    [
        lambda a, b, c: (np.where(a > 0, b, c),),
        lambda a, b, c: (a + np.ones_like(a),),
        lambda a, b, c: (a.astype(np.float64),),
        lambda a, b, c: (a + np.zeros(1, np.float32),),
        lambda a, b, c: (np.modf(a)[0] + b,),
        lambda a, b, c: (np.add(a, b, dtype=np.float64),),
        lambda a, b, c: (a, np.zeros(len(c), np.float32)) if isinstance(a, np.ndarray) else (a, 0),
    ],
    ids=["where", "ones", "astype", "array", "modf", "option", "no-element"],
)
def test_what_is_no_list_of_operations_is_done_as_it_is_written(formula: Any) -> None:
    given = arrays()
    assert traced(formula, [array[:1] for array in given]) is None
    for one, other in zip(numpy_forms.elementwise(formula, given), formula(*given), strict=True):
        assert (one.dtype, one.tobytes()) == (other.dtype, other.tobytes())


def test_a_question_about_a_value_is_not_traced() -> None:
    assert traced(lambda a: (a if a > 0 else -a,), [np.ones(1)]) is None
    assert traced(lambda a: (a * float(a),), [np.ones(1)]) is None
    assert traced(lambda a: (np.add.reduce(a) + a,), [np.ones(1)]) is None


def test_what_a_formula_refuses_is_refused() -> None:
    def formula(a: Any) -> Any:
        raise ValueError("not today")

    with pytest.raises(ValueError, match="not today"):
        traced(formula, [np.ones(1)])


@pytest.mark.parametrize("name", ["what is between", "what was given"])
def test_nothing_stays_in_memory_until_garbage_is_collected(name: str) -> None:
    given = arrays()
    counts = [sys.getrefcount(array) for array in given]
    gc.disable()
    try:
        elements = [array[:1] for array in given]
        traced(FORMULAS[name][0], elements)
        traced(lambda a, b, c: (np.where(a, b, c),), elements)
        del elements
        assert [sys.getrefcount(array) for array in given] == counts
    finally:
        gc.enable()
