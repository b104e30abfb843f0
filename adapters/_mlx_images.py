"""MLX's layers over images, NHWC as in the suite; OHWI kernels are permuted under differentiation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from adapters._mlx_arrays import NARROW, Outputs, Tensor, run
from adapters.base import Operations, Pads, Pair, Unsupported

operations = Operations()


@operations.operation("layer.conv2d", NARROW)
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
    """``mlx.core.conv_general``."""
    (top, bottom), (left, right) = padding

    def forward(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        y = mx.conv_general(
            x, weight.transpose(3, 0, 1, 2), stride, ([top, left], [bottom, right]), dilation,
            groups=groups,
        )  # fmt: skip
        return y if bias is None else y + bias

    return run(forward, dy, x=x, weight=weight, bias=bias)


def _pool2d(kind: Any) -> Callable[..., Outputs]:
    def pool(
        x: Tensor,
        dy: Tensor,
        *,
        window: Pair,
        stride: Pair | None = None,
        padding: Pads,
        dilation: Pair,
        ceil_mode: bool = False,
    ) -> Outputs:
        if ceil_mode or dilation != [1, 1]:
            raise Unsupported("the pooling of MLX has neither ceil_mode nor dilation")
        if any(before != after for before, after in padding):
            raise Unsupported("the pooling of MLX pads alike on both sides")
        own = tuple(before for before, _ in padding)
        layer = kind(tuple(window), tuple(stride or window), own)
        return run(lambda x: layer(x), dy, x=x)

    return pool


operations.operation("layer.max_pool2d", dialect={"ties": "split"})(_pool2d(nn.MaxPool2d))
operations.operation("layer.avg_pool2d", dialect={"count_padding": True})(_pool2d(nn.AvgPool2d))
