"""``tinygrad.nn.optim``, stepped: learning rate, state and corrections are float32."""

from __future__ import annotations

from typing import Any

from tinygrad import Context, Tensor, dtypes
from tinygrad.nn import optim

from adapters._tinygrad_arrays import Outputs
from adapters.base import Operations, Unsupported

operations = Operations()


def _trajectory(kind: Any, params: Any, grads: Any, lr: Any, **options: Any) -> Outputs:
    """Step an optimiser through the given gradients."""
    if any(len(step) != len(params) or any(g is None for g in step) for step in grads):
        raise Unsupported("an optimiser of tinygrad has a gradient for each parameter")
    leaves = [p.clone().is_param_() for p in params]
    rates = lr if isinstance(lr, list) else [lr] * len(grads)
    stepper = kind(leaves, rates[0] if rates else 0.0, **options)
    after = []
    with Context(TRAINING=1):
        for rate, step in zip(rates, grads, strict=True):
            stepper.lr.assign(Tensor([rate], dtype=dtypes.float32)).realize()
            for leaf, grad in zip(leaves, step, strict=True):
                leaf.grad = grad.clone()
            stepper.step()
            after.append([leaf.numpy().copy() for leaf in leaves])
    return {"params": [[Tensor(p) for p in step] for step in after]}


@operations.operation("optim.sgd", ("float32",))
def optim_sgd(params: Any, grads: Any, *, lr: Any, dampening: float, **options: Any) -> Outputs:
    """``tinygrad.nn.optim.SGD``."""
    if dampening:
        raise Unsupported("tinygrad.nn.optim.SGD has no dampening")
    return _trajectory(optim.SGD, params, grads, lr, **options)


ADAM = {"hyperparameters": "input_dtype", "step_count": "optimizer"}


def _adam(
    kind: Any, params: Any, grads: Any, *, lr: Any, beta1: float, beta2: float, amsgrad: bool,
    **options: Any,
) -> Outputs:  # fmt: skip
    if amsgrad:
        raise Unsupported("tinygrad has no AMSGrad")
    return _trajectory(kind, params, grads, lr, b1=beta1, b2=beta2, **options)


@operations.operation("optim.adam", ("float32",), ADAM)
def optim_adam(params: Any, grads: Any, *, weight_decay: float, **options: Any) -> Outputs:
    """``tinygrad.nn.optim.Adam``."""
    if weight_decay:
        raise Unsupported("tinygrad.nn.optim.Adam has no weight decay")
    return _adam(optim.Adam, params, grads, **options)


@operations.operation("optim.adamw", ("float32",), ADAM)
def optim_adamw(params: Any, grads: Any, **options: Any) -> Outputs:
    """``tinygrad.nn.optim.AdamW``."""
    return _adam(optim.AdamW, params, grads, **options)
