"""Optimisers, penalties and proximal steps of the canonical implementation, put before the suite."""

from __future__ import annotations

from typing import Any

from adapters.base import Operations
from refimpl import optimizers, regularization

Tensors = list[Any]
Outputs = dict[str, Any]


operations = Operations()


def _trajectory(make: Any, params: Tensors, grads: list[Tensors], lr: Any, dials: Any) -> Outputs:
    """Take the steps of an optimiser; ``lr`` is a number, or a list with one per step."""
    rates = lr if isinstance(lr, list) else [lr] * len(grads)
    optimizer = make(rates[0] if rates else 0.0, **dials)
    state = optimizer.init(params)
    steps = []
    for rate, step_grads in zip(rates, grads, strict=True):
        params, state = optimizer.update(params, step_grads, state, lr=rate)
        steps.append(params)
    return {"params": steps}


@operations.operation("optim.sgd")
def optim_sgd(params: Tensors, grads: list[Tensors], *, lr: Any, **dials: Any) -> Outputs:
    """``refimpl.optimizers.sgd``."""
    return _trajectory(optimizers.sgd, params, grads, lr, dials)


@operations.operation("optim.adam")
def optim_adam(params: Tensors, grads: list[Tensors], *, lr: Any, **dials: Any) -> Outputs:
    """``refimpl.optimizers.adam``."""
    return _trajectory(optimizers.adam, params, grads, lr, dials)


@operations.operation("optim.adamw")
def optim_adamw(params: Tensors, grads: list[Tensors], *, lr: Any, **dials: Any) -> Outputs:
    """``refimpl.optimizers.adamw``."""
    return _trajectory(optimizers.adamw, params, grads, lr, dials)


@operations.operation("optim.rmsprop")
def optim_rmsprop(params: Tensors, grads: list[Tensors], *, lr: Any, **dials: Any) -> Outputs:
    """``refimpl.optimizers.rmsprop``."""
    return _trajectory(optimizers.rmsprop, params, grads, lr, dials)


@operations.operation("optim.adagrad")
def optim_adagrad(params: Tensors, grads: list[Tensors], *, lr: Any, **dials: Any) -> Outputs:
    """``refimpl.optimizers.adagrad``."""
    return _trajectory(optimizers.adagrad, params, grads, lr, dials)


@operations.operation("penalty.l1")
def penalty_l1(weights: Tensors, *, strength: float, **dials: Any) -> Outputs:
    """``refimpl.regularization.penalty_l1``."""
    value, grads = regularization.penalty_l1(weights, strength, **dials)
    return {"value": value, "grads": grads}


@operations.operation("penalty.l2")
def penalty_l2(weights: Tensors, *, strength: float, **dials: Any) -> Outputs:
    """``refimpl.regularization.penalty_l2``."""
    value, grads = regularization.penalty_l2(weights, strength, **dials)
    return {"value": value, "grads": grads}


@operations.operation("prox.l1")
def prox_l1(weights: Tensors, *, strength: float, step: float, **dials: Any) -> Outputs:
    """``refimpl.regularization.prox_l1``."""
    return {"weights": regularization.prox_l1(weights, strength, step, **dials)}
