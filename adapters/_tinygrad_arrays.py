"""What tinygrad's modules share: the names of types, and gradients by ``Tensor.gradient``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinygrad import Tensor

from adapters._backward import with_gradients
from adapters.base import Unsupported

Tensors = list[Tensor | None]
Outputs = dict[str, Any]


def _pull_back(
    function: Callable[..., Tensor], inputs: dict[str, Tensor], dy: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    y = function(**inputs)
    if y.shape != dy.shape:
        raise Unsupported("Tensor.gradient broadcasts an upstream gradient of another shape")
    return y, dict(zip(inputs, y.gradient(*inputs.values(), gradient=dy), strict=True))


run = with_gradients(_pull_back)
