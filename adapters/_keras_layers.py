"""Keras's layers and losses: ``stateless_call`` forward, the backend's differentiation backward.

The suite's layouts (NHWC, HWIO, dense weights (in, out)) are those of Keras.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from adapters._backward import LOSSES, Tensor, Tensors, elementwise, in_stretches, with_gradients
from adapters._keras_backend import BACKEND, FLUSH, dtype_of, pull_back
from adapters.base import FLOATS, Adapter, Unsupported

Outputs = dict[str, Any]
Pair = list[int]
Pads = list[list[int]]

# keras.backend.result_type is never wider than float32: what Keras computes by its own rules is float64 on
# TensorFlow only.
DTYPES = tuple(name for name in FLOATS if BACKEND == "tensorflow" or name != "float64")
LOGIT = {"tensorflow": "linear_form", "torch": "sigmoid_form", "jax": "sigmoid_form"}[BACKEND]


def _pull_back(
    function: Callable[..., Tensor], inputs: Tensors, dy: Tensor
) -> tuple[Tensor, Tensors]:
    y, grads = pull_back(
        lambda tensors: function(**dict(zip(inputs, tensors, strict=True))),
        list(inputs.values()),
        dy,
    )
    return y, dict(zip(inputs, grads, strict=True))


_run = with_gradients(_pull_back)


def _layer(
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

    return _run(forward, dy, x=x, weight=weight, bias=bias)


def _dense(x: Tensor, weight: Tensor, dy: Tensor, bias: Tensor | None = None) -> Outputs:
    """``keras.layers.Dense``."""
    layer = keras.layers.Dense(weight.shape[1], use_bias=bias is not None, dtype=dtype_of(x))
    return _layer(layer, dy, x, weight, bias)


def _conv2d(
    x: Tensor,
    weight: Tensor,
    dy: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Pair,
    padding: Pads,
    dilation: Pair,
    groups: int,
) -> Outputs:
    """``keras.layers.Conv2D`` after ``keras.ops.pad``."""
    if max(stride) > 1 and max(dilation) > 1:
        raise Unsupported("a convolution of Keras has a stride or a dilation")
    layer = keras.layers.Conv2D(
        weight.shape[3], list(weight.shape[:2]), stride, dilation_rate=dilation, groups=groups,
        use_bias=bias is not None, dtype=dtype_of(x),
    )  # fmt: skip
    outer = [[0, 0], *padding, [0, 0]]
    return _layer(layer, dy, x, weight, bias, lambda x: ops.pad(x, outer))


def _pool2d(kind: Any) -> Callable[..., Outputs]:
    def run(
        x: Tensor,
        dy: Tensor,
        *,
        window: Pair,
        stride: Pair | None = None,
        padding: Pads,
        dilation: Pair,
        ceil_mode: bool = False,
    ) -> Outputs:
        if ceil_mode or dilation != [1, 1]:
            raise Unsupported("the pooling of Keras has neither ceil_mode nor dilation")
        if padding != [[0, 0], [0, 0]]:
            raise Unsupported("the pooling of Keras pads as 'same' does, or not at all")
        layer = kind(window, stride, dtype=dtype_of(x))
        return _run(lambda x: layer(x), dy, x=x)

    return run


def _batch_norm(
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

    outputs = _run(forward, dy, x=x, scale=scale, shift=shift)
    after = layer.stateless_call([scale, shift], running, x, training=training)[1]
    return outputs | {"running_mean": after[0], "running_var": after[1]}


def _rnn(
    x: Tensor,
    weight: Tensor,
    recurrent: Tensor,
    h0: Tensor,
    dy: Tensor,
    bias: Tensor | None = None,
    *,
    truncate: int | None = None,
) -> Outputs:
    """``keras.layers.SimpleRNN``, called stretch by stretch with a state that lets no gradient through."""
    if truncate is not None and truncate < 1:
        raise Unsupported("Keras has no truncation of its own that could be less than a step")
    layer = keras.layers.SimpleRNN(
        weight.shape[1],
        return_sequences=True,
        use_bias=bias is not None,
        recurrent_initializer="zeros",  # the default takes a QR, which 16 bits have not
        dtype=dtype_of(x),
    )
    layer.build(x.shape)
    seeds = [variable.value for variable in layer.non_trainable_variables]

    def forward(
        x: Tensor, weight: Tensor, recurrent: Tensor, h0: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        variables = [weight, recurrent] + ([] if bias is None else [bias])

        def states(steps: Tensor, state: Tensor) -> Tensor:
            return layer.stateless_call(variables, seeds, steps, initial_state=state)[0]

        return ops.concatenate(in_stretches(states, x, h0, truncate, ops.stop_gradient), axis=1)

    return _run(forward, dy, x=x, weight=weight, recurrent=recurrent, bias=bias, h0=h0)


def _flatten(x: Tensor) -> Tensor:
    return keras.layers.Flatten(dtype=dtype_of(x))(x)


def _leaky_relu(x: Tensor, *, slope: float) -> Tensor:
    return ops.leaky_relu(x, slope)


def _dropout(**_: Any) -> Outputs:
    raise Unsupported("keras.layers.Dropout draws its own mask and takes none")


def _loss(make: Any, **options: Any) -> Any:
    """Judge a loss of Keras, which casts the targets to its own dtype."""

    def run(x: Tensor, targets: Tensor, *, reduction: str) -> Outputs:
        if not len(x.shape):
            raise Unsupported("a loss of Keras is of a batch, so of one axis at least")
        loss = make(reduction=reduction, dtype=dtype_of(x), **options)
        value, grads = pull_back(lambda leaves: loss(targets, leaves[0]), [x])
        return {"loss": value, "dx": grads[0]}

    return run


def _binary_cross_entropy(x: Tensor, targets: Tensor, *, reduction: str) -> Outputs:
    """``keras.ops.binary_crossentropy``, which leaves the reduction to its caller."""
    reduce = ops.mean if reduction == "mean" else ops.sum

    def loss(leaves: list[Tensor]) -> Tensor:
        return reduce(ops.binary_crossentropy(targets, leaves[0], from_logits=True))

    value, grads = pull_back(loss, [x])
    return {"loss": value, "dx": grads[0]}


def register(adapter: Adapter) -> None:
    """Register the layers and losses."""
    leaky = {"tensorflow": {"hyperparameters": "float32"}, "jax": {"at_zero": "one"}}
    relu = {} if BACKEND == "torch" else {"nan": "no_gradient"}
    pool = {"nan": "ignore"} if BACKEND == "tensorflow" else {}
    for operation_id, function, dialect in (
        ("layer.dense", _dense, {}),
        ("layer.conv2d", _conv2d, {}),
        ("layer.max_pool2d", _pool2d(keras.layers.MaxPooling2D), pool),
        ("layer.avg_pool2d", _pool2d(keras.layers.AveragePooling2D), {}),
        ("layer.relu", elementwise(_run, ops.relu), relu),
        ("layer.leaky_relu", elementwise(_run, _leaky_relu), leaky.get(BACKEND, {})),
        ("layer.sigmoid", elementwise(_run, ops.sigmoid), {}),
        ("layer.tanh", elementwise(_run, ops.tanh), {}),
        ("layer.dropout", _dropout, {}),
        ("layer.flatten", elementwise(_run, _flatten), {}),
        ("layer.batch_norm", _batch_norm, {"running_variance": "biased"}),
        ("layer.rnn", _rnn, {}),
        ("loss.softmax_cross_entropy",
         _loss(keras.losses.SparseCategoricalCrossentropy, from_logits=True),
         LOSSES),
        ("loss.mse", _loss(keras.losses.MeanSquaredError),
         {**LOSSES, "sum_of": "row_means"}),
        ("loss.binary_cross_entropy", _binary_cross_entropy,
         {**LOSSES, "outside_targets": "extrapolate",
          "infinite_logit": LOGIT}),
    ):  # fmt: skip
        adapter.operation(operation_id, DTYPES, FLUSH | dialect)(function)
