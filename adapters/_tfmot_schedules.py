"""TensorFlow Model Optimization's schedules, which compute in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot

from adapters.base import Operations

Outputs = dict[str, Any]
sparsity: Any = tfmot.sparsity.keras

operations = Operations()


def _steps(schedule: Any, steps: int) -> Outputs:
    asked = [schedule(tf.constant(step)) for step in range(steps)]
    return {
        "sparsity": np.array([float(value) for _, value in asked], np.float64),
        "updates": np.array([int(update) for update, _ in asked], np.int32),
    }


@operations.operation("schedule.polynomial", ("float64",), {"at_end": "on_grid"})
def schedule_polynomial(
    *, begin: int, end: int, initial: float, final: float, power: float, frequency: int, steps: int
) -> Outputs:
    """``PolynomialDecay``."""
    return _steps(sparsity.PolynomialDecay(initial, final, begin, end, power, frequency), steps)


operations.lacks(
    "ConstantSparsity returns its target for every step, also for those before begin_step",
    "schedule.constant",
)
operations.lacks("PolynomialDecay is the only schedule that rises", "schedule.exponential")
