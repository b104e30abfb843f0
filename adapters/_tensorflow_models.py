"""Small models as a user of TensorFlow writes them, with the functions of ``tf.nn``, and their losses."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from adapters._tensorflow_arrays import Description, Tensor
from adapters.base import Unsupported


def forward(layers: Any, weights: list[Any], x: Tensor) -> Tensor:
    """Run a model with the functions of ``tf.nn``; images are NHWC as in the fixtures."""
    remaining = list(weights)
    for layer in layers:
        count, function = LAYERS[layer["operation"]]
        own, remaining = remaining[:count], remaining[count:]
        x = function(x, *own, {k: v for k, v in layer.items() if k != "operation"})
    return x


def _conv2d(x: Tensor, weight: Any, bias: Any, options: Description) -> Tensor:
    return tf.nn.bias_add(tf.nn.conv2d(x, weight, strides=1, padding="VALID"), bias)


def _pool(function: Any) -> Any:
    def run(x: Tensor, options: Description) -> Tensor:
        window = options["window"]
        return function(x, window, options.get("stride", window), "VALID")

    return run


def _batch_norm(x: Tensor, scale: Any, shift: Any, options: Description) -> Tensor:
    mean, variance = tf.nn.moments(x, list(range(x.ndim - 1)))
    return tf.nn.batch_normalization(x, mean, variance, shift, scale, options.get("eps", 1e-5))


def _rnn(x: Tensor, weight: Any, recurrent: Any, bias: Any, options: Description) -> Tensor:
    """``tf.keras.layers.SimpleRNN``, by stretches with a state that lets no gradient through."""
    layer = tf.keras.layers.SimpleRNN(weight.shape[1], return_sequences=True, dtype=x.dtype.name)
    layer.build(x.shape)
    seeds = [variable.value for variable in layer.non_trainable_variables]
    stretch = options.get("truncate") or x.shape[1]
    states, state = [], tf.zeros((x.shape[0], weight.shape[1]), x.dtype)
    for start in range(0, x.shape[1], stretch):
        steps = x[:, start : start + stretch]
        found = layer.stateless_call([weight, recurrent, bias], seeds, steps, initial_state=state)
        states.append(found[0])
        state = tf.stop_gradient(found[0][:, -1])
    return tf.concat(states, axis=1)


def _dropout(x: Tensor, options: Description) -> Tensor:
    raise Unsupported("tf.nn.dropout draws its own mask and takes none")


LAYERS: dict[str, tuple[int, Any]] = {
    "layer.dense": (2, lambda x, weight, bias, _: tf.nn.bias_add(tf.matmul(x, weight), bias)),
    "layer.conv2d": (2, _conv2d),
    "layer.relu": (0, lambda x, _: tf.nn.relu(x)),
    "layer.leaky_relu": (0, lambda x, options: tf.nn.leaky_relu(x, options["slope"])),
    "layer.sigmoid": (0, lambda x, _: tf.sigmoid(x)),
    "layer.tanh": (0, lambda x, _: tf.tanh(x)),
    "layer.max_pool2d": (0, _pool(tf.nn.max_pool2d)),
    "layer.avg_pool2d": (0, _pool(tf.nn.avg_pool2d)),
    "layer.flatten": (0, lambda x, _: tf.reshape(x, (x.shape[0], -1))),
    "layer.dropout": (0, _dropout),
    "layer.batch_norm": (2, _batch_norm),
    "layer.rnn": (3, _rnn),
}


def loss_of(description: Description, y: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of the outputs, reduced as the description says."""
    name = description["operation"]
    if name == "loss.softmax_cross_entropy":
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, y)
    elif name == "loss.mse":
        each = tf.math.squared_difference(y, targets)
    else:
        each = tf.nn.sigmoid_cross_entropy_with_logits(targets, y)
    mean = description.get("reduction", "mean") == "mean"
    return tf.reduce_mean(each) if mean else tf.reduce_sum(each)
