"""Optax, called as a user calls it: gradient transformations, projections, losses, MultiSteps; JAX's layers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adapters import (
    _optax_clipping,
    _optax_examples,
    _optax_images,
    _optax_layers,
    _optax_losses,
    _optax_optimizers,
    _optax_regularization,
    _optax_training,
)
from adapters._jax_cache import keep_compiled
from adapters.base import Adapter

keep_compiled()
jax.config.update("jax_enable_x64", True)  # without it JAX has no float64

FAMILIES = (
    _optax_clipping,
    _optax_examples,
    _optax_images,
    _optax_layers,
    _optax_losses,
    _optax_optimizers,
    _optax_regularization,
    _optax_training,
)

adapter = Adapter(
    "optax",
    version=f"{optax.__version__}+jax.{jax.__version__}",
    homepage="https://optax.readthedocs.io",
    to_native=jnp.asarray,
    to_numpy=np.asarray,
    rejections=(TypeError,),  # how JAX refuses shapes and dtypes
)
for _family in FAMILIES:
    adapter.include(_family.operations)

LACKING = {
    "Optax has no pruning": """
        score.magnitude score.gradient score.taylor score.snip score.movement score.fisher score.obd
        score.wanda prune.threshold prune.fraction prune.structured prune.n_m prune.block prune.shrink
        prune.clipped_gradient prune.iterative""",
    "Optax schedules hyper-parameters, without the steps that recompute masks": """
        schedule.constant schedule.polynomial schedule.exponential""",
    "jax.nn.standardize normalises, and keeps no running values": "layer.batch_norm",
    "Optax's norms are of the arrays of one program, however those are sharded": "dist.global_norm",
    "Optax has no penalties or proximal steps": """
        penalty.group_lasso prox.l1 prox.l2 prox.elastic_net prox.group_lasso prox.hard_threshold""",
}


for why, operations in LACKING.items():
    adapter.lacks(why, operations)
