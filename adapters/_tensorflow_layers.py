"""TensorFlow's layers, but those over images: ``tf.keras.layers`` and ``tf.nn``, dense weights (in, out)."""

from __future__ import annotations

import tensorflow as tf

from adapters._backward import elementwise
from adapters._simple_rnn import simple_rnn
from adapters._tensorflow_arrays import FLUSH, Outputs, Tensor, run
from adapters.base import Operations, Unsupported

operations = Operations()


@operations.operation("layer.dense", dialect=FLUSH)
def dense(x: Tensor, weight: Tensor, dy: Tensor, bias: Tensor | None = None) -> Outputs:
    """``tf.keras.layers.Dense``, given its variables by ``stateless_call``."""
    layer = tf.keras.layers.Dense(weight.shape[1], use_bias=bias is not None, dtype=x.dtype.name)
    layer.build((None, weight.shape[0]))

    def forward(x: Tensor, **variables: Tensor) -> Tensor:
        return layer.stateless_call(list(variables.values()), [], x)[0]

    return run(forward, dy, x=x, weight=weight, bias=bias)


@operations.operation("layer.batch_norm", dialect=FLUSH | {"running_variance": "biased"})
def batch_norm(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    dy: Tensor,
    *,
    eps: float,
    momentum: float,
    training: bool,
) -> Outputs:
    """``tf.keras.layers.BatchNormalization``, whose momentum is the weight of the old average."""
    layer = tf.keras.layers.BatchNormalization(
        momentum=1.0 - momentum, epsilon=eps, dtype=x.dtype.name
    )
    layer.build(x.shape)
    running = [running_mean, running_var]

    def forward(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        y, running[:] = layer.stateless_call([scale, shift], running, x, training=training)
        return y

    outputs = run(forward, dy, x=x, scale=scale, shift=shift)
    return outputs | {"running_mean": running[0], "running_var": running[1]}


operations.operation("layer.rnn", dialect=FLUSH)(
    simple_rnn(tf.keras.layers.SimpleRNN, run, lambda x: x.dtype.name, tf.concat, tf.stop_gradient)
)


@operations.operation("layer.dropout", dialect=FLUSH | {"rate_one": "reject"})
def dropout(x: Tensor, mask: Tensor, dy: Tensor, *, rate: float) -> Outputs:
    """``tf.nn.dropout``, which draws its own mask: only rate 0 leaves no choice."""
    if mask.shape != x.shape:
        raise Unsupported("tf.nn.dropout takes no mask, so none that does not fit")
    if 0 < rate < 1 or (rate == 0 and not bool(tf.reduce_all(mask))):
        raise Unsupported("tf.nn.dropout draws its own mask and takes none")
    return run(lambda x: tf.nn.dropout(x, rate), dy, x=x)


def _flatten(x: Tensor) -> Tensor:
    return tf.keras.layers.Flatten(dtype=x.dtype.name)(x)


def _leaky_relu(x: Tensor, *, slope: float) -> Tensor:
    return tf.nn.leaky_relu(x, alpha=slope)


for _operation, _function, _dialect in (
    ("layer.relu", tf.nn.relu, {"nan": "no_gradient"}),
    ("layer.leaky_relu", _leaky_relu, {"hyperparameters": "float32"}),
    ("layer.sigmoid", tf.math.sigmoid, {}),
    ("layer.tanh", tf.math.tanh, {}),
    ("layer.flatten", _flatten, {}),
):
    operations.operation(_operation, dialect=FLUSH | _dialect)(elementwise(run, _function))
