"""TensorFlow's losses: those of ``tf.keras.losses`` and ``tf.nn``, with ``tf.GradientTape``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from adapters._backward import LOSSES
from adapters._tensorflow_arrays import FLUSH, Outputs, Tensor
from adapters.base import Operations, Unsupported

operations = Operations()


def _loss(function: Callable[..., Tensor]) -> Any:
    def run(x: Tensor, targets: Tensor, *, reduction: str) -> Outputs:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = function(x, targets, reduction)
        return {"loss": loss, "dx": tape.gradient(loss, x)}

    return run


def _softmax_cross_entropy(x: Tensor, targets: Tensor, reduction: str) -> Tensor:
    """``tf.keras.losses.SparseCategoricalCrossentropy``, which casts the labels to its own dtype."""
    loss = tf.keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction=reduction, dtype=x.dtype.name
    )
    return loss(targets, x)


def _mean_squared_error(x: Tensor, targets: Tensor, reduction: str) -> Tensor:
    """``tf.keras.losses.MeanSquaredError``, whose sum is the sum of the means of the rows."""
    if x.shape.rank == 0:
        raise Unsupported("a loss of Keras is of a batch, so of one axis at least")
    loss = tf.keras.losses.MeanSquaredError(reduction=reduction, dtype=x.dtype.name)
    return loss(targets, x)


def _binary_cross_entropy(x: Tensor, targets: Tensor, reduction: str) -> Tensor:
    """``tf.nn.sigmoid_cross_entropy_with_logits``, which leaves the reduction to its caller."""
    reduce = tf.reduce_mean if reduction == "mean" else tf.reduce_sum
    return reduce(tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=x))


for _operation, _function, _dialect in (
    ("loss.softmax_cross_entropy", _softmax_cross_entropy, {}),
    ("loss.mse", _mean_squared_error, {"sum_of": "row_means"}),
    (
        "loss.binary_cross_entropy",
        _binary_cross_entropy,
        {"outside_targets": "extrapolate", "infinite_logit": "linear_form"},
    ),
):
    operations.operation(_operation, dialect=FLUSH | LOSSES | _dialect)(_loss(_function))
