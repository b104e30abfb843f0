"""Regularisation with MLX: what it makes of a user's penalty, and ``mlx.nn.softshrink``."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn

from adapters._mlx_arrays import Outputs, Tensor, Tensors
from adapters.base import Operations, Unsupported

operations = Operations()


def _penalty(weights: Tensors, term: Callable[[Tensor], Tensor], *strengths: float) -> Outputs:
    """Return the sum of a term over all weights, and what ``mx.value_and_grad`` makes of it."""
    if not all(0 <= strength < float("inf") for strength in strengths):
        raise Unsupported("a penalty is a user's expression, which checks no strength")
    given = [w for w in weights if w is not None]
    if not given:
        raise Unsupported("mlx.core.value_and_grad needs an array")

    def penalty(leaves: Tensors) -> Tensor:
        return sum((term(w) for w in leaves[1:]), term(leaves[0]))

    value, found = mx.value_and_grad(penalty)(given)
    grads = iter(found)
    return {"value": value, "grads": [None if w is None else next(grads) for w in weights]}


@operations.operation("penalty.l1", ("float64", "float32"))
def penalty_l1(weights: Tensors, *, strength: float) -> Outputs:
    """What ``mx.grad`` makes of ``strength * mx.abs(w).sum()``."""
    return _penalty(weights, lambda w: strength * mx.abs(w).sum(), strength)


@operations.operation("penalty.l2", ("float64", "float32"))
def penalty_l2(weights: Tensors, *, strength: float) -> Outputs:
    """What ``mx.grad`` makes of ``strength * mx.square(w).sum()``."""
    return _penalty(weights, lambda w: strength * mx.square(w).sum(), strength)


@operations.operation("penalty.elastic_net", ("float64", "float32"))
def penalty_elastic_net(weights: Tensors, *, l1: float, l2: float) -> Outputs:
    """What ``mx.grad`` makes of ``l1 * mx.abs(w).sum() + l2 * mx.square(w).sum()``."""
    return _penalty(weights, lambda w: l1 * mx.abs(w).sum() + l2 * mx.square(w).sum(), l1, l2)


@operations.operation("prox.l1")
def prox_l1(weights: Tensors, *, strength: float, step: float) -> Outputs:
    """``mlx.nn.softshrink``."""
    return {"weights": [None if w is None else nn.softshrink(w, strength * step) for w in weights]}
