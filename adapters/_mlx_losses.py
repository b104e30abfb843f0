"""MLX's losses: ``mlx.nn.losses``, and ``mx.value_and_grad``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from adapters._backward import LOSSES
from adapters._mlx_arrays import NARROW, Outputs, Tensor
from adapters.base import FLOATS, Operations, Unsupported

operations = Operations()


def _loss(function: Callable[..., Tensor]) -> Any:
    def run(x: Tensor, targets: Tensor, *, reduction: str) -> Outputs:
        loss, dx = mx.value_and_grad(lambda x: function(x, targets, reduction=reduction))(x)
        return {"loss": loss, "dx": dx}

    return run


def _cross_entropy(x: Tensor, targets: Tensor, reduction: str) -> Tensor:
    if x.ndim != 2 or targets.shape != x.shape[:1]:
        raise Unsupported("mlx.nn.losses.cross_entropy broadcasts")
    return nn.losses.cross_entropy(x, targets, reduction=reduction)


def _binary_cross_entropy(x: Tensor, targets: Tensor, reduction: str) -> Tensor:
    return nn.losses.binary_cross_entropy(x, targets, with_logits=True, reduction=reduction)


LOGITS = {"outside_targets": "extrapolate", "infinite_logit": "linear_form"}

for _operation, _function, _dtypes, _dialect in (
    ("loss.mse", nn.losses.mse_loss, FLOATS, {}),
    ("loss.softmax_cross_entropy", _cross_entropy, NARROW, {}),
    ("loss.binary_cross_entropy", _binary_cross_entropy, NARROW, LOGITS),
):
    operations.operation(_operation, _dtypes, LOSSES | _dialect)(_loss(_function))
