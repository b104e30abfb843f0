"""Keras's losses: those of ``keras.losses``, and ``keras.ops.binary_crossentropy``."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from adapters._backward import LOSSES
from adapters._keras_backend import BACKEND, DTYPES, FLUSH, Outputs, Tensor, dtype_of, pull_back
from adapters.base import Operations, Unsupported

operations = Operations()


def _loss(make: Any, **options: Any) -> Any:
    """Judge a loss of Keras, which casts the targets to its own dtype."""

    def run(x: Tensor, targets: Tensor, *, reduction: str) -> Outputs:
        if not len(x.shape):
            raise Unsupported("a loss of Keras is of a batch, so of one axis at least")
        loss = make(reduction=reduction, dtype=dtype_of(x), **options)
        value, grads = pull_back(lambda leaves: loss(targets, leaves[0]), [x])
        return {"loss": value, "dx": grads[0]}

    return run


for _operation, _function, _dialect in (
    (
        "loss.softmax_cross_entropy",
        _loss(keras.losses.SparseCategoricalCrossentropy, from_logits=True),
        {},
    ),
    ("loss.mse", _loss(keras.losses.MeanSquaredError), {"sum_of": "row_means"}),
):
    operations.operation(_operation, DTYPES, FLUSH | LOSSES | _dialect)(_function)

LOGITS = {
    "outside_targets": "extrapolate",
    "infinite_logit": "linear_form" if BACKEND == "tensorflow" else "sigmoid_form",
}


@operations.operation("loss.binary_cross_entropy", DTYPES, FLUSH | LOSSES | LOGITS)
def binary_cross_entropy(x: Tensor, targets: Tensor, *, reduction: str) -> Outputs:
    """``keras.ops.binary_crossentropy``, which leaves the reduction to its caller."""
    reduce = ops.mean if reduction == "mean" else ops.sum

    def loss(leaves: list[Tensor]) -> Tensor:
        return reduce(ops.binary_crossentropy(targets, leaves[0], from_logits=True))

    value, grads = pull_back(loss, [x])
    return {"loss": value, "dx": grads[0]}
