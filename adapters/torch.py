"""PyTorch: ``torch.nn.utils.clip_grad_norm_`` and friends, called as a user calls them."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import torch

from adapters.base import Adapter

Tensors = list[torch.Tensor | None]
Outputs = dict[str, Any]


def to_torch(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """Share the memory of an array, so that writing to the tensor is seen by the suite."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def to_numpy(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """Return a tensor's values as an array."""
    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


adapter = Adapter(
    "torch",
    version=torch.__version__,
    homepage="https://pytorch.org",
    to_native=to_torch,
    to_numpy=to_numpy,
)


def _parameters(grads: Tensors) -> list[torch.nn.Parameter]:
    """Return parameters that have these gradients."""
    parameters = []
    for grad in grads:
        shape, dtype = ((), torch.float32) if grad is None else (grad.shape, grad.dtype)
        parameter = torch.nn.Parameter(torch.zeros(shape, dtype=dtype))
        parameter.grad = grad
        parameters.append(parameter)
    return parameters


@adapter.operation(
    "clip.global_norm",
    dialect={
        "eps_at": "denominator", "eps": 1e-6, "nonfinite": "multiply", "norm": "naive",
        "norm_dtype": "input_dtype", "infinite_limit": "multiply",
        "negative_limit": "flip_sign", "nan_limit": "nan",
        "in_place": "documented",
    },
)  # fmt: skip
def clip_global_norm(grads: Tensors, *, max_norm: float, ord: float) -> Outputs:
    """``torch.nn.utils.clip_grad_norm_``."""
    parameters = _parameters(grads)
    total = torch.nn.utils.clip_grad_norm_(parameters, max_norm, norm_type=ord)
    return {"grads": [p.grad for p in parameters], "total_norm": total}
