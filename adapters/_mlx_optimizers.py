"""``mlx.optimizers``, stepped: the learning rate and Adam's corrections are float32 in every format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.optimizers as optim

from adapters._mlx_arrays import Outputs, Tensors
from adapters.base import Operations, Unsupported

operations = Operations()


def _trajectory(make: Callable[[float], Any], params: Tensors, grads: Any, lr: Any) -> Outputs:
    """Step an optimiser through the given gradients; an absent one is left out of the tree."""
    rates = lr if isinstance(lr, list) else [lr] * len(grads)
    optimizer = make(rates[0] if rates else 0.0)
    tree = {str(i): p for i, p in enumerate(params)}
    optimizer.init(tree)
    after = []
    for rate, step in zip(rates, grads, strict=True):
        if len(step) != len(params):
            raise Unsupported("a tree of MLX has a gradient for each parameter")
        optimizer.learning_rate = rate
        given = {str(i): g for i, g in enumerate(step) if g is not None}
        tree |= optimizer.apply_gradients(given, {name: tree[name] for name in given})
        after.append(list(tree.values()))
    return {"params": after}


@operations.operation("optim.sgd", ("float32",), {"first_buffer": "damped"})
def optim_sgd(params: Tensors, grads: list[Tensors], *, lr: Any, **options: Any) -> Outputs:
    """``mlx.optimizers.SGD``."""
    return _trajectory(lambda rate: optim.SGD(rate, **options), params, grads, lr)


ADAM = {"hyperparameters": "input_dtype", "step_count": "optimizer"}


def _adam(
    kind: Any, params: Tensors, grads: list[Tensors], *, lr: Any, beta1: float, beta2: float,
    amsgrad: bool, **options: Any,
) -> Outputs:  # fmt: skip
    if amsgrad:
        raise Unsupported("MLX has no AMSGrad")
    options |= {"betas": [beta1, beta2], "bias_correction": True}
    return _trajectory(lambda rate: kind(rate, **options), params, grads, lr)


@operations.operation("optim.adam", ("float32",), ADAM)
def optim_adam(
    params: Tensors, grads: list[Tensors], *, weight_decay: float, **options: Any
) -> Outputs:
    """``mlx.optimizers.Adam``, whose bias correction is off by default."""
    if weight_decay:
        raise Unsupported("mlx.optimizers.Adam has no weight decay")
    return _adam(optim.Adam, params, grads, **options)


@operations.operation("optim.adamw", ("float32",), ADAM)
def optim_adamw(params: Tensors, grads: list[Tensors], **options: Any) -> Outputs:
    """``mlx.optimizers.AdamW``, whose bias correction is off by default."""
    return _adam(optim.AdamW, params, grads, **options)


@operations.operation("optim.rmsprop", ("float32",))
def optim_rmsprop(
    params: Tensors, grads: list[Tensors], *, lr: Any, alpha: float, eps: float, **options: Any
) -> Outputs:
    """``mlx.optimizers.RMSprop``."""
    if any(options.values()):
        raise Unsupported("mlx.optimizers.RMSprop has no momentum, centering or weight decay")
    return _trajectory(lambda rate: optim.RMSprop(rate, alpha, eps), params, grads, lr)


@operations.operation("optim.adagrad", ("float32",))
def optim_adagrad(
    params: Tensors, grads: list[Tensors], *, lr: Any, eps: float, **options: Any
) -> Outputs:
    """``mlx.optimizers.Adagrad``."""
    if any(options.values()):
        raise Unsupported("mlx.optimizers.Adagrad has no lr_decay, first accumulator or decay")
    return _trajectory(lambda rate: optim.Adagrad(rate, eps), params, grads, lr)
