"""TensorFlow's layers over images: convolution and pooling of ``tf.nn``, NHWC and HWIO as in the suite."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from adapters._tensorflow_arrays import FLUSH, Outputs, Tensor, run
from adapters.base import Operations, Pads, Pair, Unsupported

operations = Operations()


@operations.operation("layer.conv2d", dialect=FLUSH)
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
    """``tf.nn.conv2d`` and ``tf.nn.bias_add``; groups come from the shapes.

    The CPU kernels have no gradient of a grouped or dilated convolution, so these are compiled, as
    Keras does with its grouped ones.
    """
    if x.shape[3] != weight.shape[2] * groups:
        raise Unsupported("tf.nn.conv2d has no groups: it divides the channels of x and weight")
    explicit = [[0, 0], *padding, [0, 0]]

    def forward(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        y = tf.nn.conv2d(x, weight, stride, explicit, dilations=dilation)
        return y if bias is None else tf.nn.bias_add(y, bias)

    compiled = groups > 1 or dilation != [1, 1]
    pull_back = tf.function(run, jit_compile=True) if compiled else run
    return pull_back(forward, dy, x=x, weight=weight, bias=bias)


@operations.operation("layer.max_pool2d", dialect=FLUSH | {"nan": "ignore"})
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
    """``tf.nn.max_pool2d``; with dilation ``tf.nn.pool``, after padding with -inf."""
    stride, explicit = stride or window, [[0, 0], *padding, [0, 0]]
    _check_pool(stride, dilation, ceil_mode)
    if any(max(pads) >= size for pads, size in zip(padding, window, strict=True)):
        raise Unsupported("tf.nn.max_pool2d takes no padding of a whole window")

    def forward(x: Tensor) -> Tensor:
        if dilation == [1, 1]:
            return tf.nn.max_pool2d(x, window, stride, explicit)
        padded = tf.pad(x, explicit, constant_values=tf.constant(float("-inf"), x.dtype))
        return tf.nn.pool(padded, window, "MAX", padding="VALID", dilations=dilation)

    return run(forward, dy, x=x)


@operations.operation("layer.avg_pool2d", dialect=FLUSH)
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
    """``tf.nn.avg_pool2d``, whose padding is "SAME" or none; with dilation ``tf.nn.pool``."""
    stride = stride or window
    _check_pool(stride, dilation, ceil_mode)
    name = "VALID" if padding == [[0, 0], [0, 0]] else "SAME"
    if name == "SAME" and (dilation != [1, 1] or padding != _same(x.shape, window, stride)):
        raise Unsupported("tf.nn.avg_pool2d pads as 'SAME' does, or not at all")

    def forward(x: Tensor) -> Tensor:
        if dilation == [1, 1]:
            return tf.nn.avg_pool2d(x, window, stride, name)
        return tf.nn.pool(x, window, "AVG", padding="VALID", dilations=dilation)

    return run(forward, dy, x=x)


def _check_pool(stride: Pair, dilation: Pair, ceil_mode: bool) -> None:
    if ceil_mode:
        raise Unsupported("TensorFlow's pooling has no ceil_mode")
    if dilation != [1, 1] and stride != [1, 1]:
        raise Unsupported("tf.nn.pool takes a dilation or a stride, not both")


def _same(shape: Any, window: Pair, stride: Pair) -> Pads:
    """Return the padding that TensorFlow documents for "SAME"."""
    pads = []
    for extent, size, step in zip(shape[1:3], window, stride, strict=True):
        total = max((-(-extent // step) - 1) * step + size - extent, 0)
        pads.append([total // 2, total - total // 2])
    return pads
