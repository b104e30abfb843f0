"""TensorFlow Model Optimization: schedules, and masks of ``prune_low_magnitude``, on the Keras before 3."""

from __future__ import annotations

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # read when TensorFlow is loaded
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras

from adapters import _tfmot_pruning, _tfmot_schedules
from adapters.base import Adapter

__all__ = [
    "adapter",
    "tf_keras",
]  # what an environment must have is read from the imports of this file

adapter = Adapter(
    "tfmot",
    version=f"{tfmot.__version__}+tensorflow.{tf.__version__}",
    homepage="https://www.tensorflow.org/model_optimization",
    to_native=lambda array: array,
    to_numpy=np.asarray,
    rejections=(tf.errors.InvalidArgumentError, IndexError),
)
adapter.include(_tfmot_pruning.operations)
adapter.include(_tfmot_schedules.operations)
