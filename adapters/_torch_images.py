"""PyTorch's layers over images: convolution and pooling of ``torch.nn.functional``.

The suite's NHWC and HWIO are permuted to PyTorch's under autograd, so that gradients come back in the layout
of their inputs.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from adapters._torch_autograd import Outputs, refusing_shapes, run
from adapters.base import Operations, Pads, Pair, Unsupported

operations = Operations()


def _nchw(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def _nhwc(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def _pad(x: Tensor, padding: Pads, value: float = 0.0) -> Tensor:
    (top, bottom), (left, right) = padding
    return functional.pad(x, (left, right, top, bottom), value=value)


@operations.operation("layer.conv2d")
@refusing_shapes
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
    """``torch.nn.functional.conv2d``; its padding is symmetric, so ``pad`` comes first."""

    def forward(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        padded, kernel = _pad(_nchw(x), padding), weight.permute(3, 2, 0, 1).contiguous()
        return _nhwc(functional.conv2d(padded, kernel, bias, stride, 0, dilation, groups))

    return run(forward, dy, x=x, weight=weight, bias=bias)


@operations.operation("layer.max_pool2d")
@refusing_shapes
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
    """``torch.nn.functional.max_pool2d``; ``pad`` with -inf where its own padding cannot serve."""

    def forward(x: Tensor) -> Tensor:
        padded, own = _own_padding(_nchw(x), window, padding, ceil_mode, float("-inf"))
        return _nhwc(functional.max_pool2d(padded, window, stride, own, dilation, ceil_mode))

    return run(forward, dy, x=x)


@operations.operation("layer.avg_pool2d", dialect={"count_padding": True})
@refusing_shapes
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
    """``torch.nn.functional.avg_pool2d`` with its default, which counts the padding."""
    if dilation != [1, 1]:
        raise Unsupported("torch.nn.functional.avg_pool2d has no dilation")

    def forward(x: Tensor) -> Tensor:
        padded, own = _own_padding(_nchw(x), window, padding, ceil_mode, 0.0)
        return _nhwc(functional.avg_pool2d(padded, window, stride, own, ceil_mode))

    return run(forward, dy, x=x)


def _own_padding(
    x: Tensor, window: Pair, padding: Pads, ceil_mode: bool, value: float
) -> tuple[Tensor, Pair]:
    """Return the padding that a pooling function takes, or 0 and an input that is padded already."""
    (top, bottom), (left, right) = padding
    if top == bottom and left == right and 2 * top <= window[0] and 2 * left <= window[1]:
        return x, [top, left]
    if ceil_mode:
        raise Unsupported("PyTorch's pooling has ceil_mode only with symmetric padding")
    return _pad(x, padding, value), [0, 0]
