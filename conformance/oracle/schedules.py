"""What the sparsity schedules share: progress, the steps that recompute masks, and their limits."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.exact import ONE, ZERO, Real, Reject, ctx, real
from conformance.formats import Tensor
from conformance.operation import Dial, Param, Value

Settings = dict[str, Any]

PARAMS = (
    Param("steps", "how many steps to list: 0 … steps-1", required=True),
    Param("final", "the sparsity from end on, in [0, 1]", required=True),
    Param("end", "the step that reaches final, at least begin", required=True),
    Param("begin", "the first step of the approach", default=0),
    Param("initial", "the sparsity up to begin, in [0, final]", default=0.0),
    Param("frequency", "steps between two recomputed masks", default=1),
)
OUTPUTS = {
    "sparsity": "float64: the target of each step 0 … steps-1",
    "updates": "int32: 1 at the steps that recompute the mask",
}
FIRST_STEP = Dial(
    "first_step",
    "begin",
    "the progress at step begin: none, or already one step's",
    ("begin_plus_one",),
)
UPDATE_DIALS = (
    Dial("grid", "from_begin", "where the count of frequency starts", ("from_zero",)),
    Dial("at_end", "update", "on_grid: the mask is recomputed at end only if the grid has it", ("on_grid",)),
)  # fmt: skip


def check(settings: Settings) -> None:
    """Refuse ranges without a meaning, and a target that falls: what is pruned stays pruned."""
    begin, end = settings["begin"], settings["end"]
    initial, final = float(settings["initial"]), float(settings["final"])
    for name, value in (("initial", initial), ("final", final)):
        if not 0 <= value <= 1:
            raise Reject(f"{name} must be in [0, 1], got {value}")
    if settings["steps"] < 0 or begin < 0:
        raise Reject("steps and begin must be at least 0")
    if end < begin:
        raise Reject(f"end must not be before begin, got {begin} to {end}")
    if final < initial:
        raise Reject(f"final must be at least initial, got {initial} to {final}")
    if settings["frequency"] < 1:
        raise Reject(f"frequency must be at least 1, got {settings['frequency']}")


def progress(step: int, settings: Settings) -> Real:
    """Return how far step is between begin (0) and end (1)."""
    begin, end = settings["begin"], settings["end"]
    if begin == end:
        return ONE if step >= begin else ZERO
    ahead = 1 if settings.get("first_step") == "begin_plus_one" else 0
    return min(max(real(step + ahead - begin) / (end - begin), ZERO), ONE)


def updates(settings: Settings) -> Tensor:
    """Return 1 at the steps that recompute the mask, as int32."""
    begin, end = settings["begin"], settings["end"]
    origin = begin if settings["grid"] == "from_begin" else 0
    due = [
        (begin <= t <= end and (t - origin) % settings["frequency"] == 0)
        or (t == end and settings["at_end"] == "update")
        for t in range(settings["steps"])
    ]
    return np.array(due, dtype=np.int32)


def sparsities(values: list[Real], scales: list[Real] | None = None) -> Value:
    """Return one sparsity per step as float64."""
    count = len(values)
    numbers, sizes = np.empty(count, dtype=object), np.empty(count, dtype=object)
    numbers[:] = values
    sizes[:] = scales or [ONE] * count
    return Value(numbers, "float64", sizes if scales else None)


def polynomial(settings: Settings) -> tuple[list[Real], list[Real]]:
    """Return final + (initial - final)·(1 - p)^power for each step, and the terms rounding acts on.

    The terms are the ends, the product, and its change when p is off by one roundoff.
    """
    initial, final, power = (real(float(settings[n])) for n in ("initial", "final", "power"))
    values, scales = [], []
    for step in range(settings["steps"]):
        rest = ONE - progress(step, settings)
        span = final - initial
        curve = rest**power if rest > 0 else ZERO
        slope = power * rest ** (power - 1) if rest > 0 else ZERO
        values.append(final - span * curve)
        scales.append(final + initial + span * (curve + slope))
    return values, scales


def exponential(settings: Settings) -> tuple[list[Real], list[Real]]:
    """Return 1 - (1 - initial)^(1 - p)·(1 - final)^p for each step, and the terms rounding acts on.

    The terms are the sparsity and the density, the latter as often as its logarithms and the steps
    taken may multiply an error.
    """
    kept, left = (ONE - real(float(settings[name])) for name in ("initial", "final"))
    logs = abs(ctx.log(kept)) + abs(ctx.log(left))
    values, scales = [], []
    for step in range(settings["steps"]):
        p = progress(step, settings)
        density = kept ** (1 - p) * left**p
        taken = min(max(step - settings["begin"], 0), settings["end"] - settings["begin"])
        values.append(ONE - density)
        scales.append(ONE - density + density * (1 + logs + taken))
    return values, scales
