"""``paddle.optimizer``, whose momentum, rho, eps and decay are float32 for parameters of float64 too."""

from __future__ import annotations

from typing import Any

import paddle

from adapters._paddle_arrays import NARROW, Outputs, Tensors
from adapters.base import Operations, Unsupported

operations = Operations()


def _trajectory(
    kind: Any, params: Tensors, grads: list[Tensors], lr: Any, weight_decay: float, **options: Any
) -> Outputs:
    """Step an optimiser through the given gradients, which stand where a backward pass puts them."""
    if weight_decay or kind is paddle.optimizer.AdamW:  # whose own default is not 0
        options["weight_decay"] = weight_decay
    rates = lr if isinstance(lr, list) else [lr] * len(grads)
    leaves = []
    for param in params:
        holder = paddle.nn.Layer()
        leaf = holder.create_parameter(param.shape, dtype=param.dtype)
        leaf.set_value(param)
        leaves.append(leaf)
    stepper = kind(rates[0] if rates else 0.0, parameters=leaves, **options)
    after = []
    for rate, step in zip(rates, grads, strict=True):
        if len(step) != len(leaves):
            raise Unsupported("a gradient of PaddlePaddle belongs to its parameter")
        stepper.set_lr(rate)
        for leaf, grad in zip(leaves, step, strict=True):
            leaf.clear_gradient(False)
            if grad is not None:
                leaf.grad = grad.clone()
        stepper.step()
        after.append([leaf.clone().detach() for leaf in leaves])
    return {"params": after}


@operations.operation("optim.sgd", NARROW)
def optim_sgd(
    params: Tensors, grads: list[Tensors], *, lr: Any, momentum: float, dampening: float,
    nesterov: bool, weight_decay: float,
) -> Outputs:  # fmt: skip
    """``paddle.optimizer.SGD``, or ``Momentum``."""
    if dampening:
        raise Unsupported("paddle.optimizer.Momentum has no dampening")
    if not momentum and not nesterov:
        return _trajectory(paddle.optimizer.SGD, params, grads, lr, weight_decay)
    own = {"momentum": momentum, "use_nesterov": nesterov}
    return _trajectory(paddle.optimizer.Momentum, params, grads, lr, weight_decay, **own)


def _adam(
    kind: Any, params: Tensors, grads: list[Tensors], *, eps: float, **options: Any
) -> Outputs:
    return _trajectory(kind, params, grads, epsilon=eps, **options)


@operations.operation("optim.adam", NARROW)
def optim_adam(params: Tensors, grads: list[Tensors], **options: Any) -> Outputs:
    """``paddle.optimizer.Adam``."""
    return _adam(paddle.optimizer.Adam, params, grads, **options)


@operations.operation("optim.adamw", NARROW)
def optim_adamw(params: Tensors, grads: list[Tensors], **options: Any) -> Outputs:
    """``paddle.optimizer.AdamW``."""
    return _adam(paddle.optimizer.AdamW, params, grads, **options)


@operations.operation(
    "optim.rmsprop", NARROW, {"eps_at": "inside_root", "momentum_form": "lr_inside"}
)
def optim_rmsprop(
    params: Tensors, grads: list[Tensors], *, alpha: float, eps: float, **options: Any
) -> Outputs:
    """``paddle.optimizer.RMSProp``."""
    return _trajectory(paddle.optimizer.RMSProp, params, grads, rho=alpha, epsilon=eps, **options)


@operations.operation("optim.adagrad", NARROW)
def optim_adagrad(
    params: Tensors, grads: list[Tensors], *, lr_decay: float, eps: float,
    initial_accumulator: float, **options: Any,
) -> Outputs:  # fmt: skip
    """``paddle.optimizer.Adagrad``."""
    if lr_decay:
        raise Unsupported("paddle.optimizer.Adagrad has no lr_decay")
    options["initial_accumulator_value"] = initial_accumulator
    return _trajectory(paddle.optimizer.Adagrad, params, grads, epsilon=eps, **options)
