"""Keras's layers over images: convolution and pooling, NHWC and HWIO as in the suite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from adapters._keras_backend import BACKEND, DTYPES, FLUSH, Outputs, Tensor, dtype_of, run
from adapters._keras_layers import run_layer
from adapters.base import Operations, Pads, Pair, Unsupported

operations = Operations()


@operations.operation("layer.conv2d", DTYPES, FLUSH)
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
    """``keras.layers.Conv2D`` after ``keras.ops.pad``."""
    if max(stride) > 1 and max(dilation) > 1:
        raise Unsupported("a convolution of Keras has a stride or a dilation")
    layer = keras.layers.Conv2D(
        weight.shape[3], list(weight.shape[:2]), stride, dilation_rate=dilation, groups=groups,
        use_bias=bias is not None, dtype=dtype_of(x),
    )  # fmt: skip
    outer = [[0, 0], *padding, [0, 0]]
    return run_layer(layer, dy, x, weight, bias, lambda x: ops.pad(x, outer))


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
            raise Unsupported("the pooling of Keras has neither ceil_mode nor dilation")
        if padding != [[0, 0], [0, 0]]:
            raise Unsupported("the pooling of Keras pads as 'same' does, or not at all")
        layer = kind(window, stride, dtype=dtype_of(x))
        return run(lambda x: layer(x), dy, x=x)

    return pool


MAX = {"nan": "ignore"} if BACKEND == "tensorflow" else {}

operations.operation("layer.max_pool2d", DTYPES, FLUSH | MAX)(_pool2d(keras.layers.MaxPooling2D))
operations.operation("layer.avg_pool2d", DTYPES, FLUSH)(_pool2d(keras.layers.AveragePooling2D))
