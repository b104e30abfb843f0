"""Optax's losses of each example or element, reduced as its users do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adapters._backward import LOSSES
from adapters._optax_arrays import FLUSH, Outputs, Tensor, refusing
from adapters.base import Operations

operations = Operations()


def _loss(function: Callable[..., Tensor]) -> Any:
    def run(x: Tensor, targets: Tensor, *, reduction: str) -> Outputs:
        reduce = jnp.mean if reduction == "mean" else jnp.sum
        loss, dx = jax.jit(jax.value_and_grad(lambda x: reduce(function(x, targets))))(x)
        return {"loss": loss, "dx": dx}

    return run


_binary = {"outside_targets": "extrapolate"}
for _operation, _function, _dialect in (
    ("loss.softmax_cross_entropy", optax.losses.softmax_cross_entropy_with_integer_labels, {}),
    ("loss.mse", optax.losses.squared_error, {}),
    ("loss.binary_cross_entropy", optax.losses.sigmoid_binary_cross_entropy, _binary),
):
    operations.operation(_operation, dialect=FLUSH | LOSSES | _dialect)(refusing(_loss(_function)))
