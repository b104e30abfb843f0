"""JAX's layers over images: convolution and windows of ``jax.lax``, given the suite's NHWC and HWIO by name."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from adapters._optax_arrays import FLUSH, Outputs, Tensor, refusing, run
from adapters.base import Operations, Pads, Pair, Unsupported

operations = Operations()


@operations.operation("layer.conv2d", dialect=FLUSH)
@refusing
def conv2d(
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

    return run(forward, dy, x=x, weight=weight, bias=bias)


@operations.operation("layer.max_pool2d", dialect=FLUSH)
@refusing
def max_pool2d(
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

    return run(forward, dy, x=x)


@operations.operation("layer.avg_pool2d", dialect=FLUSH)
@refusing
def avg_pool2d(
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

    return run(lambda x: windows(x) / jnp.maximum(windows(jnp.ones_like(x)), 1), dy, x=x)
