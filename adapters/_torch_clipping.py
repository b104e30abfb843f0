"""PyTorch's clipping: ``torch.nn.utils``, and ``torch.clamp`` for an interval that is not symmetric."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from adapters._torch_arrays import refusing
from adapters.base import WITH_COMPLEX, Operations, Unsupported, interval

Tensors = list[Tensor | None]
Outputs = dict[str, Any]

operations = Operations()


def _parameters(grads: Tensors) -> list[torch.nn.Parameter]:
    """Return parameters that have these gradients."""
    parameters = []
    for grad in grads:
        shape, dtype = ((), torch.float32) if grad is None else (grad.shape, grad.dtype)
        parameter = torch.nn.Parameter(torch.zeros(shape, dtype=dtype))
        parameter.grad = grad
        parameters.append(parameter)
    return parameters


CLIP_NORM = {
    "eps_at": "denominator", "eps": 1e-6, "nonfinite": "multiply", "norm": "naive",
    "norm_dtype": "input_dtype", "infinite_limit": "multiply",
    "negative_limit": "flip_sign", "nan_limit": "nan", "in_place": "documented",
}  # fmt: skip


@operations.operation(
    "clip.global_norm", WITH_COMPLEX, CLIP_NORM | {"duplicates": "twice_in_place"}
)
def clip_global_norm(
    grads: Tensors, *, max_norm: float, ord: float, foreach: bool | None = None
) -> Outputs:
    """``torch.nn.utils.clip_grad_norm_``."""
    parameters = _parameters(grads)
    total = clip_grad_norm_(parameters, max_norm, norm_type=ord, foreach=foreach)
    return {"grads": [p.grad for p in parameters], "total_norm": total}


@operations.operation("clip.norm", WITH_COMPLEX, CLIP_NORM)
def clip_norm(
    grads: Tensors, *, max_norm: float, ord: float, foreach: bool | None = None
) -> Outputs:
    """``torch.nn.utils.clip_grad_norm_`` on one parameter at a time."""
    parameters = _parameters(grads)
    norms = [
        None if p.grad is None else clip_grad_norm_(p, max_norm, norm_type=ord, foreach=foreach)
        for p in parameters
    ]
    return {"grads": [p.grad for p in parameters], "norms": norms}


@operations.operation(
    "clip.value",
    dialect={"crossed_bounds": "max_wins", "nan_limit": "nan", "in_place": "documented"},
)
def clip_value(
    grads: Tensors,
    *,
    min: float | None = None,
    max: float | None = None,
    range: float | None = None,
    foreach: bool | None = None,
) -> Outputs:
    """``torch.nn.utils.clip_grad_value_``, whose interval is symmetric; ``torch.clamp`` for others."""
    min, max = interval(min, max, range, "PyTorch has no range that min and max could contradict")
    if max is not None and min == -max:
        parameters = _parameters(grads)
        clip_grad_value_(parameters, max, foreach=foreach)
        return {"grads": [p.grad for p in parameters]}
    if foreach is not None:
        raise Unsupported("torch.clamp, for an interval that is not symmetric, takes one tensor")
    if min is None and max is None:
        with refusing(RuntimeError, AssertionError):
            torch.clamp(torch.zeros(()))
    return {"grads": [None if g is None else torch.clamp(g, min, max) for g in grads]}
