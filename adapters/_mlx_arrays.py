"""What MLX's modules share: names of types, arrays in and out, gradients by ``mx.vjp``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import mlx.core as mx
import numpy as np

from adapters._backward import with_gradients
from adapters.base import Unsupported

Tensor = Any
Tensors = list[Any]
Outputs = dict[str, Any]

# Exponentials and convolutions of float64 are computed in float32, which layer.sigmoid shows.
NARROW = ("float32", "float16", "bfloat16")
DTYPES = {np.dtype(np.float64): mx.float64, np.dtype(np.float32): mx.float32,
          np.dtype(np.float16): mx.float16, np.dtype(np.complex64): mx.complex64}  # fmt: skip


def to_mlx(array: np.ndarray[Any, Any]) -> Tensor:
    """Return an array of the same dtype: left to itself MLX makes float32 of float64."""
    if array.dtype == ml_dtypes.bfloat16:
        return mx.view(mx.array(array.view(np.uint16)), mx.bfloat16)
    return mx.array(array, dtype=DTYPES.get(array.dtype))


def to_numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Return the values of an array."""
    if tensor.dtype == mx.bfloat16:
        return np.array(mx.view(tensor, mx.uint16)).view(ml_dtypes.bfloat16)
    return np.array(tensor)


def _pull_back(
    function: Callable[..., Tensor], inputs: dict[str, Tensor], dy: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    y = function(**inputs)
    if y.shape != dy.shape:
        raise Unsupported("mlx.core.vjp checks no shape of an upstream gradient, it would read on")
    grads = mx.vjp(
        lambda *xs: function(**dict(zip(inputs, xs, strict=True))), [*inputs.values()], [dy]
    )
    return y, dict(zip(inputs, grads[1], strict=True))


run = with_gradients(_pull_back)
