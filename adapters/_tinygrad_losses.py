"""tinygrad's losses: methods of ``Tensor``, and ``Tensor.gradient``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinygrad import Tensor

from adapters._backward import LOSSES
from adapters._tinygrad_arrays import Outputs
from adapters.base import Operations, Unsupported

operations = Operations()


def _loss(function: Callable[..., Tensor]) -> Any:
    def run(x: Tensor, targets: Tensor, *, reduction: str) -> Outputs:
        loss = function(x, targets, reduction)
        return {"loss": loss, "dx": loss.gradient(x)[0]}

    return run


def _cross_entropy(x: Tensor, targets: Tensor, reduction: str) -> Tensor:
    if x.ndim != 2 or targets.shape != x.shape[:1]:
        raise Unsupported("Tensor.sparse_categorical_crossentropy broadcasts")
    return x.sparse_categorical_crossentropy(targets, reduction=reduction)


def _binary_cross_entropy(x: Tensor, targets: Tensor, reduction: str) -> Tensor:
    if x.shape != targets.shape:
        raise Unsupported("Tensor.binary_crossentropy_logits broadcasts")
    return x.binary_crossentropy_logits(targets, reduction=reduction)


for _operation, _function, _dialect in (
    ("loss.softmax_cross_entropy", _cross_entropy, {}),
    ("loss.binary_cross_entropy", _binary_cross_entropy, {"outside_targets": "extrapolate"}),
):
    operations.operation(_operation, dialect=LOSSES | _dialect)(_loss(_function))
