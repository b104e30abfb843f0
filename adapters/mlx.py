"""MLX on the CPU: ``mlx.optimizers`` with its clipping, ``mlx.nn`` layers and losses, ``mx.vjp``."""

from __future__ import annotations

from importlib.metadata import version

import mlx.core as mx

from adapters import (
    _mlx_clipping,
    _mlx_images,
    _mlx_layers,
    _mlx_losses,
    _mlx_optimizers,
    _mlx_regularization,
)
from adapters._mlx_arrays import to_mlx, to_numpy
from adapters.base import Adapter

mx.set_default_device(mx.cpu)  # the only device that has float64

FAMILIES = (
    _mlx_clipping,
    _mlx_images,
    _mlx_layers,
    _mlx_losses,
    _mlx_optimizers,
    _mlx_regularization,
)

adapter = Adapter(
    "mlx",
    version=version("mlx"),
    homepage="https://ml-explore.github.io/mlx",
    to_native=to_mlx,
    to_numpy=to_numpy,
)
for _family in FAMILIES:
    adapter.include(_family.operations)

LACKING = {
    "MLX has no pruning": """
        score.magnitude score.gradient score.taylor score.snip score.movement score.fisher score.obd
        score.wanda prune.threshold prune.fraction prune.structured prune.n_m prune.block prune.shrink
        prune.clipped_gradient prune.iterative""",
    "MLX schedules learning rates only": """
        schedule.constant schedule.polynomial schedule.exponential""",
    "MLX has no clip by the norms of units or of examples": "clip.unitwise clip.per_example",
    "the norms of MLX are of one process": "dist.global_norm",
    "MLX has no groups in penalties, no other proximal steps and no projections": """
        penalty.group_lasso prox.l2 prox.elastic_net prox.group_lasso prox.hard_threshold
        project.l1_ball project.max_norm""",
    "MLX has no loop of its own that would accumulate, scale or skip": """
        train.step train.trajectory""",
    "mlx.nn.Dropout draws its own mask and takes none": "layer.dropout",
}


for why, operations in LACKING.items():
    adapter.lacks(why, operations)
