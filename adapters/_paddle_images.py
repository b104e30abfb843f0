"""PaddlePaddle's layers over images, NHWC as in the suite; OIHW kernels are permuted under autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paddle.nn import functional

from adapters._paddle_arrays import WIDE, Outputs, Tensor, run
from adapters.base import Operations, Pads, Pair, Unsupported

operations = Operations()


@operations.operation("layer.conv2d", WIDE)
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
    """``paddle.nn.functional.conv2d``."""
    (top, bottom), (left, right) = padding

    def forward(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return functional.conv2d(
            x, weight.transpose([3, 2, 0, 1]), bias, stride, [top, bottom, left, right], dilation,
            groups, "NHWC",
        )  # fmt: skip

    return run(forward, dy, x=x, weight=weight, bias=bias)


def _pool2d(function: Any, **options: Any) -> Callable[..., Outputs]:
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
        if dilation != [1, 1]:
            raise Unsupported("the pooling of PaddlePaddle has no dilation")
        (top, bottom), (left, right) = padding

        def forward(x: Tensor) -> Tensor:
            return function(x, window, stride or window, [top, bottom, left, right],
                            ceil_mode=ceil_mode, data_format="NHWC", **options)  # fmt: skip

        return run(forward, dy, x=x)

    return pool


operations.operation("layer.max_pool2d", WIDE, {"nan": "ignore"})(_pool2d(functional.max_pool2d))
operations.operation("layer.avg_pool2d", WIDE)(_pool2d(functional.avg_pool2d))
