"""PyTorch, called as a user calls it: ``torch.nn.utils``, ``torch.optim``, autograd."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from adapters import _torch_layers, _torch_pruning, _torch_regularization, _torch_training
from adapters.base import WITH_COMPLEX, Adapter, Rejected, Unsupported, interval

Tensors = list[Tensor | None]
Outputs = dict[str, Any]


def to_torch(array: np.ndarray[Any, Any]) -> Tensor:
    """Share the memory of an array, so that writing to the tensor is seen by the suite."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def to_numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
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


@contextmanager
def _checks() -> Iterator[None]:
    """Take an error as a refusal, around a call that checks its arguments and says what is wrong."""
    try:
        yield
    except (RuntimeError, AssertionError) as error:
        raise Rejected(str(error).partition("\n")[0]) from error


def _paired(owners: list[Any], attributes: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield pairs; in PyTorch a gradient or a score belongs to its parameter, so none is left over."""
    if len(owners) != len(attributes):
        raise Unsupported("PyTorch has no parallel lists that could differ in length")
    return zip(owners, attributes, strict=True)


# --- clipping ---------------------------------------------------------------------------------


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


@adapter.operation("clip.global_norm", WITH_COMPLEX, CLIP_NORM | {"duplicates": "twice_in_place"})
def clip_global_norm(
    grads: Tensors, *, max_norm: float, ord: float, foreach: bool | None = None
) -> Outputs:
    """``torch.nn.utils.clip_grad_norm_``."""
    parameters = _parameters(grads)
    total = clip_grad_norm_(parameters, max_norm, norm_type=ord, foreach=foreach)
    return {"grads": [p.grad for p in parameters], "total_norm": total}


@adapter.operation("clip.norm", WITH_COMPLEX, CLIP_NORM)
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


@adapter.operation(
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
        with _checks():
            torch.clamp(torch.zeros(()))
    return {"grads": [None if g is None else torch.clamp(g, min, max) for g in grads]}


# --- optimisers ---------------------------------------------------------------------------------


def _trajectory(
    optimizer_class: Any, params: list[Tensor], grads: list[Tensors], lr: Any, **options: Any
) -> Outputs:
    """Step an optimiser through the given gradients; ``lr`` is a number or one per step."""
    parameters = [torch.nn.Parameter(p.clone()) for p in params]
    rates = lr if isinstance(lr, list) else [lr] * len(grads)
    optimizer = optimizer_class(parameters, lr=rates[0] if rates else lr, **options)
    trajectory = []
    for rate, step in _paired(rates, grads):
        for group in optimizer.param_groups:
            group["lr"] = rate
        for parameter, grad in _paired(parameters, step):
            parameter.grad = grad
        optimizer.step()
        trajectory.append([p.detach().clone() for p in parameters])
    return {"params": trajectory}


@adapter.operation("optim.sgd")
def optim_sgd(params: list[Tensor], grads: list[Tensors], *, lr: Any, **options: Any) -> Outputs:
    """``torch.optim.SGD``."""
    return _trajectory(torch.optim.SGD, params, grads, lr, **options)


def _adam(
    optimizer_class: Any, params: Any, grads: Any, *, beta1: float, beta2: float, **options: Any
) -> Outputs:
    return _trajectory(optimizer_class, params, grads, betas=(beta1, beta2), **options)


@adapter.operation("optim.adam")
def optim_adam(params: list[Tensor], grads: list[Tensors], **options: Any) -> Outputs:
    """``torch.optim.Adam``."""
    return _adam(torch.optim.Adam, params, grads, **options)


@adapter.operation("optim.adamw")
def optim_adamw(params: list[Tensor], grads: list[Tensors], **options: Any) -> Outputs:
    """``torch.optim.AdamW``."""
    return _adam(torch.optim.AdamW, params, grads, **options)


@adapter.operation("optim.rmsprop")
def optim_rmsprop(params: list[Tensor], grads: list[Tensors], **options: Any) -> Outputs:
    """``torch.optim.RMSprop``."""
    return _trajectory(torch.optim.RMSprop, params, grads, **options)


@adapter.operation("optim.adagrad")
def optim_adagrad(
    params: list[Tensor], grads: list[Tensors], *, initial_accumulator: float, **options: Any
) -> Outputs:
    """``torch.optim.Adagrad``."""
    start = {"initial_accumulator_value": initial_accumulator}
    return _trajectory(torch.optim.Adagrad, params, grads, **start, **options)


_torch_layers.register(adapter)
_torch_pruning.register(adapter)
_torch_regularization.register(adapter)
_torch_training.register(adapter)


# --- what PyTorch lacks -------------------------------------------------------------------------

NO_SCORES = "torch.nn.utils.prune ranks inside its pruning methods; no function returns scores"
NO_SCHEDULE = "torch.ao.pruning's schedulers give a sparsity, not the steps that recompute masks"

LACKING = {
    "score.magnitude": NO_SCORES,
    "score.gradient": NO_SCORES,
    "score.taylor": NO_SCORES,
    "score.snip": NO_SCORES,
    "score.movement": NO_SCORES,
    "score.fisher": NO_SCORES,
    "score.obd": NO_SCORES,
    "score.wanda": NO_SCORES,
    "clip.unitwise": "torch.nn.utils clips by value and by norm, not unit by unit",
    "clip.per_example": "torch.func gives gradients per example; nothing of PyTorch clips them",
    "dist.global_norm": "PyTorch's sharded norms need a process group; this suite runs one process",
    "prune.clipped_gradient": "nothing of PyTorch clips and thresholds a gradient in one",
    "prune.threshold": "torch.nn.utils.prune has no pruning by threshold",
    "prune.shrink": "torch.nn.utils.prune only masks, it does not shrink",
    "schedule.constant": NO_SCHEDULE,
    "schedule.polynomial": NO_SCHEDULE,
    "schedule.exponential": NO_SCHEDULE,
}


for _operation_id, _reason in LACKING.items():
    adapter.lacks(_reason, _operation_id)
