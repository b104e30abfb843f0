"""Gradients of PyTorch's layers by ``torch.autograd.grad``, and how it refuses what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from adapters._backward import with_gradients
from adapters._torch_arrays import refusing

Outputs = dict[str, Any]


def _pull_back(
    function: Callable[..., Tensor], inputs: dict[str, Tensor], dy: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    leaves = {name: x.detach().requires_grad_() for name, x in inputs.items()}
    y = function(**leaves)
    grads = torch.autograd.grad(y, list(leaves.values()), dy)
    return y, dict(zip(leaves, grads, strict=True))


run = with_gradients(_pull_back)

refusing_shapes = refusing(RuntimeError, IndexError)
"""How PyTorch answers shapes that do not fit, around a layer or a loss."""
