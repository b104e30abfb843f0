"""Optax's optimisers, stepped through given gradients; rates that change are a schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adapters._optax_arrays import FLUSH, WIDE, Outputs, Tensors
from adapters.base import Operations, Unsupported

ABSENT = "jax.grad gives no absent gradients, and a state of Optax has no place for them"

operations = Operations()


def _trajectory(
    make: Callable[[Any], optax.GradientTransformation],
    params: Tensors,
    grads: list[Tensors],
    lr: float | list[float],
    weight_decay: float = 0.0,
) -> Outputs:
    """Step an optimiser through the given gradients, after ``optax.add_decayed_weights`` for a decay."""
    if any(g is None for step in grads for g in step):
        raise Unsupported(ABSENT)
    if isinstance(lr, list) and len(lr) != len(grads):
        raise Unsupported("a schedule of Optax is a function of the step, of any length")
    optimizer = make(schedule(lr))
    if weight_decay:
        optimizer = optax.chain(optax.add_decayed_weights(weight_decay), optimizer)

    @jax.jit
    def step(params: Tensors, state: Any, grads: Tensors) -> Any:
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state, after = optimizer.init(params), []
    for given in grads:
        params, state = step(params, state, given)
        after.append(params)
    return {"params": after}


def schedule(lr: float | list[float]) -> Any:
    """Return a rate as Optax takes it: a number, or a function of the step."""
    if not isinstance(lr, list):
        return lr
    table = jnp.asarray(lr)
    return lambda count: table[count]


@operations.operation("optim.sgd", WIDE, FLUSH)
def optim_sgd(
    params: Tensors, grads: list[Tensors], *, lr: Any, momentum: float, dampening: float,
    nesterov: bool, weight_decay: float,
) -> Outputs:  # fmt: skip
    """``optax.sgd`` after ``optax.add_decayed_weights``."""
    if dampening:
        raise Unsupported("optax.sgd has no dampening")
    return _trajectory(
        lambda rate: optax.sgd(rate, momentum or None, nesterov), params, grads, lr, weight_decay
    )


@operations.operation("optim.adam", WIDE, FLUSH)
def optim_adam(
    params: Tensors, grads: list[Tensors], *, lr: Any, beta1: float, beta2: float, eps: float,
    weight_decay: float, amsgrad: bool,
) -> Outputs:  # fmt: skip
    """``optax.adam`` or ``optax.amsgrad`` after ``optax.add_decayed_weights``."""
    make = optax.amsgrad if amsgrad else optax.adam
    return _trajectory(lambda rate: make(rate, beta1, beta2, eps), params, grads, lr, weight_decay)


@operations.operation("optim.adamw", WIDE, FLUSH)
def optim_adamw(
    params: Tensors, grads: list[Tensors], *, lr: Any, beta1: float, beta2: float, eps: float,
    weight_decay: float, amsgrad: bool,
) -> Outputs:  # fmt: skip
    """``optax.adamw``."""
    if amsgrad:
        raise Unsupported("optax.adamw has no amsgrad")
    return _trajectory(
        lambda rate: optax.adamw(rate, beta1, beta2, eps, weight_decay=weight_decay),
        params, grads, lr,
    )  # fmt: skip


@operations.operation("optim.rmsprop", WIDE, {"momentum_form": "lr_inside", **FLUSH})
def optim_rmsprop(
    params: Tensors, grads: list[Tensors], *, lr: Any, alpha: float, eps: float, momentum: float,
    centered: bool, weight_decay: float,
) -> Outputs:  # fmt: skip
    """``optax.rmsprop`` with ``eps_in_sqrt=False``, which its documentation gives for PyTorch's."""
    options = {"eps_in_sqrt": False, "centered": centered, "momentum": momentum or None}
    return _trajectory(
        lambda rate: optax.rmsprop(rate, alpha, eps, **options), params, grads, lr, weight_decay
    )


@operations.operation("optim.adagrad", WIDE, {"eps_at": "inside_root", **FLUSH})
def optim_adagrad(
    params: Tensors, grads: list[Tensors], *, lr: Any, lr_decay: float, eps: float,
    initial_accumulator: float, weight_decay: float,
) -> Outputs:  # fmt: skip
    """``optax.adagrad`` after ``optax.add_decayed_weights``."""
    if lr_decay:
        raise Unsupported("optax.adagrad has no lr_decay, but schedules")
    return _trajectory(
        lambda rate: optax.adagrad(rate, initial_accumulator, eps), params, grads, lr, weight_decay
    )
