"""Keras 3 on JAX."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "jax"  # read when Keras is loaded
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax
import keras

from adapters._jax_cache import keep_compiled
from adapters.keras import adapter

keep_compiled()

__all__ = ["adapter", "jax", "keras"]
