"""JAX's layers and Optax's losses: ``jax.nn`` and ``jax.lax`` forward, ``jax.vjp`` backward.

The suite's layouts (NHWC, HWIO, dense weights (in, out)) are given to ``jax.lax`` by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from adapters._backward import LOSSES, Tensor, Tensors, elementwise, with_gradients
from adapters.base import Adapter, Rejected, Unsupported

Outputs = dict[str, Any]
Pair = list[int]
Pads = list[list[int]]


def _pull_back(
    function: Callable[..., Tensor], inputs: Tensors, dy: Tensor
) -> tuple[Tensor, Tensors]:
    @jax.jit
    def run(inputs: Tensors, dy: Tensor) -> Any:
        y, backward = jax.vjp(lambda tensors: function(**tensors), inputs)
        return y, backward(dy)[0]

    return run(inputs, dy)


_run = with_gradients(_pull_back)


def _dense(x: Tensor, weight: Tensor, dy: Tensor, bias: Tensor | None = None) -> Outputs:
    """``jax.numpy.matmul``; JAX adds a bias of any shape that broadcasts."""

    def forward(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        y = jnp.matmul(x, weight)
        return y if bias is None else y + bias

    return _run(forward, dy, x=x, weight=weight, bias=bias)


def _conv2d(
    x: Tensor,
    weight: Tensor,
    dy: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Pair,
    padding: Pads,
    dilation: Pair,
    groups: int,
) -> Outputs:
    """``jax.lax.conv_general_dilated``."""

    def forward(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        y = lax.conv_general_dilated(
            x, weight, stride, padding, rhs_dilation=dilation,
            dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups,
        )  # fmt: skip
        return y if bias is None else y + bias

    return _run(forward, dy, x=x, weight=weight, bias=bias)


def _max_pool2d(
    x: Tensor,
    dy: Tensor,
    *,
    window: Pair,
    stride: Pair | None = None,
    padding: Pads,
    dilation: Pair,
    ceil_mode: bool = False,
) -> Outputs:
    """``jax.lax.reduce_window`` with ``jax.lax.max``."""
    if ceil_mode:
        raise Unsupported("jax.lax.reduce_window has no ceil_mode")
    if any(d > 1 for d in dilation):
        raise Unsupported("JAX has no gradient of a maximum over dilated windows")

    def forward(x: Tensor) -> Tensor:
        return lax.reduce_window(
            x, -jnp.inf, lax.max, (1, *window, 1),
            (1, *(stride or window), 1), [(0, 0), *padding, (0, 0)],
            window_dilation=(1, *dilation, 1),
        )  # fmt: skip

    return _run(forward, dy, x=x)


def _avg_pool2d(
    x: Tensor,
    dy: Tensor,
    *,
    window: Pair,
    stride: Pair | None = None,
    padding: Pads,
    dilation: Pair,
    ceil_mode: bool = False,
) -> Outputs:
    """``jax.lax.reduce_window`` with ``jax.lax.add``, divided by what it makes of ones."""
    if ceil_mode:
        raise Unsupported("jax.lax.reduce_window has no ceil_mode")

    def windows(x: Tensor) -> Tensor:
        return lax.reduce_window(
            x, 0.0, lax.add, (1, *window, 1), (1, *(stride or window), 1),
            [(0, 0), *padding, (0, 0)], window_dilation=(1, *dilation, 1),
        )  # fmt: skip

    return _run(lambda x: windows(x) / jnp.maximum(windows(jnp.ones_like(x)), 1), dy, x=x)


def _batch_norm(x: Tensor, scale: Tensor, shift: Tensor, running_mean: Tensor, running_var: Tensor,
                dy: Tensor, *, eps: float, training: bool, **_: Any) -> Outputs:  # fmt: skip
    raise Unsupported("jax.nn.standardize normalises, and keeps no running values")


def _leaky_relu(x: Tensor, *, slope: float) -> Tensor:
    return jax.nn.leaky_relu(x, slope)


def _flatten(x: Tensor) -> Tensor:
    return lax.collapse(x, 1) if x.ndim > 1 else lax.expand_dims(x, [1])


def _loss(function: Callable[..., Tensor]) -> Any:
    """Reduce what a loss of Optax gives for each example or element, as its users do."""

    def run(x: Tensor, targets: Tensor, *, reduction: str) -> Outputs:
        reduce = jnp.mean if reduction == "mean" else jnp.sum
        loss, dx = jax.jit(jax.value_and_grad(lambda x: reduce(function(x, targets))))(x)
        return {"loss": loss, "dx": dx}

    return run


def _refusing(function: Callable[..., Outputs]) -> Callable[..., Outputs]:
    """Take these errors as refusals: they are how JAX answers shapes that do not fit."""

    def run(*args: Any, **kwargs: Any) -> Outputs:
        try:
            return function(*args, **kwargs)
        except (TypeError, AssertionError, ZeroDivisionError) as error:
            raise Rejected(str(error)) from error

    return run


def register(adapter: Adapter) -> None:
    """Register the layers and losses."""
    flush = {"subnormals": "flush"}
    for operation_id, function, dialect in (
        ("layer.dense", _dense, {}),
        ("layer.conv2d", _conv2d, {}),
        ("layer.max_pool2d", _max_pool2d, {}),
        ("layer.avg_pool2d", _avg_pool2d, {}),
        ("layer.relu", elementwise(_run, jax.nn.relu), {"nan": "no_gradient"}),
        ("layer.leaky_relu", elementwise(_run, _leaky_relu), {"at_zero": "one"}),
        ("layer.sigmoid", elementwise(_run, jax.nn.sigmoid), {}),
        ("layer.tanh", elementwise(_run, jax.nn.tanh), {"subnormals": "keep"}),
        ("layer.flatten", elementwise(_run, _flatten), {}),
        ("loss.softmax_cross_entropy",
         _loss(optax.losses.softmax_cross_entropy_with_integer_labels),
         LOSSES),
        ("loss.mse", _loss(optax.losses.squared_error), LOSSES),
        ("loss.binary_cross_entropy", _loss(optax.losses.sigmoid_binary_cross_entropy),
         {**LOSSES, "outside_targets": "extrapolate"}),
    ):  # fmt: skip
        adapter.operation(operation_id, dialect=flush | dialect)(_refusing(function))
    adapter.operation("layer.batch_norm")(_batch_norm)
