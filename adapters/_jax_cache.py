"""JAX's compiled code, kept from run to run.

JAX compiles every operation anew for every shape, which is nearly all the time that the suite takes on it.
What is compiled is kept in the user's cache folder or in JAX_COMPILATION_CACHE_DIR.
"""

from __future__ import annotations

import jax

from conformance.environments import cache


def keep_compiled() -> None:
    """Keep all that is compiled from now on, however small."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache().parent / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
