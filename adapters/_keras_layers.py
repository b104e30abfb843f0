"""Keras's layers, but those over images: ``stateless_call`` forward, dense weights (in, out)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from adapters._backward import elementwise
from adapters._keras_backend import BACKEND, DTYPES, FLUSH, Outputs, Tensor, dtype_of, run
from adapters._simple_rnn import simple_rnn
from adapters.base import Operations, Unsupported

operations = Operations()


def run_layer(
    layer: Any,
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    around: Callable[[Tensor], Tensor] = lambda x: x,
) -> Outputs:
    """Run a layer of Keras with variables that are given, after ``around`` has put zeros around x."""
    layer.build(around(x).shape)
    if tuple(layer.kernel.shape) != tuple(weight.shape):
        raise Unsupported("a layer of Keras makes its own kernel, so none that does not fit")

    def forward(x: Tensor, **variables: Tensor) -> Tensor:
        return layer.stateless_call(list(variables.values()), [], around(x))[0]

    return run(forward, dy, x=x, weight=weight, bias=bias)


@operations.operation("layer.dense", DTYPES, FLUSH)
def dense(x: Tensor, weight: Tensor, dy: Tensor, bias: Tensor | None = None) -> Outputs:
    """``keras.layers.Dense``."""
    layer = keras.layers.Dense(weight.shape[1], use_bias=bias is not None, dtype=dtype_of(x))
    return run_layer(layer, dy, x, weight, bias)


@operations.operation("layer.batch_norm", DTYPES, FLUSH | {"running_variance": "biased"})
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
    """``keras.layers.BatchNormalization``, whose momentum is the weight of the old average."""
    layer = keras.layers.BatchNormalization(momentum=1.0 - momentum, epsilon=eps, dtype=dtype_of(x))
    layer.build(x.shape)
    running = [running_mean, running_var]

    def forward(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return layer.stateless_call([scale, shift], running, x, training=training)[0]

    outputs = run(forward, dy, x=x, scale=scale, shift=shift)
    after = layer.stateless_call([scale, shift], running, x, training=training)[1]
    return outputs | {"running_mean": after[0], "running_var": after[1]}


operations.operation("layer.rnn", DTYPES, FLUSH)(
    simple_rnn(keras.layers.SimpleRNN, run, dtype_of, ops.concatenate, ops.stop_gradient)
)


def _flatten(x: Tensor) -> Tensor:
    return keras.layers.Flatten(dtype=dtype_of(x))(x)


def _leaky_relu(x: Tensor, *, slope: float) -> Tensor:
    return ops.leaky_relu(x, slope)


@operations.operation("layer.dropout", DTYPES, FLUSH)
def dropout(**_: Any) -> Outputs:
    """Decline: ``keras.layers.Dropout`` draws its own mask."""
    raise Unsupported("keras.layers.Dropout draws its own mask and takes none")


RELU = {} if BACKEND == "torch" else {"nan": "no_gradient"}
LEAKY = {"tensorflow": {"hyperparameters": "float32"}, "jax": {"at_zero": "one"}, "torch": {}}[
    BACKEND
]

for _operation, _function, _dialect in (
    ("layer.relu", ops.relu, RELU),
    ("layer.leaky_relu", _leaky_relu, LEAKY),
    ("layer.sigmoid", ops.sigmoid, {}),
    ("layer.tanh", ops.tanh, {}),
    ("layer.flatten", _flatten, {}),
):
    operations.operation(_operation, DTYPES, FLUSH | _dialect)(elementwise(run, _function))
