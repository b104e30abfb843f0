"""The canonical implementation on JAX arrays, with its default of 32 bits (no x64)."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np

from adapters._jax_cache import keep_compiled
from adapters._refimpl import canonical

keep_compiled()
# That int64 becomes int32 is what running without x64 means.
warnings.filterwarnings("ignore", message="Explicitly requested dtype", category=UserWarning)

adapter = canonical("jax", jax.__version__, jnp.asarray, np.asarray, "jax")
