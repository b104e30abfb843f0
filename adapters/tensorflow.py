"""TensorFlow and its Keras: ``tf.clip_by_global_norm``, ``tf.keras.optimizers``, ``tf.nn`` and friends."""

from __future__ import annotations

import os

# Read when TensorFlow is loaded: its start-up notices would bury what matters on standard error.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

from adapters import (
    _tensorflow_clipping,
    _tensorflow_images,
    _tensorflow_layers,
    _tensorflow_losses,
    _tensorflow_optimizers,
    _tensorflow_regularization,
    _tensorflow_training,
)
from adapters.base import Adapter

FAMILIES = (
    _tensorflow_clipping,
    _tensorflow_images,
    _tensorflow_layers,
    _tensorflow_losses,
    _tensorflow_optimizers,
    _tensorflow_regularization,
    _tensorflow_training,
)

adapter = Adapter(
    "tensorflow",
    version=f"{tf.__version__}+keras.{tf.keras.__version__}",
    homepage="https://www.tensorflow.org",
    to_native=tf.constant,
    to_numpy=lambda tensor: tensor.numpy(),
    rejections=(tf.errors.InvalidArgumentError, TypeError),  # TypeError: of dtypes
)
for _family in FAMILIES:
    adapter.include(_family.operations)

LACKING = {
    "TensorFlow prunes in another package, TensorFlow Model Optimization": """
        score.magnitude score.gradient score.taylor score.snip score.movement score.fisher score.obd
        score.wanda prune.threshold prune.fraction prune.structured prune.n_m prune.block prune.shrink
        prune.clipped_gradient prune.iterative""",
    "Keras schedules learning rates only: in float32, with no first step and no mask updates": """
        schedule.constant schedule.polynomial schedule.exponential""",
    "TensorFlow has no clip by the norms of units or of examples": "clip.unitwise clip.per_example",
    "TensorFlow's sharded norms need a distribution strategy; this suite runs one process": """
        dist.global_norm""",
    "TensorFlow has no groups in its penalties and proximal steps": """
        penalty.group_lasso prox.group_lasso""",
    "TensorFlow has no such operator": "prox.hard_threshold project.l1_ball",
}


for why, operations in LACKING.items():
    adapter.lacks(why, operations)
