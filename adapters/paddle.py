"""PaddlePaddle: ``paddle.nn.utils``, ``paddle.optimizer`` and ``paddle.nn.functional``, on the CPU."""

from __future__ import annotations

import numpy as np
import paddle

from adapters import (
    _paddle_clipping,
    _paddle_images,
    _paddle_layers,
    _paddle_losses,
    _paddle_optimizers,
    _paddle_regularization,
)
from adapters._paddle_arrays import WIDE, refusing
from adapters.base import Adapter

FAMILIES = (
    _paddle_clipping,
    _paddle_images,
    _paddle_layers,
    _paddle_losses,
    _paddle_optimizers,
    _paddle_regularization,
)

adapter = Adapter(
    "paddle",
    version=paddle.__version__,
    homepage="https://www.paddlepaddle.org.cn/en",
    to_native=paddle.to_tensor,
    to_numpy=lambda tensor: np.asarray(tensor.numpy()),
    rejections=(IndexError,),  # a label or an axis that is out of range
)
for _family in FAMILIES:
    adapter.include(_family.operations)
adapter.functions = {name: refusing(function) for name, function in adapter.functions.items()}

LACKING = {
    "PaddlePaddle prunes in another package, PaddleSlim": """
        score.magnitude score.gradient score.taylor score.snip score.movement score.fisher score.obd
        score.wanda prune.threshold prune.fraction prune.structured prune.n_m prune.block prune.shrink
        prune.clipped_gradient prune.iterative""",
    "PaddlePaddle schedules learning rates only": """
        schedule.constant schedule.polynomial schedule.exponential""",
    "PaddlePaddle has no clip by the norms of units or of examples": "clip.unitwise clip.per_example",
    "PaddlePaddle's sharded norms need a process group; this suite runs one process": """
        dist.global_norm""",
    "the regularisers of PaddlePaddle are applied inside its optimisers and return nothing": """
        penalty.l1 penalty.l2 penalty.elastic_net penalty.group_lasso""",
    "PaddlePaddle has no such operator": """
        prox.l2 prox.elastic_net prox.group_lasso prox.hard_threshold project.l1_ball
        project.max_norm""",
    "paddle.nn.functional.dropout draws its own mask and takes none": "layer.dropout",
    "the weights of paddle.nn.SimpleRNN are parameters of its own": "layer.rnn",
}


for why, operations in LACKING.items():
    adapter.lacks(why, operations, WIDE)
