"""TensorFlow's layers and losses: ``tf.nn`` and ``tf.keras.layers`` forward, ``tf.GradientTape`` backward.

The suite's layouts (NHWC, HWIO, dense weights (in, out)) are TensorFlow's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from adapters._backward import LOSSES, Tensor, Tensors, elementwise, in_stretches, with_gradients
from adapters.base import Adapter, Unsupported

Outputs = dict[str, Any]
Pair = list[int]
Pads = list[list[int]]


def _pull_back(
    function: Callable[..., Tensor], inputs: Tensors, dy: Tensor
) -> tuple[Tensor, Tensors]:
    with tf.GradientTape() as tape:
        tape.watch(list(inputs.values()))
        y = function(**inputs)
    return y, tape.gradient(y, inputs, output_gradients=dy)


_run = with_gradients(_pull_back)


def _dense(x: Tensor, weight: Tensor, dy: Tensor, bias: Tensor | None = None) -> Outputs:
    """``tf.keras.layers.Dense``, given its variables by ``stateless_call``."""
    layer = tf.keras.layers.Dense(weight.shape[1], use_bias=bias is not None, dtype=x.dtype.name)
    layer.build((None, weight.shape[0]))

    def forward(x: Tensor, **variables: Tensor) -> Tensor:
        return layer.stateless_call(list(variables.values()), [], x)[0]

    return _run(forward, dy, x=x, weight=weight, bias=bias)


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
    """``tf.nn.conv2d`` and ``tf.nn.bias_add``; groups come from the shapes.

    The CPU kernels have no gradient of a grouped or dilated convolution, so these are compiled, as
    Keras does with its grouped ones.
    """
    if x.shape[3] != weight.shape[2] * groups:
        raise Unsupported("tf.nn.conv2d has no groups: it divides the channels of x and weight")
    explicit = [[0, 0], *padding, [0, 0]]

    def forward(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        y = tf.nn.conv2d(x, weight, stride, explicit, dilations=dilation)
        return y if bias is None else tf.nn.bias_add(y, bias)

    compiled = groups > 1 or dilation != [1, 1]
    run = tf.function(_run, jit_compile=True) if compiled else _run
    return run(forward, dy, x=x, weight=weight, bias=bias)


def _max_pool2d(
    x: Tensor,
    dy: Tensor,
    *,
    window: Pair,
    stride: Pair | None = None,
    padding: Pads,
    dilation: Pair,
    ceil_mode: bool = False,
) -> Outputs:
    """``tf.nn.max_pool2d``; with dilation ``tf.nn.pool``, after padding with -inf."""
    stride, explicit = stride or window, [[0, 0], *padding, [0, 0]]
    _check_pool(stride, dilation, ceil_mode)
    if any(max(pads) >= size for pads, size in zip(padding, window, strict=True)):
        raise Unsupported("tf.nn.max_pool2d takes no padding of a whole window")

    def forward(x: Tensor) -> Tensor:
        if dilation == [1, 1]:
            return tf.nn.max_pool2d(x, window, stride, explicit)
        padded = tf.pad(x, explicit, constant_values=tf.constant(float("-inf"), x.dtype))
        return tf.nn.pool(padded, window, "MAX", padding="VALID", dilations=dilation)

    return _run(forward, dy, x=x)


def _avg_pool2d(
    x: Tensor,
    dy: Tensor,
    *,
    window: Pair,
    stride: Pair | None = None,
    padding: Pads,
    dilation: Pair,
    ceil_mode: bool = False,
) -> Outputs:
    """``tf.nn.avg_pool2d``, whose padding is "SAME" or none; with dilation ``tf.nn.pool``."""
    stride = stride or window
    _check_pool(stride, dilation, ceil_mode)
    name = "VALID" if padding == [[0, 0], [0, 0]] else "SAME"
    if name == "SAME" and (dilation != [1, 1] or padding != _same(x.shape, window, stride)):
        raise Unsupported("tf.nn.avg_pool2d pads as 'SAME' does, or not at all")

    def forward(x: Tensor) -> Tensor:
        if dilation == [1, 1]:
            return tf.nn.avg_pool2d(x, window, stride, name)
        return tf.nn.pool(x, window, "AVG", padding="VALID", dilations=dilation)

    return _run(forward, dy, x=x)


def _check_pool(stride: Pair, dilation: Pair, ceil_mode: bool) -> None:
    if ceil_mode:
        raise Unsupported("TensorFlow's pooling has no ceil_mode")
    if dilation != [1, 1] and stride != [1, 1]:
        raise Unsupported("tf.nn.pool takes a dilation or a stride, not both")


def _same(shape: Any, window: Pair, stride: Pair) -> Pads:
    """Return the padding that TensorFlow documents for "SAME"."""
    pads = []
    for extent, size, step in zip(shape[1:3], window, stride, strict=True):
        total = max((-(-extent // step) - 1) * step + size - extent, 0)
        pads.append([total // 2, total - total // 2])
    return pads


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
    """``tf.keras.layers.BatchNormalization``, whose momentum is the weight of the old average."""
    layer = tf.keras.layers.BatchNormalization(
        momentum=1.0 - momentum, epsilon=eps, dtype=x.dtype.name
    )
    layer.build(x.shape)
    running = [running_mean, running_var]

    def forward(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        y, running[:] = layer.stateless_call([scale, shift], running, x, training=training)
        return y

    outputs = _run(forward, dy, x=x, scale=scale, shift=shift)
    return outputs | {"running_mean": running[0], "running_var": running[1]}


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

    return _run(forward, dy, x=x, weight=weight, recurrent=recurrent, bias=bias, h0=h0)


def _dropout(x: Tensor, mask: Tensor, dy: Tensor, *, rate: float) -> Outputs:
    """``tf.nn.dropout``, which draws its own mask: only rate 0 leaves no choice."""
    if mask.shape != x.shape:
        raise Unsupported("tf.nn.dropout takes no mask, so none that does not fit")
    if 0 < rate < 1 or (rate == 0 and not bool(tf.reduce_all(mask))):
        raise Unsupported("tf.nn.dropout draws its own mask and takes none")
    return _run(lambda x: tf.nn.dropout(x, rate), dy, x=x)


def _flatten(x: Tensor) -> Tensor:
    return tf.keras.layers.Flatten(dtype=x.dtype.name)(x)


def _leaky_relu(x: Tensor, *, slope: float) -> Tensor:
    return tf.nn.leaky_relu(x, alpha=slope)


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


def register(adapter: Adapter) -> None:
    """Register the layers and losses on TensorFlow's adapter."""
    flush = {"subnormals": "flush"}
    for operation_id, function, dialect in (
        ("layer.dense", _dense, {}),
        ("layer.conv2d", _conv2d, {}),
        ("layer.max_pool2d", _max_pool2d, {"nan": "ignore"}),
        ("layer.avg_pool2d", _avg_pool2d, {}),
        ("layer.relu", elementwise(_run, tf.nn.relu), {"nan": "no_gradient"}),
        ("layer.leaky_relu", elementwise(_run, _leaky_relu), {"hyperparameters": "float32"}),
        ("layer.sigmoid", elementwise(_run, tf.math.sigmoid), {}),
        ("layer.tanh", elementwise(_run, tf.math.tanh), {}),
        ("layer.dropout", _dropout, {"rate_one": "reject"}),
        ("layer.flatten", elementwise(_run, _flatten), {}),
        ("layer.batch_norm", _batch_norm, {"running_variance": "biased"}),
        ("layer.rnn", _rnn, {}),
        ("loss.softmax_cross_entropy", _loss(_softmax_cross_entropy), LOSSES),
        (
            "loss.mse",
            _loss(_mean_squared_error),
            {**LOSSES, "sum_of": "row_means"},
        ),
        (
            "loss.binary_cross_entropy",
            _loss(_binary_cross_entropy),
            {
                **LOSSES,
                "outside_targets": "extrapolate",
                "infinite_logit": "linear_form",
            },
        ),
    ):
        adapter.operation(operation_id, dialect=flush | dialect)(function)
