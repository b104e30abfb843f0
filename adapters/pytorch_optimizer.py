"""pytorch_optimizer: its adaptive clipping, its clip of the joint norm, and the optimisers that are its own.

Its names ``SGD``, ``Adam``, ``AdamW`` and ``RMSprop`` are those of ``torch.optim`` and are not asked here.
"""

from __future__ import annotations

import importlib.metadata
from typing import Any

import torch
from pytorch_optimizer import SGDW, AdamC, FlashAdamW, agc, clip_grad_norm
from pytorch_optimizer.base.exception import NegativeLRError
from torch import Tensor

from adapters._torch_arrays import refusing, to_numpy, to_torch
from adapters._torch_optimizers import trajectory
from adapters.base import WITH_COMPLEX, Adapter, Unsupported

Tensors = list[Tensor | None]
Outputs = dict[str, Any]

adapter = Adapter(
    "pytorch_optimizer",
    version=importlib.metadata.version("pytorch-optimizer"),
    homepage="https://pytorch-optimizers.readthedocs.io",
    to_native=to_torch,
    to_numpy=to_numpy,
    rejections=(NegativeLRError,),
)


def _units_in_place(tensor: Tensor, axes: list[int]) -> Tensor:
    """View a tensor with its units where ``agc`` has them: axis 0, of three axes 0 and 2."""
    if tensor.ndim < 2:
        return tensor
    if len(axes) != (2 if tensor.ndim == 3 else 1):
        raise Unsupported("agc's units lie along one axis, those of three axes along two")
    if any(not -tensor.ndim <= axis < tensor.ndim for axis in axes):
        raise Unsupported("agc takes no axis")
    return tensor.movedim(axes, [0, 2][: len(axes)])


@adapter.operation(
    "clip.unitwise",
    dialect={
        "div_eps": 1e-6, "nonfinite": "multiply", "norm": "naive", "negative_limit": "flip_sign",
    },
)  # fmt: skip
def clip_unitwise(
    grads: Tensors, weights: Tensors, *, clipping: float, unit_axis: Any, eps: float
) -> Outputs:
    """``pytorch_optimizer.agc``, one tensor at a time, with its own least norm of a gradient."""
    axes = unit_axis if isinstance(unit_axis, list) else [unit_axis]
    if len(grads) != len(weights):
        raise Unsupported("agc takes one gradient and its parameter")
    clipped: Tensors = []
    for grad, weight in zip(grads, weights, strict=True):
        if grad is None:
            clipped.append(None)
            continue
        if weight is None:
            raise Unsupported("a parameter is always there")
        g = _units_in_place(grad, axes)
        with refusing(RuntimeError):  # shapes that do not fit
            g = agc(_units_in_place(weight, axes), g, agc_eps=eps, agc_clip_val=clipping)
        clipped.append(g if g.ndim < 2 else g.movedim([0, 2][: len(axes)], axes))
    return {"grads": clipped}


@adapter.operation(
    "clip.global_norm",
    WITH_COMPLEX,
    {
        "eps_at": "denominator", "eps": 1e-6, "nonfinite": "multiply", "norm": "naive",
        "norm_dtype": "input_dtype", "infinite_limit": "multiply", "zero_limit": "disabled",
        "negative_limit": "ignore", "nan_limit": "ignore", "duplicates": "twice_in_place",
        "in_place": "documented",
    },
)  # fmt: skip
def clip_global_norm(grads: Tensors, *, max_norm: float, ord: float) -> Outputs:
    """``pytorch_optimizer.clip_grad_norm``."""
    if ord != 2:
        raise Unsupported("clip_grad_norm takes the 2-norm")
    parameters = []
    for grad in grads:
        absent = torch.zeros(()) if grad is None else torch.zeros_like(grad)
        parameters.append(torch.nn.Parameter(absent))
        parameters[-1].grad = grad
    total = clip_grad_norm(parameters, max_norm)
    return {"grads": [parameter.grad for parameter in parameters], "total_norm": total}


# With coupled decay both are documented to add it to the gradient, which they do in place.
@adapter.operation("optim.sgd", dialect={"in_place": "documented"})
def optim_sgd(params: list[Tensor], grads: list[Tensors], *, lr: Any, **options: Any) -> Outputs:
    """``pytorch_optimizer.SGDW`` without its decoupling."""
    return trajectory(SGDW, params, grads, lr, weight_decouple=False, **options)


@adapter.operation(
    "optim.adam",
    dialect={
        "eps_at": "before_bias_correction", "step_count": "optimizer", "in_place": "documented",
    },
)  # fmt: skip
def optim_adam(
    params: list[Tensor], grads: list[Tensors], *, lr: Any, beta1: float, beta2: float,
    eps: float, weight_decay: float, amsgrad: bool,
) -> Outputs:  # fmt: skip
    """``pytorch_optimizer.AdamC`` without its decoupling, of parameters that belong to no normalisation."""
    options = {"eps": eps, "weight_decay": weight_decay, "ams_bound": amsgrad}
    return trajectory(
        AdamC, params, grads, lr, betas=(beta1, beta2), weight_decouple=False, **options
    )


@adapter.operation("optim.adamw", dialect={"step_count": "optimizer"})
def optim_adamw(
    params: list[Tensor], grads: list[Tensors], *, lr: Any, beta1: float, beta2: float,
    eps: float, weight_decay: float, amsgrad: bool,
) -> Outputs:  # fmt: skip
    """``pytorch_optimizer.FlashAdamW`` with averages that are not quantised."""
    if amsgrad:
        raise Unsupported("FlashAdamW has no amsgrad")
    options = {"eps": eps, "weight_decay": weight_decay, "quantize": False}
    return trajectory(FlashAdamW, params, grads, lr, betas=(beta1, beta2), **options)


adapter.lacks("RMSprop is that of torch.optim, handed on", "optim.rmsprop")
