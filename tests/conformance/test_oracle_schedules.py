"""The oracles of the constant and exponential schedules against recorded runs and hand computation."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from conformance.cases import Case
from conformance.operations import load


def schedule(name: str, dials: Any = None, **params: Any) -> tuple[Any, list[int]]:
    operation = load(f"schedule.{name}")
    defaults = {p.name: p.default for p in operation.params if p.default is not None}
    expected = operation.expect(Case(operation.id, "x", (), (), {}, defaults | params), dials or {})
    assert expected.rejects is None, expected.rejects
    outputs = expected.outputs
    return outputs["sparsity"].tensor, np.flatnonzero(outputs["updates"].tensor).tolist()


def test_exponential_as_nncf_and_neural_compressor_were_seen_to_schedule_it() -> None:
    recorded = [0.0, 0.1822346, 0.3312597, 0.4531273, 0.5527864, 0.6342842, 0.7009302, 0.7554311]
    sparsity, _ = schedule("exponential", steps=11, end=8, final=0.8)
    np.testing.assert_allclose(sparsity, [*recorded, 0.8, 0.8, 0.8], atol=5e-8)
    capped, _ = schedule("exponential", steps=5, end=4, final=0.98)
    np.testing.assert_allclose(capped, [0, 0.6239397, 0.8585786, 0.946817, 0.98], atol=5e-8)


def test_exponential_halves_the_kept_share() -> None:
    halves = [1 - Fraction(1, 2**k) for k in range(4)]
    sparsity, _ = schedule("exponential", steps=5, end=3, final=0.875)
    np.testing.assert_array_equal(sparsity, [float(s) for s in [*halves, halves[-1]]])
    ahead, _ = schedule(
        "exponential", {"first_step": "begin_plus_one"}, steps=3, end=3, final=0.875
    )
    np.testing.assert_array_equal(ahead, [float(s) for s in halves[1:]])


def test_exponential_is_what_removing_one_share_of_what_is_left_gives() -> None:
    left, share = 1 - 0.25, ((1 - 0.9) / (1 - 0.25)) ** (1 / 7)
    expected = []
    for _ in range(8):
        expected.append(1 - left)
        left *= share
    sparsity, _ = schedule("exponential", steps=10, begin=2, end=9, initial=0.25, final=0.9)
    np.testing.assert_allclose(sparsity[2:], expected, rtol=1e-14)


@pytest.mark.parametrize("name", ["constant", "exponential"])
def test_updates_by_hand(name: str) -> None:
    asked = {"steps": 16, "begin": 3, "end": 12, "final": 0.8, "frequency": 5}
    assert schedule(name, **asked)[1] == [3, 8, 12]
    assert schedule(name, {"at_end": "on_grid"}, **asked)[1] == [3, 8]
    assert schedule(name, {"grid": "from_zero"}, **asked)[1] == [5, 10, 12]


def test_constant_by_hand() -> None:
    sparsity, updates = schedule(
        "constant", steps=7, begin=2, end=4, initial=0.1, final=0.7, frequency=2
    )
    np.testing.assert_array_equal(sparsity, [0.1, 0.1, 0.7, 0.7, 0.7, 0.7, 0.7])
    assert updates == [2, 4]


def test_a_constant_is_asked_for_bit_for_bit() -> None:
    case = next(c for c in load("schedule.constant").generate() if c.id == "tenth")
    leaf = load("schedule.constant").expect(case).outputs["sparsity"]
    assert leaf.ulp == 0
    assert leaf.tensor[3] == 0.1 + 0.2 != 0.3


@pytest.mark.parametrize("evaluate", ["powers", "logarithms", "one factor"])
def test_ways_to_evaluate_the_exponential_stay_within_its_tolerance(evaluate: str) -> None:
    initial, final, begin, end = 0.125, 0.9, 4, 104
    case = Case("schedule.exponential", "x", (), (), {},
                {"steps": 110, "begin": begin, "end": end, "initial": initial, "final": final,
                 "frequency": 1})  # fmt: skip
    leaf = load("schedule.exponential").expect(case).outputs["sparsity"]
    p = np.clip((np.arange(110) - begin) / (end - begin), 0, 1)
    density: Any
    if evaluate == "powers":
        density = (1 - initial) ** (1 - p) * (1 - final) ** p
    elif evaluate == "logarithms":
        density = np.exp(np.log1p(-initial) * (1 - p) + np.log1p(-final) * p)
    else:
        factor = ((1 - final) / (1 - initial)) ** (1 / (end - begin))
        steps = np.clip(np.arange(110) - begin, 0, end - begin)
        density = (1 - initial) * np.cumprod(np.where(np.diff(steps, prepend=0) > 0, factor, 1.0))
    off = np.abs(1 - density - leaf.tensor) / np.spacing(leaf.scale)
    assert 0 < off.max() <= leaf.ulp
