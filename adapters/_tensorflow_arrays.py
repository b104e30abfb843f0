"""What TensorFlow's modules share: names of types, each tensor of a list, gradients by GradientTape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from adapters._backward import with_gradients

Tensor = Any
Tensors = list[Any]
Outputs = dict[str, Any]
Description = Mapping[str, Any]

WIDE = ("float64", "float32")
FLUSH = {"subnormals": "flush"}


def each(function: Callable[[Tensor], Tensor], tensors: Tensors) -> Tensors:
    """Return what a function makes of each tensor that is there."""
    return [None if tensor is None else function(tensor) for tensor in tensors]


def _pull_back(
    function: Callable[..., Tensor], inputs: dict[str, Tensor], dy: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    with tf.GradientTape() as tape:
        tape.watch(list(inputs.values()))
        y = function(**inputs)
    return y, tape.gradient(y, inputs, output_gradients=dy)


run = with_gradients(_pull_back)
