"""tinygrad's layers over images: NCHW and OIHW, so that both are permuted under differentiation."""

from __future__ import annotations

from collections.abc import Callable

from tinygrad import Tensor

from adapters._tinygrad_arrays import Outputs, run
from adapters.base import Operations, Pads, Pair

operations = Operations()


def _around(padding: Pads) -> tuple[int, ...]:
    """Return zeros around an image as tinygrad has them: left, right, top, bottom."""
    (top, bottom), (left, right) = padding
    return left, right, top, bottom


def _images(y: Tensor) -> Tensor:
    return y.permute(0, 2, 3, 1)


@operations.operation("layer.conv2d")
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
    """``Tensor.conv2d``."""

    def forward(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        images, kernel = x.permute(0, 3, 1, 2), weight.permute(3, 2, 0, 1)
        return _images(images.conv2d(
            kernel, bias, groups, tuple(stride), tuple(dilation), _around(padding)
        ))  # fmt: skip

    return run(forward, dy, x=x, weight=weight, bias=bias)


def _pool2d(pool: Callable[..., Tensor]) -> Callable[..., Outputs]:
    def pool2d(
        x: Tensor,
        dy: Tensor,
        *,
        window: Pair,
        stride: Pair | None = None,
        padding: Pads,
        dilation: Pair,
        ceil_mode: bool = False,
    ) -> Outputs:
        def forward(x: Tensor) -> Tensor:
            steps = tuple(stride or window)
            return _images(pool(
                x.permute(0, 3, 1, 2), tuple(window), steps, tuple(dilation), _around(padding),
                ceil_mode,
            ))  # fmt: skip

        return run(forward, dy, x=x)

    return pool2d


MAX = {"ties": "split", "nan": "ignore"}

operations.operation("layer.max_pool2d", dialect=MAX)(_pool2d(Tensor.max_pool2d))
operations.operation("layer.avg_pool2d", dialect={"count_padding": True})(
    _pool2d(Tensor.avg_pool2d)
)
