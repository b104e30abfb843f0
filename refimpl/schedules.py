"""Sparsity schedules: the target at each step, and the steps at which masks are recomputed.

Every schedule returns two NumPy arrays of length ``steps``, one entry per step 0 ... steps - 1:

- ``sparsity`` (float64): the fraction of weights that should be zero. It is ``initial`` up to
  ``begin``, ``final`` from ``end`` on; where begin = end it is ``final`` from that step on;
- ``updates`` (int32): 1 where the mask is recomputed: begin <= step <= end and
  (step - begin) mod frequency = 0, and at ``end``, so that the last target is always reached.

Shared parameters: integers 0 <= ``begin`` <= ``end``, ``frequency`` >= 1, ``steps`` >= 0 (all in
steps); fractions 0 <= ``initial`` <= ``final`` <= 1. A target that falls is refused: what is pruned
stays pruned, so it could not be followed.

Shared dials: ``grid`` "from_begin" counts ``frequency`` from ``begin``, "from_zero" from step 0;
``at_end`` "update" always recomputes at ``end``, "on_grid" only if ``end`` is on the grid.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import checks

Schedule: TypeAlias = tuple[NDArray[np.float64], NDArray[np.int32]]


def constant(
    *,
    steps: int,
    final: float,
    initial: float = 0.0,
    begin: int = 0,
    end: int,
    frequency: int = 1,
    grid: str = "from_begin",
    at_end: str = "update",
) -> Schedule:
    """Return one target: ``initial`` before ``begin`` (as a rule 0), then ``final``.

    Parameters, dials, results and refusals (ValueError): see the module docstring.
    """
    _check(steps, initial, final, begin, end)
    sparsity = np.where(np.arange(steps) >= begin, final, initial).astype(np.float64)
    return sparsity, _updates(steps, begin, end, frequency, grid, at_end)


def polynomial(
    *,
    steps: int,
    final: float,
    initial: float = 0.0,
    begin: int = 0,
    end: int,
    power: float = 3.0,
    frequency: int = 1,
    first_step: str = "begin",
    grid: str = "from_begin",
    at_end: str = "update",
) -> Schedule:
    """Return a polynomial approach to the final sparsity; with power 3 that of Zhu & Gupta 2017.

    s(t) = final + (initial - final) * (1 - p)**power, where p is the progress
    (t - begin) / (end - begin) clipped to [0, 1], and ``power`` > 0.

    Dial: ``first_step`` "begin" has p = 0 at ``begin``; "begin_plus_one" is one step ahead,
    p = (t + 1 - begin) / (end - begin). Other parameters, dials, results and refusals (ValueError):
    see the module docstring.
    Source: Zhu & Gupta 2017, "To prune, or not to prune", equation 1.
    """
    _check(steps, initial, final, begin, end)
    power = checks.number("power", power, low=0.0)
    if power == 0.0:
        raise ValueError("power must be above 0, got 0.0")
    p = _progress(steps, begin, end, first_step)
    curve = final + (initial - final) * (1.0 - p) ** power
    return _clamp(p, curve, initial, final), _updates(steps, begin, end, frequency, grid, at_end)


def exponential(
    *,
    steps: int,
    final: float,
    initial: float = 0.0,
    begin: int = 0,
    end: int,
    frequency: int = 1,
    first_step: str = "begin",
    grid: str = "from_begin",
    at_end: str = "update",
) -> Schedule:
    """Return a schedule whose density falls by the same factor every step.

    s(t) = 1 - (1 - initial)**(1 - p) * (1 - final)**p, with the progress p of :func:`polynomial`:
    the kept fraction goes from 1 - initial to 1 - final geometrically. ``final`` is below 1, for
    no constant factor reaches a density of 0.

    Dial ``first_step``: as in :func:`polynomial`. Other parameters, dials, results and refusals
    (ValueError): see the module docstring.
    Source: the exponential schedule of NNCF and of Intel Neural Compressor.
    """
    _check(steps, initial, final, begin, end)
    checks.number("final", final, low=0.0, below=1.0)
    p = _progress(steps, begin, end, first_step)
    curve = 1.0 - (1.0 - initial) ** (1.0 - p) * (1.0 - final) ** p
    return _clamp(p, curve, initial, final), _updates(steps, begin, end, frequency, grid, at_end)


def _check(steps: int, initial: float, final: float, begin: int, end: int) -> None:
    checks.integer("steps", steps, low=0)
    checks.integer("begin", begin, low=0)
    checks.integer("end", end, low=0)
    checks.number("initial", initial, low=0.0, high=1.0)
    checks.number("final", final, low=0.0, high=1.0)
    if end < begin:
        raise ValueError(f"end must not be before begin, got begin {begin} and end {end}")
    if final < initial:
        raise ValueError(f"final must be at least initial, got {initial} to {final}")


def _progress(steps: int, begin: int, end: int, first_step: str) -> NDArray[np.float64]:
    checks.choice("first_step", first_step, ("begin", "begin_plus_one"))
    step = np.arange(steps, dtype=np.float64)
    if begin == end:
        return (step >= begin).astype(np.float64)
    ahead = 1 if first_step == "begin_plus_one" else 0
    return np.clip((step + ahead - begin) / (end - begin), 0.0, 1.0)


def _clamp(
    p: NDArray[np.float64], curve: NDArray[np.float64], initial: float, final: float
) -> NDArray[np.float64]:
    """Make both ends exact: final + (initial - final) is not always initial in floating point."""
    inside = np.clip(curve, initial, final)
    return np.where(p <= 0.0, initial, np.where(p >= 1.0, final, inside)).astype(np.float64)


def _updates(
    steps: int, begin: int, end: int, frequency: int, grid: str, at_end: str
) -> NDArray[np.int32]:
    frequency = checks.integer("frequency", frequency, low=1)
    checks.choice("grid", grid, ("from_begin", "from_zero"))
    checks.choice("at_end", at_end, ("update", "on_grid"))
    step = np.arange(steps)
    origin = begin if grid == "from_begin" else 0
    due = (begin <= step) & (step <= end) & ((step - origin) % frequency == 0)
    if at_end == "update":
        due = due | (step == end)
    return due.astype(np.int32)
