"""The canonical implementation on JAX arrays, with its default of 32 bits (no x64)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from adapters._refimpl import canonical

adapter = canonical(
    "jax",
    jax.__version__,
    jnp.asarray,
    np.asarray,
    ("float32", "float16", "bfloat16"),
    {"subnormals": "flush"},
)
