"""Keras 3 on the backend that KERAS_BACKEND names: its optimisers' clipping, regularisers, constraints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from adapters import (
    _keras_clipping,
    _keras_images,
    _keras_layers,
    _keras_losses,
    _keras_optimizers,
    _keras_regularization,
    _keras_training,
)
from adapters._keras_backend import BACKEND, REFUSALS, VERSION, dtype_of, to_native, to_numpy
from adapters.base import Adapter, Function

FAMILIES = (
    _keras_clipping,
    _keras_images,
    _keras_layers,
    _keras_losses,
    _keras_optimizers,
    _keras_regularization,
    _keras_training,
)

adapter = Adapter(
    f"keras_{BACKEND}",
    version=f"{keras.__version__}+{BACKEND}.{VERSION.replace('+', '.')}",
    homepage="https://keras.io",
    to_native=to_native,
    to_numpy=to_numpy,
    rejections=REFUSALS,
)
for _family in FAMILIES:
    adapter.include(_family.operations)

LACKING = {
    "Keras has no pruning": """
        score.magnitude score.gradient score.taylor score.snip score.movement score.fisher score.obd
        score.wanda prune.threshold prune.fraction prune.structured prune.n_m prune.block prune.shrink
        prune.clipped_gradient prune.iterative""",
    "Keras schedules learning rates only: in float32, with no first step and no mask updates": """
        schedule.constant schedule.polynomial schedule.exponential""",
    "Keras has no clip by the norms of units or of examples": "clip.unitwise clip.per_example",
    "Keras takes norms in one process": "dist.global_norm",
    "Keras has no groups in its penalties, and no proximal steps": """
        penalty.group_lasso prox.l1 prox.l2 prox.elastic_net prox.group_lasso prox.hard_threshold""",
    "Keras has no such constraint": "project.l1_ball",
}


for why, operations in LACKING.items():
    adapter.lacks(why, operations)


def _in_floatx(function: Function) -> Function:
    """Let floatx be float64 where a tensor is: Keras keeps numbers of its own in it, so its users do so."""

    def run(**arguments: Any) -> Mapping[str, Any]:
        wide = any(
            dtype_of(x) == "float64" for x in keras.tree.flatten(arguments) if hasattr(x, "dtype")
        )
        keras.config.set_floatx("float64" if wide else "float32")
        try:
            return function(**arguments)
        finally:
            keras.config.set_floatx("float32")

    return run


for operation_id, function in adapter.functions.items():
    # TensorFlow rounds Python numbers to float32 whatever floatx is, which is one setting of a dial.
    if BACKEND != "tensorflow" or not operation_id.startswith(("optim.", "train.")):
        adapter.functions[operation_id] = _in_floatx(function)
