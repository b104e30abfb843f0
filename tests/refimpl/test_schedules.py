from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from refimpl import schedules
from refimpl.schedules import constant, exponential, polynomial

ZHU_GUPTA = [0, 0, 0, 0.2640625, 0.4625, 0.6046875, 0.7, 0.7578125, 0.7875, 0.7984375, 0.8, 0.8]
ALL: list[Callable[..., schedules.Schedule]] = [constant, polynomial, exponential]


def update_steps(schedule: schedules.Schedule) -> list[int]:
    return [int(step) for step in np.flatnonzero(schedule[1])]


def test_zhu_gupta_by_hand() -> None:
    sparsity, _ = polynomial(steps=12, begin=2, end=10, final=0.8)
    np.testing.assert_allclose(sparsity, ZHU_GUPTA, rtol=1e-15, atol=0)


def test_first_step_begin_plus_one_is_one_step_ahead() -> None:
    sparsity, _ = polynomial(steps=11, begin=2, end=10, final=0.8, first_step="begin_plus_one")
    np.testing.assert_allclose(sparsity, ZHU_GUPTA[1:], rtol=1e-15, atol=0)
    early, _ = polynomial(steps=1, end=100, final=0.9, first_step="begin_plus_one")
    assert early[0] == pytest.approx(0.9 * (1 - 0.99**3), rel=1e-14)
    geometric, _ = exponential(steps=2, end=2, final=0.75, first_step="begin_plus_one")
    np.testing.assert_allclose(geometric, [0.5, 0.75], rtol=1e-15)


@pytest.mark.parametrize(
    ("power", "expected"),
    [
        (1, [0.5, 0.575, 0.65, 0.725, 0.8]),
        (2, [0.5, 0.63125, 0.725, 0.78125, 0.8]),
        (3, [0.5, 0.6734375, 0.7625, 0.7953125, 0.8]),
        (0.5, [0.5, 0.8 - 0.3 * 0.75**0.5, 0.8 - 0.3 * 0.5**0.5, 0.65, 0.8]),
    ],
)
def test_power_and_initial(power: float, expected: list[float]) -> None:
    sparsity, _ = polynomial(steps=5, end=4, initial=0.5, final=0.8, power=power)
    np.testing.assert_allclose(sparsity, expected, rtol=1e-15)


def test_exponential_by_hand() -> None:
    # values that two libraries print
    sparsity, _ = exponential(steps=10, end=8, final=0.8)
    expected = [0, 0.1822346, 0.3312597, 0.4531273, 0.5527864, 0.6342842, 0.7009302, 0.7554311]
    np.testing.assert_allclose(sparsity, [*expected, 0.8, 0.8], atol=5e-8)
    # density 1/2, then half of it at every step
    sparsity, _ = exponential(steps=6, begin=1, end=3, initial=0.5, final=0.875)
    np.testing.assert_allclose(sparsity, [0.5, 0.5, 0.75, 0.875, 0.875, 0.875], rtol=1e-15)


def test_constant_by_hand() -> None:
    sparsity, updates = constant(steps=7, begin=2, end=5, final=0.6, frequency=2)
    np.testing.assert_array_equal(sparsity, [0, 0, 0.6, 0.6, 0.6, 0.6, 0.6])
    np.testing.assert_array_equal(updates, [0, 0, 1, 0, 1, 1, 0])
    sparsity, _ = constant(steps=3, begin=1, end=2, initial=0.25, final=0.5)
    np.testing.assert_array_equal(sparsity, [0.25, 0.5, 0.5])


@pytest.mark.parametrize("schedule", ALL)
def test_outside_the_interval_the_ends_are_exact(schedule: Any) -> None:
    # .8 + (.3 - .8) is 0.30000000000000004
    sparsity, _ = schedule(steps=9, begin=3, end=6, initial=0.3, final=0.8)
    assert (sparsity[:3] == 0.3).all()
    assert (sparsity[6:] == 0.8).all()
    assert (np.diff(sparsity) >= 0).all()


@pytest.mark.parametrize("schedule", ALL)
def test_begin_equal_to_end_is_a_jump_at_that_step(schedule: Any) -> None:
    sparsity, updates = schedule(steps=5, begin=2, end=2, initial=0.1, final=0.6, frequency=7)
    np.testing.assert_array_equal(sparsity, [0.1, 0.1, 0.6, 0.6, 0.6])
    np.testing.assert_array_equal(updates, [0, 0, 1, 0, 0])


@pytest.mark.parametrize("schedule", ALL)
def test_update_grid(schedule: Any) -> None:
    options = {"steps": 20, "begin": 3, "end": 14, "final": 0.5, "frequency": 5}
    assert update_steps(schedule(**options)) == [3, 8, 13, 14]
    assert update_steps(schedule(**options, grid="from_zero")) == [5, 10, 14]
    assert update_steps(schedule(**options, at_end="on_grid")) == [3, 8, 13]
    assert update_steps(schedule(**options, grid="from_zero", at_end="on_grid")) == [5, 10]
    # the end may lie beyond what is asked for
    assert update_steps(schedule(**{**options, "steps": 13})) == [3, 8]


def test_the_last_target_is_reached_off_the_grid() -> None:
    sparsity, updates = polynomial(steps=120, end=100, final=0.8, frequency=30)
    assert sparsity[np.flatnonzero(updates)[-1]] == 0.8
    sparsity, updates = polynomial(steps=120, end=100, final=0.8, frequency=30, at_end="on_grid")
    assert sparsity[np.flatnonzero(updates)[-1]] == pytest.approx(0.7992)


@pytest.mark.parametrize("schedule", ALL)
def test_dtypes_and_lengths(schedule: Any) -> None:
    for steps in (0, 1, 4):
        sparsity, updates = schedule(steps=steps, end=3, final=0.5)
        assert sparsity.dtype == np.float64
        assert sparsity.shape == (steps,)
        assert updates.dtype == np.int32
        assert updates.shape == (steps,)


@pytest.mark.parametrize("schedule", ALL)
@pytest.mark.parametrize(
    "wrong",
    [
        {"final": 1.1},
        {"final": -0.1},
        {"final": float("nan")},
        {"initial": 0.6},
        {"initial": -0.1},
        {"begin": 5},
        {"begin": -1},
        {"frequency": 0},
        {"steps": -1},
        {"grid": "from_end"},
        {"at_end": "never"},
    ],
    ids=str,
)
def test_bad_parameters_are_refused(schedule: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        schedule(**{"steps": 8, "end": 4, "final": 0.5, **wrong})
    assert "\n" not in str(caught.value)


def test_bad_parameters_of_one_schedule() -> None:
    for power in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="power"):
            polynomial(steps=3, end=2, final=0.5, power=power)
    with pytest.raises(ValueError, match="final"):
        exponential(steps=3, end=2, final=1.0)
    with pytest.raises(ValueError, match="first_step"):
        polynomial(steps=3, end=2, final=0.5, first_step="end")
    with pytest.raises(TypeError, match="frequency"):
        polynomial(steps=3, end=2, final=0.5, frequency=1.5)  # type: ignore[arg-type]
