"""JAX's layers, but those over images: ``jax.nn`` and ``jax.numpy``, dense weights (in, out)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from adapters._backward import elementwise
from adapters._optax_arrays import FLUSH, Outputs, Tensor, refusing, run
from adapters.base import Operations

operations = Operations()


@operations.operation("layer.dense", dialect=FLUSH)
@refusing
def dense(x: Tensor, weight: Tensor, dy: Tensor, bias: Tensor | None = None) -> Outputs:
    """``jax.numpy.matmul``; JAX adds a bias of any shape that broadcasts."""

    def forward(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        y = jnp.matmul(x, weight)
        return y if bias is None else y + bias

    return run(forward, dy, x=x, weight=weight, bias=bias)


def _leaky_relu(x: Tensor, *, slope: float) -> Tensor:
    return jax.nn.leaky_relu(x, slope)


def _flatten(x: Tensor) -> Tensor:
    return lax.collapse(x, 1) if x.ndim > 1 else lax.expand_dims(x, [1])


for _operation, _function, _dialect in (
    ("layer.relu", jax.nn.relu, {"nan": "no_gradient"}),
    ("layer.leaky_relu", _leaky_relu, {"at_zero": "one"}),
    ("layer.sigmoid", jax.nn.sigmoid, {}),
    ("layer.tanh", jax.nn.tanh, {"subnormals": "keep"}),
    ("layer.flatten", _flatten, {}),
):
    operations.operation(_operation, dialect=FLUSH | _dialect)(
        refusing(elementwise(run, _function))
    )
