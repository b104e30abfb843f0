"""Regularisation with PaddlePaddle: ``paddle.nn.functional.softshrink``."""

from __future__ import annotations

import paddle

from adapters._paddle_arrays import NARROW, Outputs, Tensors
from adapters.base import Operations

operations = Operations()


@operations.operation("prox.l1", NARROW)  # its threshold is float32
def prox_l1(weights: Tensors, *, strength: float, step: float) -> Outputs:
    """``paddle.nn.functional.softshrink``."""
    shrink = paddle.nn.functional.softshrink
    return {"weights": [None if w is None else shrink(w, strength * step) for w in weights]}
