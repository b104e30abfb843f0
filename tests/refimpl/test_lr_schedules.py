"""Learning-rate schedules against hand computation and PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from refimpl import lr_schedules
from refimpl.trainer import Plan, start, train_step

torch = pytest.importorskip("torch")


def run_torch(make: Any, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_step_is_that_of_torch() -> None:
    theirs = run_torch(lambda o: torch.optim.lr_scheduler.StepLR(o, 3, gamma=0.25), 10)
    ours = lr_schedules.step(0.5, steps=10, every=3, factor=0.25)
    assert ours == theirs
    assert ours[2:4] == [0.5, 0.125]


def test_cosine_is_that_of_torch() -> None:
    make = torch.optim.lr_scheduler.CosineAnnealingLR
    theirs = run_torch(lambda o: make(o, T_max=8, eta_min=0.1), 8)
    ours = lr_schedules.cosine(0.5, steps=8, final=0.1)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert ours[0] == 0.5
    assert ours[4] == pytest.approx(0.3, rel=1e-15)


def test_warm_up_climbs_to_what_the_schedule_has() -> None:
    rates = lr_schedules.step(0.8, steps=6, every=5, factor=0.5)
    assert lr_schedules.warm_up(rates, 4) == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.4])
    assert lr_schedules.warm_up(rates, 0) == rates
    assert lr_schedules.warm_up([0.5, 0.5], 4) == [0.125, 0.25]


def test_constant_has_one_rate_per_step() -> None:
    assert lr_schedules.constant(0.3, steps=3) == [0.3, 0.3, 0.3]
    assert lr_schedules.cosine(0.3, steps=0) == []


def test_a_plan_takes_the_description_of_a_schedule() -> None:
    described = {"schedule": "step", "lr": 0.5, "steps": 3, "every": 2, "warm_up": 2}
    plan = Plan({"operation": "optim.sgd", "lr": described})
    state = start(plan, [np.array([0.0])])
    moved = []
    for _ in range(3):
        state = train_step(plan, state, [[np.array([1.0])]])
        moved.append(float(state.params[0][0]))
    np.testing.assert_allclose(moved, [-0.25, -0.75, -0.8])
    with pytest.raises(ValueError, match="lr is given for 3 steps, but this is step 3"):
        train_step(plan, state, [[np.array([1.0])]])


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"schedule": "linear", "lr": 0.1, "steps": 3}, "there are: constant, step, cosine"),
        ({"schedule": "cosine", "lr": 0.1}, "missing 1 required keyword-only argument: 'steps'"),
        ({"schedule": "cosine", "lr": 0.1, "steps": 3, "every": 2}, "'every'"),
        ({"schedule": "cosine", "lr": -0.1, "steps": 3}, "lr must be finite and at least 0"),
        ({"schedule": "cosine", "lr": 0.1, "steps": 3, "final": 0.2}, "final must be in"),
        ({"schedule": "step", "lr": 0.1, "steps": 3, "every": 0}, "every must be at least 1"),
        ({"schedule": "step", "lr": 0.1, "steps": 3, "every": 1, "factor": 1.5}, "factor must"),
        ({"schedule": "constant", "lr": float("nan"), "steps": 3}, "lr must be finite"),
        ({"schedule": "constant", "lr": 0.1, "steps": -1}, "steps must be at least 0"),
    ],
)
def test_schedules_without_a_meaning_are_refused(described: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan({"operation": "optim.sgd", "lr": described})


def test_a_plan_without_a_learning_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="needs lr"):
        Plan({"operation": "optim.sgd"})
