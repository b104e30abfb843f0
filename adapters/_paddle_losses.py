"""PaddlePaddle's losses: those of ``paddle.nn.functional``, and ``paddle.grad``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import paddle
from paddle.nn import functional

from adapters._backward import LOSSES
from adapters._paddle_arrays import WIDE, Outputs, Tensor
from adapters.base import Operations

operations = Operations()


def _loss(function: Callable[..., Tensor]) -> Any:
    def run(x: Tensor, targets: Tensor, *, reduction: str) -> Outputs:
        leaf = x.clone().detach()
        leaf.stop_gradient = False
        loss = function(leaf, targets, reduction=reduction)
        return {"loss": loss.detach(), "dx": paddle.grad(loss, leaf)[0]}

    return run


LOGITS = {"outside_targets": "extrapolate", "infinite_logit": "linear_form"}

for _operation, _function, _dialect in (
    ("loss.softmax_cross_entropy", functional.cross_entropy, {}),
    ("loss.mse", functional.mse_loss, {}),
    ("loss.binary_cross_entropy", functional.binary_cross_entropy_with_logits, LOGITS),
):
    operations.operation(_operation, WIDE, LOSSES | _dialect)(_loss(_function))
