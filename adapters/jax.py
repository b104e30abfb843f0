"""The canonical implementation on JAX arrays, with its default of 32 bits (no x64).

JAX compiles every operation anew for every shape, which is nearly all the time that the suite takes on it.
So what is compiled is kept from run to run, in the user's cache folder or in JAX_COMPILATION_CACHE_DIR.
"""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np

from adapters._refimpl import canonical
from conformance.environments import cache

if jax.config.jax_compilation_cache_dir is None:
    jax.config.update("jax_compilation_cache_dir", str(cache().parent / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
# That int64 becomes int32 is what running without x64 means.
warnings.filterwarnings("ignore", message="Explicitly requested dtype", category=UserWarning)

adapter = canonical("jax", jax.__version__, jnp.asarray, np.asarray, "jax")
