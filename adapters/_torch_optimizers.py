"""``torch.optim``, stepped through given gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from adapters._torch_arrays import refusing
from adapters.base import Operations, Unsupported

Tensors = list[Tensor | None]
Outputs = dict[str, Any]

operations = Operations()


def _paired(owners: list[Any], attributes: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield pairs; in PyTorch a gradient or a score belongs to its parameter, so none is left over."""
    if len(owners) != len(attributes):
        raise Unsupported("PyTorch has no parallel lists that could differ in length")
    return zip(owners, attributes, strict=True)


def trajectory(
    optimizer_class: Any, params: list[Tensor], grads: list[Tensors], lr: Any, **options: Any
) -> Outputs:
    """Step an optimiser through the given gradients; ``lr`` is a number or one per step."""
    with refusing(RuntimeError):  # integers
        parameters = [torch.nn.Parameter(p.clone()) for p in params]
    rates = lr if isinstance(lr, list) else [lr] * len(grads)
    optimizer = optimizer_class(parameters, lr=rates[0] if rates else lr, **options)
    trajectory = []
    for rate, step in _paired(rates, grads):
        for group in optimizer.param_groups:
            group["lr"] = rate
        for parameter, grad in _paired(parameters, step):
            with refusing(RuntimeError):  # another shape or dtype
                parameter.grad = grad
        optimizer.step()
        trajectory.append([p.detach().clone() for p in parameters])
    return {"params": trajectory}


@operations.operation("optim.sgd")
def optim_sgd(params: list[Tensor], grads: list[Tensors], *, lr: Any, **options: Any) -> Outputs:
    """``torch.optim.SGD``."""
    return trajectory(torch.optim.SGD, params, grads, lr, **options)


def _adam(
    optimizer_class: Any, params: Any, grads: Any, *, beta1: float, beta2: float, **options: Any
) -> Outputs:
    return trajectory(optimizer_class, params, grads, betas=(beta1, beta2), **options)


@operations.operation("optim.adam")
def optim_adam(params: list[Tensor], grads: list[Tensors], **options: Any) -> Outputs:
    """``torch.optim.Adam``."""
    return _adam(torch.optim.Adam, params, grads, **options)


@operations.operation("optim.adamw")
def optim_adamw(params: list[Tensor], grads: list[Tensors], **options: Any) -> Outputs:
    """``torch.optim.AdamW``."""
    return _adam(torch.optim.AdamW, params, grads, **options)


@operations.operation("optim.rmsprop")
def optim_rmsprop(params: list[Tensor], grads: list[Tensors], **options: Any) -> Outputs:
    """``torch.optim.RMSprop``."""
    return trajectory(torch.optim.RMSprop, params, grads, **options)


@operations.operation("optim.adagrad")
def optim_adagrad(
    params: list[Tensor], grads: list[Tensors], *, initial_accumulator: float, **options: Any
) -> Outputs:
    """``torch.optim.Adagrad``."""
    start = {"initial_accumulator_value": initial_accumulator}
    return trajectory(torch.optim.Adagrad, params, grads, **start, **options)
