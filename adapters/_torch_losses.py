"""PyTorch's losses: those of ``torch.nn.functional``, and ``torch.autograd.grad``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from adapters._backward import LOSSES
from adapters._torch_autograd import Outputs, refusing_shapes
from adapters.base import Operations

operations = Operations()


def _loss(function: Any) -> Callable[..., Outputs]:
    def run(x: Tensor, targets: Tensor, *, reduction: str = "mean") -> Outputs:
        x = x.detach().requires_grad_()
        loss = function(x, targets, reduction=reduction)
        return {"loss": loss, "dx": torch.autograd.grad(loss, x)[0]}

    return run


LOGITS = {"outside_targets": "extrapolate", "infinite_logit": "sigmoid_form"}

for _operation, _function, _dialect in (
    ("loss.softmax_cross_entropy", functional.cross_entropy, {}),
    ("loss.mse", functional.mse_loss, {}),
    ("loss.binary_cross_entropy", functional.binary_cross_entropy_with_logits, LOGITS),
):
    operations.operation(_operation, dialect=LOSSES | _dialect)(refusing_shapes(_loss(_function)))
