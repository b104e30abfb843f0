"""Optax's clipping of each example's gradient."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from adapters._optax_arrays import Outputs, Tensors
from adapters.base import Operations, Unsupported

operations = Operations()


@operations.operation(
    "clip.per_example",
    dialect={
        "norm": "naive", "accumulate": "input_dtype", "nonfinite": "multiply",
        "negative_limit": "flip_sign", "nan_limit": "ignore",
    },
)  # fmt: skip
def clip_per_example(grads: Tensors, *, max_norm: float, reduction: str, scope: str) -> Outputs:
    """``optax.per_example_global_norm_clip``, whose sum a user divides by the number of examples."""
    given = [g for g in grads if g is not None]
    if not given:
        raise Unsupported("optax.per_example_global_norm_clip needs a gradient")
    if reduction == "mean" and not len(given[0]):
        raise Unsupported("optax.per_example_global_norm_clip leaves the mean to its user")
    trees = [given] if scope == "all" else [[g] for g in given]

    def run(trees: Any) -> Any:
        sums = [s for t in trees for s in optax.per_example_global_norm_clip(t, max_norm)[0]]
        norms = [jax.vmap(optax.tree.norm)(tree) for tree in trees]
        if reduction == "mean":
            sums = [s / len(given[0]) for s in sums]
        return sums, [n.astype(jnp.promote_types(n.dtype, jnp.float32)) for n in norms]

    sums, norms = jax.jit(run)(trees)
    clipped, rows = iter(sums), iter(norms)
    return {
        "grads": [None if g is None else next(clipped) for g in grads],
        "norms": norms[0]
        if scope == "all"
        else jnp.stack([jnp.zeros_like(norms[0]) if g is None else next(rows) for g in grads]),
    }
