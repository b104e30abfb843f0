"""TensorFlow's layers, but those over images: ``tf.keras.layers`` and ``tf.nn``, dense weights (in, out)."""

from __future__ import annotations

import tensorflow as tf

from adapters._backward import elementwise, in_stretches
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


@operations.operation("layer.rnn", dialect=FLUSH)
def rnn(
    x: Tensor,
    weight: Tensor,
    recurrent: Tensor,
    h0: Tensor,
    dy: Tensor,
    bias: Tensor | None = None,
    *,
    truncate: int | None = None,
) -> Outputs:
    """``tf.keras.layers.SimpleRNN``, called stretch by stretch with a state that lets no gradient through."""
    if truncate is not None and truncate < 1:
        raise Unsupported("Keras has no truncation of its own that could be less than a step")
    layer = tf.keras.layers.SimpleRNN(
        weight.shape[1],
        return_sequences=True,
        use_bias=bias is not None,
        recurrent_initializer="zeros",  # the default takes a QR, which 16 bits have not
        dtype=x.dtype.name,
    )
    layer.build(x.shape)
    seeds = [variable.value for variable in layer.non_trainable_variables]

    def forward(
        x: Tensor, weight: Tensor, recurrent: Tensor, h0: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        variables = [weight, recurrent] + ([] if bias is None else [bias])

        def states(steps: Tensor, state: Tensor) -> Tensor:
            return layer.stateless_call(variables, seeds, steps, initial_state=state)[0]

        return tf.concat(in_stretches(states, x, h0, truncate, tf.stop_gradient), axis=1)

    return run(forward, dy, x=x, weight=weight, recurrent=recurrent, bias=bias, h0=h0)


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
